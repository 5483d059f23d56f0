"""How long to wait before something is tried again."""


def jittered(seconds: float, spread: float, random: float) -> float:
    """`seconds` moved by at most ± `spread` of itself, so that what failed together does not return together.

    `random` is uniform in [0, 1): 0 gives the shortest wait, 0.5 gives `seconds` itself. Never negative.
    """
    return max(0.0, seconds * (1.0 + spread * (2.0 * random - 1.0)))


def exponential(failures: int, *, first: float, most: float) -> float:
    """Seconds to wait after so many failures in a row: `first`, then doubled each time, up to `most`."""
    doublings = min(max(failures - 1, 0), 1_000)  # 2.0 ** 1024 overflows
    return min(most, first * 2.0**doublings)
