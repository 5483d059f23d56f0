"""Requests are read here: strictly, and with every problem found instead of only the first."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from msgspec import Meta

from ringbearer.api.problems import Refusal
from ringbearer.errors import InvalidInput, NotFound

ApiRequest = Request[object, object, State]
Problems = Iterable[tuple[str, str]]
"""Pairs of a JSON pointer and a sentence that says what was expected there."""
JsonSchema = dict[str, Any]
"""As msgspec makes it: which keys hold what is for JSON Schema to say."""
Fields = Mapping[str, object]
"""The fields of a request that are of the right type, by name."""

MAX_DEPTH = 32
"""How deep a request's JSON may be nested; far below what any parser's stack takes."""
FREE_FORM = frozenset({"metadata", "ca", "client_certificate", "client_key"})
"""Fields that may hold line ends: they are PEM or the user's own, and always stored and shown as JSON."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHOWN = 100  # characters of a wrong name that the answer repeats
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_NUL = re.compile("\x00")
_MSGSPEC_PATH = re.compile(r" - at `(?:key in )?\$(.*?)`$")
_MSGSPEC_STEP = re.compile(r"\[(\d+)\]|\.([^.\[]+)")

T = TypeVar("T", bound=msgspec.Struct)


Limit = Annotated[int, Meta(ge=1, le=250, description="how many items at most, from 1 to 250")]
Cursor = Annotated[
    Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None,
    Meta(description="the `next` of the page before"),
]


class PageQuery(msgspec.Struct, kw_only=True):
    """What every list may be asked for."""

    limit: Limit = 50
    cursor: Cursor = None


class Nothing(msgspec.Struct):
    """The body of a request that says all in its path: empty, or an empty object."""


async def read_body(
    request: ApiRequest, kind: type[T], check: Callable[[Fields], Problems] | None = None
) -> T:
    """The request's JSON object as that struct; an empty body counts as an empty object.

    `check` may find more problems in those fields that are of the right type. Raises Refusal for anything but
    plain JSON, and InvalidInput with all problems.
    """
    body = await _whole_body(request)
    if not body:
        content: object = {}
    else:
        _require_json(request.headers.get("content-type"), request.headers.get("content-encoding"))
        content = parse(body)
    if not isinstance(content, dict):
        _refuse([("", "expected a JSON object")])
    return _build(content, kind, check, strict=True)


async def _whole_body(request: ApiRequest) -> bytes:
    try:
        return await request.body()
    except InternalServerException:  # Litestar's word for a client that went away; nobody reads the answer
        raise Refusal(400, "the connection ended before the body did") from None


def read_query(request: ApiRequest, kind: type[T], check: Callable[[Fields], Problems] | None = None) -> T:
    """The query parameters as that struct; raises InvalidInput, also for unknown and repeated ones."""
    given: dict[str, object] = {}
    repeated = []
    for name, value in request.query_params.multi_items():
        if name in given:
            repeated.append((pointer(name), "expected once"))
        given[name] = value
    if repeated:
        _refuse(repeated)
    return _build(given, kind, check, strict=False)


