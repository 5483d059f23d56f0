"""An API with prepared answers, and commands that are run against it."""

import asyncio
import json
from typing import cast

import msgspec

from ringbearer.cli.main import main
from ringbearer.testing import LocalServer, Message, Receive, Send

NOW = "2026-06-20T14:00:00Z"
SUPPLIER = {"id": "lumen", "name": "Lumen", "tier": "premium", "created_at": NOW, "updated_at": NOW}
ENDPOINT = {
    "id": "ep_019e00000000700080000000000000aa",
    "supplier_id": "lumen",
    "url": "https://lumen.example/hooks",
    "created_at": NOW,
    "updated_at": NOW,
}
DELIVERY = {
    "id": "dlv_019e000000007000800000000000000a0000",
    "event_id": "evt_019e000000007000800000000000000a",
    "event_type": "booking.confirmed",
    "supplier_id": "lumen",
    "endpoint_id": ENDPOINT["id"],
    "state": "dead",
    "priority": "normal",
    "attempt_count": 8,
    "created_at": NOW,
}
EVENT = ["publish", "--supplier", "lumen", "--type", "booking.confirmed"]


class Asked(msgspec.Struct):
    """One request as the API saw it."""

    method: str
    path: str
    query: str
    body: bytes
    headers: dict[str, str]


class CannedApi:
    """An API that gives prepared answers, one after the other, and remembers what it was asked."""

    def __init__(self, *answers: tuple[int, object] | tuple[int, object, dict[str, str]]) -> None:
        self.asked: list[Asked] = []
        self._answers = list(answers)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        raw = cast("list[tuple[bytes, bytes]]", scope["headers"])
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += cast("bytes", message.get("body", b""))
            more = bool(message.get("more_body"))
        self.asked.append(
            Asked(
                method=str(scope["method"]),
                path=str(scope["path"]),
                query=cast("bytes", scope["query_string"]).decode(),
                body=bytes(body),
                headers={name.decode().lower(): value.decode() for name, value in raw},
            )
        )
        status, content, *extra = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        answer = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        headers += [(name.encode(), value.encode()) for one in extra for name, value in one.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def against(api: CannedApi, *arguments: str) -> int:
    """Runs a command against the API and returns its exit status."""

    async def run() -> int:
        async with LocalServer(api) as server:
            return await asyncio.to_thread(main, [*arguments, "--server", server.url, "--key", "rb_test"])

    return asyncio.run(run())
