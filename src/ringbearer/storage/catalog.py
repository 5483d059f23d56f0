"""The catalog: suppliers, their endpoints with sealed secrets, and API keys.

Every change of a supplier or an endpoint takes the next configuration version in its own transaction, so that
whoever caches them can ask what changed since.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, and_, bindparam, delete, func, insert, or_, select, true, update

from ringbearer import clock
from ringbearer.domain.endpoints import (
    NO_CREDENTIALS,
    WHOLE_ENDPOINT,
    Credentials,
    Endpoint,
    Target,
)
from ringbearer.domain.keys import Key
from ringbearer.domain.suppliers import Supplier
from ringbearer.errors import Conflict, NotFound
from ringbearer.storage import schema
from ringbearer.storage.database import Database
from ringbearer.storage.rows import EndpointRows, key_in, supplier_in
from ringbearer.storage.shapes import shapes_of
from ringbearer.storage.vault import Vault
from ringbearer.storage.versions import next_version

MAX_ENDPOINTS_PER_SUPPLIER = 500
"""So that no single event fans out without bound."""

_MAX_MATCHED = 256
_S, _E, _X = schema.suppliers, schema.endpoints, schema.endpoint_secrets
_V = schema.config_version
_CHANGED = (
    select(_S.c.id)
    .where(_S.c.version > bindparam("since"))
    .union(select(_E.c.supplier_id).where(_E.c.version > bindparam("since")))
    .subquery()
)
_CHANGES = select(_V.c.version, _CHANGED.c.id).select_from(_V.outerjoin(_CHANGED, true()))
"""One statement: it is asked twice a second in every process, and sees one state."""
_dumps = msgspec.json.encode


class Subscriptions(msgspec.Struct, frozen=True):
    """A supplier with all its endpoints and their signing secrets, at one version."""

    supplier: Supplier
    targets: dict[str, Target]
    """By the endpoint's id, oldest first."""
    version: int
    own_keys: dict[str, str | None] = msgspec.field(default_factory=dict)
    """The ordering key of every delivery, for endpoints that do not go by the event's: None is no order at all."""
    matched: dict[str, tuple[tuple[str, bool], ...]] = msgspec.field(default_factory=dict)
    """The event types asked for so far; a note to this object itself, at most _MAX_MATCHED of them."""

    def __post_init__(self) -> None:
        self.own_keys.update(_own_keys(self.targets))

    def wanting(self, event_type: str) -> tuple[tuple[str, bool], ...]:
        """The endpoints that want an event type: the id of each, and whether it is enabled."""
        known = self.matched.get(event_type)
        if known is not None:
            return known
        wanting = tuple(
            (endpoint_id, target.endpoint.enabled)
            for endpoint_id, target in self.targets.items()
            if target.endpoint.wants(event_type)
        )
        if len(self.matched) < _MAX_MATCHED:
            self.matched[event_type] = wanting
        return wanting


