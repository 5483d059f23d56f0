"""Endpoints with options, from the store to a receiver that checks what it gets."""

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from contract.making import SECRET
from delivery.stage import LONG, Stage
from ringbearer.domain.deliveries import State
from ringbearer.domain.endpoints import Credentials, OAuth2
from ringbearer.misbehaving import Rogues, says
from ringbearer.storage.base import Storage
from ringbearer.testing import Received, Receiver


class Listening:
    """A receiver with a loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.receiver = Receiver(secret=SECRET)

    def __enter__(self) -> Receiver:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.receiver.__aenter__(), self._loop).result(LONG)
        return self.receiver

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.receiver.__aexit__(None), self._loop).result(LONG)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that checks signatures."""
    with Listening() as listening:
        yield listening


@pytest.fixture
def stage(storage: Storage) -> Iterator[Stage]:
    """A worker on each database in turn."""
    with Stage(storage) as running:
        yield running


def _first(receiver: Receiver) -> Received:
    return receiver.received[0]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_selected_fields_arrive_compressed_and_signed(
    compression: str, stage: Stage, receiver: Receiver
) -> None:
    receiver.fail, receiver.every = 503, 1
    endpoint = stage.endpoint(receiver.url, payload="compact", fields="{a: a, b: b}", compression=compression)
    deliveries = stage.publish(endpoint, data='{"a":[1, 2],"b":null,"c":"left out"}')
    stage.until(lambda: receiver.total >= 1)
    receiver.fail = None
    stage.until_state(deliveries, State.DELIVERED)
    for received in receiver.received:
        assert received.verified
        assert received.headers["content-encoding"] == compression
        assert json.loads(received.body)["data"] == {"a": [1, 2]}
    assert len({received.body for received in receiver.received}) == 1
    assert len(receiver.received) >= 2


def test_what_cannot_be_made_is_a_dead_letter_and_stops_nobody(stage: Stage, receiver: Receiver) -> None:
    broken = stage.endpoint(receiver.url, payload="compact", fields="length(n)")
    sound = stage.endpoint(receiver.url)
    failing = stage.publish(broken, 3, data='{"n":1}')
    stage.until_state(stage.publish(sound, 3), State.DELIVERED)
    stage.until_state(failing, State.DEAD)
    (attempt,) = stage.detail(failing[0]).attempts
    assert attempt.error is not None
    assert attempt.error.startswith("payload_failed: ")
    assert {received.verified for received in receiver.received} == {True}
    assert receiver.total == 3


def test_deliveries_wait_for_a_bearer_token_and_carry_it(stage: Stage, receiver: Receiver) -> None:
    with Rogues() as rogues:
        answer = b'{"access_token":"t-1","token_type":"Bearer","expires_in":60}'
        tokens = rogues.serve(says(b"HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n" + answer))
        auth = OAuth2(token_url=tokens.url, client_id="studio")
        endpoint = stage.endpoint(receiver.url, auth=auth, credentials=Credentials(auth="hush"))
        stage.until_state(stage.publish(endpoint, 20), State.DELIVERED)
        assert len(tokens.requests) == 1
    assert {each.headers["authorization"] for each in receiver.received} == {"Bearer t-1"}
    assert {each.verified for each in receiver.received} == {True}


def test_attempts_without_a_token_fail_with_their_own_code(stage: Stage, receiver: Receiver) -> None:
    with Rogues() as rogues:
        tokens = rogues.serve(says(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}"))
        auth = OAuth2(token_url=tokens.url, client_id="studio")
        endpoint = stage.endpoint(
            receiver.url, auth=auth, retry_schedule=(), credentials=Credentials(auth="hush")
        )
        deliveries = stage.publish(endpoint, 3)
        stage.until_state(deliveries, State.DEAD)
    (attempt,) = stage.detail(deliveries[0]).attempts
    assert attempt.error == "token_failed: the token URL answered 401"
    assert receiver.total == 0
