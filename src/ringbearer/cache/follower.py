"""The follower: a thread that keeps a cache coherent, woken by the wire, and looking for itself now and then."""

import logging
import threading
from collections.abc import Callable

from ringbearer import clock
from ringbearer.cache.wire import Wire

_log = logging.getLogger(__name__)
_GAP = 0.02
"""Seconds between two looks: many changes at a time are seen together."""


class Follower:
    """Calls `step` at least every `interval` seconds, and at once when the wire says that something changed.

    A step that fails is logged once, until one succeeds again; the next one comes all the same.
    """

    def __init__(self, step: Callable[[], None], wire: Wire, *, interval: float) -> None:
        self._step = step
        self._wire = wire
        self._interval = interval
        self._stopping = threading.Event()
        self._to_tell = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="cache-follower", daemon=True)

    def __repr__(self) -> str:
        return f"<Follower every {self._interval} s, {'running' if self._thread.is_alive() else 'stopped'}>"

    def start(self) -> None:
        """Begin; the first step comes at once."""
        self._thread.start()

    def tell(self) -> None:
        """Something was changed here: tell the others, and look at once."""
        self._to_tell = True
        self._wire.wake()

    def stop(self) -> None:
        """End; returns when the step under way is done."""
        self._stopping.set()
        self._wire.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._wire.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = clock.monotonic()
            if self._to_tell:
                self._to_tell = False
                self._wire.announce()
            self._try()
            heard = self._wire.wait(self._interval)
            early = _GAP - (clock.monotonic() - began)
            if heard and early > 0:
                self._stopping.wait(early)  # not on the wire, where the next word would end the gap
        if self._to_tell:
            self._wire.announce()

    def _try(self) -> None:
        try:
            self._step()
        except Exception as error:
            if not self._failing:
                _log.warning("the cache cannot follow the store, and tries on: %s", error)
            self._failing = True
        else:
            self._failing = False
