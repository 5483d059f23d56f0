"""The description of the API: complete, well formed, and a page that loads nothing from elsewhere."""

import re
from html.parser import HTMLParser
from typing import cast

import httpx
import pytest

from api.harness import Api, Json
from ringbearer.api.app import create_app
from ringbearer.api.operations import DESCRIPTION, INGEST, MANAGEMENT, SERVICE


@pytest.fixture
def document(api: Api) -> Json:
    """The document as it is served, to anybody."""
    answer = api.as_(None).get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    return cast(Json, answer.json())


def operations(document: Json) -> dict[tuple[str, str], Json]:
    """Each operation by its method and path."""
    paths = cast("dict[str, dict[str, Json]]", document["paths"])
    return {(method.upper(), path): it for path, methods in paths.items() for method, it in methods.items()}


def test_every_route_is_described_and_everything_described_is_a_route(api: Api, document: Json) -> None:
    routes = {
        (str(method), re.sub(r":str}", "}", route.path))
        for route in create_app(lambda: api.services).routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }
    assert routes == {(o.method, o.path) for o in (*MANAGEMENT, *DESCRIPTION)}
    elsewhere = {(o.method, o.path) for o in (*INGEST, *SERVICE)}
    assert set(operations(document)) == routes | elsewhere
    assert elsewhere == {
        ("POST", "/v1/events"),
        ("POST", "/v1/events/batch"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
    }


def test_the_document_is_well_formed(document: Json) -> None:
    assert document["openapi"] == "3.1.0"
    described = operations(document)
    names = [operation["operationId"] for operation in described.values()]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in cast("list[Json]", document["tags"])}
    for (_, path), operation in described.items():
        assert set(cast("list[str]", operation["tags"])) <= tags
        assert operation["summary"]
        parameters = cast("list[Json]", operation.get("parameters", []))
        assert {p["name"] for p in parameters if p["in"] == "path"} == set(re.findall(r"{(\w+)}", path))
        assert all(p.get("required") is True for p in parameters if p["in"] == "path")
        for status, response in cast("dict[str, Json]", operation["responses"]).items():
            assert 200 <= int(status) < 600
            assert "$ref" in response or response["description"]


def test_every_reference_leads_somewhere(document: Json) -> None:
    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                target: object = document
                for step in reference.removeprefix("#/").split("/"):
                    target = cast(Json, target)[step]
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)


def test_what_asks_for_a_key_says_so(document: Json) -> None:
    schemes = cast(Json, cast(Json, document["components"])["securitySchemes"])
    assert cast(Json, schemes["key"])["scheme"] == "bearer"
    assert document["security"] == [{"key": []}]
    for (_, path), operation in operations(document).items():
        statuses = set(cast(Json, operation["responses"]))
        if path.startswith("/v1/"):
            assert {"401", "403", "503"} <= statuses
            assert "security" not in operation
        else:
            assert operation["security"] == []


def test_problems_have_their_media_type(document: Json) -> None:
    responses = cast("dict[str, Json]", cast(Json, document["components"])["responses"])
    assert responses
    for response in responses.values():
        assert list(cast(Json, response["content"])) == ["application/problem+json"]


def test_bodies_are_closed_and_limits_are_said(document: Json) -> None:
    schemas = cast("dict[str, Json]", cast(Json, document["components"])["schemas"])
    for name in (
        "SupplierBody",
        "NewEndpoint",
        "EndpointChange",
        "Rotation",
        "NewKey",
        "ReplayBody",
        "NewEvent",
    ):
        assert schemas[name]["additionalProperties"] is False
    timeout = cast(Json, cast(Json, schemas["EndpointChange"]["properties"])["timeout"])
    assert (timeout["minimum"], timeout["maximum"]) == (1, 30)
    assert "secret" not in cast(Json, schemas["Endpoint"]["properties"])


class _Page(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        for name, value in attrs:
            assert name not in {"style", "onclick"}
            if name in {"href", "src", "action", "srcset"}:
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_from_elsewhere(api: Api) -> None:
    answer = api.as_(None).get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    page = _Page()
    page.feed(answer.text)
    assert page.open == []
    assert not page.tags & {"script", "img", "link", "iframe"}
    assert "http://" not in answer.text
    assert len(set(page.ids)) == len(page.ids)
    for reference in page.references:
        assert reference == "/openapi.json" or reference.removeprefix("#") in page.ids
    for operation in (*INGEST, *MANAGEMENT, *SERVICE, *DESCRIPTION):
        assert operation.name in page.ids
    assert "width=device-width" in answer.text


def test_reading_the_description_takes_no_key_and_no_other_method(api: Api) -> None:
    client: httpx.Client = api.as_(None)
    assert client.get("/docs").status_code == 200
    assert client.get("/openapi.json").status_code == 200
