"""Commands for endpoints: list, show, create, update, delete, rotate-secret, test, preview, enable, …"""

from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, Page, decode, path
from ringbearer.cli.inputs import read_value
from ringbearer.cli.options import All, Json, Limit, duration, examples
from ringbearer.cli.wishes import ENDPOINT, NO_WISHES, Wishes
from ringbearer.domain.deliveries import Attempt
from ringbearer.domain.endpoints import BasicAuth, Endpoint, OAuth2, Signing
from ringbearer.domain.times import Moment
from ringbearer.errors import InvalidInput

app = App(
    name="endpoints",
    help="Where and how a supplier wants to be told.",
    help_epilogue=examples(
        "ringbearer endpoints create lumen-photo https://lumen.example/hooks",
        "ringbearer endpoints list lumen-photo",
    ),
    default_parameter=Parameter(negative=()),
)

SupplierId = Annotated[str, Parameter(help="Id of the supplier.")]
EndpointId = Annotated[str, Parameter(help="Id of the endpoint, ep_….")]


class EndpointWithSecret(Endpoint, frozen=True, kw_only=True):
    """What the API answers when a secret is new: the only time that it is shown."""

    secret: str | None = None


class NewSecret(msgspec.Struct):
    """What the API answers to `rotate-secret`, as far as it is shown."""

    secret: str


class Breaker(msgspec.Struct, kw_only=True):
    """What the API answers of a circuit breaker, as far as it is shown."""

    id: str
    state: str
    forced: bool
    since: Moment | None
    opened: int
    reason: str | None
    next_probe: Moment | None