class Catalog:
    """Reads and changes what is configured. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._rows = EndpointRows(vault)

    # ── suppliers ───────────────────────────────────────────────────────────────────────────────────────

    def put_supplier(self, supplier: Supplier) -> bool:
        """Create or replace; returns whether it is new. `created_at` of an existing one is kept."""
        values = {
            "name": supplier.name,
            "tier": supplier.tier,
            "timezone": supplier.timezone,
            "metadata": _dumps(supplier.metadata).decode(),
            "rate_requests": supplier.rate_limit.requests if supplier.rate_limit is not None else None,
            "rate_period": supplier.rate_limit.period if supplier.rate_limit is not None else None,
            "max_concurrency": supplier.max_concurrency,
            "updated_at": clock.from_datetime(supplier.updated_at),
            "deleted": False,
        }
        with self._database.write() as connection:
            version = next_version(connection)
            found = connection.execute(
                select(_S.c.deleted).where(_S.c.id == supplier.id).with_for_update()
            ).first()
            created = {"created_at": clock.from_datetime(supplier.created_at)}
            if found is None:
                connection.execute(insert(_S).values(id=supplier.id, version=version, **created, **values))
                return True
            revived = created if found.deleted else {}
            connection.execute(
                update(_S).where(_S.c.id == supplier.id).values(version=version, **revived, **values)
            )
            return bool(found.deleted)

    def get_supplier(self, supplier_id: str) -> Supplier:
        """The supplier; raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(
                select(_S).where(_S.c.id == supplier_id, _S.c.deleted.is_(False))
            ).first()
        if row is None:
            raise NotFound(
                f"there is no supplier {supplier_id!r}; create it with PUT /v1/suppliers/{supplier_id}"
            )
        return supplier_in(row)

    def list_suppliers(self, *, limit: int, cursor: str | None = None) -> list[Supplier]:
        """Suppliers by id, those after the cursor."""
        query = select(_S).where(_S.c.deleted.is_(False)).order_by(_S.c.id).limit(limit)
        if cursor is not None:
            query = query.where(_S.c.id > cursor)
        with self._database.read() as connection:
            return [supplier_in(row) for row in connection.execute(query)]

    def delete_supplier(self, supplier_id: str) -> None:
        """Forget a supplier and its endpoints; unfinished deliveries are cancelled later. Raises NotFound."""
        now = clock.now()
        with self._database.write() as connection:
            version = next_version(connection)
            gone = connection.execute(
                update(_S)
                .where(_S.c.id == supplier_id, _S.c.deleted.is_(False))
                .values(deleted=True, version=version, updated_at=now)
            )
            if gone.rowcount == 0:
                raise NotFound(f"there is no supplier {supplier_id!r}")
            ids = select(_E.c.id).where(_E.c.supplier_id == supplier_id)
            connection.execute(delete(_X).where(_X.c.endpoint_id.in_(ids)))
            connection.execute(
                update(_E)
                .where(_E.c.supplier_id == supplier_id)
                .values(deleted=True, enabled=False, version=version, updated_at=now)
            )
            connection.execute(delete(schema.keys).where(schema.keys.c.scope == f"supplier:{supplier_id}"))

    # ── endpoints ───────────────────────────────────────────────────────────────────────────────────────

    def add_endpoint(
        self, endpoint: Endpoint, secret: str, credentials: Credentials = NO_CREDENTIALS
    ) -> None:
        """Store a new endpoint with its first secret; raises NotFound (supplier), Conflict (too many)."""
        with self._database.write() as connection:
            version = next_version(connection)
            owner = select(_S.c.id).where(_S.c.id == endpoint.supplier_id, _S.c.deleted.is_(False))
            if connection.execute(owner.with_for_update()).first() is None:
                raise NotFound(f"there is no supplier {endpoint.supplier_id!r}")
            living = select(func.count()).where(
                _E.c.supplier_id == endpoint.supplier_id, _E.c.deleted.is_(False)
            )
            if connection.execute(living).scalar_one() >= MAX_ENDPOINTS_PER_SUPPLIER:
                raise Conflict(
                    f"supplier {endpoint.supplier_id!r} has {MAX_ENDPOINTS_PER_SUPPLIER} endpoints already, "
                    "which is the most; delete one first"
                )
            connection.execute(
                insert(_E).values(
                    id=endpoint.id,
                    supplier_id=endpoint.supplier_id,
                    signing=endpoint.signing,
                    public_key=endpoint.public_key,
                    created_at=clock.from_datetime(endpoint.created_at),
                    version=version,
                    credentials_sealed=self._rows.sealed(credentials, endpoint.id),
                    **self._rows.values(endpoint),
                )
            )
            self._add_secret(connection, endpoint.id, secret, clock.from_datetime(endpoint.created_at))

    def get_endpoint(self, supplier_id: str, endpoint_id: str) -> Endpoint:
        """The supplier's endpoint; raises NotFound, also when it is another supplier's."""
        with self._database.read() as connection:
            row = connection.execute(_living(supplier_id, endpoint_id)).first()
        if row is None:
            raise _no_endpoint(supplier_id, endpoint_id)
        return self._rows.endpoint(row)

    def list_endpoints(self, supplier_id: str, *, limit: int, cursor: str | None = None) -> list[Endpoint]:
        """The supplier's endpoints, oldest first, those after the cursor."""
        query = (
            select(_E)
            .where(_E.c.supplier_id == supplier_id, _E.c.deleted.is_(False))
            .order_by(_E.c.id)
            .limit(limit)
        )
        if cursor is not None:
            query = query.where(_E.c.id > cursor)
        with self._database.read() as connection:
            return [self._rows.endpoint(row) for row in connection.execute(query)]

    def change_endpoint(
        self,
        supplier_id: str,
        endpoint_id: str,
        change: Callable[[Endpoint], Endpoint],
        *,
        credentials: Callable[[Credentials], Credentials] | None = None,
    ) -> Endpoint:
        """Store what `change` makes of an endpoint and return it; nobody else changes it meanwhile.

        `credentials` makes new ones of those that there are. Raises NotFound, and what the two raise.
        """
        with self._database.write() as connection:
            # First, so that transactions that change something follow one another: the row read next is the
            # newest, and a worker that disables the endpoint now is not undone.
            version = next_version(connection)
            row = connection.execute(_living(supplier_id, endpoint_id)).first()
            if row is None:
                raise _no_endpoint(supplier_id, endpoint_id)
            changed = change(self._rows.endpoint(row))
            values = self._rows.values(changed)
            if credentials is not None:
                values["credentials_sealed"] = self._rows.sealed(
                    credentials(self._rows.credentials(row)), endpoint_id
                )
            connection.execute(update(_E).where(_E.c.id == endpoint_id).values(version=version, **values))
        return changed

    def supplier_of(self, endpoint_id: str) -> str | None:
        """The supplier whose endpoint it is; None when there is none such, or it was deleted."""
        query = select(_E.c.supplier_id).where(_E.c.id == endpoint_id, _E.c.deleted.is_(False))
        with self._database.read() as connection:
            found: str | None = connection.execute(query).scalar_one_or_none()
        return found

    def set_enabled(self, endpoint_ids: Iterable[str], *, enabled: bool, reason: str | None = None) -> None:
        """Enable or disable endpoints; those that are so already, or deleted, stay untouched."""
        with self._database.write() as connection:
            connection.execute(
                update(_E)
                .where(_E.c.id.in_(list(endpoint_ids)), _E.c.enabled != enabled, _E.c.deleted.is_(False))
                .values(
                    enabled=enabled,
                    disabled_reason=reason,
                    updated_at=clock.now(),
                    version=next_version(connection),
                )
            )

    def delete_endpoint(self, supplier_id: str, endpoint_id: str) -> None:
        """Forget an endpoint and its secrets; its unfinished deliveries are cancelled later. Raises NotFound."""
        with self._database.write() as connection:
            gone = connection.execute(
                update(_E)
                .where(_E.c.id == endpoint_id, _E.c.supplier_id == supplier_id, _E.c.deleted.is_(False))
                .values(deleted=True, enabled=False, updated_at=clock.now(), version=next_version(connection))
            )
            if gone.rowcount == 0:
                raise _no_endpoint(supplier_id, endpoint_id)
            connection.execute(delete(_X).where(_X.c.endpoint_id == endpoint_id))

    def rotate_secret(
        self,
        supplier_id: str,
        endpoint_id: str,
        secret: str,
        *,
        public_key: str | None,
        old_until: int,
        now: int,
    ) -> None:
        """Make `secret` the newest; the ones before sign until `old_until` at the latest. Raises NotFound."""
        with self._database.write() as connection:
            version = next_version(connection)
            if connection.execute(_living(supplier_id, endpoint_id)).first() is None:
                raise _no_endpoint(supplier_id, endpoint_id)
            mine = _X.c.endpoint_id == endpoint_id
            connection.execute(delete(_X).where(mine, _X.c.expires_at <= now))
            connection.execute(
                update(_X)
                .where(mine, or_(_X.c.expires_at.is_(None), _X.c.expires_at > old_until))
                .values(expires_at=old_until)
            )
            self._add_secret(connection, endpoint_id, secret, now)
            connection.execute(
                update(_E)
                .where(_E.c.id == endpoint_id)
                .values(updated_at=now, public_key=public_key, version=version)
            )

    def _add_secret(self, connection: Connection, endpoint_id: str, secret: str, now: int) -> None:
        sealed = self._vault.seal(secret.encode(), endpoint_id)
        connection.execute(insert(_X).values(endpoint_id=endpoint_id, created_at=now, sealed=sealed))

    # ── for caches ──────────────────────────────────────────────────────────────────────────────────────

    def subscriptions(self, supplier_ids: Sequence[str]) -> dict[str, Subscriptions]:
        """Each known supplier with its endpoints and secrets; a few queries however many are asked for."""
        return self.snapshot(supplier_ids)[1]

    def snapshot(self, supplier_ids: Sequence[str]) -> tuple[int, dict[str, Subscriptions]]:
        """The same, with a version up to which every change is in it; three queries in one transaction."""
        ids = list(supplier_ids)
        wanted = and_(_S.c.id.in_(ids), _S.c.deleted.is_(False))
        with self._database.read() as connection:
            # The version comes no later than the rest: on PostgreSQL each statement sees what was committed when it
            # began.
            found = connection.execute(
                select(_S, _V.c.version.label("reached")).select_from(_V.outerjoin(_S, wanted))
            ).all()
            suppliers = [row for row in found if row.id is not None]
            endpoints = connection.execute(
                select(_E).where(_E.c.supplier_id.in_(ids), _E.c.deleted.is_(False)).order_by(_E.c.id)
            ).all()
            secrets = connection.execute(
                select(_X)
                .join(_E, _E.c.id == _X.c.endpoint_id)
                .where(_E.c.supplier_id.in_(ids), _E.c.deleted.is_(False))
                .order_by(_X.c.created_at.desc())
            ).all()
            shapes = shapes_of(connection, {row.event_version for row in endpoints if row.event_version})
        signing: dict[str, list[tuple[str, int | None]]] = {}
        for row in secrets:
            signing.setdefault(row.endpoint_id, []).append((self._rows.secret(row), row.expires_at))
        targets: dict[str, dict[str, Target]] = {}
        for row in endpoints:
            targets.setdefault(row.supplier_id, {})[row.id] = Target(
                endpoint=self._rows.endpoint(row),
                secrets=tuple(signing.get(row.id, ())),
                version=row.version,
                credentials=self._rows.credentials(row),
                shapes=shapes.get(row.event_version, {}),
            )
        return found[0].reached, {
            row.id: Subscriptions(
                supplier_in(row),
                targets.get(row.id, {}),
                max([row.version, *(t.version for t in targets.get(row.id, {}).values())]),
            )
            for row in suppliers
        }

    def version(self) -> int:
        """The version that the last change of any supplier or endpoint took."""
        with self._database.read() as connection:
            version: int = connection.execute(select(_V.c.version)).scalar_one()
        return version

    def changes(self, version: int) -> tuple[int, set[str]]:
        """The version now, and the suppliers that changed, or whose endpoints changed, after the given one."""
        with self._database.read() as connection:
            found = connection.execute(_CHANGES, {"since": version}).all()
        return found[0].version, {row.id for row in found if row.id is not None}

    # ── keys ────────────────────────────────────────────────────────────────────────────────────────────

    def add_key(self, key: Key, digest: str, *, alone: bool = False) -> list[Key]:
        """Store a key; one with the same digest is replaced, so that a given admin key can be set again.

        If it is to be `alone` of its name, those that had the name are forgotten; returns them.
        """
        replaced: list[Key] = []
        with self._database.write() as connection:
            if alone:
                gone = delete(schema.keys).where(schema.keys.c.name == key.name).returning(schema.keys)
                replaced = [key_in(row) for row in connection.execute(gone)]
            connection.execute(delete(schema.keys).where(schema.keys.c.digest == digest))
            connection.execute(
                insert(schema.keys).values(
                    id=key.id,
                    digest=digest,
                    scope=key.scope,
                    name=key.name,
                    last_four=key.last_four,
                    created_at=clock.from_datetime(key.created_at),
                )
            )
        return replaced

    def find_key(self, digest: str) -> Key | None:
        """The key with that digest."""
        with self._database.read() as connection:
            row = connection.execute(select(schema.keys).where(schema.keys.c.digest == digest)).first()
        return key_in(row) if row is not None else None

    def list_keys(self, *, limit: int, cursor: str | None = None) -> list[Key]:
        """Keys, oldest first, those after the cursor."""
        query = select(schema.keys).order_by(schema.keys.c.id).limit(limit)
        if cursor is not None:
            query = query.where(schema.keys.c.id > cursor)
        with self._database.read() as connection:
            return [key_in(row) for row in connection.execute(query)]

    def delete_key(self, key_id: str) -> None:
        """Forget a key; raises NotFound."""
        with self._database.write() as connection:
            if connection.execute(delete(schema.keys).where(schema.keys.c.id == key_id)).rowcount == 0:
                raise NotFound(f"there is no key {key_id!r}")

    # ── the vault's key ─────────────────────────────────────────────────────────────────────────────────

    def reseal(self) -> int:
        """Seal every stored secret anew with the vault's first key; returns how many were not yet."""
        count = 0
        with self._database.write() as connection:
            next_version(connection)  # keeps other changes away, which would otherwise be written over
            for row in connection.execute(select(_X)).all():
                if not self._vault.current(row.sealed):
                    value = self._vault.open(row.sealed, row.endpoint_id)
                    connection.execute(
                        update(_X)
                        .where(_X.c.endpoint_id == row.endpoint_id, _X.c.created_at == row.created_at)
                        .values(sealed=self._vault.seal(value, row.endpoint_id))
                    )
                    count += 1
            for column in (_E.c.headers_sealed, _E.c.credentials_sealed):
                for endpoint_id, sealed in connection.execute(
                    select(_E.c.id, column).where(column.is_not(None))
                ).all():
                    if not self._vault.current(sealed):
                        value = self._vault.seal(self._vault.open(sealed, endpoint_id), endpoint_id)
                        connection.execute(
                            update(_E).where(_E.c.id == endpoint_id).values({column.key: value})
                        )
                        count += 1
        return count

    def check_seals(self) -> None:
        """Open one stored value of each key that sealed any; raises ConfigurationError when one is missing."""
        with self._database.read() as connection:
            found = [
                *connection.execute(select(_E.c.id, _E.c.headers_sealed)).all(),
                *connection.execute(select(_X.c.endpoint_id, _X.c.sealed)).all(),
                *connection.execute(
                    select(_E.c.id, _E.c.credentials_sealed).where(_E.c.credentials_sealed.is_not(None))
                ).all(),
            ]
        seen: set[bytes] = set()
        for endpoint_id, sealed in found:
            if sealed[:5] not in seen:
                seen.add(sealed[:5])
                self._vault.open(sealed, endpoint_id)


def _own_keys(targets: dict[str, Target]) -> dict[str, str | None]:
    """For endpoints that ignore ordering keys, or take everything in order."""
    return {
        endpoint_id: None if target.endpoint.ordering == "none" else WHOLE_ENDPOINT
        for endpoint_id, target in targets.items()
        if target.endpoint.ordering != "key"
    }


def _living(supplier_id: str, endpoint_id: str) -> Select[Any]:
    return select(_E).where(_E.c.id == endpoint_id, _E.c.supplier_id == supplier_id, _E.c.deleted.is_(False))


def _no_endpoint(supplier_id: str, endpoint_id: str) -> NotFound:
    return NotFound(f"supplier {supplier_id!r} has no endpoint {endpoint_id!r}")
