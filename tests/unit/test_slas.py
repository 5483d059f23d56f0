"""The ladder of relief: step by step while a level burns, back again when it is kept, and never two at once."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ringbearer.domain.relief import STEPS, Relief, ServiceLevel, SLAConfiguration
from ringbearer.scaling.slas import Ladder, move, observe

CONFIG = SLAConfiguration(
    levels=(ServiceLevel(lane="urgent", seconds=2.0, objective=0.9),),
    window=60.0,
    burn_rate=4.0,
    step_seconds=20.0,
    recover_seconds=60.0,
)
WELL, LATE = (0.0, 0.0, 0.0, 0.0), (5.0, 0.0, 0.0, 0.0)


class Watch:
    """Seconds on the ladder, one after the other."""

    def __init__(self, config: SLAConfiguration = CONFIG) -> None:
        self.config = config
        self.ladder = Ladder()
        self.now = 0.0
        self.moves: list[tuple[float, str]] = []

    def pass_(self, seconds: int, waits: tuple[float, ...]) -> None:
        for _ in range(seconds):
            self.ladder, burning = observe(self.ladder, self.config, waits, now=self.now)
            self.ladder, taken, undone = move(self.ladder, self.config, burning, now=self.now)
            assert taken is None or undone is None
            if taken or undone:
                self.moves.append((self.now, f"+{taken}" if taken else f"-{undone}"))
            self.now += 1.0


def test_steps_are_taken_in_order_each_given_its_time_and_undone_in_reverse() -> None:
    watch = Watch()
    watch.pass_(60, WELL)
    watch.pass_(24, LATE)  # a budget of a tenth of the time may burn four times too fast
    assert watch.moves == [(83.0, "+workers")]
    watch.pass_(100, LATE)
    assert watch.ladder.steps == STEPS
    times = [at for at, _ in watch.moves]
    assert all(b - a >= 20 for a, b in pairwise(times))
    watch.pass_(400, WELL)
    assert watch.ladder.steps == ()
    assert [name for _, name in watch.moves[5:]] == [f"-{step}" for step in reversed(STEPS)]
    backs = [at for at, _ in watch.moves[5:]]
    assert all(b - a >= 60 for a, b in pairwise(backs))


def test_a_short_lapse_costs_budget_and_moves_nothing() -> None:
    watch = Watch()
    watch.pass_(60, WELL)
    for _ in range(20):
        watch.pass_(3, LATE)
        watch.pass_(57, WELL)
    assert watch.moves == []


def test_without_levels_nothing_happens() -> None:
    watch = Watch(SLAConfiguration())
    watch.pass_(100, (1e9, 1e9, 1e9, 1e9))
    assert watch.moves == []


@given(st.lists(st.tuples(st.integers(1, 90), st.sampled_from([WELL, LATE])), max_size=20))
def test_whatever_happens_the_steps_are_the_first_of_the_ladder(
    spans: list[tuple[int, tuple[float, ...]]],
) -> None:
    watch = Watch()
    for seconds, waits in spans:
        watch.pass_(seconds, waits)
        assert watch.ladder.steps == STEPS[: len(watch.ladder.steps)]


def test_relief_favours_the_lane_defers_bulk_and_takes_nothing_to_nothing() -> None:
    base = (8, 4, 2, 1)
    assert Relief().weights(base) == base
    assert Relief(steps=STEPS[:1], lane=1).weights(base) == base
    assert Relief(steps=STEPS[:2], lane=1).weights(base) == (8, 16, 2, 1)
    assert Relief(steps=STEPS[:3], lane=1).weights(base) == (400, 800, 100, 1)
    assert Relief(steps=STEPS, lane=3).weights(base) == (8, 4, 2, 4)
