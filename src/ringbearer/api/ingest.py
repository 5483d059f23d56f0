"""Ingest: the two publishing routes as plain ASGI, since every event of the busiest day comes through here."""

from typing import Any

import msgspec

from ringbearer.api.auth import Action, Authenticator, require
from ringbearer.api.problems import Refusal, answer_to
from ringbearer.domain.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_DATA_BYTES, NewEvent
from ringbearer.errors import Conflict, InvalidInput, NotFound, RingbearerError
from ringbearer.publish import Publisher
from ringbearer.storage.ledger import Accepted

# ASGI's own types are dictionaries of anything.
Scope = dict[str, Any]
Receive = Any
Send = Any

_MAX_EVENT_BYTES = MAX_DATA_BYTES + 64 * 1024  # the data, and what else an event says
_decode = msgspec.json.Decoder(NewEvent).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_JSON = [(b"content-type", b"application/json")]


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

    def __init__(self, *, publisher: Publisher, authenticator: Authenticator) -> None:
        self._publisher = publisher
        self._authenticator = authenticator

    async def one(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/events."""
        try:
            headers = await self._authorised(scope)
            _expect_type(headers, b"application/json")
            raw = await _body(receive, headers, _MAX_EVENT_BYTES)
            event = _event(raw)
            key = headers.get(b"idempotency-key")
            if key is not None:
                event.idempotency_key = _same_key(event.idempotency_key, key)
            accepted = await self._publisher.publish(event)
            if accepted.contradiction:
                raise _contradiction(event)
            duplicate = b"true" if accepted.duplicate else b"false"
            payload = b'{"id":"%b","deliveries":%d,"duplicate":%b}' % (
                accepted.event_id.encode(),
                accepted.deliveries,
                duplicate,
            )
        except Exception as error:
            await _refuse(send, error)
            return
        await _answer(send, 202, _JSON, payload)

    async def batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/events/batch."""
        try:
            headers = await self._authorised(scope)
            kind = _expect_type(headers, b"application/x-ndjson", b"application/json", b"application/jsonl")
            raw = await _body(receive, headers, MAX_BATCH_BYTES)
            events = [_event_or_error(part) for part in _parts(raw, array=kind == b"application/json")]
            answers = await self._publisher.publish_batch(events)
            payload = _encode(_batch_answer(events, answers))
        except Exception as error:
            await _refuse(send, error)
            return
        await _answer(send, 202, _JSON, payload)

    async def _authorised(self, scope: Scope) -> dict[bytes, bytes]:
        headers = dict(scope["headers"])
        presented = headers.get(b"authorization")
        key = self._authenticator.cached(presented) or await self._authenticator.authenticate(presented)
        require(key, Action.PUBLISH)
        return headers


def _expect_type(headers: dict[bytes, bytes], *kinds: bytes) -> bytes:
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise Refusal(415, "the body must not be encoded: send it without Content-Encoding")
    kind = headers.get(b"content-type", kinds[0]).partition(b";")[0].strip().lower()
    if kind not in kinds:
        wanted = " or ".join(k.decode() for k in kinds[:2])
        raise Refusal(415, f"expected Content-Type {wanted}, got {kind.decode('latin-1')!r}")
    return kind


async def _body(receive: Receive, headers: dict[bytes, bytes], most: int) -> bytes:
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
    events: list[NewEvent | InvalidInput], answers: list[Accepted | InvalidInput | NotFound]
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


async def _refuse(send: Send, error: Exception) -> None:
    answer = answer_to(error)
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    await _answer(send, answer.status, headers, answer.body)


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
