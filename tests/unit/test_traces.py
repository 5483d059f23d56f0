"""Trace contexts: what is taken from publishers, what goes on to receivers. Cases are those of W3C Trace Context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.domain import traces

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (GIVEN, GIVEN),
        (f" {GIVEN}\t", GIVEN),  # blanks around a header's value are not of it
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-ff", f"00-{TRACE}-{SPAN}-03"),  # flags that nobody defined are not passed on
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", GIVEN),  # a later version is read as far as it is known
        (f"cc-{TRACE}-{SPAN}-01", GIVEN),
    ],
)
def test_a_context_is_kept_in_version_00(header: str, kept: str) -> None:
    assert traces.kept(header) == kept


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"{GIVEN}-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00_{TRACE}_{SPAN}_01",
        f"{GIVEN}\r\nx: y",
        f"{GIVEN},{GIVEN}",
    ],
)
def test_what_is_malformed_is_as_if_not_sent(header: str | None) -> None:
    assert traces.kept(header, "vendor=1") is None


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        ("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", ["tracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"]),
        ("", []),
        ("a=1\r\nx-evil: 1", []),
        ("a=é", []),
        ("a=" + "1" * 510, ["tracestate: a=" + "1" * 510]),
        ("a=" + "1" * 511, []),
        (",".join(f"k{n}=1" for n in range(33)), []),
    ],
)
def test_a_state_goes_on_or_is_dropped_alone(state: str, lines: list[str]) -> None:
    kept = traces.kept(GIVEN, state)
    assert kept is not None
    assert traces.headers(kept) == [f"traceparent: {GIVEN}", *lines]


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_is_sent_no_header_is_torn(parent: str, state: str) -> None:
    for header in (parent, GIVEN):
        kept = traces.kept(header, state)
        if kept is not None:
            lines = traces.headers(kept)
            assert all(line.isascii() and "\r" not in line and "\n" not in line for line in lines)
            assert traces.kept(lines[0].partition(": ")[2]) == kept[:55]


def test_a_child_is_of_the_same_trace_and_decision() -> None:
    kept = traces.kept(f"00-{TRACE}-{SPAN}-00", "a=1")
    assert kept is not None
    span = traces.new_span()
    read = traces.read(traces.child(kept, span))
    assert (read.trace_id, read.span_id, read.sampled, read.state) == (TRACE, span, False, "a=1")
    begun = traces.begin()
    assert traces.kept(begun) == begun
    assert traces.read(begun).sampled
