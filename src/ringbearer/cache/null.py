"""The tier that is not there: knows nothing and keeps nothing, for installations without Redis."""

from collections.abc import Mapping, Sequence

from ringbearer.cache.base import Entry, Since, Tier, TierState


class NullTier(Tier):
    """Stands for the second tier where there is none."""

    name = "l2"

    def __repr__(self) -> str:
        return "<NullTier>"

    def read(self, supplier_ids: Sequence[str], *, version: int) -> dict[str, Entry]:
        return {}

    def write(self, entries: Mapping[str, Entry]) -> int:
        return 0

    def follow(self, version: int, since: Since) -> None:
        """Nothing to do: nothing is there."""

    def forget(self, supplier_ids: Sequence[str]) -> None:
        """Nothing to do: nothing is there."""

    def state(self) -> TierState:
        return TierState(entries=0, bytes=0)
