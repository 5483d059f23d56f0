"""Enforcement: takes and undoes the steps of relief in the running system, and announces each."""

import logging

import msgspec

from ringbearer import clock
from ringbearer.domain.events import LANES
from ringbearer.domain.relief import RELIEF, SLAS, Relief, SLAConfiguration, Step
from ringbearer.domain.scaling import LoadMetrics
from ringbearer.scaling.slas import Burning, Ladder, move, observe, worst
from ringbearer.storage.base import Storage
from ringbearer.storage.rollups import Level
from ringbearer.telemetry import ReliefChanged, Telemetry

_log = logging.getLogger(__name__)

_LOOK_BACK = 5 * 60 * clock.SECOND
_PAUSED = "paused, for a service level burns too fast"
_TRIED_OFTEN = 20  # attempts: of fewer, nobody can be called the worst


class SLAEnforcement(msgspec.Struct, frozen=True, kw_only=True):
    """How the levels stand, what is in force, and what has just changed."""

    levels: list[Burning]
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    taken: Step | None
    undone: Step | None
    relief: Relief
    reason: str


class Enforcer:
    """Remembers what it saw and did. Blocks; raises StoreUnavailable. Used from one thread at a time."""

    def __init__(self, storage: Storage, telemetry: Telemetry) -> None:
        self._storage = storage
        self._telemetry = telemetry
        self._ladder: Ladder | None = None

    def __repr__(self) -> str:
        return f"<Enforcer, {len(self._ladder.steps) if self._ladder is not None else 0} steps taken>"

    def configure(self, config: SLAConfiguration) -> None:
        """Keep these levels from now on, whoever leads."""
        body = msgspec.json.encode(config).decode()
        stored = self._storage.plans.get(SLAS)
        if stored is None or stored.body != body:
            self._storage.plans.put(SLAS, body, now=clock.now(), reason="levels set")

    def relief(self) -> Relief:
        """What is in force."""
        stored = self._storage.plans.get(RELIEF)
        return Relief() if stored is None else msgspec.json.decode(stored.body, type=Relief)

    def enforce(self, load: LoadMetrics, *, desired: int) -> SLAEnforcement:
        """Look at the levels once, and take or undo at most one step."""
        stored = self._storage.plans.get(SLAS)
        config = (
            SLAConfiguration() if stored is None else msgspec.json.decode(stored.body, type=SLAConfiguration)
        )
        relief, now = self.relief(), clock.monotonic()
        before = self._ladder
        if (
            before is None or before.steps != relief.steps
        ):  # another one led in between, and took or undid steps
            before = Ladder(steps=relief.steps, moved_at=now)
        seen, burning = observe(before, config, load.oldest, now=now)
        after, taken, undone = move(seen, config, burning, now=now)
        reason = "every level is kept" if worst(burning) is None else _told(burning)
        if taken is not None:
            relief = self._take(taken, relief, config, burning, desired)
        elif undone is not None:
            relief = self._undo(undone, relief)
        self._ladder = after
        return SLAEnforcement(
            levels=burning,
            before=before.steps,
            after=after.steps,
            taken=taken,
            undone=undone,
            relief=relief,
            reason=reason,
        )

    def _take(
        self, step: Step, relief: Relief, config: SLAConfiguration, burning: list[Burning], desired: int
    ) -> Relief:
        level = worst(burning)
        assert level is not None
        changed = msgspec.structs.replace(
            relief,
            steps=(*relief.steps, step),
            lane=LANES.index(level.level.lane),
            reason=_told(burning),
        )
        if step == "workers":
            changed = msgspec.structs.replace(changed, worker_floor=desired + max(1, desired // 2))
        if step == "endpoints":
            paused = self._worst_endpoints(config.endpoints)
            # Written down first: what is paused and not known of would stay so.
            changed = msgspec.structs.replace(changed, paused=tuple(paused))
        self._put(changed, step, taken=True)
        if step == "endpoints":
            for endpoint_id, supplier_id in changed.paused:
                self._storage.breakers.force(
                    endpoint_id, supplier_id, "open", now=clock.now(), reason=_PAUSED
                )
        return changed

    def _undo(self, step: Step, relief: Relief) -> Relief:
        changed = msgspec.structs.replace(relief, steps=relief.steps[:-1])
        if step == "endpoints":
            for endpoint_id, supplier_id in relief.paused:
                circuit = self._storage.breakers.get(endpoint_id, supplier_id)
                if (circuit.forced, circuit.reason) == ("open", _PAUSED):  # nobody has spoken by hand since
                    self._storage.breakers.force(endpoint_id, supplier_id, None, now=clock.now())
            changed = msgspec.structs.replace(changed, paused=())
        if step == "workers":
            changed = Relief(reason="every level has been kept for long enough")
        self._put(changed, step, taken=False)
        return changed

    def _put(self, relief: Relief, step: Step, *, taken: bool) -> None:
        what = "taken" if taken else "undone"
        self._storage.plans.put(
            RELIEF,
            msgspec.json.encode(relief).decode(),
            now=clock.now(),
            reason=f"{step} {what}: {relief.reason}",
        )
        _log.warning("a step of relief was %s", what, extra={"step": step, "why": relief.reason})
        self._telemetry.emit(ReliefChanged(step=step, taken=taken, reason=relief.reason))

    def _worst_endpoints(self, most: int) -> list[tuple[str, str]]:
        """Those of which most attempts failed lately, by how many that were, and which are not paused already."""
        now = clock.now()
        failed: dict[str, list[int]] = {}
        for row in self._storage.rollups.read(Level.MINUTE, "endpoint", since=now - _LOOK_BACK, until=now):
            counted = failed.setdefault(row.key, [0, 0])
            counted[0] += row.attempts
            counted[1] += row.attempts - row.delivered
        bad = sorted(
            (
                (bad, endpoint_id)
                for endpoint_id, (tried, bad) in failed.items()
                if tried >= _TRIED_OFTEN < 2 * bad
            ),
            reverse=True,
        )
        found = []
        for _, endpoint_id in bad[: 2 * most]:
            supplier_id = self._storage.catalog.supplier_of(endpoint_id)
            if (
                supplier_id is not None
                and self._storage.breakers.get(endpoint_id, supplier_id).forced is None
            ):
                found.append((endpoint_id, supplier_id))
        return found[:most]


def _told(burning: list[Burning]) -> str:
    return "; ".join(
        f"{each.level.lane} waits {each.now:.1f} s, more than {each.level.seconds:g} s in {each.missed:.0%} of the time"
        for each in burning
        if each.now >= each.level.seconds
    )
