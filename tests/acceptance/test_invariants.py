"""The judge of the chaos runs itself: each kind of broken promise is found, and a kept one is not."""

from collections.abc import Sequence

import msgspec
import pytest

from chaos.invariants import Evidence, Pace, Row, Verdict, judge
from chaos.producer import Said
from chaos.receiver import Seen


def _tried(uid: str = "u1", key: str | None = "k1") -> Said:
    return Said(what="tried", uid=uid, supplier="s", key=key)


def _accepted(uid: str = "u1", event: str = "evt_1") -> Said:
    return Said(what="accepted", uid=uid, event=event, deliveries=1)


def _seen(number: int = 1, **changes: object) -> Seen:
    seen = Seen(
        number=number,
        id="evt_1",
        attempt=number,
        path="/s/0",
        uid="u1",
        ordering=None,
        sequence=0,
        at=0.0,
        digest="d1",
        verified=True,
        answer=200,
    )
    return msgspec.structs.replace(seen, **changes)


def _row(**changes: object) -> Row:
    row = Row("dlv_1", "evt_1", "ep_1", "delivered", 1, None, None, 1)
    return msgspec.structs.replace(row, **changes)


def _judge(
    *,
    said: Sequence[Said] = (_tried(), _accepted()),
    seen: Sequence[Seen] = (_seen(),),
    rows: Sequence[Row] = (_row(),),
    depth: dict[tuple[int, str], int] | None = None,
    in_flight: int = 0,
    forgotten: int = 0,
    cut: int = 0,
) -> Verdict:
    return judge(
        Evidence(
            said=said,
            seen=seen,
            rows=rows,
            depth=depth or {},
            jobs={},
            paths={"ep_1": "/s/0"},
            tries=3,
            workers_lost=0,
            in_flight=in_flight,
            forgotten=forgotten,
            cut=cut,
        )
    )


def _broken(verdict: Verdict) -> list[str]:
    return [line.partition(":")[0] for line in verdict.violations]


def test_kept_promises_are_no_violation() -> None:
    verdict = _judge(seen=[_seen(1, answer=500), _seen(2)])
    assert verdict.violations == []
    assert (verdict.accepted, verdict.delivered, verdict.lost, verdict.duplicates) == (1, 1, 0, 0)
    assert _judge(seen=[], rows=[_row(state="dead", job="dead")]).violations == []
    assert _judge(seen=[], rows=[_row(state="pending", job="scheduled", due_at=5)]).violations == []


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [_row()],
        [_row(state="cancelled")],
        [_row(state="pending")],
        [_row(state="pending", job="ready")],
        [_row(state="pending", job="scheduled", due_at=None)],
    ],
)
def test_accepted_and_neither_seen_nor_kept_is_lost(rows: list[Row]) -> None:
    verdict = _judge(seen=[_seen(answer=500)], rows=rows)
    assert _broken(verdict) == ["I1"]
    assert verdict.lost == 1


def test_an_answer_that_was_taken_back_is_no_success() -> None:
    assert _broken(_judge(seen=[_seen(), _seen(answer=0)])) == ["I1"]


def test_strangers_and_bad_signatures_are_found() -> None:
    assert _broken(_judge(seen=[_seen(), _seen(2, id="evt_9", uid="u9")])) == ["I2"]
    assert _broken(_judge(seen=[_seen(verified=False)])) == ["I2"]
    refused = Said(what="refused", uid="u1", detail="422 no")
    assert _broken(_judge(said=[_tried(), _accepted(), refused])) == ["I2"]


def test_another_body_on_another_attempt_is_found() -> None:
    assert _broken(_judge(seen=[_seen(1, answer=500), _seen(2, digest="d2")])) == ["I3"]


def test_duplicates_are_bounded_by_what_lost_workers_held() -> None:
    assert "I4" in _broken(_judge(seen=[_seen(1), _seen(2)]))
    lost = _row(attempts=2, answered=1)
    assert _broken(_judge(seen=[_seen(1), _seen(2)], rows=[lost])) == ["I4"]
    verdict = _judge(seen=[_seen(1), _seen(2)], rows=[lost], in_flight=1)
    assert (verdict.violations, verdict.duplicates) == ([], 1)


def test_what_is_known_to_have_been_taken_is_not_sent_again_whatever_was_lost() -> None:
    known = _row(attempts=2, answered=2)
    assert _broken(_judge(seen=[_seen(1), _seen(2)], rows=[known], in_flight=9)) == ["I4"]
    assert _broken(_judge(seen=[_seen(1), _seen(2)], rows=[known], in_flight=9, forgotten=1)) == []


def test_one_attempt_that_succeeds_twice_is_found_whatever_was_lost() -> None:
    twice, lost = [_seen(1), _seen(2, attempt=1)], [_row(attempts=3, answered=1)]
    assert _broken(_judge(seen=twice, rows=lost, in_flight=9)) == ["I4"]
    assert _broken(_judge(seen=twice, rows=lost, in_flight=9, forgotten=1)) == []
    assert _broken(_judge(seen=twice, rows=lost, in_flight=9, cut=1)) == []
    assert _broken(_judge(seen=[*twice, _seen(3, attempt=1)], rows=lost, in_flight=9, forgotten=1)) == ["I4"]


def test_too_many_attempts_are_found() -> None:
    assert _broken(_judge(seen=[_seen(1, attempt=4)])) == ["I5"]


def test_first_successes_out_of_order_are_found() -> None:
    def one(number: int, sequence: int, answer: int = 200) -> Seen:
        return _seen(
            number, ordering="o", sequence=sequence, answer=answer, uid=f"u{sequence}", id=f"e{sequence}"
        )

    said = [_tried(f"u{sequence}") for sequence in (1, 2)]
    assert _broken(_judge(said=said, seen=[one(1, 2), one(2, 1)], rows=[])) == ["I6"]
    in_order = [one(1, 1, 500), one(2, 1), one(3, 2)]
    assert _judge(said=said, seen=in_order, rows=[]).violations == []


def test_more_than_a_limit_within_its_period_is_found() -> None:
    def paced(*seconds: float, frozen: int = 0) -> list[str]:
        evidence = Evidence(
            said=[_tried(), _accepted()],
            seen=[_seen()],
            rows=[_row()],
            depth={},
            jobs={},
            paths={"ep_1": "/s/0"},
            tries=3,
            workers_lost=0,
            in_flight=0,
            starts={"ep_1": [int(s * 1_000_000) for s in seconds]},
            limits={"ep_1": Pace(requests=2, period=4.0)},
            frozen=frozen,
        )
        return _broken(judge(evidence))

    assert paced(0, 1, 4, 5, 8, 9) == []
    assert paced(0, 1, 2, 8) == ["I8"]
    assert paced(0, 1, 2, 8, frozen=1) == []


def test_two_events_of_one_key_are_found() -> None:
    said = [_tried(), _accepted(), _accepted(event="evt_2")]
    rows = [_row(), _row(delivery="dlv_2", event="evt_2")]
    assert _broken(_judge(said=said, seen=[_seen(1), _seen(2, id="evt_2")], rows=rows)) == ["I9"]
    # Even when no answer told the publisher of the second one.
    assert _broken(_judge(seen=[_seen(1), _seen(2, id="evt_2")])) == ["I9"]


def test_counters_that_are_off_are_found() -> None:
    assert _broken(_judge(depth={(2, "ready"): 1})) == ["I11"]