@app.command(name="list", help_epilogue=examples("ringbearer endpoints list lumen-photo"))
def list_endpoints(
    supplier: SupplierId,
    /,
    *,
    limit: Limit = 50,
    all_: All = False,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """List the endpoints of a supplier."""
    with connection.open() as client:
        answer = client.items(path("suppliers", supplier, "endpoints"), limit=None if all_ else limit)
    if json:
        output.print_json(answer)
        return
    page = decode(answer, Page[Endpoint])
    output.print_table(
        ("id", "url", "event types", "state", "created"),
        [(e.id, e.url, ", ".join(e.event_types), _state(e), output.when(e.created_at)) for e in page.items],
    )
    output.note_more(page.next)


@app.command(help_epilogue=examples("ringbearer endpoints show lumen-photo ep_0197…"))
def show(
    supplier: SupplierId,
    endpoint: EndpointId,
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Show one endpoint."""
    with connection.open() as client:
        _print(client.get(_path(supplier, endpoint)), json)


@app.command(
    help_epilogue=examples(
        "ringbearer endpoints create lumen-photo https://lumen.example/hooks",
        "ringbearer endpoints create lumen-photo https://lumen.example/hooks"
        " --event-types 'booking.*,payment.received' --rate-limit 100/60s",
    )
)
def create(
    supplier: SupplierId,
    url: Annotated[str, Parameter(help="Where to send: https://….")],
    /,
    *,
    wishes: Wishes = NO_WISHES,
    secret: Annotated[
        str | None,
        Parameter(
            group=ENDPOINT,
            allow_leading_hyphen=True,
            help="Your own secret, whsec_…; @FILE or - reads it. Default: a new one.",
        ),
    ] = None,
    signing: Annotated[
        Signing | None, Parameter(group=ENDPOINT, help="How it is signed: shared secret or key pair.")
    ] = None,
    disabled: Annotated[
        bool, Parameter(group=ENDPOINT, help="Create it disabled: its deliveries are held.")
    ] = False,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Create an endpoint. The answer shows its secret, this one time."""
    body: dict[str, object] = {"url": url, **wishes.body()}
    if secret is not None:
        body["secret"] = read_value(secret).decode().strip()
    if signing is not None:
        body["signing"] = signing
    if disabled:
        body["enabled"] = False
    with connection.open() as client:
        _print(client.send("POST", path("suppliers", supplier, "endpoints"), body), json)


@app.command(
    help_epilogue=examples(
        "ringbearer endpoints update lumen-photo ep_0197… --url https://new.lumen.example/hooks",
        "ringbearer endpoints update lumen-photo ep_0197… --timeout 20s --clear rate_limit",
    )
)
def update(
    supplier: SupplierId,
    endpoint: EndpointId,
    /,
    *,
    url: Annotated[str | None, Parameter(group=ENDPOINT, help="A new address.")] = None,
    wishes: Wishes = NO_WISHES,
    clear: Annotated[
        list[
            Literal[
                "auth",
                "ca",
                "client_certificate",
                "compression",
                "description",
                "event_version",
                "fields",
                "max_concurrency",
                "rate_limit",
            ]
        ]
        | None,
        Parameter(group=ENDPOINT, help="Have no such thing any more; repeatable."),
    ] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Change what is given of an endpoint, and nothing else."""
    body: dict[str, object] = {**wishes.body(), **dict.fromkeys(clear or [])}
    if url is not None:
        body["url"] = url
    if not body:
        raise InvalidInput("nothing to change: give at least one option")
    with connection.open() as client:
        _print(client.send("PATCH", _path(supplier, endpoint), body), json)


@app.command(help_epilogue=examples("ringbearer endpoints delete lumen-photo ep_0197…"))
def delete(
    supplier: SupplierId, endpoint: EndpointId, /, *, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """Delete an endpoint; its unfinished deliveries are cancelled."""
    with connection.open() as client:
        client.send("DELETE", _path(supplier, endpoint))
    output.note(f"{endpoint} is deleted")


@app.command(
    name="rotate-secret",
    help_epilogue=examples(
        "ringbearer endpoints rotate-secret lumen-photo ep_0197…",
        "ringbearer endpoints rotate-secret lumen-photo ep_0197… --grace 24h",
    ),
)
def rotate_secret(
    supplier: SupplierId,
    endpoint: EndpointId,
    /,
    *,
    grace: Annotated[
        str | None, Parameter(group=ENDPOINT, help="How long the old secret signs too, such as 24h.")
    ] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Give an endpoint a new secret; until the grace ends, old and new both sign."""
    body = {} if grace is None else {"grace": duration(grace)}
    with connection.open() as client:
        answer = client.send("POST", _path(supplier, endpoint, "rotate-secret"), body)
    if json:
        output.print_json(answer)
    else:
        output.print_secret("New signing secret", decode(answer, NewSecret).secret)


@app.command(name="test", help_epilogue=examples("ringbearer endpoints test lumen-photo ep_0197…"))
def send_sample(
    supplier: SupplierId,
    endpoint: EndpointId,
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Send one signed sample event now; the exit status is 1 when the endpoint does not take it."""
    with connection.open() as client:
        answer = client.send("POST", _path(supplier, endpoint, "test"))
    attempt = decode(answer, Attempt)
    if json:
        output.print_json(answer)
    else:
        output.print_fields(
            (
                ("status", attempt.status_code),
                ("error", attempt.error),
                ("duration", output.span(attempt.duration)),
                ("answer", attempt.response_body),
            )
        )
    return 0 if attempt.status_code is not None and 200 <= attempt.status_code < 300 else 1


class Preview(msgspec.Struct):
    """What the API answers to `preview`."""

    url: str
    headers: dict[str, str]
    body: str
    size: int


@app.command(
    name="preview",
    help_epilogue=examples(
        "ringbearer endpoints preview lumen-photo ep_0197…",
        "ringbearer endpoints preview lumen-photo ep_0197… --event evt_0197…",
        "ringbearer endpoints preview lumen-photo ep_0197… --type booking.confirmed --data @booking.json",
    ),
)
def show_request(
    supplier: SupplierId,
    endpoint: EndpointId,
    /,
    *,
    event: Annotated[str | None, Parameter(group=ENDPOINT, help="An event that was accepted, evt_….")] = None,
    type_: Annotated[
        str | None, Parameter(name="--type", group=ENDPOINT, help="Type of an event that is made up.")
    ] = None,
    data: Annotated[
        str | None,
        Parameter(group=ENDPOINT, allow_leading_hyphen=True, help="Its data, JSON; @FILE or - reads it."),
    ] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Show the request that an event would make; nothing is sent."""
    body: dict[str, object] = {}
    if event is not None:
        body["event_id"] = event
    if type_ is not None:
        body["type"] = type_
    if data is not None:
        try:
            body["data"] = msgspec.json.decode(read_value(data))
        except msgspec.DecodeError as error:
            raise InvalidInput(f"--data is not JSON: {error}") from None
    with connection.open() as client:
        answer = client.send("POST", _path(supplier, endpoint, "preview"), body)
    if json:
        output.print_json(answer)
        return
    shown = decode(answer, Preview)
    output.print_fields(
        (
            ("url", shown.url),
            ("headers", "\n".join(f"{name}: {value}" for name, value in shown.headers.items())),
            ("body", shown.body),
            ("bytes sent", shown.size),
        )
    )


@app.command(help_epilogue=examples("ringbearer endpoints enable lumen-photo ep_0197…"))
def enable(
    supplier: SupplierId, endpoint: EndpointId, /, *, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """Enable an endpoint: its held deliveries are released."""
    with connection.open() as client:
        client.send("POST", _path(supplier, endpoint, "enable"))
    output.note(f"{endpoint} is enabled; held deliveries are released")


@app.command(help_epilogue=examples("ringbearer endpoints disable lumen-photo ep_0197…"))
def disable(
    supplier: SupplierId, endpoint: EndpointId, /, *, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """Disable an endpoint: its deliveries are held, none is lost."""
    with connection.open() as client:
        client.send("POST", _path(supplier, endpoint, "disable"))
    output.note(f"{endpoint} is disabled; its deliveries are held")


@app.command(
    help_epilogue=examples(
        "ringbearer endpoints breaker lumen-photo ep_0197…",
        "ringbearer endpoints breaker lumen-photo ep_0197… --set open",
        "ringbearer endpoints breaker lumen-photo ep_0197… --set auto",
    )
)
def breaker(
    supplier: SupplierId,
    endpoint: EndpointId,
    /,
    *,
    to: Annotated[
        Literal["open", "closed", "auto"] | None,
        Parameter(name="--set", group=ENDPOINT, help="Force it open or closed, or take that back."),
    ] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Show where an endpoint's circuit breaker stands, or force it open or closed."""
    where = _path(supplier, endpoint, "breaker")
    with connection.open() as client:
        answer = client.send("GET", where) if to is None else client.send("POST", where, {"state": to})
    if json:
        output.print_json(answer)
        return
    shown = decode(answer, Breaker)
    output.print_fields(
        (
            ("endpoint", shown.id),
            ("state", shown.state.replace("_", "-") + (", forced" if shown.forced else "")),
            ("since", None if shown.since is None else output.exactly(shown.since)),
            ("reason", shown.reason),
            ("opened in a row", shown.opened or None),
            ("next probe", None if shown.next_probe is None else output.exactly(shown.next_probe)),
        )
    )


def _path(supplier: str, endpoint: str, *action: str) -> str:
    return path("suppliers", supplier, "endpoints", endpoint, *action)


def _state(endpoint: Endpoint) -> str:
    return "ok" if endpoint.enabled else "disabled"


def _auth(endpoint: Endpoint) -> str | None:
    match endpoint.auth:
        case BasicAuth(username=name):
            return f"basic, as {name}"
        case OAuth2(client_id=client, token_url=url):
            return f"OAuth 2, as {client} by {url}"
    return None


def _print(answer: bytes, json: bool) -> None:
    if json:
        output.print_json(answer)
        return
    endpoint = decode(answer, EndpointWithSecret)
    limit = endpoint.rate_limit
    output.print_fields(
        (
            ("id", endpoint.id),
            ("supplier", endpoint.supplier_id),
            ("url", endpoint.url),
            ("state", _state(endpoint)),
            ("reason", endpoint.disabled_reason),
            ("event types", ", ".join(endpoint.event_types)),
            ("description", endpoint.description),
            ("headers", "\n".join(f"{n}: {v}" for n, v in endpoint.headers.items()) or None),
            ("rate limit", None if limit is None else f"{limit.requests} in {output.span(limit.period)}"),
            ("at the same time", endpoint.max_concurrency),
            ("timeout", output.span(endpoint.timeout)),
            ("payload", endpoint.payload),
            ("fields", endpoint.fields),
            ("event version", endpoint.event_version),
            ("compression", endpoint.compression),
            ("ordering", endpoint.ordering),
            ("http version", endpoint.http_version),
            ("tls at least", endpoint.tls_min),
            ("own authorities", endpoint.ca),
            ("client certificate", endpoint.client_certificate),
            ("auth", _auth(endpoint)),
            ("tries again after", ", ".join(output.span(wait) for wait in endpoint.retry_schedule)),
            ("signing", endpoint.signing),
            ("public key", endpoint.public_key),
            ("created", output.exactly(endpoint.created_at)),
            ("changed", output.exactly(endpoint.updated_at)),
        )
    )
    if endpoint.secret is not None:
        output.print_secret("Signing secret", endpoint.secret)
