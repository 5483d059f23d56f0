"""The command for a month's report, as a page, as lines for spreadsheets, or as JSON."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, decode, path
from ringbearer.cli.options import OUTPUT, examples
from ringbearer.errors import ConfigurationError

app = App(
    name="report",
    help="A month's deliveries and service levels.",
    help_epilogue=examples(
        "ringbearer report --month 2027-06 --format html --output june.html",
        "ringbearer report --month 2027-06 --supplier lumen-photo --format csv",
    ),
    default_parameter=Parameter(negative=()),
)


@app.default
def report(
    *,
    month: Annotated[str, Parameter(help="The month, as 2027-06, in UTC.")],
    format_: Annotated[
        Literal["html", "csv", "json"],
        Parameter(name="--format", group=OUTPUT, help="A page with charts, comma-separated lines, or JSON."),
    ] = "html",
    supplier: Annotated[str | None, Parameter(help="One supplier's report.")] = None,
    output_: Annotated[
        Path | None, Parameter(name="--output", group=OUTPUT, help="File; standard output without it.")
    ] = None,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Make the report of a month: what was delivered, how service levels were kept, whose fault the rest was."""
    with connection.open() as client:
        answer = client.get(path("reports", month), {"supplier_id": supplier})
    text = answer.decode() if format_ == "json" else _rendered(answer, format_)
    if output_ is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    try:
        output_.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write {output_}: {error.strerror or error}") from error
    output.note(f"the report of {month} is in {output_}")


def _rendered(answer: bytes, form: Literal["html", "csv"]) -> str:
    from ringbearer.monitor.rendering import as_csv, as_html
    from ringbearer.monitor.report import Report

    made = decode(answer, Report)
    return as_html(made) if form == "html" else as_csv(made)
