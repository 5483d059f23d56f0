"""What measuring costs: `python -m bench.monitor [--quick]`.

Attempts of 2,847 suppliers are reported in batches of 500, as a worker does, and written to a real SQLite store;
the CPU of all of it, a delivery, is compared with what a delivery costs a worker and the API together.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import msgspec

from ringbearer import clock
from ringbearer.domain.deliveries import State
from ringbearer.monitor.recorder import Recorder
from ringbearer.storage.base import open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import AttemptMade, AttemptsMade, Telemetry

_SUPPLIERS = 2_847
_BATCH = 500
_PER_FLUSH = 10_000  # deliveries in two seconds at 5,000 a second


def measure(deliveries: int) -> tuple[dict[str, float], dict[str, int]]:
    """Microseconds of CPU a delivery: making the report, handing it over, counting, writing; and what is written."""
    chance = random.Random(1)
    telemetry = Telemetry()
    recorder = Recorder(telemetry, process="bench")
    spent = dict.fromkeys(("make", "emit", "count", "write"), 0.0)
    with (
        tempfile.TemporaryDirectory() as directory,
        open_storage(f"sqlite:///{Path(directory) / 'store.db'}", Vault([generate_key()])) as storage,
    ):
        storage.migrate()
        done, usual = 0, list[int]()
        while done < deliveries:
            for _ in range(_PER_FLUSH // _BATCH):
                began = time.process_time()
                batch = [_attempt(chance) for _ in range(_BATCH)]
                made = time.process_time()
                telemetry.emit(AttemptsMade(batch, clock.now()))
                spent["make"] += made - began
                spent["emit"] += time.process_time() - made
            done += _PER_FLUSH
            began = time.process_time()
            rows = recorder.drain(clock.now(), everything=done >= deliveries)
            counted = time.process_time()
            storage.rollups.write(rows)
            spent["count"] += counted - began
            spent["write"] += time.process_time() - counted
            usual.append(len(rows))
    sizes = {
        "rows every two seconds": min(usual),
        "rows after a minute": len(rows),
        "bytes after a minute": len(msgspec.json.encode(rows)),
    }
    return {name: seconds / done * 1e6 for name, seconds in spent.items()}, sizes


def _attempt(chance: random.Random) -> AttemptMade:
    now = clock.now()
    number = chance.randrange(_SUPPLIERS)
    return AttemptMade(
        outcome="delivered",
        send_seconds=0.01,
        accept_to_send=0.02,
        reused_connection=True,
        lane=number % 4,
        tier="standard",
        supplier_id=f"supplier-{number}",
        endpoint_id=f"ep_{number:032x}",
        event_type="booking.confirmed",
        attempt=1,
        state=State.DELIVERED,
        error=None,
        accepted_at=now - chance.randrange(1_000_000),
        ready_at=now - chance.randrange(100_000),
        claimed_at=now - 20_000,
        first_byte_at=now - 15_000,
        answered_at=now - chance.randrange(15_000),
    )


def main() -> None:
    """Measure and print, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in small, to see that it works")
    quick: bool = parser.parse_args().quick
    found, sizes = measure(20_000 if quick else 600_000)
    # What is made only for the bench (ids, random figures) is in "make"; a worker has them already.
    print(json.dumps({"deliveries_us": found, "written": sizes, "quick": quick}, indent=2))


if __name__ == "__main__":
    main()
