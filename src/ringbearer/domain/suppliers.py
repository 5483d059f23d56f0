"""A supplier: the tenant whose systems hear about events."""

import re
from typing import Literal

import msgspec

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
    created_at: Moment
    updated_at: Moment
