"""A supplier: the tenant whose systems hear about events."""

import re
from typing import Literal

import msgspec

from ringbearer.domain.endpoints import RateLimit
from ringbearer.domain.times import Moment

Tier = Literal["standard", "premium", "enterprise"]
SUPPLIER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Supplier(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant: owner of endpoints and addressee of events."""

    id: str
    name: str | None = None
    tier: Tier = "standard"
    timezone: str = "UTC"
    metadata: dict[str, object] = {}
    rate_limit: RateLimit | None = None
    """Of all its endpoints together."""
    max_concurrency: int | None = None
    """Requests under way to all its endpoints, in each worker."""
    created_at: Moment
    updated_at: Moment
