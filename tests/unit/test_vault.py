"""What is sealed opens with its key, in its place, unaltered, and not otherwise."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.errors import ConfigurationError
from ringbearer.storage.vault import Vault, generate_key, key_file

VAULT = Vault([generate_key()])


@given(st.binary(max_size=200), st.text(max_size=40))
def test_what_was_sealed_opens_again(value: bytes, bound_to: str) -> None:
    sealed = VAULT.seal(value, bound_to)
    assert VAULT.open(sealed, bound_to) == value
    assert VAULT.current(sealed)
    assert len(value) < 4 or value not in sealed


def test_the_same_value_is_sealed_differently_each_time() -> None:
    assert VAULT.seal(b"secret", "ep_1") != VAULT.seal(b"secret", "ep_1")


def test_a_seal_is_bound_to_its_place() -> None:
    with pytest.raises(ConfigurationError, match="ep_2"):
        VAULT.open(VAULT.seal(b"secret", "ep_1"), "ep_2")


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_one_altered_bit_is_noticed(position: int, change: int) -> None:
    sealed = bytearray(VAULT.seal(b"secret", "ep_1"))
    sealed[position % len(sealed)] ^= change
    with pytest.raises(ConfigurationError):
        VAULT.open(bytes(sealed), "ep_1")


@given(st.binary(max_size=40))
def test_rubbish_is_no_seal(rubbish: bytes) -> None:
    with pytest.raises(ConfigurationError):
        VAULT.open(rubbish, "ep_1")


def test_old_keys_open_and_the_first_one_seals() -> None:
    old, new = generate_key(), generate_key()
    before = Vault([old]).seal(b"secret", "ep_1")
    both = Vault([new, old])
    assert both.open(before, "ep_1") == b"secret"
    assert not both.current(before)
    after = both.seal(b"secret", "ep_1")
    assert both.current(after)
    assert Vault([new]).open(after, "ep_1") == b"secret"
    with pytest.raises(ConfigurationError, match="RINGBEARER_SECRET_KEY"):
        Vault([new]).open(before, "ep_1")


@pytest.mark.parametrize("keys", [[], [""], ["short"], ["c2hvcnQ="], ["ä" * 44], [generate_key(), "x"]])
def test_a_key_that_is_none_is_refused_without_showing_it(keys: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="RINGBEARER_SECRET_KEY") as caught:
        Vault(keys)
    assert not any(len(key) > 1 and key in str(caught.value) for key in keys)


def test_a_vault_does_not_show_its_keys() -> None:
    key = generate_key()
    assert repr(Vault([key])) == "<Vault with 1 keys>"


def test_a_key_file_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    (made,) = key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key_file(path) == [made]
    Vault([made])


def test_a_key_file_may_have_several_keys(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    new, old = generate_key(), generate_key()
    path.write_text(f"{new}\n\n  {old} \n")
    assert key_file(path) == [new, old]
