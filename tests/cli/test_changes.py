"""What is created, changed and deleted is sent as it was said, and what came of it shown."""

import json
from pathlib import Path

import pytest

from cli.canned import DELIVERY, ENDPOINT, NOW, SUPPLIER, CannedApi, against


def test_a_supplier_is_put_with_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((201, SUPPLIER))
    options = ("--tier", "premium", "--timezone", "Europe/Paris", "--metadata", '{"crm":"own"}')
    assert against(api, "suppliers", "put", "lumen", *options) == 0
    assert (api.asked[0].method, api.asked[0].path) == ("PUT", "/v1/suppliers/lumen")
    assert json.loads(api.asked[0].body) == {
        "tier": "premium",
        "timezone": "Europe/Paris",
        "metadata": {"crm": "own"},
    }
    assert "Lumen" in capsys.readouterr().out


def test_an_endpoint_is_created_and_its_secret_shown(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((201, {**ENDPOINT, "secret": "whsec_c2VjcmV0"}))
    url = "https://lumen.example/hooks"
    options = (
        *("--event-types", "booking.*,payment.received", "--event-types", "a.b"),
        *("--header", "X-One: 1", "--header", "Authorization: Bearer a:b"),
        *("--rate-limit", "100/1m", "--max-concurrency", "4", "--timeout", "20s"),
        *("--retry-schedule", "1,1.5s,2m", "--disabled", "--signing", "hmac"),
    )
    assert against(api, "endpoints", "create", "lumen", url, *options) == 0
    assert json.loads(api.asked[0].body) == {
        "url": url,
        "event_types": ["booking.*", "payment.received", "a.b"],
        "headers": {"X-One": "1", "Authorization": "Bearer a:b"},
        "rate_limit": {"requests": 100, "period": 60.0},
        "max_concurrency": 4,
        "timeout": 20.0,
        "retry_schedule": [1.0, 1.5, 120.0],
        "enabled": False,
        "signing": "hmac",
    }
    text = capsys.readouterr().out
    assert "whsec_c2VjcmV0" in text
    assert "shown only now" in text


def test_an_own_secret_can_stay_out_of_the_process_list(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("whsec_c2VjcmV0\n")
    api = CannedApi((201, {**ENDPOINT, "secret": "whsec_c2VjcmV0"}))
    assert against(api, "endpoints", "create", "lumen", "https://l.example", "--secret", "@secret") == 0
    assert json.loads(api.asked[0].body)["secret"] == "whsec_c2VjcmV0"


def test_an_update_sends_only_what_changes(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((200, ENDPOINT))
    arguments = (
        "endpoints",
        "update",
        "lumen",
        "ep_1",
        "--url",
        "https://n.example",
        "--clear",
        "rate_limit",
    )
    assert against(api, *arguments) == 0
    assert api.asked[0].method == "PATCH"
    assert json.loads(api.asked[0].body) == {"url": "https://n.example", "rate_limit": None}
    assert against(api, "endpoints", "update", "lumen", "ep_1") == 1
    assert "nothing to change" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["enable", "disable"])
def test_endpoints_are_switched(action: str) -> None:
    api = CannedApi((200, ENDPOINT))
    assert against(api, "endpoints", action, "lumen", "ep_1") == 0
    assert (api.asked[0].method, api.asked[0].path) == (
        "POST",
        f"/v1/suppliers/lumen/endpoints/ep_1/{action}",
    )


def test_a_rotated_secret_is_shown_with_its_grace(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((200, {"secret": "whsec_bmV3"}))
    assert against(api, "endpoints", "rotate-secret", "lumen", "ep_1", "--grace", "24h") == 0
    assert json.loads(api.asked[0].body) == {"grace": 86_400.0}
    assert "whsec_bmV3" in capsys.readouterr().out


@pytest.mark.parametrize(("status_code", "exit_status"), [(204, 0), (500, 1), (None, 1)])
def test_a_sample_that_is_not_taken_is_a_failure(status_code: int | None, exit_status: int) -> None:
    attempt = {"number": 1, "started_at": NOW, "duration": 0.1, "status_code": status_code}
    assert against(CannedApi((200, attempt)), "endpoints", "test", "lumen", "ep_1") == exit_status


def test_a_key_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    made = {"id": "key_1", "scope": "publish", "created_at": NOW, "last_four": "wxyz", "key": "rb_wxyz"}
    api = CannedApi((201, made))
    assert against(api, "keys", "create", "--scope", "publish", "--name", "shop") == 0
    assert json.loads(api.asked[0].body) == {"scope": "publish", "name": "shop"}
    assert "rb_wxyz" in capsys.readouterr().out


def test_a_replay_needs_a_filter(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((202, {"matched": 12, "replay_id": "rpl_1"}))
    assert against(api, "deliveries", "replay") == 1
    assert not api.asked
    assert against(api, "deliveries", "replay", "--state", "dead") == 0
    assert json.loads(api.asked[0].body) == {"state": "dead"}
    assert "12" in capsys.readouterr().out


def test_several_deliveries_are_retried_at_once() -> None:
    api = CannedApi((202, DELIVERY))
    assert against(api, "deliveries", "retry", "dlv_1", "dlv_2") == 0
    assert [asked.path for asked in api.asked] == ["/v1/deliveries/dlv_1/retry", "/v1/deliveries/dlv_2/retry"]
