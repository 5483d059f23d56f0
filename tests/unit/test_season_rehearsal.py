"""The rehearsed month is theirs to the last delivery, and what is said of it is reckoned rightly."""

import re
from collections import Counter
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.season_page import nice, page
from bench.season_plan import DAYS, DELIVERIES, is_saturday, month
from bench.season_report import Day, Sample, Season, minus, percentile, rows, summarise


@pytest.mark.parametrize("deliveries", [DELIVERIES, 50_000, 7])
def test_the_month_has_every_delivery_four_saturdays_and_a_tenfold_spike(deliveries: int) -> None:
    slices = month(deliveries=deliveries, seconds=240.0)
    assert sum(piece.deliveries for piece in slices) == deliveries
    assert len({piece.day for piece in slices if piece.saturday}) == 4
    assert sum(piece.seconds for piece in slices) == pytest.approx(240.0)
    if deliveries == DELIVERIES:
        (spike,) = (piece for piece in slices if piece.spike)
        (usual,) = (p for p in slices if p.hour == spike.hour and p.day == spike.day + 1)
        assert spike.deliveries / usual.deliveries == pytest.approx(10, rel=0.01)
        by_day = Counter({day: sum(p.deliveries for p in slices if p.day == day) for day in range(DAYS)})
        del by_day[spike.day]
        assert all(is_saturday(day) for day, _ in by_day.most_common(4))


def test_percentiles_are_read_off_a_cumulated_histogram() -> None:
    histogram = Counter({0.1: 50, 1.0: 90, 10.0: 100, float("inf"): 100})
    assert percentile(histogram, 0.25) == pytest.approx(0.05)
    assert percentile(histogram, 0.5) == pytest.approx(0.1)
    assert percentile(histogram, 0.95) == pytest.approx(5.5)
    assert percentile(Counter(), 0.5) == 0.0
    assert minus(histogram, Counter({0.1: 20, 1.0: 20}))[1.0] == 70


@pytest.fixture
def seen() -> Season:
    saturday = next(day for day in range(DAYS) if is_saturday(day))
    samples = [
        Sample(at=n / 2, arrived=n * 5, queued=3, held=2, utilisation=0.1, workers=1, wanted=2, memory=9e7)
        for n in range(5)
    ]
    return summarise(
        days=[(0, 98.0, Counter({0.1: 10, 1.0: 10})), (saturday, 99.0, Counter({0.1: 0, 1.0: 10}))],
        whole=Counter({0.1: 10, 1.0: 20}),
        published=20,
        bad=0,
        refused=3,
        arrived=20,
        began=98.0,
        seconds=4.0,
        seconds_a_day=1.0,
        wedding_p95=0.02,
        samples=samples,
        decisions=[(90.0, 1), (101.5, 2), (120.0, 1)],
        spike_at=100.0,
        metrics=(
            "ringbearer_accept_to_send_seconds_sum 8.0\nringbearer_accept_to_send_seconds_count 20.0\n"
            'ringbearer_cache_requests_total{result="hit",tier="l1"} 99.0\n'
            'ringbearer_cache_requests_total{result="miss",tier="l1"} 1.0\n'
        ),
    )


def test_the_figures_are_those_of_what_was_seen(seen: Season) -> None:
    season = seen
    assert (season.average, season.rate, season.cache_hits) == (0.4, 5.0, 0.99)
    assert (season.scaled_up, season.scaled_down, season.reaction) == (1, 1, 1.5)
    assert season.spike_after == 2.0
    assert [day.begins for day in season.days] == [0.0, 1.0]
    assert season.saturday_p95 > season.p95 * 0.9
    assert [type(day) for day in season.days] == [Day, Day]
    assert ("delivered", "99.94 %", "100.00 %") in rows(season)
    assert (season.memory, season.peak_in_flight, season.most_workers) == (9e7, 2, 1)


def test_the_page_shows_every_row_and_every_chart_and_needs_nothing_else(seen: Season) -> None:
    shown = page(seen, "sqlite", {"cores": 2, "processor": "<any>"}, datetime(2027, 6, 30, tzinfo=UTC))
    for name, theirs, ours in rows(seen):
        assert name in shown
        assert f"<td>{theirs}</td><td>{ours}</td>" in shown
    assert shown.count("<svg") == shown.count("</svg>") == 6
    assert "&lt;any&gt;" in shown
    assert not {"http:", "https:", "<script", "@import", "url("} & set(
        re.findall(r"https?:|<script|@import|url\(", shown)
    )
    drawing = re.findall(r"<svg.*?</svg>", shown, re.DOTALL)
    for each in drawing:
        ElementTree.fromstring(each)
        assert "nan" not in each


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_axes_end_at_round_numbers_that_are_not_far_above(most: float) -> None:
    assert most * (1 - 1e-6) <= nice(most) <= most * 2.5 * (1 + 1e-6)
    assert f"{nice(most):e}"[:3] in {"1.0", "2.0", "2.5", "5.0"}
