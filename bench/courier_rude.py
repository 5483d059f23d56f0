"""Receivers that fail, one way each: 500, a reset, one byte a second, no answer at all; prints their ports; ends with its input."""

import sys

from ringbearer.misbehaving import Rogues, never_answers, resets_after_request, says, trickles

_BEHAVIOURS = (
    says(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", close=False),
    resets_after_request,
    trickles(b"HTTP/1.1 200 OK\r\n", pause=1.0),
    never_answers,
)


def main() -> None:
    """Serve until nobody listens."""
    with Rogues() as rogues:
        print(*(rogues.serve(behaviour).port for behaviour in _BEHAVIOURS), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
