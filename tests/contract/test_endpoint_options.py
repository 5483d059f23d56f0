"""Options and credentials of endpoints in the store, and the order that an endpoint asks for."""

import pytest

from contract.making import add_endpoint, claim, endpoint, one, query, settle, shown, supplier
from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain.deliveries import State
from ringbearer.domain.endpoints import BasicAuth, Credentials, Ordering
from ringbearer.domain.events import NewEvent
from ringbearer.errors import ConfigurationError, StoreUnavailable
from ringbearer.publish import admit
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry

HUSH = Credentials(auth="hush-hush", client_key="-----BEGIN PRIVATE KEY-----\nabc\n")


def test_options_and_credentials_come_back(storage: Storage) -> None:
    storage.catalog.put_supplier(supplier())
    made = endpoint(
        payload="compact",
        fields="{id: id}",
        compression="zstd",
        ordering="endpoint",
        tls_min="1.3",
        auth=BasicAuth(username="studio"),
    )
    storage.catalog.add_endpoint(made, "whsec_x", HUSH)
    target = storage.catalog.subscriptions(["studio"])["studio"].targets[made.id]
    assert (target.endpoint, target.credentials) == (storage.catalog.get_endpoint("studio", made.id), HUSH)
    assert target.endpoint.auth == BasicAuth(username="studio")
    assert target.endpoint.fields == "{id: id}"
    assert b"hush" not in bytes(one(storage, "SELECT credentials_sealed FROM endpoints"))
    assert "hush" not in repr(target)


def test_an_endpoint_of_the_version_before_has_defaults(storage: Storage) -> None:
    made = add_endpoint(storage)
    with storage.database.write() as connection:
        connection.exec_driver_sql("UPDATE endpoints SET options = '{}', credentials_sealed = NULL")
    assert storage.catalog.get_endpoint("studio", made.id).payload == "full"


def test_credentials_are_sealed_anew_with_the_first_key(own_store_url: str) -> None:
    old, new = generate_key(), generate_key()
    with open_storage(own_store_url, Vault([old])) as storage:
        storage.migrate()
        storage.catalog.put_supplier(supplier())
        storage.catalog.add_endpoint(endpoint(), "whsec_x", HUSH)
    with open_storage(own_store_url, Vault([new])) as storage:
        with pytest.raises(ConfigurationError):
            storage.catalog.check_seals()
        with pytest.raises((StoreUnavailable, ConfigurationError)):
            storage.catalog.subscriptions(["studio"])
    with open_storage(own_store_url, Vault([new, old])) as storage:
        assert storage.catalog.reseal() == 3
        assert storage.catalog.reseal() == 0
    with open_storage(own_store_url, Vault([new])) as storage:
        (target,) = storage.catalog.subscriptions(["studio"])["studio"].targets.values()
        assert target.credentials == HUSH


@pytest.mark.parametrize(
    ("ordering", "ready"),
    [
        pytest.param("none", 4, id="none"),
        pytest.param("key", 3, id="by-key"),  # two have no key, and of the two with the same one goes first
        pytest.param("endpoint", 1, id="whole-endpoint"),
    ],
)
def test_the_order_that_an_endpoint_asks_for(storage: Storage, ordering: Ordering, ready: int) -> None:
    add_endpoint(storage, ordering=ordering)
    cache = WebhookCacheManager(catalog=storage.catalog, telemetry=Telemetry())
    known = cache.lookup(["studio"])["studio"]
    keys = [None, "couple-7", None, "couple-7"]
    accepted = [
        admit(
            NewEvent(supplier_id="studio", type="a.b", data=b"1", ordering_key=key),  # type: ignore[arg-type]
            known,
            clock.now(),
        )
        for key in keys
    ]
    storage.ledger.accept(accepted)
    assert one(storage, "SELECT count(*) FROM jobs WHERE state = 'ready'") == ready
    assert [row[0] for row in query(storage, "SELECT ordering_key FROM events ORDER BY id")] == keys
    order = []
    while leases := claim(storage):
        assert len(leases) <= ready
        order += [lease.delivery_id for lease in leases]
        settle(storage, leases)
    assert len(order) == 4
    assert all(shown(storage, each) is State.DELIVERED for each in order)
    if ordering == "endpoint":
        assert order == sorted(order)
