"""Selections: JMESPath expressions of an endpoint's owner, compiled once and evaluated within bounds.

A short expression can ask for a result that is exponentially large (`[@,@]|[@,@]|…`), so that what an
evaluation visits, makes and compares is counted as it goes. Language: https://jmespath.org/specification.html.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter

from ringbearer.errors import InvalidInput, PayloadFailed

if TYPE_CHECKING:
    from jmespath.visitor import _TreeNode as Node  # as JMESPath's parser makes them

MAX_EXPRESSION = 2_048
"""Characters of an expression."""
MAX_STEPS = 10_000
"""Nodes that one evaluation may visit, make or compare, and what its result may weigh.

That takes 5 to 8 ms at most, during which a worker sends nothing else: with 50,000 it was 23 to 41 ms.
"""
_MAX_NODES = 500
_MAX_DEPTH = 40
_REMEMBERED = 4_096
_CHARACTERS_PER_STEP = 64
_MAKING = frozenset(
    {
        "filter_projection",
        "flatten",
        "function_expression",
        "multi_select_dict",
        "multi_select_list",
        "projection",
        "value_projection",
    }
)
"""Nodes whose value is made anew, and may hold the same thing many times."""

_FUNCTIONS = Functions.FUNCTION_TABLE


class Selection:
    """One expression; raises InvalidInput, pointing at nothing, when it is none or too involved."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._tree = _parsed(expression)

    def __repr__(self) -> str:
        return f"<Selection {self.expression!r}>"

    def of(self, data: object) -> object:
        """What it selects; raises PayloadFailed when it does not fit the data, or asks for too much."""
        try:
            found: object = _Interpreter(MAX_STEPS).visit(self._tree, data)
        except JMESPathError as error:
            raise PayloadFailed(f"{self.expression!r} does not fit the data: {error}") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise PayloadFailed(
                f"{self.expression!r} does not fit the data ({type(error).__name__})"
            ) from None
        return found


@lru_cache(maxsize=_REMEMBERED)
def compiled(expression: str) -> Selection:
    """The selection, made once for all who use the same expression; raises InvalidInput."""
    return Selection(expression)


def weigh(value: object, most: int) -> int:
    """How many nodes a value has when it is written out, 64 characters counting as one; `most` + 1 when more."""
    rest = [value]
    weight = 0
    while rest:
        item = rest.pop()
        weight += 1
        if isinstance(item, str):
            weight += len(item) // _CHARACTERS_PER_STEP
        elif isinstance(item, list | dict):
            if weight + len(rest) + len(item) > most:
                return most + 1
            rest += item if isinstance(item, list) else item.values()
        if weight > most:
            return most + 1
    return weight


class _Interpreter(TreeInterpreter):
    """JMESPath's own, with a limit to what it may do."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps
        self._calls = Functions()

    def visit(self, node: "Node", *args: Any, **kwargs: Any) -> Any:
        self._spend(1)
        value = super().visit(node, *args, **kwargs)
        if node["type"] in _MAKING:
            self._spend(weigh(value, self._left))
        return value

    def visit_comparator(self, node: "Node", value: Any) -> Any:
        sides = [self.visit(child, value) for child in node["children"]]
        for side in sides:  # containers are compared through and through
            self._spend(weigh(side, self._left))
        known: list[Node] = [{"type": "literal", "children": [], "value": side} for side in sides]
        return super().visit_comparator(
            {"type": "comparator", "value": node["value"], "children": known}, value
        )

    def visit_function_expression(self, node: "Node", value: Any) -> Any:
        arguments = [self.visit(child, value) for child in node["children"]]
        for argument in arguments:
            self._spend(weigh(argument, self._left))
        return self._calls.call_function(node["value"], arguments)

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise PayloadFailed(f"the selection of fields takes more than {MAX_STEPS:,} steps")


def _parsed(expression: str) -> "Node":
    if not 0 < len(expression) <= MAX_EXPRESSION:
        raise InvalidInput(f"expected a JMESPath expression of 1 to {MAX_EXPRESSION} characters")
    try:
        tree: Node = jmespath.compile(expression).parsed
    except (JMESPathError, RecursionError, ValueError) as error:
        lines = str(error).splitlines()
        what = lines[0][:200] if lines and not isinstance(error, RecursionError) else "nested too deep"
        raise InvalidInput(f"expected a JMESPath expression: {what}") from None
    _check(tree)
    return tree


def _check(tree: "Node") -> None:
    rest: list[tuple[Node, int]] = [(tree, 1)]
    count = 0
    while rest:
        node, depth = rest.pop()
        count += 1
        if count > _MAX_NODES or depth > _MAX_DEPTH:
            raise InvalidInput(
                f"expected a simpler JMESPath expression: at most {_MAX_NODES} parts, {_MAX_DEPTH} levels deep"
            )
        if node["type"] == "function_expression":
            _check_call(node["value"], len(node["children"]))
        rest += [(child, depth + 1) for child in node["children"] if isinstance(child, Mapping)]


def _check_call(name: str, given: int) -> None:
    """JMESPath itself would tell only when an event is to be sent."""
    function = _FUNCTIONS.get(name)
    if function is None:
        known = ", ".join(sorted(_FUNCTIONS))
        raise InvalidInput(f"JMESPath has no function {name[:40]!r}; there are: {known}")
    signature = function["signature"]
    variadic = bool(signature) and signature[-1].get("variadic", False)
    if given < len(signature) or (given > len(signature) and not variadic):
        raise InvalidInput(f"the JMESPath function {name} takes {len(signature)} arguments, not {given}")
