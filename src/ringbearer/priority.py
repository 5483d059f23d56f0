"""Who is next: weighted shares of the lanes, and a fair order of suppliers and endpoints within each."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from heapq import nlargest
from statistics import median

from ringbearer.domain.events import LANES
from ringbearer.domain.suppliers import Tier

WEIGHTS: tuple[int, int, int, int] = (8, 4, 2, 1)
"""Shares of urgent, high, normal and bulk when all of them have work."""
TIER_WEIGHTS: dict[Tier, float] = {"standard": 1.0, "premium": 2.0, "enterprise": 4.0}
"""Shares of a supplier against others in the same lane, when all of them have work."""
FIRST_COST = 50_000
"""Microseconds that a delivery is taken to hold a slot, before any has shown it."""
TYPICAL = ""
"""Stands among the endpoints' costs for all those of which nothing is known yet."""
MOST_TOLD = 200
"""Flows, and costs, of which one process tells the others at a time."""

_MAX_SUPPLIERS = 20_000  # in a lane that are remembered; above it, those that nobody misses are forgotten


class Shares:
    """Turns slots into quotas per lane, and carries what is left over to the next time.

    The carry makes shares exact over many claims, even of one slot each: a lane of weight w gets w / sum of the
    weights of all slots in the long run, so the least lane waits for at most sum / w slots.
    """

    def __init__(self, weights: Sequence[int] = WEIGHTS) -> None:
        self._weights = tuple(weights)
        self._total = sum(weights)
        self._credit = [0] * len(self._weights)

    def quotas(self, slots: int) -> list[int]:
        """How many slots each lane may fill; they add up to `slots`."""
        quotas = [weight * slots // self._total for weight in self._weights]
        for lane, weight in enumerate(self._weights):
            self._credit[lane] += weight * slots - quotas[lane] * self._total
        for _ in range(slots - sum(quotas)):
            lane = max(range(len(quotas)), key=self._credit.__getitem__)
            quotas[lane] += 1
            self._credit[lane] -= self._total
        return quotas


class _Flows:
    """A supplier's flows in one lane: its endpoints with the tags at which their next deliveries start."""

    __slots__ = ("finish", "pruned_at")

    def __init__(self) -> None:
        self.finish: dict[str, int] = {}
        self.pruned_at = 0


class FairOrder:
    """Start-time fair queueing over suppliers, and over the endpoints of each.

    A flow is what one endpoint has in one lane. A delivery that becomes ready gets its flow's start tag as its
    rank: start = max(v, finish), then finish = start + cost * n / weight; v is the lane's virtual time, the
    highest tag that was claimed so far, weight the supplier's, n how many of its flows are busy, and cost the
    time for which deliveries of this endpoint hold a slot, in microseconds. Claiming by rank gives everybody who has
    work a share of the slots' time by weight, however much the others queue. Who was idle starts at v: that gives
    no credit for idling, and no penalty for having used what others left idle. Between two tags of a flow lies no
    more than one delivery of each other flow by weight, so a wait is bounded by how many flows there are, not by
    how much they hold.

    Source: Goyal, Vin and Cheng, Start-time Fair Queueing (SIGCOMM 1996). Not thread-safe.
    """

    def __init__(self) -> None:
        self.tier_weights: Mapping[Tier, float] = TIER_WEIGHTS
        self._v = [0] * len(LANES)
        self._flows: list[dict[str, _Flows]] = [{} for _ in LANES]
        self._costs: dict[str, int] = {}
        self._typical = FIRST_COST
        self._touched: set[tuple[int, str, str]] = set()

    def __repr__(self) -> str:
        return f"<FairOrder of {[len(flows) for flows in self._flows]} suppliers>"

    def tags(self, lane: int, supplier_id: str, tier: Tier, endpoint_ids: Sequence[str]) -> list[int]:
        """The start tags of one delivery to each of the endpoints, which are charged for them."""
        v = self._v[lane]
        flows = self._of(lane, supplier_id, v)
        finish = flows.finish
        if len(endpoint_ids) == 1:
            endpoint_id = endpoint_ids[0]
            siblings = len(finish) + (endpoint_id not in finish)
        else:
            siblings = len(finish.keys() | endpoint_ids)
        share = siblings / self.tier_weights[tier]
        tags = []
        for endpoint_id in endpoint_ids:
            start = max(v, finish.get(endpoint_id, 0))
            finish[endpoint_id] = start + max(1, int(self._costs.get(endpoint_id, self._typical) * share))
            self._touched.add((lane, supplier_id, endpoint_id))
            tags.append(start)
        return tags

    def _of(self, lane: int, supplier_id: str, v: int) -> _Flows:
        """The supplier's flows that are busy: whose next tag lies ahead of the virtual time."""
        flows = self._flows[lane].get(supplier_id)
        if flows is None:
            if len(self._flows[lane]) >= _MAX_SUPPLIERS:
                self._forget(lane)
            flows = self._flows[lane][supplier_id] = _Flows()
        elif flows.pruned_at != v:
            flows.pruned_at = v
            past = [endpoint_id for endpoint_id, finish in flows.finish.items() if finish <= v]
            for endpoint_id in past:
                del flows.finish[endpoint_id]
        return flows

    def _forget(self, lane: int) -> None:
        """Forget suppliers whose tags are past, which changes nothing; if all are ahead, half of them."""
        v = self._v[lane]
        held = self._flows[lane]
        ahead = {s: f for s, f in held.items() if max(f.finish.values(), default=0) > v}
        if len(ahead) >= _MAX_SUPPLIERS:
            nearest = sorted(ahead, key=lambda s: max(ahead[s].finish.values()))
            for supplier_id in nearest[: _MAX_SUPPLIERS // 2]:
                del ahead[supplier_id]
        self._flows[lane] = ahead

    def advance(self, clocks: Iterable[tuple[int, int]]) -> None:
        """Follow the lanes' virtual times, which only grow."""
        for lane, v in clocks:
            self._v[lane] = max(v, self._v[lane])

    def learn(self, costs: Iterable[tuple[str, int]]) -> None:
        """Follow what deliveries of endpoints cost, in microseconds; the next to be tagged are charged so.

        Tags once given stay, since those behind them in the same flow must not overtake. So that the first thousand
        of a new endpoint are not charged by a guess, they are charged what is typical.
        """
        if len(self._costs) > len(LANES) * _MAX_SUPPLIERS:
            self._costs.clear()
        self._costs.update(costs)
        self._typical = self._costs.pop(TYPICAL, self._typical)

    def refund(self, endpoint_ids: AbstractSet[str]) -> None:
        """Take back what endpoints were charged: none of their deliveries is queued any more, and none was sent."""
        for lane in self._flows:
            for flows in lane.values():
                for endpoint_id in flows.finish.keys() & endpoint_ids:
                    del flows.finish[endpoint_id]

    def merge(self, finishes: Iterable[tuple[int, str, str, int]]) -> None:
        """Take over what others have given out: lane, supplier, endpoint and the tag that is next there."""
        for lane, supplier_id, endpoint_id, finish in finishes:
            v = self._v[lane]
            if finish > v:
                flows = self._of(lane, supplier_id, v)
                flows.finish[endpoint_id] = max(finish, flows.finish.get(endpoint_id, 0))

    def busy(self) -> list[tuple[int, str, str, int]]:
        """The flows that were charged since the last time and are ahead: as `merge` takes them.

        Of many those that are furthest ahead: of the others another process may give out a tag that is too early by the
        little that they are ahead, and telling thousands each second would cost everybody more than that.
        """
        touched, self._touched = self._touched, set()
        found = []
        for lane, supplier_id, endpoint_id in touched:
            flows = self._flows[lane].get(supplier_id)
            finish = flows.finish.get(endpoint_id, 0) if flows is not None else 0
            if finish > self._v[lane]:
                found.append((lane, supplier_id, endpoint_id, finish))
        if len(found) > MOST_TOLD:
            found = nlargest(MOST_TOLD, found, key=lambda flow: flow[3] - self._v[flow[0]])
        return sorted(found)


class Costs:
    """What deliveries of endpoints cost, learnt from how long they held their slots. Not thread-safe.

    The belief follows what is measured by an exponentially weighted mean. What is typical follows the median of the
    endpoints in the same way, so that a few that hang do not make it large. Below a millisecond nothing costs less:
    that much a worker spends on any delivery.
    """

    def __init__(self) -> None:
        self._seen: dict[str, list[int]] = {}
        self._believed: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._typical = self._typical_told = float(FIRST_COST)

    def add(self, endpoint_id: str, held: int) -> None:
        """One delivery held its slot for so many microseconds."""
        seen = self._seen.get(endpoint_id)
        if seen is None:
            self._seen[endpoint_id] = [1, held]
        else:
            seen[0] += 1
            seen[1] += held

    def news(self) -> list[tuple[str, int]]:
        """The endpoints whose cost differs by more than a fifth from what was told last, with their costs.

        Of many those that changed most; the others are told the next times.
        """
        seen, self._seen = self._seen, {}
        if len(self._believed) > _MAX_SUPPLIERS:
            self._believed.clear()
            self._told.clear()
        typical = self._news_of_typical(seen)
        found = []
        for endpoint_id, (count, held) in seen.items():
            mean = max(_LEAST_COST, held / count)
            before = self._believed.get(endpoint_id, FIRST_COST)
            cost = self._believed[endpoint_id] = mean + (before - mean) * _KEEP**count
            told = self._told.get(endpoint_id, self._typical_told)
            if abs(cost - told) > _SLACK * told:
                found.append((abs(cost - told) / told, endpoint_id, cost))
        if len(found) > MOST_TOLD:
            found = nlargest(MOST_TOLD, found)
        self._told.update((endpoint_id, cost) for _, endpoint_id, cost in found)
        return typical + [(endpoint_id, round(cost)) for _, endpoint_id, cost in found]

    def _news_of_typical(self, seen: Mapping[str, Sequence[int]]) -> list[tuple[str, int]]:
        if len(seen) < _LEAST_SEEN:
            return []
        middle = median(max(_LEAST_COST, held / count) for count, held in seen.values())
        self._typical = middle + (self._typical - middle) * _KEEP
        if abs(self._typical - self._typical_told) <= _TYPICAL_SLACK * self._typical_told:
            return []
        self._typical_told = self._typical
        return [(TYPICAL, round(self._typical))]


_LEAST_COST = 1_000.0
_KEEP = 0.8  # of what was believed of a cost, after one more was measured
_SLACK = 0.2
_LEAST_SEEN = 10  # endpoints, of fewer nothing can be called typical
_TYPICAL_SLACK = 0.5
