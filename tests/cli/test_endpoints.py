"""Options of endpoints on the command line become what the API takes; secrets can come from files."""

import json
from pathlib import Path

import pytest

from cli.canned import ENDPOINT, CannedApi, against

URL = "https://lumen.example/hooks"


def test_options_are_passed_on_as_the_api_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ca", "cert", "key"):
        (tmp_path / f"{name}.pem").write_text(f"-----{name}-----\n")
    api = CannedApi(
        (201, {**ENDPOINT, "payload": "compact", "auth": {"type": "basic", "username": "studio"}})
    )
    options = (
        *("--payload", "compact", "--fields", "{id: id}", "--compression", "zstd", "--ordering", "none"),
        *("--http-version", "1.1", "--tls-min", "1.3", "--ca", "@ca.pem"),
        *("--client-certificate", "@cert.pem", "--client-key", "@key.pem", "--basic", "studio:a:b"),
    )
    assert against(api, "endpoints", "create", "lumen", URL, *options) == 0
    assert json.loads(api.asked[0].body) == {
        "url": URL,
        "payload": "compact",
        "fields": "{id: id}",
        "compression": "zstd",
        "ordering": "none",
        "http_version": "1.1",
        "tls_min": "1.3",
        "ca": "-----ca-----\n",
        "client_certificate": "-----cert-----\n",
        "client_key": "-----key-----\n",
        "auth": {"type": "basic", "username": "studio", "password": "a:b"},
    }
    assert "basic, as studio" in capsys.readouterr().out


def test_an_oauth2_client_is_told_part_by_part(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush=hush\n")
    auth = {"type": "oauth2", "client_id": "studio", "token_url": "https://id.example/t?a=b"}
    api = CannedApi((200, {**ENDPOINT, "auth": auth}))
    parts = [
        "token_url=https://id.example/t?a=b",
        "client_id=studio",
        f"client_secret=@{tmp_path / 'secret'}",
    ]
    arguments = [word for part in parts for word in ("--oauth2", part)]
    assert against(api, "endpoints", "update", "lumen", "ep_1", *arguments) == 0
    assert json.loads(api.asked[0].body) == {"auth": auth | {"client_secret": "hush=hush"}}


@pytest.mark.parametrize(
    "options", [("--basic", "studio"), ("--oauth2", "x"), ("--basic", "a:b", "--oauth2", "client_id=x")]
)
def test_credentials_that_are_half_said_are_refused_here(options: tuple[str, ...]) -> None:
    api = CannedApi()
    assert against(api, "endpoints", "update", "lumen", "ep_1", *options) == 1
    assert api.asked == []


def test_a_preview_shows_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"url": URL, "headers": {"webhook-id": "evt_1"}, "body": '{"id":"evt_1"}', "size": 14}
    api = CannedApi((200, answer))
    options = ("--type", "a.b", "--data", "[1]")
    assert against(api, "endpoints", "preview", "lumen", "ep_1", *options) == 0
    assert json.loads(api.asked[0].body) == {"type": "a.b", "data": [1]}
    out = capsys.readouterr().out
    assert "webhook-id: evt_1" in out
    assert '{"id":"evt_1"}' in out
    assert against(api, "endpoints", "preview", "lumen", "ep_1", "--data", "{") == 1