def path_id(text: str, what: str) -> str:
    """An id from the path; raises NotFound for what cannot be one, before anything is asked."""
    if not _ID.fullmatch(text):
        raise NotFound(f"there is no {what} {text[:_SHOWN]!r}")
    return text


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901) to the place that these steps lead to."""
    return "".join("/" + str(part)[:_SHOWN].replace("~", "~0").replace("/", "~1") for part in parts)


def parse(body: bytes) -> object:
    """The JSON value in the body; raises Refusal (400) for all that RFC 8259 or plain sense forbids.

    Refused are NaN, Infinity and numbers beyond a double, lone surrogates, names that occur twice in an
    object, and nesting beyond any stack.
    """
    try:
        msgspec.json.decode(body)  # the strict parser, for what the next one lets pass
        return json.loads(body, object_pairs_hook=_object)
    except RecursionError:
        raise Refusal(400, "the JSON is nested too deep") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refusal(400, f"this is not the JSON that was expected: {_first_line(error)}") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _require_json(content_type: str | None, encoding: str | None) -> None:
    media_type = (content_type or "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(415, "send JSON, as Content-Type: application/json", {"accept": "application/json"})
    if encoding is not None and encoding.strip().lower() != "identity":
        raise Refusal(
            415, "send the body as it is, without Content-Encoding", {"accept-encoding": "identity"}
        )


def _build(content: Fields, kind: type[T], check: Callable[[Fields], Problems] | None, *, strict: bool) -> T:
    fields, problems = _convert(content, kind, strict=strict)
    problems += _text_problems(content)
    if check is not None:
        problems += check(fields)
    if problems:
        _refuse(problems)
    return kind(**fields)


def _refuse(problems: list[tuple[str, str]]) -> NoReturn:
    place, message = problems[0]
    raise InvalidInput(f"{place}: {message}" if place else message, problems)


def _convert(
    content: Fields, kind: type[msgspec.Struct], *, strict: bool
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """Each field on its own, so that one that is wrong does not hide the next."""
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    fields: dict[str, object] = {}
    problems: list[tuple[str, str]] = []
    for name, value in content.items():
        field = known.get(name)
        if field is None:
            there_are = ", ".join(known) or "none"
            problems.append((pointer(name), f"there is no field {name[:_SHOWN]!r}; there are: {there_are}"))
            continue
        try:
            fields[name] = msgspec.convert(value, field.type, strict=strict)
        except (msgspec.ValidationError, OverflowError, RecursionError) as error:
            problems.append(_problem(kind, name, error))
    for name, field in known.items():
        if field.required and name not in content:
            problems.append(
                (pointer(name), f"expected {_described(kind, name) or 'a value'}: it is required")
            )
    return fields, problems


def _problem(kind: type[msgspec.Struct], name: str, error: Exception) -> tuple[str, str]:
    text = _first_line(error)
    steps: list[str | int] = [name]
    if found := _MSGSPEC_PATH.search(text):
        known_part = found[1].partition("[...]")[
            0
        ]  # which of an object's members it is, msgspec does not say
        steps += [index or key for index, key in _MSGSPEC_STEP.findall(known_part)]
        text = text[: found.start()]
    described = _described(kind, name)
    if described is None:
        return pointer(*steps), text[0].lower() + text[1:]
    if text.startswith("Expected"):
        return pointer(*steps), f"expected {described}"
    return pointer(*steps), f"expected {described}; {text[0].lower()}{text[1:]}"


def _described(kind: type[msgspec.Struct], name: str) -> str | None:
    """What a field's own description says is expected in it."""
    return _descriptions(kind).get(name)


@cache
def _descriptions(kind: type[msgspec.Struct]) -> dict[str, str]:
    properties = schemas([kind])[1][kind.__name__]["properties"]
    return {name: schema["description"] for name, schema in properties.items() if "description" in schema}


def schemas(kinds: Iterable[object]) -> tuple[tuple[JsonSchema, ...], dict[str, JsonSchema]]:
    """The JSON Schemas of types, and those of the named types that they refer to, as OpenAPI places them."""
    return msgspec.json.schema_components(
        kinds, schema_hook=_any_value, ref_template="#/components/schemas/{name}"
    )


def _any_value(kind: type) -> JsonSchema:
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError(f"no request or answer holds a {kind}")


def _text_problems(content: Fields) -> list[tuple[str, str]]:
    """Control characters anywhere, and nesting that is too deep; without recursion."""
    problems: list[tuple[str, str]] = []
    rest: list[tuple[tuple[str | int, ...], object]] = [((name,), value) for name, value in content.items()]
    while rest:
        steps, value = rest.pop()
        if len(steps) > MAX_DEPTH:
            return [*problems, (pointer(steps[0]), f"expected at most {MAX_DEPTH} levels of nesting")]
        forbidden = _NUL if steps[0] in FREE_FORM else _CONTROL
        if isinstance(value, str) and forbidden.search(value):
            problems.append((pointer(*steps), "expected text without control characters"))
        elif isinstance(value, list):
            rest += [((*steps, index), item) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            for key, item in value.items():
                if forbidden.search(key):
                    problems.append((pointer(*steps), "expected names without control characters"))
                rest.append(((*steps, key), item))
    return problems
