"""Tokens: bearer tokens by OAuth 2 client credentials, fetched, kept and refreshed beside the exchanges they are for.

The token URL is called like any receiver: each address is examined when it is dialled, certificates are
checked, redirects are not followed. Whoever needs a token that is not at hand waits for it without holding up
anyone else; all who need the same one wait for the same answer.
Source: RFC 6749, sections 2.3.1, 4.4 and 5; RFC 6750, section 2.1.
"""

import math
import re
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import quote_plus, urlencode

import msgspec

from ringbearer import __version__, clock
from ringbearer.delivery.courier import Courier
from ringbearer.delivery.handle import Order
from ringbearer.delivery.outcome import Exchange, answered, error
from ringbearer.delivery.returns import Return
from ringbearer.domain.endpoints import Grant

_TIMEOUT = 10.0
_LIFE = 300.0  # seconds of a token that does not say how long it lives
_SHORTEST, _LONGEST = 1.0, 86_400.0
_REFRESHED = 0.8  # of its life; then the next exchange fetches another one and does not wait for it
_MARGIN = 0.05  # of its life before the end, when it is not used any more: it still has to get there
_PAUSE = 5 * clock.SECOND  # between two questions to a token URL that gave no token
_MAX_TOKENS = 10_000
_OK, _UNAUTHORIZED = 200, 401
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
_ERROR = re.compile(r"[\x20-\x7e]{1,100}")


class _Answer(msgspec.Struct):
    """What a token URL says, as far as it matters."""

    access_token: str = ""
    token_type: str = ""
    expires_in: float | None = None
    error: str = ""


class _Token(msgspec.Struct, frozen=True):
    """A token as a header, until when it is used, and from when on another one is fetched (stored times)."""

    header: str
    refresh_at: int
    until: int


class _Question(msgspec.Struct):
    """A token that was asked for, and the orders that wait for it, each with the time since when."""

    grant: Grant
    asked_at: int
    waiting: list[tuple[Order, int]] = []


_read = msgspec.json.Decoder(_Answer, strict=False).decode


class TokenCourier(Courier):
    """A courier that adds the bearer token to orders that have a grant. Not thread-safe, as it is.

    An order whose token cannot be had comes back like any other, its exchange telling why (`token_failed`);
    for 5 s after that others come back at once instead of asking again. A receiver that answers 401 makes the
    token forgotten. At most 10,000 tokens are kept, those not used for longest go first.
    """

    def __init__(
        self,
        *,
        slots: int,
        refuse: Callable[[str], str | None],
        ca_file: str | None = None,
        proxy: str | None = None,
    ) -> None:
        super().__init__(slots=slots, refuse=refuse, ca_file=ca_file, proxy=proxy)
        self._tokens: OrderedDict[Grant, _Token] = OrderedDict()
        self._refused: OrderedDict[Grant, tuple[int, Exchange]] = OrderedDict()
        self._questions: dict[Grant, _Question] = {}
        self._failed: list[Return] = []

    def submit(self, order: Order) -> None:
        """Begin an exchange, or let it wait for its token; raises as `Courier.submit` does."""
        grant = order.grant
        if grant is None:
            Courier.submit(self, order)  # super() costs more, and most orders come here
            return
        now = clock.now()
        token = self._tokens.get(grant)
        if token is not None and now < token.until:
            self._tokens.move_to_end(grant)
            self._send(order, token)
            if now >= token.refresh_at and not self._refusal(grant, now):
                self._ask(grant, now)
            return
        refusal = self._refusal(grant, now)
        if refusal is not None:
            self._failed.append(_failed(order, now, 0, refusal))
            return
        self._ask(grant, now).waiting.append((order, now))

    def poll(self, timeout: float) -> tuple[list[Return], bool]:
        """Drive everything, as `Courier.poll` does; tokens that arrive are passed on, not returned."""
        arrived, rang = super().poll(0.0 if self._failed else timeout)
        if not (self._tokens or self._questions or self._failed):
            return arrived, rang
        returns = []
        for each in arrived:
            if isinstance(each.order.token, _Question):
                self._answered(each.order.token, each.exchange)
            else:
                if each.order.grant is not None and answered(each.exchange) == _UNAUTHORIZED:
                    self._forget(each.order)
                returns.append(each)
        returns += self._failed
        self._failed = []
        return returns, rang

    def abandon(self) -> list[Order]:
        """Break off everything in flight or waiting; returns the orders, whose outcome is unknown."""
        orders = [order for order in super().abandon() if not isinstance(order.token, _Question)]
        for question in self._questions.values():
            orders += [order for order, _ in question.waiting]
        orders += [each.order for each in self._failed]
        self._questions.clear()
        self._failed = []
        return orders

    def _send(self, order: Order, token: _Token) -> None:
        order.headers.append(token.header)
        super().submit(order)

    def _ask(self, grant: Grant, now: int) -> _Question:
        """The question for a token; put, if it is not under way."""
        question = self._questions.get(grant)
        if question is None:
            question = _Question(grant, now)
            super().submit(_request(grant, question))
            self._questions[grant] = question
        return question

    def _answered(self, question: _Question, exchange: Exchange) -> None:
        grant = question.grant
        del self._questions[grant]
        now = clock.now()
        token, problem = _token(exchange, question.asked_at)
        if token is None:
            refusal = msgspec.structs.replace(exchange, failure=f"token_failed: {problem}")
            self._refused[grant] = (now + _PAUSE, refusal)
            _bound(self._refused)
            self._failed += [_failed(order, since, now - since, refusal) for order, since in question.waiting]
            return
        self._refused.pop(grant, None)
        self._tokens[grant] = token
        self._tokens.move_to_end(grant)
        _bound(self._tokens)
        for order, since in question.waiting:
            try:
                self._send(order, token)
            except Exception as reason:  # something in it that libcurl does not take; the others go on
                said = f"internal_error: the request could not be made ({type(reason).__name__})"
                self._failed.append(
                    _failed(order, since, now - since, Exchange(started_at=0, duration=0, failure=said))
                )

    def _refusal(self, grant: Grant, now: int) -> Exchange | None:
        """Why there was no token a moment ago."""
        until, exchange = self._refused.get(grant, (0, None))
        return exchange if now < until else None

    def _forget(self, order: Order) -> None:
        """Use a token no more that its receiver did not accept."""
        assert order.grant is not None
        token = self._tokens.get(order.grant)
        if token is not None and token.header in order.headers:
            del self._tokens[order.grant]


