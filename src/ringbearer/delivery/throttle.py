"""The throttle: how long a thread has to rest so that it uses no more than its share of one core."""

BURST_SECONDS = 0.05
"""Seconds of CPU that may be used at once, however small the share."""
LONGEST_PAUSE = 0.2
"""Seconds of one rest; what is owed beyond that is rested after the next turn."""


class Throttle:
    """Belongs to one thread, which tells it the time and what CPU it has used so far; all in seconds."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._credit = BURST_SECONDS
        self._counted: tuple[float, float] | None = None

    def __repr__(self) -> str:
        return f"<Throttle to {self.share:.0%}, {self._credit:.3f} s in hand>"

    def rest(self, now: float, cpu: float) -> float:
        """Seconds to rest now, 0 for none."""
        if self.share >= 1.0:
            return 0.0
        if self._counted is not None:
            then, used = self._counted
            earned = (now - then) * self.share
            self._credit = min(BURST_SECONDS, self._credit + earned) - (cpu - used)
        self._counted = now, cpu
        return min(LONGEST_PAUSE, -self._credit / self.share) if self._credit < 0 else 0.0
