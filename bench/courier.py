"""`python -m bench.courier`: the processor beside a bare libcurl loop, aiohttp and httpx, and 10,000 requests in flight.

All of them send to the same nginx in the same run; only the ratios count. Needs nginx, and `make .venv/bench`.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rich.console import Console
from rich.table import Table

from bench.senders import Job, Result
from chaos.ports import free_port
from chaos.service import wait_for

_RESULTS = Path(__file__).parent / "results"
_KINDS = ("ours", "bare", "libcurl", "aiohttp", "httpx")
_CONCURRENCY = 64
_IN_FLIGHT = 10_000
_DOORS = 8
HOSTS = [f"127.0.{n // 250}.{n % 250 + 1}" for n in range(1_000)]
"""A thousand receivers, all of which are one nginx; its certificate is for each of them."""


def main() -> int:
    """Measure everything, print a table, and write the figures down."""
    parser = argparse.ArgumentParser(prog="python -m bench.courier", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything in small")
    arguments = parser.parse_args()
    requests = 2_000 if arguments.quick else 40_000
    console = Console(width=130)
    with TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        with nginx(directory) as (plain, tls, multiplexed):
            figures = _compare(directory, requests, plain, tls, multiplexed, console)
            figures["couriers"] = _couriers(directory, requests, plain, tls, console)
        figures["in flight"] = _in_flight(directory, 500 if arguments.quick else _IN_FLIGHT, console)
    if not arguments.quick:
        _RESULTS.mkdir(exist_ok=True)
        path = _RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-courier.json"
        path.write_text(json.dumps(figures, indent=1) + "\n")
        console.print(f"written to {path}")
    return 0


def _compare(
    directory: Path, requests: int, plain: int, tls: int, multiplexed: int, console: Console
) -> dict[str, object]:
    one, many = (
        [f"http://127.0.0.1:{plain}/hook/0"],
        [f"http://{host}:{plain}/hook/{n}" for n, host in enumerate(HOSTS)],
    )
    failing = [url.replace("/hook/", "/mixed/") for url in many]
    scenarios = (
        ("HTTP/1.1, 1 endpoint", one, False),
        ("HTTP/1.1, 1,000 endpoints", many, False),
        ("HTTP/1.1, 1,000 endpoints, a fifth failing", failing, False),
        ("TLS, 1 endpoint", [f"https://127.0.0.1:{tls}/hook/0"], False),
        ("HTTP/2, 1 endpoint", [f"https://127.0.0.1:{multiplexed}/hook/0"], True),
    )
    table = Table(
        "scenario",
        "sender",
        "per second",
        "CPU µs each",
        "÷ bare",
        "÷ libcurl",
        "our lead",
        "reused",
        "HTTP/2",
        box=None,
    )
    figures: dict[str, object] = {}
    for name, urls, http2 in scenarios:
        found = {}
        for kind in _KINDS:
            if http2 and kind in {"aiohttp", "httpx"}:
                continue  # neither speaks it without further packages
            count = requests // 20 if kind == "httpx" else requests
            job = Job(kind, urls, count, _CONCURRENCY, str(directory / "ca.pem"), http2)
            result = send(job)
            wrong = sum(n for status, n in result.statuses.items() if status not in {200, 500})
            if wrong:
                raise RuntimeError(f"{kind} in {name}: {result.statuses}")
            made = count - result.put_back
            found[kind] = {
                "rate": made / result.seconds,
                "cpu": result.cpu / made * 1e6,
                "put back": result.put_back,
                "statuses": result.statuses,
                "reused": result.reused,
                "http2": result.http2_share,
                "handshakes saved": result.handshakes_saved,
            }
        for kind, figure in found.items():
            table.add_row(
                name,
                kind,
                f"{figure['rate']:,.0f}",
                f"{figure['cpu']:.0f}",
                f"{found['bare']['cpu'] / figure['cpu']:.2f}",  # type: ignore[operator]
                f"{found['libcurl']['cpu'] / figure['cpu']:.2f}",  # type: ignore[operator]
                f"{figure['cpu'] / found['ours']['cpu']:.1f} ×",  # type: ignore[operator]
                _share(figure["reused"]),
                _share(figure["http2"]),
            )
        figures[name] = found
    console.print(table)
    return figures


def _share(part: object) -> str:
    return f"{part:.2%}" if isinstance(part, float) else ""


def _couriers(
    directory: Path, requests: int, plain: int, tls: int, console: Console
) -> dict[str, dict[str, float]]:
    """The same work by one sending thread, by two threads of one process, and by two processes."""
    hosts = [f"127.0.0.{n}" for n in range(1, 33)]
    table = Table("", "how", "per second", "CPU µs each", "÷ one", box=None)
    figures: dict[str, dict[str, float]] = {}
    for name, urls in (
        ("HTTP/1.1", [f"http://{host}:{plain}/hook/0" for host in hosts]),
        ("TLS", [f"https://127.0.0.1:{port}/hook/0" for port in _doors(tls)]),
    ):
        ways = {
            "one thread": [1],
            "two threads": [2],
            "two processes": [1, 1],
        }
        found: dict[str, dict[str, float]] = {}
        for way, couriers in ways.items():
            share = requests // len(couriers)
            jobs = [
                Job("ours", urls, share, _CONCURRENCY, str(directory / "ca.pem"), couriers=count)
                for count in couriers
            ]
            with ThreadPoolExecutor(len(jobs)) as pool:
                results = list(pool.map(send, jobs))
            rate = sum(share / result.seconds for result in results)
            cpu = sum(result.cpu for result in results) / requests * 1e6
            found[way] = {"rate": rate, "cpu": cpu}
            ratio = rate / found["one thread"]["rate"]
            table.add_row(name, way, f"{rate:,.0f}", f"{cpu:.0f}", f"{ratio:.2f}")
        figures[name] = {f"{way}: {what}": value for way, f in found.items() for what, value in f.items()}
    console.print(table)
    return figures


def _in_flight(directory: Path, number: int, console: Console) -> dict[str, object]:
    """So many requests under way at once, to receivers that take a second."""
    port = free_port()
    slow = subprocess.Popen([sys.executable, "-m", "bench.courier_slow", str(port)], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: listens(port), 20, "the slow receiver")
        urls = [f"http://127.0.{n // 250}.{n % 250 + 1}:{port}/hook/{n}" for n in range(max(1, number // 10))]
        result = send(Job("ours", urls, 3 * number, number, str(directory / "ca.pem")))
    finally:
        slow.communicate(timeout=60)
    console.print(
        f"{number:,} wanted, {result.most_in_flight:,} in flight at once, {result.memory / 2**20:,.0f} MiB at most, "
        f"{3 * number / result.seconds:,.0f} a second, answers {result.statuses}"
    )
    return {
        "most": result.most_in_flight,
        "memory": result.memory,
        "rate": 3 * number / result.seconds,
        "statuses": result.statuses,
    }


def _doors(tls: int) -> range:
    """The ports on which nginx speaks TLS: a certificate is for one address, and hosts belong to couriers."""
    return range(tls, tls + _DOORS)


def listens(port: int) -> bool:
    """Whether something takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def send(job: Job) -> Result:
    """Do a job in a process of its own that may open as many files as the system allows."""
    ended = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -n "$(ulimit -Hn)"; exec "$0" -m bench.rivals', sys.executable],
        input=msgspec.json.encode(job),
        capture_output=True,
        check=False,
        timeout=900,
    )
    if ended.returncode:
        raise RuntimeError(f"{job.kind} failed: {ended.stderr.decode()[-2_000:]}")
    return msgspec.json.decode(ended.stdout, type=Result)


