"""The API's description for people: one page made of the OpenAPI document, with nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from typing import cast

import msgspec
from litestar import Response, get

from ringbearer.api.description import Json, document

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --strong: #0b6bcb }
@media (prefers-color-scheme: dark) { :root { --strong: #6db3f8 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
a { color: var(--strong) } a:focus-visible, summary:focus-visible { outline: 2px solid var(--strong) }
code { font: .9em ui-monospace, monospace }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0 }
summary { padding: .5rem .75rem; cursor: pointer }
summary:hover { background: var(--soft) }
details > div { padding: 0 .75rem .75rem }
.method { font-weight: 700; color: var(--strong) }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-top: 1px solid var(--soft) }
ul { padding-left: 1.2rem }
@media (max-width: 36rem) { td, th { display: block; border: 0; padding: 0 }
  tr { display: block; border-top: 1px solid var(--soft); padding: .3rem 0 } thead { display: none } }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_SECURITY = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@get("/openapi.json", sync_to_thread=False)
def openapi_document() -> Response[bytes]:
    """The OpenAPI document; it holds nothing secret and asks for no key."""
    return Response(
        msgspec.json.encode(document()),
        media_type="application/json",
        headers={"x-content-type-options": "nosniff"},
    )


@get("/docs", sync_to_thread=False)
def documentation() -> Response[bytes]:
    """The same as a page."""
    return Response(_page(), media_type="text/html", headers=_SECURITY)


@cache
def _page() -> bytes:
    described = document()
    info = _object(described["info"])
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{_text(info['title'])} API</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(info['title'])} API</h1><p>Version {_text(info['version'])} · ",
        "<a href=/openapi.json>OpenAPI document</a></p>",
        f"<p>{_text(info['description'])}</p><main>",
        *_sections(described),
        "<h2 id=types>Types</h2>",
        *_types(_object(_object(described["components"])["schemas"])),
        "</main></body></html>",
    ]
    return "".join(parts).encode()


def _sections(described: Json) -> Iterator[str]:
    operations = [
        (path, method, _object(operation))
        for path, methods in _object(described["paths"]).items()
        for method, operation in _object(methods).items()
    ]
    for tag in _list(described["tags"]):
        name = tag["name"]
        yield f"<h2>{_text(name)}</h2><p>{_text(tag['description'])}</p>"
        for path, method, operation in operations:
            if operation["tags"] == [name]:
                yield from _operation(path, method, operation)


def _operation(path: str, method: str, operation: Json) -> Iterator[str]:
    yield f"<details id='{_text(operation['operationId'])}'><summary>"
    yield f"<code><span class=method>{method.upper()}</span> {_text(path)}</code><br>"
    yield _text(operation["summary"])
    yield f"</summary><div><p>{_text(operation.get('description', 'No key is needed.'))}</p>"
    if parameters := _list(operation.get("parameters", [])):
        rows = [(p["name"], f"in {p['in']}", p.get("description", "")) for p in parameters]
        yield _table(("Parameter", "Where", "Meaning"), ([_text(cell) for cell in row] for row in rows))
    if "requestBody" in operation:
        kinds = _object(_object(operation["requestBody"])["content"])
        rows_of_body = ([_code(kind), _shape(_object(_object(c)["schema"]))] for kind, c in kinds.items())
        yield _table(("Request body", "Type"), rows_of_body)
    yield _table(("Status", "Answer"), _answers(_object(operation["responses"])))
    yield "</div></details>"


def _answers(responses: Json) -> Iterator[list[str]]:
    shared = _object(_object(document()["components"])["responses"])
    for status, response in responses.items():
        answer = _object(response)
        if "$ref" in answer:
            answer = _object(shared[str(answer["$ref"]).rpartition("/")[2]])
        kinds = [
            _kind(kind, _object(content)) for kind, content in _object(answer.get("content", {})).items()
        ]
        yield [_code(status), " ".join([_text(answer["description"]), *kinds])]


def _kind(media_type: str, content: Json) -> str:
    return _shape(_object(content["schema"])) if "schema" in content else _code(media_type)


def _types(schemas: Json) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        described = _object(schema)
        yield f"<details id='type-{_text(name)}'><summary><code>{_text(described.get('title', name))}</code>"
        yield f"</summary><div><p>{_text(described.get('description', ''))}</p>"
        if "enum" in described:
            yield f"<p>{_shape(described)}</p>"
        required = described.get("required", [])
        rows = (
            [_code(field), _shape(_object(s)), _meaning(_object(s), field in cast("list[str]", required))]
            for field, s in _object(described.get("properties", {})).items()
        )
        if "properties" in described:
            yield _table(("Field", "Type", "Meaning"), rows)
        yield "</div></details>"


def _meaning(schema: Json, required: bool) -> str:
    said = [str(schema["description"])] if "description" in schema else []
    if required:
        said.append("always there")
    elif schema.get("default") not in (None, {}, []):
        said.append(f"default {msgspec.json.encode(schema['default']).decode()}")
    return _text("; ".join(said))


def _shape(schema: Json) -> str:
    """A type in a few words, linked to its description where it has one of its own."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"<a href='#type-{_text(name)}'><code>{_text(name)}</code></a>"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(_shape(choice) for choice in _list(schema[word]))
    if "enum" in schema:
        return ", ".join(_code(value) for value in cast("list[object]", schema["enum"]))
    kind = str(schema.get("type", "any JSON value"))
    if kind == "array" and "prefixItems" in schema:
        return ", ".join(_shape(_object(item)) for item in _list(schema["prefixItems"]))
    if kind == "array" and "items" in schema:
        return f"list of {_shape(_object(schema['items']))}"
    return _text(schema.get("format", kind))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = "".join(f"<th scope=col>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def _code(value: object) -> str:
    return f"<code>{_text(value)}</code>"


def _text(value: object) -> str:
    return escape(str(value))


def _object(value: object) -> Json:
    assert isinstance(value, Mapping)
    return cast(Json, value)


def _list(value: object) -> list[Json]:
    assert isinstance(value, list)
    return cast("list[Json]", value)
