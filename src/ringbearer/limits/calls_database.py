"""The calls of endpoints that fail, in the store."""

from collections.abc import Mapping, Sequence

from ringbearer.limits.breaker import BreakerPolicy, appended
from ringbearer.limits.calls import MOST_TROUBLED, SharedCalls
from ringbearer.storage.calls import CallTable


class DatabaseCalls(SharedCalls):
    """Reads, judges and writes the lines in one short transaction."""

    def __init__(self, table: CallTable) -> None:
        self._table = table

    def __repr__(self) -> str:
        return f"<DatabaseCalls in {self._table!r}>"

    def add(self, calls: Mapping[str, str], policy: BreakerPolicy, *, now: int) -> dict[str, str]:
        reasons: dict[str, str] = {}

        def append(lines: Mapping[str, str]) -> dict[str, str]:
            after = {}
            for endpoint_id, new in calls.items():
                after[endpoint_id], reason = appended(lines.get(endpoint_id, ""), new, policy)
                if reason is not None:
                    reasons[endpoint_id] = reason
            return after

        self._table.change(list(calls), append, now=now)
        return reasons

    def troubled(self) -> frozenset[str]:
        return frozenset(self._table.known(most=MOST_TROUBLED))

    def forget(self, endpoint_ids: Sequence[str]) -> None:
        self._table.remove(endpoint_ids)
