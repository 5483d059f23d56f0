"""Every command explains itself by examples, and starts fast; what went wrong is put into words."""

import asyncio
import sys
from collections.abc import Iterator

import pytest
from cyclopts import App

from ringbearer.cli.main import app, main


def commands(parent: App, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the program, as the words that call it."""
    yield words
    for name in parent:
        if not name.startswith("-"):
            yield from commands(parent[name], (*words, name))


def test_the_contract_names_these_commands() -> None:
    families = {words[0] for words in commands(app) if words}
    assert families >= {"up", "serve", "work", "migrate", "doctor", "publish", "suppliers", "endpoints"}
    assert families >= {"deliveries", "keys", "receive", "demo"}


@pytest.mark.parametrize("words", sorted(commands(app)), ids=" ".join)
def test_every_help_text_has_examples_of_its_command(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    _, heading, examples = text.partition("Examples")
    assert heading
    assert " ".join(("ringbearer", *words)) in examples


def test_the_start_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ringbearer.cli.main import main\nmain(['--help'])\n"
        "sys.exit(' '.join({'httpx', 'uvicorn', 'litestar', 'sqlalchemy', 'pycurl'} & set(sys.modules)))"
    )

    async def run() -> tuple[bytes, int | None]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        return errors, process.returncode

    assert asyncio.run(run()) == (b"\n", 1)


def test_wrong_usage_is_told_from_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suppliers", "list", "--colour", "red"]) == 2
    assert "--colour" in capsys.readouterr().err
    assert main(["nonsense"]) == 2
    assert main(["deliveries", "list", "--state", "lost"]) == 2
