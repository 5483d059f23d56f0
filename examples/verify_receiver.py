"""A receiver in few lines: verifies the signature, remembers what it has seen, answers at once.

    WEBHOOK_SECRET=whsec_… python examples/verify_receiver.py 9000

It prints one line for each webhook. `standardwebhooks` is the reference library of the specification; any other
implementation of Standard Webhooks does as well.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

MAX_BODY = 1024 * 1024
WEBHOOK = Webhook(os.environ["WEBHOOK_SECRET"])
SEEN: set[str] = set()
"""Ids of events that were dealt with. Keep them in your database, in the transaction that does the work."""


class Handler(BaseHTTPRequestHandler):
    """Answers 204 to a webhook that is signed rightly, 400 to anything else."""

    protocol_version = "HTTP/1.1"  # keeps the connection for the next webhook

    def do_POST(self) -> None:
        """Take one webhook."""
        body = self.rfile.read(min(int(self.headers.get("content-length", 0)), MAX_BODY))
        try:
            event = WEBHOOK.verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            print(f"refused: {error}", flush=True)
            return self._answer(400)
        if event["id"] in SEEN:  # delivery is at least once: the same event may come again
            print(f"seen before: {event['id']}", flush=True)
        else:
            SEEN.add(event["id"])
            print(f"verified: {event['id']} {event['type']} {event['data']}", flush=True)
        return self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class names it
        """Nothing: one line for each webhook is enough."""


def main() -> None:
    """Serve until interrupted."""
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
