"""The audit: who changed what by these pages, in the log."""

import logging

from ringbearer.dashboard.sessions import Visitor

_audit = logging.getLogger("ringbearer.audit")


def note(what: str, visitor: Visitor, **about: object) -> None:
    """Write down that somebody did something, with the ids of what it was done to."""
    _audit.info(what, extra={"key": visitor.key.id, "scope": visitor.key.scope, **about})
