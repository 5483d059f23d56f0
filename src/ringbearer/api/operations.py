"""Every route, as data: what the OpenAPI document, the pages and the 405 answers are made of."""

import re

from ringbearer.api.operation import Operation
from ringbearer.api.routes import (
    alerts,
    deliveries,
    endpoints,
    events,
    figures,
    order,
    scaling,
    service,
    suppliers,
    workers,
)

INGEST = events.INGEST
SERVICE = service.SERVICE
DESCRIPTION = service.DESCRIPTION
MANAGEMENT: tuple[Operation, ...] = (
    *suppliers.OPERATIONS,
    *endpoints.OPERATIONS,
    *events.OPERATIONS,
    *deliveries.OPERATIONS,
    *figures.OPERATIONS,
    *workers.OPERATIONS,
    *alerts.OPERATIONS,
    *order.OPERATIONS,
    *scaling.OPERATIONS,
)
ALL: tuple[Operation, ...] = (*INGEST, *MANAGEMENT, *SERVICE, *DESCRIPTION)


def allowed_methods(path: str) -> frozenset[str]:
    """The methods that the path takes; none when there is no such path."""
    if path in _EXACT:
        return _EXACT[path]
    return next((methods for pattern, methods in _PATTERNS if pattern.fullmatch(path)), frozenset())


def _methods(path: str) -> frozenset[str]:
    return frozenset(operation.method for operation in ALL if operation.path == path)


_EXACT = {o.path: _methods(o.path) for o in ALL if "{" not in o.path}
_PATTERNS = [
    (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), _methods(path))
    for path in {o.path: None for o in ALL if "{" in o.path}
]
