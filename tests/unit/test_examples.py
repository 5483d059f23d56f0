"""The example of a wedding day is what its script writes, and what the API takes."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from ringbearer.domain.events import NewEvent
from ringbearer.domain.suppliers import SUPPLIER_ID, Supplier

EXAMPLES = Path(__file__).parents[2] / "examples"
EVENT_TYPES = {
    "client.created",
    "form.submitted",
    "journey.completed",
    "wedding.date_changed",
    "photo.gallery_ready",
    "venue.availability_updated",
    "booking.confirmed",
    "payment.received",
}


@pytest.fixture(scope="module")
def events() -> list[NewEvent]:
    """The committed events, each strictly read."""
    return msgspec.json.Decoder(NewEvent).decode_lines((EXAMPLES / "wedding_day.ndjson").read_bytes())


def test_the_files_are_what_the_script_writes(tmp_path: Path) -> None:
    write = cast("Callable[[Path], None]", runpy.run_path(str(EXAMPLES / "make_wedding_day.py"))["main"])
    write(tmp_path)
    for name in ("wedding_day.ndjson", "suppliers.ndjson"):
        assert (tmp_path / name).read_bytes() == (EXAMPLES / name).read_bytes(), name


def test_a_thousand_events_of_every_type_for_every_supplier(events: list[NewEvent]) -> None:
    lines = (EXAMPLES / "suppliers.ndjson").read_bytes()
    suppliers = msgspec.json.Decoder(dict[str, object]).decode_lines(lines)
    assert len(events) == 1_000
    assert {event.type for event in events} == EVENT_TYPES
    assert {event.supplier_id for event in events} == {supplier["id"] for supplier in suppliers}
    assert len({supplier["timezone"] for supplier in suppliers}) >= 6
    moments = {"created_at": "2026-06-20T00:00:00Z", "updated_at": "2026-06-20T00:00:00Z"}
    for supplier in suppliers:
        assert SUPPLIER_ID.fullmatch(msgspec.convert(supplier | moments, Supplier).id)


def test_every_optional_field_is_used_and_no_key_twice(events: list[NewEvent]) -> None:
    assert len({event.idempotency_key for event in events}) == len(events)
    assert {event.priority for event in events} == {"urgent", "high", "bulk", None}
    for name in ("timestamp", "occasion_date", "ordering_key", "tags"):
        assert any(getattr(event, name) for event in events), name
    assert not any(event.deliver_at for event in events)
