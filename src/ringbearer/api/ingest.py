"""Ingest: the two publishing routes as plain ASGI, since every event of the busiest day comes through here."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from ringbearer.api.auth import Action, Authenticator, require
from ringbearer.api.problems import Refusal, answer_to
from ringbearer.domain.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_DATA_BYTES, NewEvent
from ringbearer.domain.traces import kept
from ringbearer.errors import Conflict, InvalidInput, RingbearerError
from ringbearer.publish import BREATH, Publisher
from ringbearer.storage.ledger import Accepted

# ASGI's own types are dictionaries of anything.
Scope = dict[str, Any]
Receive = Any
Send = Any
Headers = dict[bytes, bytes]
ResponseHeaders = list[tuple[bytes, bytes]]
Response = tuple[int, ResponseHeaders, bytes]
Answer = Callable[[int, ResponseHeaders, bytes], None]

MAX_EVENT_BYTES = MAX_DATA_BYTES + 64 * 1024
"""Of a request with one event: its data, and what else it says."""
_decode = msgspec.json.Decoder(NewEvent).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_DECISIVE = (b"authorization", b"idempotency-key", b"content-type", b"content-encoding")
_JSON: ResponseHeaders = [(b"content-type", b"application/json")]


class Rejected(msgspec.Struct):
    """An event of a batch that was not accepted."""

    index: int
    detail: str


class BatchAnswer(msgspec.Struct):
    """What became of a batch; `ids` stands in input order, null where an event was rejected."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]
    ids: list[str | None]


