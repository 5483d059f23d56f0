"""How the service does, and what it offers."""

from ringbearer.api.operation import EVERYBODY, Operation, get

_PLAIN = "text/plain"
_JSON = "application/json"

SERVICE: tuple[Operation, ...] = (
    get("/health/live", "live", "Service", "Whether the process answers.", _JSON, keys=EVERYBODY),
    Operation(
        "GET",
        "/health/ready",
        "ready",
        "Service",
        "Whether it can do its work; 503 names the part that fails.",
        {200: _JSON, 503: _JSON},
        keys=EVERYBODY,
    ),
    get("/metrics", "metrics", "Service", "Figures in Prometheus' text format.", _PLAIN, keys=EVERYBODY),
)
DESCRIPTION: tuple[Operation, ...] = (
    get("/openapi.json", "openapi", "Service", "This document.", _JSON, keys=EVERYBODY),
    get("/docs", "docs", "Service", "This document for people.", "text/html", keys=EVERYBODY),
)
