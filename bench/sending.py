"""The sending loop alone: how fast the courier makes signed-looking requests when nothing else is done."""

import subprocess
import sys
import time

import msgspec
import psutil

from ringbearer.delivery.courier import Courier
from ringbearer.delivery.handle import Order

_SLOTS = 512
_BODY = (
    b'{"id":"evt_0","type":"booking.confirmed","timestamp":"2027-06-19T14:00:00Z","data":{"text":"%b"}}'
    % (b"x" * 300)
)
_HEADERS = [
    "content-type: application/json",
    "user-agent: bench",
    "expect:",
    "webhook-id: evt_01890a5d0b7f7c4e8b7e2f3a4b5c6d7e",
    "webhook-timestamp: 1813413600",
    "webhook-signature: v1," + "A" * 44,
    "ringbearer-attempt: 1",
]


class Result(msgspec.Struct):
    """Requests per second, and CPU microseconds of each."""

    rate: float
    cpu: float


def measure(port: int, requests: int) -> Result:
    """Run it in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench.sending", str(port), str(requests)],
        capture_output=True,
        check=True,
        timeout=300,
    )
    return msgspec.json.decode(ended.stdout, type=Result)


def _send(port: int, requests: int) -> Result:
    courier = Courier(slots=_SLOTS, refuse=lambda _address: None)
    begun = done = 0
    process = psutil.Process()
    cpu = sum(process.cpu_times()[:2])
    began = time.perf_counter()
    while done < requests:
        while begun < requests and courier.in_flight < _SLOTS:
            url = f"http://127.0.0.1:{port}/hook/{begun % 200}"
            courier.submit(Order(token=None, url=url, headers=_HEADERS, body=_BODY, timeout=10.0))
            begun += 1
        returns, _ = courier.poll(1.0)
        for returned in returns:
            if returned.exchange.status != 200:
                raise RuntimeError(f"the receiver failed: {returned.exchange}")
        done += len(returns)
    seconds = time.perf_counter() - began
    used = sum(process.cpu_times()[:2]) - cpu
    courier.close()
    return Result(rate=requests / seconds, cpu=used / requests * 1e6)


if __name__ == "__main__":
    print(msgspec.json.encode(_send(int(sys.argv[1]), int(sys.argv[2]))).decode())
