"""Which lane is served how often: weighted shares, so that important work goes first and none starves."""

from collections.abc import Sequence

from ringbearer.domain.events import LANES, Priority

WEIGHTS: tuple[int, ...] = (8, 4, 2, 1)
"""Shares of urgent, high, normal and bulk when all of them have work."""


def lane_of(priority: Priority | None) -> int:
    """The lane of what a publisher asked for; `normal` when it did not say."""
    return LANES.index(priority or "normal")


class Shares:
    """Turns slots into quotas per lane, and carries what is left over to the next time.

    The carry makes shares exact over many claims, even of one slot each: a lane of weight w gets w / sum of the
    weights of all slots in the long run, so the least lane waits for at most sum / w slots.
    """

    def __init__(self, weights: Sequence[int] = WEIGHTS) -> None:
        self._weights = tuple(weights)
        self._total = sum(weights)
        self._credit = [0] * len(self._weights)

    def quotas(self, slots: int) -> list[int]:
        """How many slots each lane may fill; they add up to `slots`."""
        quotas = [weight * slots // self._total for weight in self._weights]
        for lane, weight in enumerate(self._weights):
            self._credit[lane] += weight * slots - quotas[lane] * self._total
        for _ in range(slots - sum(quotas)):
            lane = max(range(len(quotas)), key=self._credit.__getitem__)
            quotas[lane] += 1
            self._credit[lane] -= self._total
        return quotas