class Ingest:
    """Answers POST /v1/events and POST /v1/events/batch."""

    def __init__(
        self, *, publisher: Publisher, authenticator: Authenticator, trace_context: bool = True
    ) -> None:
        self._publisher = publisher
        self._authenticator = authenticator
        self._trace_context = trace_context
        self._slow: set[asyncio.Task[None]] = set()

    def begin(self, headers: Headers, raw: bytes, answer: Answer) -> None:
        """Accept one event; `answer` is called with the response, at once or when the event is committed.

        The usual case, a key and a supplier that are in memory, costs no task and no future.
        """
        try:
            key = self._authenticator.cached(headers.get(b"authorization"))
            if key is not None:
                require(key, Action.PUBLISH)
                event = _single(headers, raw)
                trace = self._trace(headers) if b"traceparent" in headers else None
                if self._publisher.offer(event, lambda became: _respond(event, became, answer), trace):
                    return
        except Exception as error:
            _refuse(error, answer)
            return
        task = asyncio.get_running_loop().create_task(self._slowly(headers, raw, answer))
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)

    async def _slowly(self, headers: Headers, raw: bytes, answer: Answer) -> None:
        """The same with a key or a supplier that has to be looked up."""
        try:
            await self._authorise(headers)
            event = _single(headers, raw)
            accepted = await self._publisher.publish(event, self._trace(headers))
        except Exception as error:
            _refuse(error, answer)
        else:
            _respond(event, [accepted], answer)

    async def one(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/events, by ASGI."""
        response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def answer(status: int, headers: ResponseHeaders, body: bytes) -> None:
            if not response.done():
                response.set_result((status, headers, body))

        try:
            headers = _unrepeated(scope["headers"])
            raw = await _body(receive, headers, MAX_EVENT_BYTES)
        except Exception as error:
            _refuse(error, answer)
        else:
            self.begin(headers, raw, answer)
        await _send(send, *await response)

    async def batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/events/batch, by ASGI."""
        try:
            headers = _unrepeated(scope["headers"])
            await self._authorise(headers)
            kind = _expect_type(headers, b"application/x-ndjson", b"application/json", b"application/jsonl")
            raw = await _body(receive, headers, MAX_BATCH_BYTES)
            parts = _parts(raw, array=kind == b"application/json")
            self._publisher.expect_room(len(parts))
            events: list[NewEvent | InvalidInput] = []
            for part in parts:
                if len(events) % BREATH == BREATH - 1:
                    await asyncio.sleep(0)
                events.append(_event_or_error(part))
            answers = await self._publisher.publish_batch(events, self._trace(headers))
            response: Response = 202, _JSON, _encode(_batch_answer(events, answers))
        except Exception as error:
            response = _refusal(error)
        await _send(send, *response)

    async def _authorise(self, headers: Headers) -> None:
        presented = headers.get(b"authorization")
        key = self._authenticator.cached(presented) or await self._authenticator.authenticate(presented)
        require(key, Action.PUBLISH)

    def _trace(self, headers: Headers) -> str | None:
        """The trace that a request belongs to; never a reason to refuse it."""
        parent, state = headers.get(b"traceparent"), headers.get(b"tracestate")
        if parent is None or not self._trace_context:
            return None
        return kept(parent.decode("latin-1"), None if state is None else state.decode("latin-1"))


def _unrepeated(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Headers by name; raises Refusal when one that decides something is there twice, since which counts?"""
    names = Counter(name for name, _ in headers)
    for name in _DECISIVE:
        if names[name] > 1:
            raise Refusal(400, f"the header {name.decode()} is there {names[name]} times; send it once")
    found = dict(headers)
    if names[b"traceparent"] > 1:
        del found[b"traceparent"]
    if names[b"tracestate"] > 1:  # which may come in parts
        found[b"tracestate"] = b",".join(value for name, value in headers if name == b"tracestate")
    return found


def _single(headers: Headers, raw: bytes) -> NewEvent:
    """The event of a request for one; raises Refusal and InvalidInput."""
    _expect_type(headers, b"application/json")
    event = _event(raw)
    key = headers.get(b"idempotency-key")
    if key is not None:
        event.idempotency_key = _same_key(event.idempotency_key, key)
    return event


def _respond(event: NewEvent, became: list[Accepted] | Exception, answer: Answer) -> None:
    """Tell a publisher what became of its event; never raises."""
    if isinstance(became, Exception):
        return _refuse(became, answer)
    accepted = became[0]
    if accepted.contradiction:
        return _refuse(_contradiction(event), answer)
    body = b'{"id":"%b","deliveries":%d,"duplicate":%b}' % (
        accepted.event_id.encode(),
        accepted.deliveries,
        b"true" if accepted.duplicate else b"false",
    )
    return answer(202, _JSON, body)


def _expect_type(headers: Headers, *kinds: bytes) -> bytes:
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise Refusal(415, "the body must not be encoded: send it without Content-Encoding")
    kind = headers.get(b"content-type", kinds[0]).partition(b";")[0].strip().lower()
    if kind not in kinds:
        wanted = " or ".join(k.decode() for k in kinds[:2])
        raise Refusal(415, f"expected Content-Type {wanted}, got {kind.decode('latin-1')!r}")
    return kind


async def _body(receive: Receive, headers: Headers, most: int) -> bytes:
    length = headers.get(b"content-length")
    if length is not None and int(length) > most:
        raise Refusal(413, f"the body may have at most {most} bytes, this one has {int(length)}")
    message = await receive()
    raw: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        return _within(raw, most)
    parts, size = [raw], len(raw)
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        _within(b"", most, size)
    if message["type"] != "http.request":
        raise Refusal(400, "the connection ended before the body did")
    return b"".join(parts)


def _within(raw: bytes, most: int, size: int | None = None) -> bytes:
    if (len(raw) if size is None else size) > most:
        raise Refusal(413, f"the body may have at most {most} bytes")
    return raw


def _event(raw: bytes) -> NewEvent:
    """Read one event; raises InvalidInput, or Refusal for what is no JSON or too large."""
    try:
        raw.decode()  # the parser takes strings in the data as they come
        event = _decode(raw)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    size = len(bytes(event.data))
    if size > MAX_DATA_BYTES:
        raise Refusal(413, f"data may have at most {MAX_DATA_BYTES} bytes, these have {size}")
    return event


def _event_or_error(raw: bytes) -> NewEvent | InvalidInput:
    try:
        return _event(raw)
    except InvalidInput as error:
        return error
    except Refusal as error:
        return InvalidInput(str(error))


def _invalid(error: msgspec.ValidationError) -> InvalidInput:
    """msgspec says «Expected `str`, got `int` - at `$.type`»."""
    message, _, path = str(error).partition(" - at `$")
    pointer = path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
    if message.startswith("Object contains unknown field"):
        pointer += "/" + message.split("`")[1]
        message = "this field is not known"
    elif message.startswith("Object missing required field"):
        pointer += "/" + message.split("`")[1]
        message = "this field is required"
    return InvalidInput(f"{pointer or 'the event'}: {message}", [(pointer, message)])


def _same_key(in_body: str | None, header: bytes) -> str:
    key = header.decode("latin-1")
    if in_body is not None and in_body != key:
        message = "the header Idempotency-Key says something else"
        raise InvalidInput(message, [("/idempotency_key", message)])
    return key


def _parts(raw: bytes, *, array: bool) -> list[bytes]:
    """The events of a batch, each as its own JSON text."""
    if array or raw.lstrip()[:1] == b"[":
        try:
            parts = [bytes(part) for part in _decode_array(raw)]
        except RecursionError:
            raise Refusal(400, "the body is nested too deeply") from None
        except msgspec.DecodeError as error:
            raise Refusal(400, f"the body is not a JSON array: {error}") from None
    else:
        parts = [line for line in raw.split(b"\n") if line.strip()]
    if len(parts) > MAX_BATCH_EVENTS:
        raise Refusal(413, f"a batch may have at most {MAX_BATCH_EVENTS} events, this one has {len(parts)}")
    return parts


def _batch_answer(
    events: list[NewEvent | InvalidInput], answers: list[Accepted | RingbearerError]
) -> BatchAnswer:
    result = BatchAnswer(0, 0, [], [])
    for index, (event, answer) in enumerate(zip(events, answers, strict=True)):
        error: RingbearerError | None = None
        if not isinstance(answer, Accepted):
            error = answer
        elif answer.contradiction:
            assert isinstance(event, NewEvent)
            error = _contradiction(event)
        if error is not None:
            result.rejected.append(Rejected(index, str(error)))
            result.ids.append(None)
            continue
        assert isinstance(answer, Accepted)
        result.ids.append(answer.event_id)
        if answer.duplicate:
            result.duplicates += 1
        else:
            result.accepted += 1
    return result


def _contradiction(event: NewEvent) -> Conflict:
    return Conflict(
        f"the idempotency key {event.idempotency_key!r} stands for an event with another body already; "
        "use a new key for a new event"
    )


def _refusal(error: Exception) -> Response:
    refused = answer_to(error)
    return refused.status, [(n.encode(), v.encode()) for n, v in refused.headers.items()], refused.body


def _refuse(error: Exception, answer: Answer) -> None:
    answer(*_refusal(error))


async def _send(send: Send, status: int, headers: ResponseHeaders, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
