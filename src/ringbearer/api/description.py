"""The OpenAPI 3.1 document, made of the operations and of the very types that requests are read into."""

import re
from functools import cache
from http import HTTPStatus

import msgspec

import ringbearer
from ringbearer.api import operations, problems
from ringbearer.api.operation import EVERYBODY, Operation
from ringbearer.api.problems import Problem
from ringbearer.api.reading import schemas

Json = dict[str, object]

_TEXT_KINDS = ("text/plain", "text/html", "application/json")
_ABOUT = (
    "Takes events from an application, signs them by Standard Webhooks 1.0 and delivers them to every "
    "endpoint that wants them, at least once. Errors are application/problem+json (RFC 9457); times are "
    "RFC 3339 in UTC; durations are seconds; unknown fields are refused."
)
_TAGS = {
    "Events": "What happened: published once, delivered to everybody who wants it.",
    "Suppliers": "Tenants: the owners of endpoints and the addressees of events.",
    "Endpoints": "URLs that want some event types of their supplier.",
    "Deliveries": "One event on its way to one endpoint, with all its attempts.",
    "Figures": "What was measured: counts, rates and percentiles, of all processes together.",
    "Cache": "The cache of suppliers and endpoints in the process that answers.",
    "Alerts": "What is, or was, wrong; who is told of it, and how.",
    "Keys": "API keys and what each may do.",
    "Order": "Which delivery is next: lanes, rules, the season and its peaks.",
    "Workers": "The worker processes that run, and commands to them.",
    "Scaling": "How many workers there shall be, and why.",
    "Service": "How the service does, and what it offers.",
}
_PROBLEMS = {
    400: "Malformed: not the JSON that was expected.",
    401: "No API key, or one that does not exist.",
    403: "The key's scope does not allow this.",
    404: "No such object, or one of another supplier.",
    409: "The request contradicts what is already there.",
    413: "Too large.",
    415: "Not the media type that was expected.",
    422: "Not valid; `errors` names each place.",
    429: "More than a limit allows; come again after `Retry-After` seconds.",
    503: "The store cannot take or answer anything now; come again after `Retry-After` seconds.",
}
_RETRIED = frozenset({429, 503})


@cache
def document() -> Json:
    """The whole document; not to be changed."""
    paths: dict[str, Json] = {}
    for operation in operations.ALL:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ringbearer", "version": ringbearer.__version__, "description": _ABOUT},
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, `rb_…`."}
            },
            "responses": {_problem_name(status): _problem(status) for status in _PROBLEMS},
            "schemas": schemas(_types())[1],
        },
    }


def _operation(operation: Operation) -> Json:
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {
            **{str(status): _answer(status, kind) for status, kind in operation.answers.items()},
            **{
                str(status): {"$ref": f"#/components/responses/{_problem_name(status)}"}
                for status in _failures(operation)
            },
        },
    }
    if operation.keys == EVERYBODY:
        described["security"] = []
    else:
        described["description"] = f"Keys: {operation.keys}."
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = _body(operation)
    return described


def _failures(operation: Operation) -> list[int]:
    """The statuses of all problems that an operation may answer with."""
    found = set(operation.problems)
    if operation.keys != EVERYBODY:
        found |= {401, 403, 503}
    if operation.body is not None:
        found |= {400, 413, 415, 422}
    if operation.query is not None:
        found.add(422)
    return sorted(found)


def _answer(status: int, kind: object) -> Json:
    described: Json = {"description": HTTPStatus(status).phrase}
    if kind in _TEXT_KINDS:
        described["content"] = {kind: {}}
    elif kind is not None:
        described["content"] = {"application/json": {"schema": _schema(kind)}}
    return described


def _body(operation: Operation) -> Json:
    content: Json = {"application/json": {"schema": _schema(operation.body)}}
    if operation.lines is not None:
        # OpenAPI 3.1 has no word for "one value per line": the schema is that of a line.
        content["application/x-ndjson"] = {"schema": _schema(operation.lines)}
    return {"required": operation.body_required, "content": content}


def _parameters(operation: Operation) -> list[Json]:
    path: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    headers: list[Json] = [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
        for name, text in operation.headers.items()
    ]
    return path + _query(operation.query) + headers


def _query(kind: type[msgspec.Struct] | None) -> list[Json]:
    if kind is None:
        return []
    properties = schemas([kind])[1][kind.__name__]["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "description": schema.get("description", ""),
            "schema": _without_null(schema),
        }
        for name, schema in properties.items()
    ]


def _without_null(schema: Json) -> Json:
    """A query parameter is left out, never null."""
    kept = {name: value for name, value in schema.items() if name not in {"description", "default", "anyOf"}}
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        (only,) = (choice for choice in choices if choice != {"type": "null"})
        return {**kept, **only}
    return {**kept, **({"default": schema["default"]} if schema.get("default") is not None else {})}


def _problem_name(status: int) -> str:
    return HTTPStatus(status).name.title().replace("_", "")


def _problem(status: int) -> Json:
    described: Json = {
        "description": _PROBLEMS[status],
        "content": {problems.MEDIA_TYPE: {"schema": _schema(Problem)}},
    }
    if status in _RETRIED:
        described["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    if status == HTTPStatus.UNAUTHORIZED:
        described["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return described


def _types() -> list[object]:
    found: list[object] = [Problem]
    for operation in operations.ALL:
        kinds = (operation.body, *operation.answers.values())
        found += [kind for kind in kinds if kind is not None and kind not in _TEXT_KINDS]
    return found


def _schema(kind: object) -> Json:
    (schema,), _ = schemas([kind])
    return schema
