"""A circuit breaker as everybody sees it: whether an endpoint is sent to at all."""

from typing import Literal

import msgspec

CircuitState = Literal["closed", "open", "half_open"]
Forced = Literal["open", "closed"]


class Circuit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What all workers know of one endpoint's breaker. Times are stored times.

    `opened` counts how often it opened in a row. `probe_at` is when the next probe may go: in the state half_open,
    when the one under way is given up for lost. `forced`: an operator's word, which stands until he takes it back.
    """

    endpoint_id: str
    supplier_id: str
    state: CircuitState = "closed"
    forced: Forced | None = None
    since: int = 0
    opened: int = 0
    probe_at: int = 0
    reason: str | None = None
    version: int = 0

    @property
    def standing(self) -> CircuitState:
        """Where it stands, the operator's word first."""
        return self.forced or self.state
