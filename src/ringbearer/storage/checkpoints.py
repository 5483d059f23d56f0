"""Checkpoints: a thread copies SQLite's log into its file while writers go on, so that none of them does so in its turn."""

import logging
import sqlite3
import threading
from pathlib import Path

from ringbearer.errors import StoreUnavailable
from ringbearer.storage.turns import Turns

EVERY = 4_000
"""Pages of the log, about, that this process may add before it is copied."""

_log = logging.getLogger(__name__)
_PAGES_PER_COMMIT = 8  # of a small transaction
_ROWS_PER_PAGE = 6  # changed rows of a large one
_FEW = 400  # pages; so many are copied within a few milliseconds
_PASSES = 5
_READERS_PAUSE = 0.02  # seconds in which who reads what is older may have come to an end
_PATIENCE = 1.0  # seconds for a turn that another process does not give up


class Checkpoints:
    """Copies the log when enough was written. The thread begins with the first need, and ends with `close`.

    A checkpoint beside writers never ends: they append what it has to copy next. So it copies, without anybody's turn,
    until little is left, and that last part in a turn of its own: then the log is empty, and the next writer begins it
    anew. SQLite tells nobody how long its log is, so the pages are estimated from rows and transactions. A process
    that died may leave a longer log; SQLite copies that itself, as it would without this (`wal_autocheckpoint`).

    Source: «Write-Ahead Logging» and «WAL-mode File Format» (sqlite.org): a passive checkpoint waits for nobody, and
    the log is reused from its beginning when all of it was copied and nobody reads it.
    """

    def __init__(self, path: Path, turns: Turns) -> None:
        self._path = path
        self._turns = turns
        self._rows = self._seen = 0
        self._commits = 0
        self._due = threading.Event()
        self._ended = threading.Event()
        self.made = 0
        """How many were begun and are over."""
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Checkpoints of {self._path} after {self.written} of {EVERY} pages>"

    @property
    def written(self) -> int:
        """The pages that this process has added since the last checkpoint was begun, estimated."""
        return self._commits * _PAGES_PER_COMMIT + self._rows // _ROWS_PER_PAGE

    def wrote(self, changes: int) -> None:
        """A transaction ended; `changes` are the rows that its connection has changed since it was opened.

        Told by whoever has this process's turn.
        """
        self._commits += 1
        self._rows += changes - self._seen if changes >= self._seen else changes  # less: another connection
        self._seen = changes
        if self.written >= EVERY:
            self._rows = self._commits = 0
            self._begin()

    def _begin(self) -> None:
        if self._ended.is_set():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()
        self._due.set()

    def close(self) -> None:
        """End the thread when what it is at is done."""
        self._ended.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        try:
            while True:
                self._due.wait()
                self._due.clear()
                if self._ended.is_set():
                    return
                try:
                    self._copy(connection)
                except (sqlite3.Error, StoreUnavailable) as error:
                    _log.debug("the log was not copied, will try again: %s", error)
                self.made += 1
        finally:
            connection.close()

    def _copy(self, connection: sqlite3.Connection) -> None:
        """Leave it to the next time when another process copies, or somebody goes on reading what is older."""
        before = 0
        for _ in range(_PASSES):
            busy, logged, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if busy or copied < before:  # the log was begun anew already
                return
            if copied == logged and copied - before <= _FEW:
                break
            if copied < logged and self._ended.wait(_READERS_PAUSE):
                return
            before = copied
        else:
            return
        with self._turns.take():
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
