"""Selections give what JMESPath says, and no expression costs more than it may."""

import pytest

from ringbearer.delivery.selection import MAX_EXPRESSION, MAX_STEPS, Selection, compiled, weigh
from ringbearer.errors import InvalidInput, PayloadFailed

BOOKING = {
    "id": "b1",
    "couple": {"names": ["Ada", "Grace"], "email": None},
    "days": [{"date": "2027-06-19", "guests": 80}, {"date": "2027-06-20", "guests": 12}],
}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("id", "b1"),
        ("{id: id, who: couple.names[0]}", {"id": "b1", "who": "Ada"}),
        ("days[?guests > `20`].date", ["2027-06-19"]),
        ("days[*].guests | sum(@)", 92),
        ("sort_by(days, &guests)[0].date", "2027-06-20"),
        ("to_string(couple.names)", '["Ada","Grace"]'),
        ('couple == `{"email": null, "names": ["Ada", "Grace"]}`', True),
        ("nothing.there", None),
        ("@", BOOKING),
    ],
)
def test_what_is_selected(expression: str, found: object) -> None:
    assert Selection(expression).of(BOOKING) == found


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "a.",
        "[",
        "nope(@)",
        "length()",
        "length(@, @)",
        "a" * (MAX_EXPRESSION + 1),
        "(" * 1_000,
        "!" * 1_000 + "a",
        "[" * 500 + "a" + "]" * 500,
        "[" + ",".join("a" * 600) + "]",
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(InvalidInput, match="JMESPath"):
        Selection(expression)


DOUBLING = [
    pytest.param("|".join(["[@,@]"] * 40), id="lists"),
    pytest.param("|".join(["{a:@,b:@}"] * 40), id="objects"),
    pytest.param("|".join(["[@,@][]"] * 40), id="flattened"),
    pytest.param("|".join(["[@,@]"] * 30) + "|to_string(@)", id="written-out"),
    pytest.param("|".join(["join('', [@,@])"] * 30).replace("@,@", "'aaaa','aaaa'", 1), id="strings"),
    pytest.param("|".join(["[@,@]"] * 12) + "==" + "|".join(["[@,@]"] * 12), id="compared"),
    pytest.param("many[*].[@,@,@,@,@,@,@,@,@,@]|[*][*][*]", id="projections"),
    pytest.param("many[?contains(`[0,1,2]`, @)].{a: length(many), b: many}", id="filtered"),
    pytest.param("map(&[@,@,@,@], many[*].[@,@,@,@][])[]", id="mapped-and-flattened"),
]


@pytest.mark.parametrize("expression", DOUBLING)
def test_what_would_grow_without_bound_is_stopped_at_the_bound(expression: str) -> None:
    data = {"many": list(range(9_000))}
    try:
        selection = Selection(expression)
    except InvalidInput:
        return  # refused even before
    try:
        found = selection.of(data)
    except PayloadFailed:
        pass
    else:
        assert weigh(found, MAX_STEPS) <= MAX_STEPS


def test_a_selection_that_does_not_fit_the_data_says_so() -> None:
    with pytest.raises(PayloadFailed, match="does not fit the data"):
        Selection("length(id)").of({"id": 5})


def test_the_same_expression_is_compiled_once() -> None:
    assert compiled("a.b.c") is compiled("a.b.c")


@pytest.mark.parametrize(
    ("value", "weight"),
    [(1, 1), (None, 1), ("a" * 63, 1), ("a" * 640, 11), ([1, [2]], 4), ({"a": {"b": 1}}, 3)],
)
def test_what_a_value_weighs(value: object, weight: int) -> None:
    assert weigh(value, 100) == weight
    assert weigh(value, 0) == 1
