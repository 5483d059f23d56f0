"""Settings come from file, environment and arguments in that order, and an error says where it is."""

import os
from pathlib import Path

import pytest

from ringbearer.errors import ConfigurationError
from ringbearer.settings import Settings, load, unknown_variables


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str, name: str = "ringbearer.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def test_what_is_not_said_has_its_default() -> None:
    assert load({}, {}) == Settings()
    assert Settings().host == "127.0.0.1"


def test_arguments_overrule_the_environment_and_that_the_file() -> None:
    written('port = 1\nworkers = 1\nslots = 1\nhost = "file"')
    settings = load({"slots": 3}, {"RINGBEARER_WORKERS": "2", "RINGBEARER_SLOTS": "2"})
    assert (settings.port, settings.workers, settings.slots, settings.host) == (1, 2, 3, "file")


def test_what_is_empty_is_not_said() -> None:
    written('port = 9000\nhost = "0.0.0.0"\nallow_networks = ["10.0.0.0/8"]')
    empty = {"RINGBEARER_PORT": "", "RINGBEARER_HOST": "", "RINGBEARER_ALLOW_NETWORKS": ""}
    settings = load({}, empty)
    assert (settings.port, settings.host, settings.allow_networks) == (9000, "0.0.0.0", ("10.0.0.0/8",))
    assert load({"database_url": ""}, {}).database_url is None


def test_a_file_may_be_named_by_argument_or_environment() -> None:
    written("port = 1")
    written("port = 2", "two.toml")
    written("port = 3", "three.toml")
    assert load({}, {"RINGBEARER_CONFIG": "two.toml"}).port == 2
    assert load({"config": "three.toml"}, {"RINGBEARER_CONFIG": "two.toml"}).port == 3


def test_text_from_the_environment_becomes_what_the_setting_is() -> None:
    settings = load(
        {},
        {
            "RINGBEARER_PORT": "8300",
            "RINGBEARER_RETENTION_DAYS": "0.5",
            "RINGBEARER_DATABASE_PREPARE": "false",
            "RINGBEARER_DATA_DIR": "~/data",
            "RINGBEARER_ALLOW_NETWORKS": " 10.0.0.0/8 , fd00::/8,",
            "RINGBEARER_LOG_LEVEL": "debug",
            "RINGBEARER_METRICS_PORT": "9100",
        },
    )
    assert settings == Settings(
        port=8300,
        retention_days=0.5,
        database_prepare=False,
        data_dir=Path.home() / "data",
        allow_networks=("10.0.0.0/8", "fd00::/8"),
        log_level="debug",
        metrics_port=9100,
    )


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("RINGBEARER_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("RINGBEARER_PORT", "8301")
    assert load().port == 8301


@pytest.mark.parametrize(
    ("environ", "parts"),
    [
        ({"RINGBEARER_PORT": "many"}, ["RINGBEARER_PORT", "int", "'many'"]),
        ({"RINGBEARER_PORT": "70000"}, ["port", "between 0 and 65535", "70000"]),
        ({"RINGBEARER_METRICS_PORT": "-1"}, ["metrics_port", "between 0 and 65535", "-1"]),
        ({"RINGBEARER_CHANGES_PER_MINUTE": "-1"}, ["changes_per_minute", "between 0 and 1000000", "-1"]),
        ({"RINGBEARER_RETENTION_DAYS": "nan"}, ["retention_days", "between 0.01 and", "nan"]),
        ({"RINGBEARER_DATABASE_PREPARE": "perhaps"}, ["RINGBEARER_DATABASE_PREPARE", "bool", "'perhaps'"]),
        ({"RINGBEARER_LOG_LEVEL": "loud"}, ["RINGBEARER_LOG_LEVEL", "'loud'"]),
        ({"RINGBEARER_ALLOW_NETWORKS": "10.0.0.0/8,home"}, ["allow_networks", "'home'", "CIDR"]),
        ({"RINGBEARER_CONFIG": "gone.toml"}, ["gone.toml", "does not exist"]),
    ],
)
def test_an_error_names_the_field_what_was_expected_and_what_came(
    environ: dict[str, str], parts: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, environ)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("port = \n", ["ringbearer.toml", "not valid TOML", "line 1"]),
        ('port = "x"', ["port in ringbearer.toml", "int", "'x'"]),
        ("prot = 1", ["prot in ringbearer.toml", "not a setting", "port"]),
        ("[server]\nport = 1", ["server in ringbearer.toml", "not a setting"]),
        ("workers = 1.5", ["workers in ringbearer.toml", "int", "1.5"]),
    ],
)
def test_an_error_in_the_file_says_where(text: str, parts: list[str]) -> None:
    written(text)
    with pytest.raises(ConfigurationError) as caught:
        load({}, {})
    for part in parts:
        assert part in str(caught.value)


def test_a_file_that_cannot_be_read_is_said_to_be_so(here: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load({"config": str(here)}, {})


def test_an_unknown_argument_is_an_error_but_an_unknown_variable_is_only_told_of() -> None:
    with pytest.raises(ConfigurationError, match="--prot is not a setting"):
        load({"prot": 1}, {})
    strange = {"RINGBEARER_PROT": "1", "RINGBEARER_SERVICE_HOST": "x", "RINGBEARER_URL": "x", "PATH": "x"}
    assert load({}, strange) == Settings()
    assert unknown_variables(strange) == ["RINGBEARER_PROT", "RINGBEARER_SERVICE_HOST"]


def test_an_error_shows_no_secret() -> None:
    written('secret_key = ["t0p-secret"]')
    with pytest.raises(ConfigurationError, match="secret_key") as caught:
        load({}, {})
    assert "t0p" not in str(caught.value)


def test_the_store_is_a_file_in_the_data_directory_unless_a_database_is_named(here: Path) -> None:
    settings = load({"data_dir": "d"}, {})
    assert settings.store_url == f"sqlite:///{here / 'd' / 'ringbearer.db'}"
    assert settings.embedded
    elsewhere = load({"database_url": "postgresql://db/rb"}, {})
    assert elsewhere.store_url == "postgresql://db/rb"
    assert not elsewhere.embedded


def test_the_vaults_keys_are_given_or_made_once(here: Path) -> None:
    assert load({"secret_key": " new , old,"}, {}).vault_keys() == ["new", "old"]
    settings = load({"data_dir": "d"}, {})
    (made,) = settings.vault_keys()
    assert settings.vault_keys() == [made]
    assert (here / "d" / "secret.key").read_text().strip() == made
