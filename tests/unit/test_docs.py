"""The documentation is whole: nothing that can be set, measured, called or linked to is missing from it."""

import ast
import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from cyclopts import App, MissingArgumentError
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from ringbearer.cli.main import app
from ringbearer.monitor.prometheus import PrometheusMetrics
from ringbearer.settings import Settings
from ringbearer.storage.base import open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry
from tools import migrated_sqlite

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")], key=lambda page: page.relative_to(ROOT).as_posix())
_SKIPPED = re.compile(r"\.(git|venv|hypothesis|[a-z_]+_cache)|__pycache__|data|dist|build|.*\.egg-info")
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# In pieces, so that this file does not name them either.
_REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("registry-1", "docker", "io"),
    )
)


def test_every_setting_is_explained_with_its_variable_and_default() -> None:
    text = (DOCS / "configuration.md").read_text()
    for field in msgspec.structs.fields(Settings):
        row = next((line for line in text.splitlines() if line.startswith(f"| `{field.name}` |")), None)
        assert row is not None, f"{field.name} has no row in docs/configuration.md"
        assert f"`RINGBEARER_{field.name.upper()}`" in row
        if isinstance(field.default, bool | int | float | str):
            shown = f"{field.default:g}" if isinstance(field.default, float) else str(field.default).lower()
            assert f"`{shown}`" in row, f"the row of {field.name} does not tell its default, {shown}"


def test_no_setting_is_explained_that_is_none() -> None:
    named = set(re.findall(r"^\| `([a-z_]+)` \| `RINGBEARER_", (DOCS / "configuration.md").read_text(), re.M))
    assert named == {field.name for field in msgspec.structs.fields(Settings)}


def test_every_metric_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics = PrometheusMetrics(Telemetry(), registry=CollectorRegistry())
    with open_storage(migrated_sqlite(tmp_path / "store.db"), Vault([generate_key()])) as storage:
        rendered = metrics.render(storage).decode()
    families = list(text_string_to_metric_families(rendered))
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.endswith("_created")
    }
    assert "ringbearer_events_accepted_total" in names
    explained = set(re.findall(r"^\| `(ringbearer_[a-z_]+)`", (DOCS / "operations.md").read_text(), re.M))
    assert explained == names


def test_every_command_is_mentioned() -> None:
    text = (DOCS / "rooms" / "cli.md").read_text()
    commands = list(_commands(app))
    assert "endpoints rotate-secret" in commands
    for command in commands:
        assert f"`{command}`" in text, f"`{command}` is not in docs/rooms/cli.md"


_SHELL = re.compile(r"^```sh$(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(ringbearer [^`…|]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_are_written_down_are_understood(page: Path) -> None:
    text = page.read_text()
    scripts = [line for block in _SHELL.findall(text) for line in _whole_lines(block)]
    for words in _calls(scripts):
        app.parse_args(words, exit_on_error=False, print_error=False)
    for words in _calls(_INLINE.findall(text)):
        with contextlib.suppress(MissingArgumentError):  # which command is meant, is enough here
            app.parse_args(words, exit_on_error=False, print_error=False)


def _calls(lines: Iterable[str]) -> Iterator[list[str]]:
    """The arguments of every call of `ringbearer`."""
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:  # variables for the command
            del words[0]
        if (
            words
            and words[0] in {"ringbearer", ".venv/bin/ringbearer"}
            and not any("…" in word for word in words)
        ):
            ends = [at for at, word in enumerate(words) if word in {"&", "|", ">", "&&", ";"}]
            yield words[1 : ends[0]] if ends else words[1:]


def _whole_lines(block: str) -> Iterator[str]:
    """The lines of a script; those that end within quotes or with a backslash go on in the next."""
    line = ""
    for part in block.replace("\\\n", " ").splitlines():
        line = f"{line}\n{part}" if line else part
        if (line.count("'") - line.count("\\'")) % 2 == 0:
            yield line
            line = ""


def _commands(of: App, *above: str) -> Iterator[str]:
    """Every command with its family, as it is typed after `ringbearer`."""
    names = [name for name in of if not name.startswith("-")]
    if above and not names:
        yield " ".join(above)
    for name in names:
        yield from _commands(of[name], *above, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target} leads nowhere"
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file.read_text()), f"{target}: there is no such heading"


def test_the_index_leads_to_every_page() -> None:
    linked = {
        (DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall((DOCS / "index.md").read_text())
    }
    missing = {page for page in DOCS.rglob("*.md") if page.name != "index.md"} - linked
    assert not missing


def _anchors(text: str) -> set[str]:
    """The headings, as links name them."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", text), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_module_says_what_it_is_for() -> None:
    for file in (ROOT / "src").rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(file.read_text()))
        assert docstring, f"{file.relative_to(ROOT)} does not open with a docstring"


def test_no_file_names_a_package_registry() -> None:
    for file in _files(ROOT):
        content = file.read_bytes().lower()
        named = [host for host in _REGISTRIES if host.encode() in content]
        assert not named, f"{file.relative_to(ROOT)} names {', '.join(named)}"


def _files(directory: Path) -> Iterator[Path]:
    """What belongs to the repository; nothing that is made by running it."""
    for entry in os.scandir(directory):
        if _SKIPPED.fullmatch(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
