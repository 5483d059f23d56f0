"""Profiles and encodings: what a receiver gets, the same bytes on every attempt."""

import gzip
import json

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.making import SECRET, endpoint, lease_of
from ringbearer.delivery.payload import content_for, without_empty
from ringbearer.delivery.routes import Routes
from ringbearer.delivery.sample import preview
from ringbearer.domain.deliveries import Lease
from ringbearer.domain.endpoints import NO_CREDENTIALS, BasicAuth, Credentials, Endpoint, Profile, Target
from ringbearer.errors import PayloadFailed

DATA = '{"id":"b1","n": 1.50,"note":"","tags":[],"guests":[{"name":"Ada","diet":null},null,{}],"paid":false}'


def _lease(data: str = DATA, attempt: int = 1) -> Lease:
    return lease_of(data=data, attempt=attempt)


def _content(made: Endpoint, data: str = DATA) -> bytes:
    return content_for(_target(made), public_url="https://hooks.example.com/")(_lease(data))


def _target(
    made: Endpoint, credentials: Credentials = NO_CREDENTIALS, shapes: dict[str, str] | None = None
) -> Target:
    return Target(
        endpoint=made, secrets=((SECRET, None),), version=1, credentials=credentials, shapes=shapes or {}
    )


def test_full_is_the_publishers_data_byte_for_byte() -> None:
    assert _content(endpoint()) == (
        b'{"id":"evt_1","type":"booking.confirmed","timestamp":"2027-06-19T14:00:00Z","data":'
        + DATA.encode()
        + b"}"
    )


def test_thin_has_a_link_instead_of_the_data() -> None:
    assert json.loads(_content(endpoint(payload="thin"))) == {
        "id": "evt_1",
        "type": "booking.confirmed",
        "timestamp": "2027-06-19T14:00:00Z",
        "link": "https://hooks.example.com/v1/events/evt_1",
    }


def test_compact_leaves_out_what_is_null_or_empty() -> None:
    body = json.loads(_content(endpoint(payload="compact")))
    assert body["data"] == {"id": "b1", "n": 1.5, "guests": [{"name": "Ada"}, None, {}], "paid": False}


def test_compact_sends_the_selected_fields_alone() -> None:
    made = endpoint(payload="compact", fields="{id: id, first: guests[0].name, note: note}")
    body = _content(made)
    assert json.loads(body)["data"] == {"id": "b1", "first": "Ada"}
    assert b" " not in body


def test_numbers_keep_their_value_in_the_compact_form() -> None:
    big = '{"n":123456789012345678901234567890,"m":0.1}'
    assert json.loads(_content(endpoint(payload="compact"), big))["data"] == json.loads(big)


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ("length(n)", '{"n":1}'),
        ("many", f'{{"many":{[1] * 60_000}}}'),
        (None, "[" * 5_000 + "]" * 5_000),
        (None, f"[{'{},' * 20_000}1]"),
        (None, '{"n": 1e999}'),
    ],
)
def test_what_cannot_be_made_is_told(fields: str | None, data: str) -> None:
    with pytest.raises(PayloadFailed):
        _content(endpoint(payload="compact", fields=fields), data)


def test_a_compressed_body_is_signed_as_it_was_before() -> None:
    plain = _content(endpoint())
    for compression, opened in (("gzip", gzip.decompress), ("zstd", zstandard.decompress)):
        route = Routes().of(_target(endpoint(compression=compression)))
        orders = [route.order(_lease(attempt=n), now=1_800_000_000_000_000) for n in (1, 2)]
        assert orders[0].body == orders[1].body  # each attempt sends the same bytes
        assert opened(orders[0].body) == plain
        assert f"content-encoding: {compression}" in orders[0].headers
        unpacked = Routes().of(_target(endpoint())).order(_lease(), now=1_800_000_000_000_000)
        assert unpacked.headers[-2] == orders[0].headers[-2]
        assert unpacked.headers[-2].startswith("webhook-signature: v1,")


def test_basic_authentication_is_in_each_request() -> None:
    made = endpoint(auth=BasicAuth(username="studio"))
    order = Routes().of(_target(made, credentials=Credentials(auth="pässword"))).order(_lease(), now=0)
    assert "authorization: Basic c3R1ZGlvOnDDpHNzd29yZA==" in order.headers


@pytest.mark.parametrize(
    ("payload", "data"),
    [("full", {"booking": "b1", "note": ""}), ("compact", {"booking": "b1"})],
)
def test_an_endpoint_gets_the_version_that_it_pinned(payload: Profile, data: object) -> None:
    made = endpoint(event_version="2026-01", payload=payload)
    target = _target(made, shapes={"booking.confirmed": "{booking: id, note: note}", "a.b": "nothing"})
    order = Routes().of(target).order(_lease(), now=0)
    assert json.loads(order.body)["data"] == data
    assert "ringbearer-event-version: 2026-01" in order.headers


def test_types_without_a_shape_go_as_they_are_published() -> None:
    target = _target(endpoint(event_version="2026-01"), shapes={"a.b": "nothing"})
    assert Routes().of(target).order(_lease(), now=0).body == _content(endpoint())


def test_a_preview_is_the_request_itself() -> None:
    target = _target(endpoint(payload="compact", fields="{id: id}", compression="gzip"))
    shown = preview(target, event_type="booking.confirmed", data=DATA, public_url="")
    assert json.loads(shown.body)["data"] == {"id": "b1"}
    assert shown.headers["content-encoding"] == "gzip"
    assert shown.headers["ringbearer-attempt"] == "1"
    assert shown.size == len(gzip.compress(shown.body.encode(), 6, mtime=0))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=50)
@given(_JSON)
def test_nothing_empty_is_left_in_an_object_and_nothing_else_is_lost(value: object) -> None:
    kept = without_empty(value)
    assert without_empty(kept) == kept
    rest = [kept]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            assert all(each not in (None, "", [], {}) or each is False for each in item.values())
            rest += item.values()
        elif isinstance(item, list):
            rest += item
    assert msgspec.json.decode(msgspec.json.encode(kept)) == kept