@contextmanager
def nginx(directory: Path) -> Iterator[tuple[int, int, int]]:
    """A receiver that is faster than any of the senders; yields its ports for HTTP/1.1, TLS, and HTTP/2."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    if program is None:
        raise SystemExit("nginx is not installed; on Debian: apt-get install nginx-light")
    _certificate(directory)
    plain, tls, multiplexed = free_port(), _free_ports(_DOORS), free_port()
    doors = " ".join(f"listen {port} ssl;" for port in _doors(tls))
    places = 'location / { return 200 ok; } location /mixed/ { if ($request_id ~ "^[0-2]") { return 500 no; } return 200 ok; }'
    (directory / "nginx.conf").write_text(f"""
        daemon off; pid {directory}/nginx.pid; error_log {directory}/error.log; worker_processes 1;
        worker_rlimit_nofile 16384;
        events {{ worker_connections 8192; }}
        http {{
            access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type text/plain;
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
            uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
            ssl_certificate {directory}/cert.pem; ssl_certificate_key {directory}/key.pem;
            server {{ listen {plain} backlog=4096; {places} }}
            server {{ {doors} {places} }}
            server {{ listen {multiplexed} ssl http2; {places} }}
        }}
    """)
    process = subprocess.Popen(
        [program, "-p", str(directory), "-c", str(directory / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: all(map(listens, (plain, tls, multiplexed))), 20, "nginx")
        yield plain, tls, multiplexed
    finally:
        process.terminate()
        process.wait(20)


def _free_ports(number: int) -> int:
    """The first of so many ports in a row that nobody uses."""
    while True:
        first = free_port()
        if not any(map(listens, range(first, first + number))):
            return first


def _certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(host)) for host in HOSTS]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    for file in ("cert.pem", "ca.pem"):
        (directory / file).write_bytes(pem)
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    sys.exit(main())
