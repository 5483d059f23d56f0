"""The options of an endpoint over HTTP: what they may be, that they stay, and that no secret is shown again."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import cast

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from api.harness import URL, Api, Json, pointers
from hostile.certificates import Authority, Issued, Key
from ringbearer.domain.endpoints import Credentials

ENDPOINTS = "/v1/suppliers/lumen/endpoints"
_AUTHORITY = Authority("of the receiver")
_DAY = timedelta(days=1)


def _pem(issued: Issued) -> str:
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in issued.chain)


def _key_pem(key: Key, password: bytes | None = None) -> str:
    hidden = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden).decode()


_OURS = _AUTHORITY.issue("lumen")
_CERTIFICATE, _KEY = _pem(_OURS), _key_pem(_OURS.key)
OAUTH2 = {
    "type": "oauth2",
    "token_url": "https://93.184.215.14/token",
    "client_id": "studio",
    "client_secret": "hush-hush-2",
    "scope": "hooks",
}


@pytest.fixture
def supplier(api: Api) -> str:
    """The supplier lumen."""
    return api.supplier()


def _credentials(api: Api, endpoint_id: object) -> Credentials:
    return api.storage.catalog.subscriptions(["lumen"])["lumen"].targets[str(endpoint_id)].credentials


def test_options_have_their_defaults(admin: httpx.Client, supplier: str) -> None:
    made = admin.post(ENDPOINTS, json={"url": URL}).json()
    options = [
        "payload",
        "fields",
        "compression",
        "ordering",
        "http_version",
        "tls_min",
        "ca",
        "client_certificate",
        "auth",
    ]
    assert {name: made[name] for name in options} == {
        "payload": "full",
        "fields": None,
        "compression": None,
        "ordering": "key",
        "http_version": "auto",
        "tls_min": "1.2",
        "ca": None,
        "client_certificate": None,
        "auth": None,
    }


def test_options_stay_as_they_were_set(admin: httpx.Client, supplier: str) -> None:
    options = {
        "payload": "compact",
        "fields": "{id: id, date: date}",
        "compression": "zstd",
        "ordering": "endpoint",
        "http_version": "1.1",
        "tls_min": "1.3",
        "ca": _AUTHORITY.pem().decode(),
    }
    made = admin.post(ENDPOINTS, json={"url": URL, **options}).json()
    one = f"{ENDPOINTS}/{made['id']}"
    assert made | options == made
    assert admin.get(one).json() | options == admin.get(one).json()
    changed = admin.patch(one, json={"compression": None, "tls_min": "1.2", "timeout": 7}).json()
    expected = options | {"compression": None, "tls_min": "1.2"}
    assert changed | expected == changed


def test_credentials_are_kept_and_never_shown(api: Api, admin: httpx.Client, supplier: str) -> None:
    auth = {"type": "basic", "username": "studio", "password": "hush-hush-1"}
    given = {"url": URL, "auth": auth, "client_certificate": _CERTIFICATE, "client_key": _KEY}
    answers = [admin.post(ENDPOINTS, json=given)]
    made = answers[0].json()
    one = f"{ENDPOINTS}/{made['id']}"
    assert _credentials(api, made["id"]) == Credentials(auth="hush-hush-1", client_key=_KEY)
    answers += [
        admin.get(one),
        admin.get(ENDPOINTS),
        api.as_("read").get(one),
        admin.patch(one, json={"timeout": 3}),
        admin.post(f"{one}/enable"),
        admin.post(f"{one}/preview"),
    ]
    assert [answer.is_success for answer in answers] == [True] * len(answers)
    for answer in answers:
        assert "hush-hush-1" not in answer.text
        assert "aHVzaC1odXNoLTE" not in answer.text
        assert "PRIVATE" not in answer.text
        assert "c3R1ZGlvOmh1c2gtaHVzaC0x" not in answer.text  # studio:hush-hush-1 in base64
    assert made["auth"] == {"type": "basic", "username": "studio"}
    assert made["client_certificate"] == _CERTIFICATE


def test_credentials_lie_sealed_in_the_store(api: Api, admin: httpx.Client, supplier: str) -> None:
    auth = {"type": "basic", "username": "studio", "password": "hush-hush-1"}
    admin.post(
        ENDPOINTS, json={"url": URL, "auth": auth, "client_certificate": _CERTIFICATE, "client_key": _KEY}
    )
    with api.storage.database.read() as connection:
        row = connection.exec_driver_sql("SELECT * FROM endpoints").one()
    stored = b" ".join(bytes(x) if isinstance(x, bytes) else str(x).encode() for x in row)
    assert b"hush-hush-1" not in stored
    assert b"PRIVATE" not in stored


def test_one_credential_is_changed_and_the_other_stays(api: Api, admin: httpx.Client, supplier: str) -> None:
    auth = {"type": "basic", "username": "studio", "password": "one"}
    made = admin.post(
        ENDPOINTS, json={"url": URL, "auth": auth, "client_certificate": _CERTIFICATE, "client_key": _KEY}
    ).json()
    one = f"{ENDPOINTS}/{made['id']}"
    admin.patch(one, json={"auth": auth | {"password": "two"}})
    assert _credentials(api, made["id"]) == Credentials(auth="two", client_key=_KEY)
    assert admin.patch(one, json={"client_certificate": None}).json()["client_certificate"] is None
    assert _credentials(api, made["id"]) == Credentials(auth="two")
    assert admin.patch(one, json={"auth": None}).json()["auth"] is None
    assert _credentials(api, made["id"]) == Credentials()


def test_an_oauth2_client_is_shown_without_its_secret(api: Api, admin: httpx.Client, supplier: str) -> None:
    answer = admin.post(ENDPOINTS, json={"url": URL, "auth": OAUTH2})
    assert "hush" not in answer.text
    made = answer.json()
    shown = {name: value for name, value in OAUTH2.items() if name != "client_secret"}
    assert made["auth"] == shown | {"audience": None, "client_auth": "basic"}
    assert _credentials(api, made["id"]) == Credentials(auth="hush-hush-2")
    one = f"{ENDPOINTS}/{made['id']}"
    assert pointers(admin.patch(one, json={"auth": made["auth"]})) == [
        "/auth"
    ]  # its secret comes again with it
    preview = admin.post(f"{one}/preview").json()
    assert not any(name.lower() == "authorization" for name in preview["headers"])


_OTHER = _AUTHORITY.issue("other")
_OLD = _AUTHORITY.issue("lumen", starts=-9 * _DAY, ends=-_DAY)
_SMALL = rsa.generate_private_key(65_537, 1_024)
_WEAK = _AUTHORITY.issue("lumen", key=_SMALL)

UNFIT: list[tuple[Mapping[str, object], str]] = [
    *(({"payload": value}, "/payload") for value in ("thick", "", None, 5)),
    *(({"compression": value}, "/compression") for value in ("br", "", "deflate", 5)),
    *(({"ordering": value}, "/ordering") for value in ("fifo", None)),
    *(({"http_version": value}, "/http_version") for value in ("2.0", "0.9", None, 3)),
    *(({"tls_min": value}, "/tls_min") for value in ("1.1", "1.0", "SSLv3", None, 1.3)),
    ({"fields": "a"}, "/fields"),
    ({"payload": "thin", "fields": "a"}, "/fields"),
    *(
        ({"payload": "compact", "fields": value}, "/fields")
        for value in ("", "a.", "nope(@)", "x" * 3_000, 5)
    ),
    *(({"ca": value}, "/ca") for value in ("", "hello", _KEY, _CERTIFICATE + _KEY, _pem(_OLD), "x" * 50_000)),
    ({"ca": _CERTIFICATE.replace("\n", "\r\n\x00")}, "/ca"),
    ({"client_certificate": _CERTIFICATE}, "/client_key"),
    ({"client_key": _KEY}, "/client_certificate"),
    ({"client_certificate": None, "client_key": _KEY}, "/client_certificate"),
    ({"client_certificate": _CERTIFICATE, "client_key": _key_pem(_OTHER.key)}, "/client_certificate"),
    ({"client_certificate": _CERTIFICATE, "client_key": _CERTIFICATE}, "/client_certificate"),
    (
        {"client_certificate": _CERTIFICATE, "client_key": _key_pem(_OURS.key, b"secret")},
        "/client_certificate",
    ),
    ({"client_certificate": _pem(_OLD), "client_key": _key_pem(_OLD.key)}, "/client_certificate"),
    ({"client_certificate": _pem(_WEAK), "client_key": _key_pem(_SMALL)}, "/client_certificate"),
    ({"client_certificate": _KEY + _CERTIFICATE, "client_key": _KEY}, "/client_certificate"),
    ({"auth": {"type": "basic", "username": "a:b", "password": "hush"}}, "/auth/username"),
    ({"auth": {"type": "basic", "username": "a"}}, "/auth"),
    ({"auth": {"type": "basic", "username": "a", "password": "hush\r\nx: y"}}, "/auth/password"),
    ({"auth": {"type": "digest", "username": "a", "password": "hush"}}, "/auth"),
    ({"auth": {"type": "basic", "username": "a", "password": "hush", "realm": "x"}}, "/auth"),
    ({"auth": "basic"}, "/auth"),
    *(
        ({"auth": OAUTH2 | {"token_url": url}}, "/auth/token_url")
        for url in (
            "http://127.0.0.1/t",
            "http://169.254.169.254/t",
            "ftp://a.example/",
            "https://u:p@a.example/",
        )
    ),
    ({"auth": {name: value for name, value in OAUTH2.items() if name != "client_secret"}}, "/auth"),
    ({"auth": OAUTH2 | {"client_auth": "jwt"}}, "/auth/client_auth"),
    ({"auth": OAUTH2 | {"client_secret": ""}}, "/auth/client_secret"),
    ({"auth": OAUTH2 | {"scope": "a\nb"}}, "/auth/scope"),
    (
        {
            "auth": {"type": "basic", "username": "a", "password": "hush"},
            "headers": {"AUTHORIZATION": "Bearer x"},
        },
        "/auth",
    ),
]


@pytest.mark.parametrize(("fields", "pointer"), UNFIT)
def test_what_does_not_fit_is_refused_and_not_repeated(
    admin: httpx.Client, supplier: str, fields: Mapping[str, object], pointer: str
) -> None:
    answer = admin.post(ENDPOINTS, json={"url": URL, **fields})
    assert any(each.startswith(pointer) for each in pointers(answer)), answer.text
    assert "PRIVATE KEY-----" not in answer.text
    assert "hush" not in answer.text
    made = admin.post(ENDPOINTS, json={"url": URL}).json()
    assert admin.patch(f"{ENDPOINTS}/{made['id']}", json=fields).status_code == 422


def test_a_change_must_fit_what_stays(admin: httpx.Client, supplier: str) -> None:
    made = admin.post(ENDPOINTS, json={"url": URL, "payload": "compact", "fields": "a"}).json()
    one = f"{ENDPOINTS}/{made['id']}"
    assert pointers(admin.patch(one, json={"payload": "thin"})) == ["/fields"]
    assert admin.get(one).json()["payload"] == "compact"
    assert admin.patch(one, json={"payload": "thin", "fields": None}).is_success


# ── preview ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_preview_shows_an_accepted_event_in_the_endpoints_form(api: Api, admin: httpx.Client) -> None:
    api.supplier()
    made = api.endpoint(
        payload="compact", fields="{m: n}", headers={"X-Team": "a", "Authorization": "Bearer x"}
    )
    (delivery_id,) = api.event("lumen", [str(made["id"])])
    event_id = "evt_" + delivery_id[4:36]
    answer = admin.post(f"{ENDPOINTS}/{made['id']}/preview", json={"event_id": event_id})
    assert answer.status_code == 200, answer.text
    shown = cast(Json, answer.json())
    assert json.loads(str(shown["body"]))["data"] == {"m": 1.5}
    headers = cast(dict[str, str], shown["headers"])
    assert headers["X-Team"] == "a"
    assert headers["Authorization"] == "***"
    assert headers["webhook-signature"].startswith("v1,")
    assert shown["url"] == URL
    assert api.tested == []


def test_a_preview_of_an_event_that_is_made_up(api: Api, admin: httpx.Client) -> None:
    api.supplier()
    one = f"{ENDPOINTS}/{api.endpoint()['id']}"
    body = json.loads(admin.post(f"{one}/preview", json={"type": "a.b", "data": [1]}).json()["body"])
    assert (body["type"], body["data"]) == ("a.b", [1])
    assert json.loads(admin.post(f"{one}/preview").json()["body"])["type"] == "ringbearer.test"
    assert pointers(admin.post(f"{one}/preview", json={"type": "a b"})) == ["/type"]


def test_a_preview_of_what_cannot_be_made_is_a_conflict(api: Api, admin: httpx.Client) -> None:
    api.supplier()
    made = api.endpoint(payload="compact", fields="length(n)")
    answer = admin.post(f"{ENDPOINTS}/{made['id']}/preview", json={"data": {"n": 1}})
    assert answer.status_code == 409
    assert "length(n)" in answer.json()["detail"]


def test_nobody_previews_anothers_events_or_endpoints(api: Api, admin: httpx.Client) -> None:
    api.supplier()
    api.supplier("other")
    mine, theirs = api.endpoint(), api.endpoint("other")
    (delivery_id,) = api.event("other", [str(theirs["id"])])
    event_id = "evt_" + delivery_id[4:36]
    owner = api.as_("supplier:lumen")
    assert owner.post(f"{ENDPOINTS}/{mine['id']}/preview", json={"event_id": event_id}).status_code == 404
    assert owner.post(f"/v1/suppliers/other/endpoints/{theirs['id']}/preview").status_code == 404
    assert api.as_("read").post(f"{ENDPOINTS}/{mine['id']}/preview").status_code == 403
