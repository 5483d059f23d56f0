"""*Alerts*: what fires and what fired, acknowledged and silenced; by which rules, and over which channels."""

import msgspec
from litestar import Response, get, post

from ringbearer.api.answers import Page
from ringbearer.api.auth import Action
from ringbearer.dashboard.audit import note
from ringbearer.dashboard.doorway import redirect
from ringbearer.dashboard.rendering import page
from ringbearer.dashboard.services import (
    PageRequest,
    PageServices,
    query_of,
    read_change,
    require_everybodys,
)
from ringbearer.dashboard.sessions import Visitor
from ringbearer.domain.alerts import Alert, Channel, Rule, Silence
from ringbearer.errors import InvalidInput

_PAST = 25
_ALL = {"limit": 250}
_SAID = {
    "acknowledged": "Acknowledged: nobody else is told of it.",
    "silenced": "Silenced. Alerts begin and end all the same; nobody is told.",
    "ended": "The silence is over.",
    "tested": "The channel took the test message.",
}


@get("/alerts")
async def list_alerts(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """What fires now on top, what is over below."""
    require_everybodys(visitor, Action.SEE_SERVICE)
    query, key, api = query_of(request), visitor.key, services.api
    firing = await api.get(key, "/v1/alerts", Page[Alert], {"state": "firing", **_ALL})
    over = await api.get(
        key, "/v1/alerts", Page[Alert], {"state": "resolved", "limit": _PAST, "cursor": query.get("older")}
    )
    return page(
        "alerts.html",
        visitor,
        firing=firing.items,
        over=over.items,
        older=over.next,
        silences=(await api.get(key, "/v1/alert-silences", Page[Silence], _ALL)).items,
        rules=(await api.get(key, "/v1/alert-rules", Page[Rule], _ALL)).items,
        channels=(await api.get(key, "/v1/alert-channels", Page[Channel], _ALL)).items,
        may_tune=key.scope == "admin",
        said=_SAID.get(query.get("said", "")),
    )


@post("/alerts/{alert_id:str}/acknowledge")
async def acknowledge(
    alert_id: str, request: PageRequest, visitor: Visitor, services: PageServices
) -> Response[str]:
    """Take care of an alert."""
    await read_change(request, visitor)
    await services.api.send(visitor.key, "POST", f"/v1/alerts/{alert_id}/acknowledge", {})
    note("acknowledge", visitor, alert=alert_id)
    return redirect("/alerts?said=acknowledged")


@post("/alerts/silences")
async def silence(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """Have nobody told for a while."""
    form = await read_change(request, visitor)
    body = {name: form[name] for name in ("rule", "group", "reason") if form.get(name)}
    made = await services.api.send(
        visitor.key,
        "POST",
        "/v1/alert-silences",
        body | {"seconds": _seconds(form.get("hours", ""))},
        Silence,
    )
    note("silence", visitor, silence=made.id)
    return redirect("/alerts?said=silenced")


@post("/alerts/silences/{silence_id:str}/end")
async def end_silence(
    silence_id: str, request: PageRequest, visitor: Visitor, services: PageServices
) -> Response[str]:
    """Let people be told again."""
    await read_change(request, visitor)
    await services.api.send(visitor.key, "DELETE", f"/v1/alert-silences/{silence_id}", {})
    note("end silence", visitor, silence=silence_id)
    return redirect("/alerts?said=ended")


@post("/alerts/channels/{channel_id:str}/test")
async def test_channel(
    channel_id: str, request: PageRequest, visitor: Visitor, services: PageServices
) -> Response[str]:
    """Send a message over a channel now."""
    await read_change(request, visitor)
    await services.api.send(visitor.key, "POST", f"/v1/alert-channels/{channel_id}/test", {})
    note("test channel", visitor, channel=channel_id)
    return redirect("/alerts?said=tested")


def _seconds(hours: str) -> float:
    try:
        return msgspec.convert(hours, float, strict=False) * 3_600
    except msgspec.ValidationError:
        raise InvalidInput("expected a number of hours", [("/hours", "expected a number")]) from None
