"""What several shards hold of a lane is taken in the order of one."""

from hypothesis import given
from hypothesis import strategies as st

from ringbearer.queue.index import LANES, Stretch, by_rank

_STRETCHES = st.lists(
    st.builds(Stretch, st.integers(0, LANES - 1), st.integers(0, 99), st.integers(0, 7), st.integers(1, 5)),
    max_size=40,
)
_NEED = st.lists(st.integers(0, 60), min_size=LANES, max_size=LANES)


def test_a_shard_that_is_behind_gives_more() -> None:
    deep = [Stretch(2, 10 * n, 0, 5) for n in range(4)]
    shallow = [Stretch(2, 25 + 10 * n, 1, 5) for n in range(4)]
    assert by_rank([0, 0, 20, 0], deep + shallow) == [(0, [0, 0, 15, 0]), (1, [0, 0, 5, 0])]


@given(need=_NEED, stretches=_STRETCHES)
def test_what_comes_first_is_taken_first_and_no_more_than_is_needed(
    need: list[int], stretches: list[Stretch]
) -> None:
    parts = dict(by_rank(need, stretches))
    for lane in range(LANES):
        mine = sorted(stretch for stretch in stretches if stretch.lane == lane)
        there = sum(stretch.size for stretch in mine)
        assert sum(lanes[lane] for lanes in parts.values()) == min(need[lane], there)
        upto = need[lane]
        for stretch in mine:  # as if all stood in one line
            taken = max(0, min(stretch.size, upto))
            upto -= stretch.size
            if shard := parts.get(stretch.shard):
                shard[lane] -= taken
        assert all(lanes[lane] == 0 for lanes in parts.values())