def _request(grant: Grant, question: _Question) -> Order:
    form = {"grant_type": "client_credentials"}
    headers = [
        "content-type: application/x-www-form-urlencoded",
        "accept: application/json",
        f"user-agent: Ringbearer/{__version__}",
    ]
    if grant.scope is not None:
        form["scope"] = grant.scope
    if grant.audience is not None:
        form["audience"] = grant.audience
    if grant.client_auth == "post":
        form |= {"client_id": grant.client_id, "client_secret": grant.client_secret}
    else:
        pair = f"{quote_plus(grant.client_id)}:{quote_plus(grant.client_secret)}"
        headers.append("authorization: Basic " + b64encode(pair.encode()).decode())
    return Order(
        token=question,
        url=grant.token_url,
        headers=headers,
        body=urlencode(form).encode(),
        timeout=_TIMEOUT,
    )


def _token(exchange: Exchange, asked_at: int) -> tuple[_Token | None, str]:
    """The token in an answer, or what is wrong with it; no word of it is the token itself."""
    status = answered(exchange)
    if not status:
        return None, f"the token URL gave no answer: {error(exchange)}"
    try:
        answer = _read(exchange.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        answer = _Answer()
    if status != _OK:
        why = f" ({answer.error})" if _ERROR.fullmatch(answer.error) else ""
        return None, f"the token URL answered {status}{why}"
    if not _TOKEN.fullmatch(answer.access_token):
        return None, "the token URL answered 200 without an access_token that can be sent"
    if answer.token_type.lower() != "bearer":
        return None, "the token URL answered with a token that is not of the type Bearer"
    said = answer.expires_in
    life = _LIFE if said is None or math.isnan(said) else min(max(said, _SHORTEST), _LONGEST)
    return (
        _Token(
            f"authorization: Bearer {answer.access_token}",
            asked_at + int(life * _REFRESHED * clock.SECOND),
            asked_at + int(life * (1 - _MARGIN) * clock.SECOND),
        ),
        "",
    )


def _failed(order: Order, since: int, took: int, why: Exchange) -> Return:
    """The order as it comes back without having been sent."""
    exchange = Exchange(started_at=since, duration=took, failure=why.failure, blocked=why.blocked)
    return Return(order, exchange, None, False)


def _bound(table: "OrderedDict[Grant, _Token] | OrderedDict[Grant, tuple[int, Exchange]]") -> None:
    if len(table) > _MAX_TOKENS:
        table.popitem(last=False)
