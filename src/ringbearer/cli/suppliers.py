"""Commands for suppliers: list, show, put, delete."""

from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, Page, decode, path
from ringbearer.cli.options import All, Json, Limit, examples
from ringbearer.cli.wishes import rate
from ringbearer.domain.suppliers import Supplier, Tier
from ringbearer.errors import InvalidInput

app = App(
    name="suppliers",
    help="Those who are told: the tenants.",
    help_epilogue=examples(
        "ringbearer suppliers put lumen-photo --timezone Europe/Paris", "ringbearer suppliers list"
    ),
    default_parameter=Parameter(negative=()),
)

SupplierId = Annotated[str, Parameter(help="Id of the supplier.")]


@app.command(
    name="list", help_epilogue=examples("ringbearer suppliers list", "ringbearer suppliers list --all --json")
)
def list_suppliers(
    *, limit: Limit = 50, all_: All = False, json: Json = False, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """List the suppliers."""
    with connection.open() as client:
        answer = client.items(path("suppliers"), limit=None if all_ else limit)
    if json:
        output.print_json(answer)
        return
    page = decode(answer, Page[Supplier])
    output.print_table(
        ("id", "name", "tier", "time zone", "created"),
        [(s.id, s.name, s.tier, s.timezone, output.when(s.created_at)) for s in page.items],
    )
    output.note_more(page.next)


@app.command(help_epilogue=examples("ringbearer suppliers show lumen-photo"))
def show(supplier: SupplierId, /, *, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Show one supplier."""
    with connection.open() as client:
        _print(client.get(path("suppliers", supplier)), json)


@app.command(
    help_epilogue=examples(
        "ringbearer suppliers put lumen-photo --name 'Lumen Photo' --timezone Europe/Paris",
        'ringbearer suppliers put villa-rosa --tier enterprise --metadata \'{"crm":"own"}\'',
    )
)
def put(
    supplier: Annotated[str, Parameter(help="Id: 1 to 64 of A-Z a-z 0-9 . _ -")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="Name for people.")] = None,
    tier: Annotated[Tier | None, Parameter(help="How important the supplier is.")] = None,
    timezone: Annotated[str | None, Parameter(help="IANA time zone; it decides when Saturday is.")] = None,
    metadata: Annotated[str | None, Parameter(help="A JSON object of your own.")] = None,
    rate_limit: Annotated[
        str | None, Parameter(help="Sends to all its endpoints in a period, such as 100/60s.")
    ] = None,
    max_concurrency: Annotated[
        int | None, Parameter(help="Sends to all its endpoints at the same time, in each worker.")
    ] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Create a supplier, or replace it: what is left out has its default."""
    body: dict[str, object] = {
        "name": name,
        "tier": tier,
        "timezone": timezone,
        "metadata": _object(metadata),
        "rate_limit": None if rate_limit is None else rate(rate_limit),
        "max_concurrency": max_concurrency,
    }
    with connection.open() as client:
        answer = client.send("PUT", path("suppliers", supplier), _given(body))
        _print(answer, json)


@app.command(help_epilogue=examples("ringbearer suppliers delete lumen-photo"))
def delete(supplier: SupplierId, /, *, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Delete a supplier with its endpoints and keys; unfinished deliveries are cancelled."""
    with connection.open() as client:
        client.send("DELETE", path("suppliers", supplier))
    output.note(f"{supplier} is deleted")


def _given(body: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if value is not None}


def _object(text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"--metadata is not a JSON object: {error}") from error


def _print(answer: bytes, json: bool) -> None:
    if json:
        output.print_json(answer)
        return
    supplier = decode(answer, Supplier)
    output.print_fields(
        (
            ("id", supplier.id),
            ("name", supplier.name),
            ("tier", supplier.tier),
            ("time zone", supplier.timezone),
            ("metadata", msgspec.json.encode(supplier.metadata).decode() if supplier.metadata else None),
            (
                "rate limit",
                None
                if supplier.rate_limit is None
                else f"{supplier.rate_limit.requests} in {output.span(supplier.rate_limit.period)}",
            ),
            ("at the same time", supplier.max_concurrency),
            ("created", output.exactly(supplier.created_at)),
            ("changed", output.exactly(supplier.updated_at)),
        )
    )
