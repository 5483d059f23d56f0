"""The catalog keeps what is configured, tells what changed, and lets nobody read its secrets."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from contract.making import SECRET, add_endpoint, at_once, endpoint, one, supplier
from ringbearer import clock, ids
from ringbearer.domain.endpoints import Endpoint, RateLimit
from ringbearer.domain.keys import Key, digest
from ringbearer.errors import ConfigurationError, Conflict, NotFound, StoreUnavailable
from ringbearer.process import ensure_admin_key
from ringbearer.settings import Settings
from ringbearer.storage import catalog as catalog_module
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.schema import metadata
from ringbearer.storage.vault import Vault, generate_key

# ── suppliers ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_supplier_is_made_replaced_forgotten_and_made_again(storage: Storage) -> None:
    first = supplier(name="Studio Zoë", tier="premium", timezone="Europe/Berlin", metadata={"vat": ["DE", 1]})
    assert storage.catalog.put_supplier(first) is True
    assert storage.catalog.get_supplier("studio") == first
    later = datetime.now(UTC) + timedelta(days=1)
    second = supplier(name="Studio Z")
    assert storage.catalog.put_supplier(replace(second, created_at=later, updated_at=later)) is False
    found = storage.catalog.get_supplier("studio")
    assert (found.name, found.tier, found.created_at, found.updated_at) == (
        "Studio Z",
        "standard",
        first.created_at,
        later,
    )
    storage.catalog.delete_supplier("studio")
    for gone in (storage.catalog.get_supplier, storage.catalog.delete_supplier):
        with pytest.raises(NotFound, match="'studio'"):
            gone("studio")
    assert storage.catalog.subscriptions(["studio"]) == {}
    assert storage.catalog.put_supplier(replace(second, created_at=later)) is True
    assert storage.catalog.get_supplier("studio").created_at == later


def test_a_forgotten_supplier_takes_its_endpoints_and_keys_along(storage: Storage) -> None:
    made = add_endpoint(storage)
    other = add_endpoint(storage, "venue")
    for scope in ("supplier:studio", "supplier:venue"):
        storage.catalog.add_key(_key(scope), digest(scope))
    storage.catalog.delete_supplier("studio")
    with pytest.raises(NotFound):
        storage.catalog.get_endpoint("studio", made.id)
    assert storage.catalog.find_key(digest("supplier:studio")) is None
    assert storage.catalog.find_key(digest("supplier:venue")) is not None
    assert storage.catalog.get_endpoint("venue", other.id) == other
    storage.catalog.put_supplier(supplier())
    assert storage.catalog.list_endpoints("studio", limit=10) == []


def test_suppliers_are_listed_page_by_page(storage: Storage) -> None:
    names = [f"s{n}" for n in range(7)]
    for name in reversed(names):
        storage.catalog.put_supplier(supplier(name))
    storage.catalog.delete_supplier("s3")
    names.remove("s3")
    found: list[str] = []
    while page := storage.catalog.list_suppliers(limit=2, cursor=found[-1] if found else None):
        found += [s.id for s in page]
    assert found == names


# ── endpoints ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_endpoint_comes_back_as_it_was_stored(storage: Storage) -> None:
    made = add_endpoint(
        storage,
        event_types=("booking.*", "payment.received"),
        description="Zoë's CRM",
        headers={"X-Token": "t0p-secret"},
        rate_limit=RateLimit(requests=5, period=0.5),
        max_concurrency=3,
        timeout=2.5,
        retry_schedule=(1.0, 2.5),
        signing="ed25519",
        public_key="whpk_x",
        enabled=False,
        disabled_reason="at first",
    )
    assert storage.catalog.get_endpoint("studio", made.id) == made
    assert storage.catalog.list_endpoints("studio", limit=10) == [made]
    target = storage.catalog.subscriptions(["studio"])["studio"].targets[made.id]
    assert target.endpoint == made
    assert target.secrets == ((SECRET, None),)


def test_an_endpoint_needs_its_supplier(storage: Storage) -> None:
    with pytest.raises(NotFound, match="nobody"):
        storage.catalog.add_endpoint(endpoint("nobody"), SECRET)


def test_endpoints_are_listed_page_by_page_oldest_first(storage: Storage) -> None:
    made = [add_endpoint(storage).id for _ in range(5)]
    add_endpoint(storage, "venue")
    found: list[str] = []
    while page := storage.catalog.list_endpoints("studio", limit=2, cursor=found[-1] if found else None):
        found += [e.id for e in page]
    assert found == made


def test_another_suppliers_endpoint_does_not_exist(storage: Storage) -> None:
    mine = add_endpoint(storage)
    add_endpoint(storage, "venue")
    attempts: list[Callable[[], object]] = [
        lambda: storage.catalog.get_endpoint("venue", mine.id),
        lambda: storage.catalog.change_endpoint(
            "venue", mine.id, lambda e: replace(e, url="https://evil.example")
        ),
        lambda: storage.catalog.delete_endpoint("venue", mine.id),
        lambda: storage.catalog.rotate_secret(
            "venue", mine.id, "whsec_x", public_key=None, old_until=0, now=1
        ),
    ]
    version = storage.catalog.version()
    for attempt in attempts:
        with pytest.raises(NotFound):
            attempt()
    assert storage.catalog.version() == version
    assert storage.catalog.get_endpoint("studio", mine.id) == mine
    assert mine.id not in {e.id for e in storage.catalog.list_endpoints("venue", limit=10)}


def test_a_change_is_stored_and_returned(storage: Storage) -> None:
    made = add_endpoint(storage)
    changed = storage.catalog.change_endpoint(
        "studio", made.id, lambda e: replace(e, url="https://new.example", headers={"A": "b"})
    )
    assert changed.url == "https://new.example"
    assert storage.catalog.get_endpoint("studio", made.id) == changed


def test_a_change_that_raises_changes_nothing(storage: Storage) -> None:
    made = add_endpoint(storage)
    version = storage.catalog.version()

    def refuse(_: Endpoint) -> Endpoint:
        raise Conflict("not now")

    with pytest.raises(Conflict):
        storage.catalog.change_endpoint("studio", made.id, refuse)
    assert storage.catalog.version() == version


def test_changes_at_once_lose_nothing(storage: Storage) -> None:
    made = add_endpoint(storage, timeout=0.0)

    def change(_: int) -> None:
        for n in range(5):
            storage.catalog.change_endpoint("studio", made.id, lambda e: replace(e, timeout=e.timeout + 1))
            now = clock.now() + n
            storage.catalog.rotate_secret(
                "studio", made.id, f"whsec_{n}", public_key=None, old_until=now, now=now
            )

    at_once(4, change)
    assert storage.catalog.get_endpoint("studio", made.id).timeout == 20.0


def test_no_supplier_has_more_endpoints_than_it_may(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "MAX_ENDPOINTS_PER_SUPPLIER", 3)
    storage.catalog.put_supplier(supplier())

    def add(_: int) -> bool:
        try:
            storage.catalog.add_endpoint(endpoint(), SECRET)
        except Conflict:
            return False
        return True

    assert at_once(6, add).count(True) == 3
    storage.catalog.delete_endpoint("studio", storage.catalog.list_endpoints("studio", limit=1)[0].id)
    assert add(0)  # what was deleted does not count
    add_endpoint(storage, "venue")


def test_enabling_touches_only_what_it_changes(storage: Storage) -> None:
    first, second = add_endpoint(storage), add_endpoint(storage, enabled=False, disabled_reason="holiday")
    storage.catalog.set_enabled([first.id, second.id], enabled=False, reason="410 Gone")
    found = {e.id: e for e in storage.catalog.list_endpoints("studio", limit=10)}
    assert (found[first.id].enabled, found[first.id].disabled_reason) == (False, "410 Gone")
    assert found[second.id] == second
    storage.catalog.set_enabled([first.id], enabled=True)
    again = storage.catalog.get_endpoint("studio", first.id)
    assert (again.enabled, again.disabled_reason) == (True, None)


def test_a_deleted_endpoint_is_gone_with_its_secrets(storage: Storage) -> None:
    made = add_endpoint(storage)
    storage.catalog.delete_endpoint("studio", made.id)
    for gone in (storage.catalog.get_endpoint, storage.catalog.delete_endpoint):
        with pytest.raises(NotFound):
            gone("studio", made.id)
    storage.catalog.set_enabled([made.id], enabled=True)
    assert storage.catalog.subscriptions(["studio"])["studio"].targets == {}
    assert one(storage, "SELECT count(*) FROM endpoint_secrets") == 0


def test_subscriptions_are_those_of_the_suppliers_asked_for(storage: Storage) -> None:
    made = {s: [add_endpoint(storage, s).id for _ in range(2)] for s in ("studio", "venue", "planner")}
    storage.catalog.put_supplier(supplier("lonely"))
    found = storage.catalog.subscriptions(["studio", "planner", "lonely", "unknown"])
    assert {s: list(known.targets) for s, known in found.items()} == {
        "studio": made["studio"],
        "planner": made["planner"],
        "lonely": [],
    }
    assert storage.catalog.subscriptions([]) == {}


def test_as_many_suppliers_as_a_batch_may_name_are_read_at_once(storage: Storage) -> None:
    known = add_endpoint(storage)
    found = storage.catalog.subscriptions(["studio", *(f"s{n}" for n in range(9_999))])
    assert list(found) == ["studio"]
    assert list(found["studio"].targets) == [known.id]


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_change_takes_the_next_version_and_names_its_supplier(storage: Storage) -> None:
    catalog = storage.catalog
    assert catalog.version() == 0
    first = add_endpoint(storage)
    second = add_endpoint(storage, "venue")
    now = clock.now()
    changes: list[tuple[Callable[[], object], set[str]]] = [
        (lambda: catalog.put_supplier(supplier(name="other")), {"studio"}),
        (lambda: catalog.add_endpoint(endpoint("venue"), SECRET), {"venue"}),
        (lambda: catalog.change_endpoint("studio", first.id, lambda e: replace(e, timeout=3.0)), {"studio"}),
        (lambda: catalog.set_enabled([first.id, second.id], enabled=False), {"studio", "venue"}),
        (
            lambda: catalog.rotate_secret(
                "venue", second.id, "whsec_n", public_key=None, old_until=now, now=now
            ),
            {"venue"},
        ),
        (lambda: catalog.delete_endpoint("studio", first.id), {"studio"}),
        (lambda: catalog.delete_supplier("venue"), {"venue"}),
    ]
    for change, suppliers in changes:
        before = catalog.version()
        change()
        assert catalog.version() > before
        assert catalog.changes(before)[1] == suppliers
    assert catalog.changes(0)[1] == {"studio", "venue"}
    assert catalog.changes(catalog.version())[1] == set()


def test_the_version_of_subscriptions_is_that_of_their_last_change(storage: Storage) -> None:
    made = add_endpoint(storage)
    storage.catalog.change_endpoint("studio", made.id, lambda e: replace(e, timeout=3.0))
    version = storage.catalog.version()
    add_endpoint(storage, "venue")
    found = storage.catalog.subscriptions(["studio"])["studio"]
    assert found.version == found.targets[made.id].version == version


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────────


def secrets_of(storage: Storage, made: Endpoint) -> tuple[tuple[str, int | None], ...]:
    return storage.catalog.subscriptions(["studio"])["studio"].targets[made.id].secrets


def test_after_a_rotation_both_secrets_sign_until_the_grace_ends(storage: Storage) -> None:
    made = add_endpoint(storage)
    now = clock.now()
    rotate = storage.catalog.rotate_secret
    rotate("studio", made.id, "whsec_new", public_key="whpk_new", old_until=now + 100, now=now + 1)
    assert secrets_of(storage, made) == (("whsec_new", None), (SECRET, now + 100))
    assert storage.catalog.get_endpoint("studio", made.id).public_key == "whpk_new"
    rotate("studio", made.id, "whsec_newer", public_key=None, old_until=now + 50, now=now + 2)
    assert secrets_of(storage, made) == (
        ("whsec_newer", None),
        ("whsec_new", now + 50),
        (SECRET, now + 50),  # never longer than anybody was told
    )
    rotate("studio", made.id, "whsec_newest", public_key=None, old_until=now + 400, now=now + 200)
    assert secrets_of(storage, made) == (("whsec_newest", None), ("whsec_newer", now + 400))


def test_secrets_are_sealed_anew_after_the_key_was_changed(storage: Storage, store_url: str) -> None:
    old, new = generate_key(), generate_key()
    with open_storage(store_url, Vault([old])) as first:
        made = add_endpoint(first, headers={"X-Token": "t0p-secret"})
        gone = add_endpoint(first)
        first.catalog.delete_endpoint("studio", gone.id)
    with open_storage(store_url, Vault([new, old])) as both:
        both.catalog.check_seals()
        assert both.catalog.reseal() == 3  # two endpoints' headers, one secret
        assert both.catalog.reseal() == 0
    with open_storage(store_url, Vault([new])) as last:
        assert secrets_of(last, made) == ((SECRET, None),)
        assert last.catalog.get_endpoint("studio", made.id).headers == {"X-Token": "t0p-secret"}
        last.catalog.check_seals()


def test_a_wrong_key_is_said_to_be_wrong(storage: Storage, store_url: str) -> None:
    made = add_endpoint(storage)
    with open_storage(store_url, Vault([generate_key()])) as other:
        with pytest.raises(StoreUnavailable, match="RINGBEARER_SECRET_KEY"):
            other.catalog.subscriptions(["studio"])  # what is on its way waits for the key
        for look in (
            lambda: other.catalog.get_endpoint("studio", made.id),
            other.catalog.reseal,
            other.catalog.check_seals,
        ):
            with pytest.raises((ConfigurationError, StoreUnavailable), match="RINGBEARER_SECRET_KEY"):
                look()


def test_neither_secrets_nor_custom_headers_lie_open_in_the_database(
    storage: Storage, store_url: str
) -> None:
    hidden = [SECRET, "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "secret-secret", "t0p-5ecret-t0ken", "whsec_"]
    made = add_endpoint(storage, headers={"Authorization": "Bearer t0p-5ecret-t0ken"})
    now = clock.now()
    storage.catalog.rotate_secret("studio", made.id, SECRET, public_key=None, old_until=now + 9, now=now)
    storage.catalog.add_key(_key("publish"), digest("rb_clear-api-key"))
    raw = _everything(storage, store_url)
    assert b"https://hooks.example/in" in raw  # so it is the right place to look
    for text_ in (*hidden, "rb_clear-api-key"):
        assert text_.encode() not in raw


def _everything(storage: Storage, url: str) -> bytes:
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))
    parts = []
    with storage.database.read() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(table.select()):
                for value in row:
                    parts.append(
                        bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode()
                    )
    return b"\n".join(parts)


# ── API keys ────────────────────────────────────────────────────────────────────────────────────────────────


def _key(scope: str = "admin", **given: str) -> Key:
    return Key(id=ids.key(), scope=scope, created_at=datetime.now(UTC), last_four="abcd", **given)


def test_a_key_is_found_by_its_digest_until_it_is_deleted(storage: Storage) -> None:
    made = _key("supplier:studio", name="CRM")
    storage.catalog.add_key(made, digest("rb_1"))
    assert storage.catalog.find_key(digest("rb_1")) == made
    assert made.supplier_id == "studio"
    assert storage.catalog.find_key(digest("rb_2")) is None
    storage.catalog.delete_key(made.id)
    assert storage.catalog.find_key(digest("rb_1")) is None
    with pytest.raises(NotFound, match=made.id):
        storage.catalog.delete_key(made.id)


def test_a_key_given_again_replaces_the_one_before(storage: Storage) -> None:
    first, second = _key(), _key()
    storage.catalog.add_key(first, digest("rb_1"))
    storage.catalog.add_key(second, digest("rb_1"))
    assert storage.catalog.list_keys(limit=10) == [second]


def test_keys_are_listed_page_by_page_oldest_first(storage: Storage) -> None:
    made = [_key() for _ in range(5)]
    for n, key in enumerate(made):
        storage.catalog.add_key(key, digest(str(n)))
    first = storage.catalog.list_keys(limit=3)
    assert first + storage.catalog.list_keys(limit=3, cursor=first[-1].id) == made


def test_a_changed_admin_key_takes_the_place_of_the_one_before(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = "the-first-admin-key-1111", "the-second-admin-key-2222"
    made = Key(id=ids.key(), scope="admin", name="mine", created_at=datetime.now(UTC), last_four="mine")
    storage.catalog.add_key(made, digest("mine"))
    for given in (first, first, second, second):
        ensure_admin_key(Settings(admin_key=given), storage)
    assert storage.catalog.find_key(digest(first)) is None
    assert storage.catalog.find_key(digest(second)) is not None
    assert storage.catalog.find_key(digest("mine")) == made, "what was made by hand is nobody's to take away"
    assert [record.getMessage() for record in caplog.records] == [
        "RINGBEARER_ADMIN_KEY was changed: the key that ended in 1111 is valid no more"
    ]
