"""The sketch: within its accuracy of the exact percentiles, however values are spread over sketches that are merged."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.monitor import sketch
from ringbearer.monitor.sketch import ACCURACY, BUCKETS, Sketch
from ringbearer.monitor.table import varints

_seconds = st.floats(min_value=sketch.SMALLEST, max_value=900_000.0)
_many = st.lists(_seconds, min_size=1, max_size=200)
_shares = st.floats(min_value=0.0, max_value=1.0)


def _of(values: list[float]) -> Sketch:
    made = Sketch()
    for each in values:
        made.add(each)
    return made


@given(_many, _shares)
def test_a_percentile_is_within_one_per_cent_of_the_exact_one(values: list[float], share: float) -> None:
    exact = float(np.quantile(np.array(values), share, method="lower"))
    assert _of(values).percentile(share) == pytest.approx(exact, rel=ACCURACY * 1.0001)


@given(_many, st.lists(_shares, min_size=1, max_size=6))
def test_several_percentiles_are_those_that_are_asked_for_one_by_one(
    values: list[float], shares: list[float]
) -> None:
    made = _of(values)
    assert made.percentiles(sorted(shares)) == [made.percentile(share) for share in sorted(shares)]


@given(_many, _many, _many)
def test_merging_is_the_same_as_counting_everything_in_one_place(
    first: list[float], second: list[float], third: list[float]
) -> None:
    forwards, backwards = _of(first), _of(third)
    for other in (_of(second), _of(third)):
        forwards.merge(other)
    for other in (_of(second), _of(first)):
        backwards.merge(other)
    assert forwards == backwards == _of(first + second + third)


@given(_many)
def test_a_sketch_survives_being_written_and_read(values: list[float]) -> None:
    made = _of(values)
    assert Sketch.decode(made.encode()) == made


@given(_many)
def test_many_values_at_once_fall_where_each_alone_falls(values: list[float]) -> None:
    assert list(sketch.buckets(np.array(values))) == [sketch.bucket(each) for each in values]


@given(_many, _seconds)
def test_how_many_are_within_a_bound_errs_only_close_to_it(values: list[float], bound: float) -> None:
    found = _of(values).within(bound)
    surely = sum(each <= bound * (1 - 2 * ACCURACY) for each in values)
    perhaps = sum(each <= bound * (1 + 2.1 * ACCURACY) for each in values)
    assert surely <= found <= perhaps


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50))
def test_no_value_makes_more_buckets_than_there_are(values: list[float]) -> None:
    made = _of(values)
    assert all(0 <= index < BUCKETS for index in made.counts)
    assert made.count == len(values)


def test_without_values_there_are_no_figures() -> None:
    empty = Sketch()
    assert (empty.percentile(0.5), empty.percentiles([0.5, 0.9]), empty.mean, empty.count) == (
        None,
        [],
        None,
        0,
    )


@pytest.mark.parametrize("text", ["!", "gA==", "AQ==", "//8DAQ=="])
def test_what_no_sketch_wrote_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Sketch.decode(text)


@given(st.lists(st.tuples(st.integers(0, BUCKETS - 1), st.integers(1, 2**40)), max_size=40))
def test_columns_are_written_as_sketches_write_themselves(pairs: list[tuple[int, int]]) -> None:
    counts = dict(sorted(dict(pairs).items()))
    places = np.array(list(counts), np.int64)
    text, ends = varints(np.diff(places, prepend=0), np.array(list(counts.values()), np.int64))
    assert text == base64.b64decode(Sketch(counts).encode())
    assert list(ends[-1:]) == ([len(text)] if counts else [])
