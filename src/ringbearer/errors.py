"""Every error that Ringbearer raises on purpose.

RingbearerError
├── ConfigurationError      a setting, file or address that cannot work; the message says which and why
├── InvalidInput            what a caller sent is wrong; `problems` names each place
│   └── UrlRefused          an endpoint URL that deliveries must never be sent to
├── PayloadFailed           an event cannot be brought into the form that its endpoint asks for
├── NotFound                no such object, or one that the caller may not know of
├── Conflict                the request contradicts what is already there
├── Unauthorized            no API key, or one that does not exist
├── Forbidden               an API key whose scope does not reach that far
├── TooManyRequests         more than a limit allows; `retry_after` says when to come again
├── RedisUnavailable        Redis cannot take or answer anything now; what it would have held is in the store
└── StoreUnavailable        the store cannot take or answer anything now; try again later
    └── Overloaded          too much waits for the store already; nothing was taken
"""

from collections.abc import Sequence


class RingbearerError(Exception):
    """The root of the tree."""


class ConfigurationError(RingbearerError):
    """A setting, file or address that cannot work."""


class InvalidInput(RingbearerError):
    """What a caller sent is wrong.

    `problems` holds pairs of a JSON pointer and a sentence that says what was expected there.
    """

    def __init__(self, detail: str, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.problems = tuple(problems)


class UrlRefused(InvalidInput):
    """An endpoint URL that deliveries must never be sent to."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the URL is refused: {reason}", [("/url", reason)])
        self.reason = reason


class PayloadFailed(RingbearerError):
    """An event cannot be brought into the form that its endpoint asks for: a matter of configuration."""


class NotFound(RingbearerError):
    """No such object, or one that the caller may not know of."""


class Conflict(RingbearerError):
    """The request contradicts what is already there."""


class Unauthorized(RingbearerError):
    """No API key, or one that does not exist."""


class Forbidden(RingbearerError):
    """An API key whose scope does not reach that far."""


class TooManyRequests(RingbearerError):
    """More than a limit allows. `retry_after` is in seconds."""

    def __init__(self, detail: str, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RedisUnavailable(RingbearerError):
    """Redis cannot take or answer anything now. Nothing is lost by that: everything in it comes from the store."""


class StoreUnavailable(RingbearerError):
    """The store cannot take or answer anything now."""


class Overloaded(StoreUnavailable):
    """Too much waits for the store already; nothing of this request was taken."""
