"""Templates and the words that they are filled with: times, durations, figures."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response
from markupsafe import Markup, escape

from ringbearer.dashboard.assets import asset_path
from ringbearer.dashboard.sessions import Visitor
from ringbearer.domain.alerts import Rule

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # without a referrer, browsers would hide the origin of forms too
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""What goes with every page: nothing from elsewhere, nothing inline, no frame around it, no copy in a cache."""

_ROOMS = (
    ("/", "Now", "now"),
    ("/deliveries", "Deliveries", "deliveries"),
    ("/dead-letters", "Dead letters", "dead"),
    ("/suppliers", "Suppliers", "suppliers"),
    ("/endpoints", "Endpoints", "endpoints"),
    ("/season", "Season", "season"),
    ("/service-levels", "Service levels", "levels"),
    ("/alerts", "Alerts", "alerts"),
)
_TAIL = 14  # of an id's characters
_SHOWN_JSON = 64 * 1024
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def page(
    template: str,
    visitor: Visitor | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: object,
) -> Response[str]:
    """The template as a response."""
    body = _templates.get_template(template).render(visitor=visitor, **context)
    return Response(
        body,
        status_code=status,
        media_type="text/html; charset=utf-8",
        headers={**HEADERS, **(headers or {})},
    )


def warm() -> None:
    """Read and compile every template, which takes a fifth of a second that the first visitor need not wait for."""
    for name in _templates.list_templates():
        _templates.get_template(name)


def fragment(template: str, macro: str, *arguments: object) -> str:
    """One macro of a template, for pages that renew a part of themselves."""
    text: str = getattr(_templates.get_template(template).module, macro)(*arguments)
    return str(text)


def moment(value: datetime | None) -> Markup:
    """A time: in UTC as written here, which the page's script turns into the viewer's own zone."""
    if value is None:
        return Markup("<span class=quiet>–</span>")
    value = value.astimezone(UTC)
    shown = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        value.isoformat(timespec="milliseconds"), shown, shown
    )


def duration(seconds: float | None) -> str:
    """A duration as people say it: 850 µs, 12 ms, 1.4 s, 3 min, 2 h, 5 d."""
    if seconds is None:
        return "–"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s" if seconds < 10 else f"{seconds:.0f} s"


def number(value: float | None) -> str:
    """A figure with thin spaces between thousands, and decimals only where they tell something."""
    if value is None:
        return "–"
    decimals = 0 if value == int(value) or abs(value) >= 100 else 1
    return f"{value:,.{decimals}f}".replace(",", "\u202f")


def percent(share: float | None) -> str:
    """A share as per cent; never rounded up to a hundred that it is not."""
    if share is None:
        return "–"
    if 0.9999 <= share < 1:
        return "99.99 %"
    return "100 %" if share == 1 else f"{share * 100:.2f} %"


def pretty_json(text: str) -> str:
    """JSON with line ends for reading; anything else as it is."""
    if len(text) > _SHOWN_JSON:
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def query(given: Mapping[str, object], **changes: object) -> str:
    """A query string of what is given, with changes; what is empty is left out."""
    merged = {name: str(value) for name, value in {**given, **changes}.items() if value not in (None, "")}
    return "?" + urlencode(merged) if merged else ""


def short(identifier: str) -> Markup:
    """An id by its kind and its end, which is what tells it from its neighbours; the whole of it on hovering."""
    kind, _, rest = identifier.partition("_")
    return Markup('<code class="id" title="{0}">{1}_…{2}</code>').format(identifier, kind, rest[-_TAIL:])


def state_name(state: str) -> str:
    """A delivery's state as people call it."""
    return {"leased": "in flight", "dead": "dead letter"}.get(str(state), str(state))


def condition(rule: Rule) -> str:
    """When an alert rule fires, in the words that its alerts have."""
    bound = f"{'more' if rule.above else 'fewer'} than {rule.threshold:g}"
    whole = rule.summary.replace("of {group}", "of one of them").replace("{group} ", "")
    return whole.replace("{group}", "one of them").replace("{value}", bound)


def rooms(visitor: Visitor) -> tuple[tuple[str, str, str], ...]:
    """The pages that this visitor may open: path, name and icon of each."""
    own = visitor.key.supplier_id
    if own is None:
        return _ROOMS
    return ((f"/suppliers/{own}", "Overview", "suppliers"), *_ROOMS[1:3])


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ringbearer.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "moment": moment,
        "duration": duration,
        "number": number,
        "percent": percent,
        "pretty_json": pretty_json,
        "short": short,
        "condition": condition,
        "rooms": rooms,
        "state_name": state_name,
    }
    environment.globals |= {"asset": asset_path, "query": query, "escape": escape}
    return environment


_templates = _environment()
