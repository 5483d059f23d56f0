"""Commands for API keys (list, create, delete) and for the key under which secrets are kept."""

from typing import Annotated

from cyclopts import App, Parameter

from ringbearer.cli import output, service
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, Page, decode, path
from ringbearer.cli.options import All, Json, Limit, examples
from ringbearer.domain.keys import Key

app = App(
    name="keys",
    help="Keys to the API, and the key under which secrets are kept.",
    help_epilogue=examples("ringbearer keys create --scope publish --name shop", "ringbearer keys list"),
    default_parameter=Parameter(negative=()),
)


class KeyWithText(Key, frozen=True, kw_only=True):
    """What the API answers when a key is new: the only time that it is shown."""

    key: str


@app.command(name="list", help_epilogue=examples("ringbearer keys list"))
def list_keys(
    *, limit: Limit = 50, all_: All = False, json: Json = False, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """List the keys; of each, only its end is known."""
    with connection.open() as client:
        answer = client.items(path("keys"), limit=None if all_ else limit)
    if json:
        output.print_json(answer)
        return
    page = decode(answer, Page[Key])
    output.print_table(
        ("id", "scope", "name", "ends in", "created"),
        [(k.id, k.scope, k.name, k.last_four, output.when(k.created_at)) for k in page.items],
    )
    output.note_more(page.next)


@app.command(
    help_epilogue=examples(
        "ringbearer keys create --scope publish --name shop",
        "ringbearer keys create --scope supplier:lumen-photo",
    )
)
def create(
    *,
    scope: Annotated[str, Parameter(help="admin, publish, read, scaling or supplier:ID.")],
    name: Annotated[str | None, Parameter(help="What it is for.")] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Create a key. The answer shows it, this one time."""
    body = {"scope": scope} if name is None else {"scope": scope, "name": name}
    with connection.open() as client:
        answer = client.send("POST", path("keys"), body)
    if json:
        output.print_json(answer)
        return
    made = decode(answer, KeyWithText)
    output.print_fields((("id", made.id), ("scope", made.scope), ("name", made.name)))
    output.print_secret("Key", made.key)


@app.command(help_epilogue=examples("ringbearer keys delete key_0197…"))
def delete(
    key_id: Annotated[str, Parameter(help="Id of the key, key_….")],
    /,
    *,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Delete a key; who uses it is locked out at once."""
    with connection.open() as client:
        client.send("DELETE", path("keys", key_id))
    output.note(f"{key_id} is deleted")


app.command(
    service.rotate_encryption,
    name="rotate-encryption",
    help_epilogue=examples("ringbearer keys rotate-encryption --data-dir /var/lib/ringbearer"),
)
