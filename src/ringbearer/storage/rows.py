"""Rows of the catalog, and what they stand for; what must not lie open is sealed on its way in."""

from typing import Any

import msgspec
from sqlalchemy import Row

from ringbearer import clock
from ringbearer.domain.endpoints import NO_CREDENTIALS, Credentials, Endpoint, Options, RateLimit
from ringbearer.domain.keys import Key
from ringbearer.domain.suppliers import Supplier
from ringbearer.errors import ConfigurationError, StoreUnavailable
from ringbearer.storage.vault import Vault

_dumps = msgspec.json.encode
_Headers = msgspec.json.Decoder(dict[str, str])
_Options = msgspec.json.Decoder(Options)
_Credentials = msgspec.json.Decoder(Credentials)
_OPTIONS = tuple(field.name for field in msgspec.structs.fields(Options))


class EndpointRows:
    """Endpoints and their secrets as rows; everything is sealed for the endpoint that it belongs to."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def secret(self, row: Row[Any]) -> str:
        """A secret; when no key opens it nothing of its supplier can be sent, but nothing is lost either."""
        try:
            return self._vault.open(row.sealed, row.endpoint_id).decode()
        except ConfigurationError as error:
            raise StoreUnavailable(str(error)) from error

    def values(self, endpoint: Endpoint) -> dict[str, object]:
        """An endpoint's columns that may change."""
        limit = endpoint.rate_limit
        return {
            "url": endpoint.url,
            "event_types": _dumps(endpoint.event_types).decode(),
            "description": endpoint.description,
            # Custom headers often carry the receiver's credentials.
            "headers_sealed": self._vault.seal(_dumps(endpoint.headers), endpoint.id),
            "rate_requests": limit.requests if limit else None,
            "rate_period": limit.period if limit else None,
            "max_concurrency": endpoint.max_concurrency,
            "timeout": endpoint.timeout,
            "retry_schedule": _dumps(endpoint.retry_schedule).decode(),
            "enabled": endpoint.enabled,
            "disabled_reason": endpoint.disabled_reason,
            "updated_at": clock.from_datetime(endpoint.updated_at),
            "event_version": endpoint.event_version,
            "options": _dumps(Options(**{name: getattr(endpoint, name) for name in _OPTIONS})).decode(),
        }

    def sealed(self, credentials: Credentials, endpoint_id: str) -> bytes | None:
        """What is stored of credentials: nothing when there are none."""
        if credentials == NO_CREDENTIALS:
            return None
        return self._vault.seal(_dumps(credentials), endpoint_id)

    def credentials(self, row: Row[Any]) -> Credentials:
        """The credentials in a row; raises StoreUnavailable when no key opens them."""
        if row.credentials_sealed is None:
            return NO_CREDENTIALS
        try:
            return _Credentials.decode(self._vault.open(row.credentials_sealed, row.id))
        except ConfigurationError as error:
            raise StoreUnavailable(str(error)) from error

    def endpoint(self, row: Row[Any]) -> Endpoint:
        """The endpoint in a row; raises ConfigurationError when no key opens its headers."""
        limited = row.rate_requests is not None
        options = _Options.decode(row.options)
        return Endpoint(
            **{name: getattr(options, name) for name in _OPTIONS},
            event_version=row.event_version,
            id=row.id,
            supplier_id=row.supplier_id,
            url=row.url,
            event_types=tuple(msgspec.json.decode(row.event_types)),
            description=row.description,
            headers=_Headers.decode(self._vault.open(row.headers_sealed, row.id)),
            rate_limit=RateLimit(requests=row.rate_requests, period=row.rate_period) if limited else None,
            max_concurrency=row.max_concurrency,
            timeout=row.timeout,
            retry_schedule=tuple(msgspec.json.decode(row.retry_schedule)),
            signing=row.signing,
            public_key=row.public_key,
            enabled=bool(row.enabled),
            disabled_reason=row.disabled_reason,
            created_at=clock.to_datetime(row.created_at),
            updated_at=clock.to_datetime(row.updated_at),
        )


def supplier_in(row: Row[Any]) -> Supplier:
    """The supplier in a row."""
    return Supplier(
        id=row.id,
        name=row.name,
        tier=row.tier,
        timezone=row.timezone,
        metadata=msgspec.json.decode(row.metadata),
        rate_limit=(
            RateLimit(requests=row.rate_requests, period=row.rate_period)
            if row.rate_requests is not None
            else None
        ),
        max_concurrency=row.max_concurrency,
        created_at=clock.to_datetime(row.created_at),
        updated_at=clock.to_datetime(row.updated_at),
    )


def key_in(row: Row[Any]) -> Key:
    """The API key in a row."""
    return Key(
        id=row.id,
        scope=row.scope,
        name=row.name,
        last_four=row.last_four,
        created_at=clock.to_datetime(row.created_at),
    )
