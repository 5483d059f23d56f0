"""A table tells of each key what was counted, whether its keys are few or many, and however often it was asked before."""

import random
from collections import Counter

import numpy as np
import pytest

from ringbearer.monitor.recorder import decode_stages
from ringbearer.monitor.sketch import BUCKETS
from ringbearer.monitor.table import OTHER, Spans, Table

STAGES = 2


@pytest.mark.parametrize("keys", [3, 450])
def test_each_key_has_what_was_counted_of_it(keys: int) -> None:
    chance = random.Random(keys)
    table = Table(stages=STAGES, weights=np.array([[1, 0], [1, 1]]), most=1_000)
    sums: Counter[tuple[str, int]] = Counter()
    buckets: Counter[tuple[str, int, int]] = Counter()
    for _ in range(4):
        names = [f"k{chance.randrange(keys)}" for _ in range(3_000)]
        kinds = np.array([chance.randrange(2) for _ in names])
        stages = np.array([[chance.choice((-1, 0, 7, BUCKETS - 1)) for _ in names] for _ in range(STAGES)])
        table.add(names, kinds, Spans(stages))
        for at, name in enumerate(names):
            sums[name, 0] += 1
            sums[name, 1] += int(kinds[at])
            for stage in range(STAGES):
                if stages[stage, at] >= 0:
                    buckets[name, stage, int(stages[stage, at])] += 1
        told = list(table.rows())
        assert sorted(name for name, _, _ in told) == sorted({name for name, _ in sums})
        for name, counts, text in told:
            assert counts == [sums[name, 0], sums[name, 1]]
            found = {
                (name, stage, bucket): n
                for stage, sketch in enumerate(decode_stages(text))
                for bucket, n in sketch.counts.items()
            }
            assert found == {place: n for place, n in buckets.items() if place[0] == name}


def test_keys_beyond_the_bound_are_one() -> None:
    table = Table(stages=STAGES, weights=np.array([[1]]), most=2)
    table.add(["a", "b", "c", "d", "a"], np.zeros(5, np.int64))
    assert [(name, counts) for name, counts, _ in table.rows()] == [("a", [2]), ("b", [1]), (OTHER, [2])]
