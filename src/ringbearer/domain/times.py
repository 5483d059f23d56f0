"""Moments: times that know their zone, as the API writes them."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

Moment = Annotated[datetime, Meta(tz=True)]
"""A point in time, in UTC wherever Ringbearer made it; RFC 3339 in JSON."""
