"""Writes the example of a wedding day: 1,000 events and the 12 suppliers they are for.

The files are `wedding_day.ndjson` and `suppliers.ndjson` beside this script, the same every time. After a
change of the script, run it and commit what it writes:

    python examples/make_wedding_day.py
"""

import json
import random
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

EVENTS = 1_000
SATURDAY = date(2026, 6, 20)
SEED = 20260620

T = TypeVar("T")
Json = dict[str, object]

SUPPLIERS: tuple[tuple[str, str, str, str, str], ...] = (
    # id, name, trade, tier, time zone
    ("lumen-photo", "Lumen Photographie", "photographer", "premium", "Europe/Paris"),
    ("golden-hour", "Golden Hour Studio", "photographer", "standard", "America/New_York"),
    ("fjord-frames", "Fjord & Frames", "photographer", "standard", "Europe/Oslo"),
    ("villa-rosa", "Villa Rosa", "venue", "enterprise", "Europe/Rome"),
    ("old-mill-barn", "The Old Mill Barn", "venue", "premium", "Europe/London"),
    ("bondi-pavilion", "Bondi Garden Pavilion", "venue", "enterprise", "Australia/Sydney"),
    ("ever-after", "Ever After Planning", "planner", "enterprise", "Europe/London"),
    ("casa-bodas", "Casa de Bodas", "planner", "premium", "Europe/Madrid"),
    ("wild-peony", "Wild Peony", "florist", "standard", "America/Los_Angeles"),
    ("bluetenwerk", "Blütenwerk", "florist", "standard", "Europe/Berlin"),
    ("saffron-table", "The Saffron Table", "caterer", "premium", "Asia/Kolkata"),
    ("three-tiers", "Three Tiers Cakes", "caterer", "standard", "America/Chicago"),
)

COUPLES = (
    "Amélie & Hugo", "Nora & Sindre", "Giulia & Marco", "Priya & Arjun", "Zoë & Callum", "Lucía & Mateo",
    "Hannah & Jonas", "Grace & Ethan", "Mei & Oliver", "Siobhán & Patrick", "Chloe & Maya", "Samuel & David",
    "Ingrid & Lars", "Fatima & Yusuf", "Olivia & Noah", "Eleni & Nikos",
)  # fmt: skip

# How often each kind of event happens on such a day, by trade.
WEIGHTS: dict[str, dict[str, int]] = {
    "photographer": {
        "photo.gallery_ready": 34, "form.submitted": 14, "booking.confirmed": 12, "payment.received": 14,
        "client.created": 10, "journey.completed": 10, "wedding.date_changed": 6,
    },
    "venue": {
        "venue.availability_updated": 38, "booking.confirmed": 16, "payment.received": 16,
        "form.submitted": 12, "client.created": 8, "wedding.date_changed": 10,
    },
    "planner": {
        "form.submitted": 24, "journey.completed": 22, "wedding.date_changed": 14, "client.created": 16,
        "booking.confirmed": 12, "payment.received": 12,
    },
    "florist": {
        "form.submitted": 26, "booking.confirmed": 24, "payment.received": 22, "client.created": 14,
        "wedding.date_changed": 8, "journey.completed": 6,
    },
    "caterer": {
        "form.submitted": 30, "booking.confirmed": 20, "payment.received": 22, "client.created": 12,
        "wedding.date_changed": 10, "journey.completed": 6,
    },
}  # fmt: skip

# Local hours of the day and how much happens in each: preparations, the ceremony, and the pictures at night.
HOURS = {7: 4, 8: 8, 9: 10, 10: 11, 11: 10, 12: 9, 13: 8, 14: 12, 15: 13, 16: 9, 17: 7, 18: 6, 20: 5, 22: 7}


def main(directory: Path) -> None:
    """Writes both files into the directory."""
    for name, rows in (("suppliers.ndjson", suppliers()), ("wedding_day.ndjson", events())):
        (directory / name).write_text(lines(rows), encoding="utf-8", newline="\n")


def lines(rows: Sequence[Json]) -> str:
    """The rows as newline-delimited JSON."""
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def suppliers() -> list[Json]:
    """The twelve suppliers, each as the API takes it, with its id."""
    return [
        {"id": id_, "name": name, "tier": tier, "timezone": zone, "metadata": {"trade": trade}}
        for id_, name, trade, tier, zone in SUPPLIERS
    ]


def events() -> list[Json]:
    """The day in the order in which it happened."""
    dice = Dice(SEED)
    happened: list[tuple[datetime, Json]] = []
    for number in range(EVENTS):
        supplier_id, _, trade, _, zone = SUPPLIERS[number % len(SUPPLIERS)]
        moment = datetime.combine(SATURDAY, _time_of_day(dice), ZoneInfo(zone)).astimezone(ZoneInfo("UTC"))
        event_type = dice.weighted(WEIGHTS[trade])
        happened.append((moment, _event(dice, number, supplier_id, event_type, moment)))
    happened.sort(key=lambda one: (one[0], str(one[1]["idempotency_key"])))
    return [event for _, event in happened]


