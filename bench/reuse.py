"""`python -m bench.reuse`: how often connections are used again, on steady traffic to a thousand endpoints.

The whole processor sends to them in turn over HTTP/1.1, TLS and HTTP/2; every exchange that needed a new connection
counts, the first to each endpoint among them. The target is 99 % in all, which 100 requests to each allow at best: so
there are 400. Needs nginx.
"""

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from bench.courier import HOSTS, nginx, send
from bench.senders import Job

_RESULTS = Path(__file__).parent / "results"
_EACH = 400
_CONCURRENCY = 64


def main() -> int:
    """Measure, print a table, and write the figures down."""
    parser = argparse.ArgumentParser(prog="python -m bench.reuse", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything in small")
    arguments = parser.parse_args()
    hosts = HOSTS[:50] if arguments.quick else HOSTS
    table = Table(
        "over", "endpoints", "requests", "reused", "handshakes saved", "HTTP/2", "per second", box=None
    )
    figures: dict[str, dict[str, float | int | None]] = {}
    with TemporaryDirectory(prefix="bench-") as name, nginx(Path(name)) as (plain, tls, multiplexed):
        for over, scheme, port in (
            ("HTTP/1.1", "http", plain),
            ("TLS", "https", tls),
            ("HTTP/2", "https", multiplexed),
        ):
            urls = [f"{scheme}://{host}:{port}/hook/{n}" for n, host in enumerate(hosts)]
            count = _EACH * len(urls)
            result = send(Job("ours", urls, count, _CONCURRENCY, f"{name}/ca.pem"))
            if set(result.statuses) != {200}:
                raise RuntimeError(f"{over}: {result.statuses}")
            rate = count / result.seconds
            table.add_row(
                over,
                f"{len(urls):,}",
                f"{count:,}",
                f"{result.reused:.3%}",
                f"{result.handshakes_saved:,}",
                f"{result.http2_share:.1%}",
                f"{rate:,.0f}",
            )
            figures[over] = {
                "endpoints": len(urls),
                "requests": count,
                "reused": result.reused,
                "handshakes saved": result.handshakes_saved,
                "http2": result.http2_share,
                "rate": rate,
            }
    console = Console()
    console.print(table)
    if not arguments.quick:
        path = _RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-reuse.json"
        path.write_text(json.dumps(figures, indent=1) + "\n")
        console.print(f"written to {path}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    sys.exit(main())