class Dice:
    """Chances that fall alike on every version of Python: only `random()` itself is promised to."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, bound: int) -> int:
        """A whole number from 0 to bound - 1."""
        return int(self._random.random() * bound)

    def one(self, choices: Sequence[T]) -> T:
        """One of the choices, each as likely."""
        return choices[self.below(len(choices))]

    def weighted(self, weights: dict[str, int]) -> str:
        """One of the keys, as likely as its weight says."""
        left = self.below(sum(weights.values()))
        for key, weight in weights.items():
            left -= weight
            if left < 0:
                return key
        raise AssertionError("the weights are used up")

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.below(100) < percent


def _time_of_day(dice: Dice) -> time:
    hour = int(dice.weighted({str(hour): weight for hour, weight in HOURS.items()}))
    return time(hour, dice.below(60), dice.below(60))


def _event(dice: Dice, number: int, supplier_id: str, event_type: str, moment: datetime) -> Json:
    wedding = f"wed_{1001 + dice.below(48)}"
    occasion = _occasion(dice, event_type)
    event: Json = {
        "supplier_id": supplier_id,
        "type": event_type,
        "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "idempotency_key": f"{event_type}-{number:04d}",
        "data": {"wedding_id": wedding, **DATA[event_type](dice, occasion)},
    }
    if event_type not in ("client.created", "venue.availability_updated") or dice.chance(30):
        event["occasion_date"] = occasion.isoformat()
    if event_type == "wedding.date_changed":
        event["priority"] = "urgent"
    elif event_type == "photo.gallery_ready" and dice.chance(50):
        event["priority"] = "bulk"
    elif event_type in ("booking.confirmed", "payment.received") and dice.chance(40):
        event["priority"] = "high"
    if event_type in ("wedding.date_changed", "booking.confirmed", "payment.received") and dice.chance(60):
        event["ordering_key"] = wedding
    tags = [
        tag for tag, percent in (("mobile", 25), ("crm", 20), ("wedding-day", 15)) if dice.chance(percent)
    ]
    if tags:
        event["tags"] = tags
    return event


def _occasion(dice: Dice, event_type: str) -> date:
    """Mostly today's wedding; a gallery is of a past one, a form or a booking more often of one to come."""
    if event_type == "photo.gallery_ready":
        return SATURDAY - timedelta(weeks=dice.below(5))
    if dice.chance(45):
        return SATURDAY
    return SATURDAY + timedelta(weeks=1 + dice.below(60))


def _client_created(dice: Dice, _occasion: date) -> Json:
    sources = ("website", "instagram", "recommendation", "fair")
    return {
        "client_id": f"cli_{dice.below(9000) + 1000}",
        "couple": dice.one(COUPLES),
        "source": dice.one(sources),
    }


def _form_submitted(dice: Dice, _occasion: date) -> Json:
    forms: tuple[Json, ...] = (
        {"form": "guest-list", "guests": 40 + dice.below(180), "children": dice.below(20)},
        {"form": "menu", "vegetarian": dice.below(30), "vegan": dice.below(15), "allergies": ["nuts"]},
        {"form": "shot-list", "groups": 4 + dice.below(12), "note": "Großmutter zuerst, bitte"},
        {"form": "flowers", "bouquets": 1 + dice.below(6), "colours": ["ivory", "sage"]},
    )
    return {"submitted_by": dice.one(COUPLES), **dice.one(forms)}


def _journey_completed(dice: Dice, _occasion: date) -> Json:
    return {
        "journey": dice.one(("welcome", "final-details", "thank-you", "review")),
        "steps": 3 + dice.below(9),
    }


def _date_changed(dice: Dice, occasion: date) -> Json:
    before = occasion - timedelta(days=dice.one((1, 7, 14, 28)))
    reason = dice.one(("weather", "venue", "illness", "travel"))
    return {"previous_date": before.isoformat(), "new_date": occasion.isoformat(), "reason": reason}


def _gallery_ready(dice: Dice, _occasion: date) -> Json:
    gallery = f"gal_{dice.below(90000) + 10000}"
    return {"gallery_id": gallery, "photos": 120 + dice.below(900), "couple": dice.one(COUPLES)}


def _availability(dice: Dice, occasion: date) -> Json:
    rooms = ("garden", "great hall", "chapel", "terrace")
    return {"room": dice.one(rooms), "date": occasion.isoformat(), "available": dice.chance(35)}


def _booking_confirmed(dice: Dice, occasion: date) -> Json:
    package = dice.one(("half day", "full day", "weekend"))
    booking = f"bkg_{dice.below(90000) + 10000}"
    return {
        "booking_id": booking,
        "date": occasion.isoformat(),
        "package": package,
        "couple": dice.one(COUPLES),
    }


def _payment_received(dice: Dice, _occasion: date) -> Json:
    amount = {
        "amount": f"{150 + dice.below(4000)}.00",
        "currency": dice.one(("EUR", "GBP", "USD", "NOK", "AUD")),
    }
    return {"invoice": f"inv_{dice.below(90000) + 10000}", **amount, "part": dice.one(("deposit", "balance"))}


DATA: dict[str, Callable[[Dice, date], Json]] = {
    "client.created": _client_created,
    "form.submitted": _form_submitted,
    "journey.completed": _journey_completed,
    "wedding.date_changed": _date_changed,
    "photo.gallery_ready": _gallery_ready,
    "venue.availability_updated": _availability,
    "booking.confirmed": _booking_confirmed,
    "payment.received": _payment_received,
}

if __name__ == "__main__":
    main(Path(__file__).parent)
