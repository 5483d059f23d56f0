"""Returns: orders that came to an end, and what libcurl's account of an exchange means where it is not plain."""

import msgspec
import pycurl

from ringbearer import clock
from ringbearer.delivery.handle import Order
from ringbearer.delivery.names import Found
from ringbearer.delivery.outcome import Exchange
from ringbearer.domain.deliveries import Timing

_PROXY_WANTS_CREDENTIALS = 407


class Return(msgspec.Struct, gc=False):
    """An order that came to an end, with what came of it.

    `first_byte_at` is when the request began to go out (a stored time), None when it never did.
    """

    order: Order
    exchange: Exchange
    first_byte_at: int | None
    reused: bool


def unsent(order: Order, since: int, found: Found | None, *, blocked: str | None = None) -> Return:
    """What becomes of an order that did not even begin."""
    failure, late, ours = ("", False, False) if found is None else (found.failure, found.late, found.ours)
    exchange = Exchange(
        started_at=since,
        duration=max(0, clock.now() - since),
        curl_code=pycurl.E_OPERATION_TIMEDOUT if late or not failure else pycurl.E_COULDNT_RESOLVE_HOST,
        curl_message=failure or "Resolving took all of the time",
        blocked=blocked,
        ours=f"dns: {failure}" if ours else "",
    )
    return Return(order, exchange, None, False)


def timing_of(curl: pycurl.Curl, url: str, name: float) -> Timing:
    """How long the parts of the connection took that an exchange began to make.

    `name` are the seconds that were waited for its name. libcurl tells moments since the beginning; 0 of what was not
    reached (CURLINFO_CONNECT_TIME, CURLINFO_APPCONNECT_TIME).
    """
    connected, secured = curl.getinfo(pycurl.CONNECT_TIME), curl.getinfo(pycurl.APPCONNECT_TIME)
    if connected == 0:
        return Timing(name=name, connect=None, tls=None)
    if not url.startswith("https"):
        return Timing(name=name, connect=connected, tls=0.0)
    return Timing(name=name, connect=connected, tls=max(0.0, secured - connected) if secured else None)


def told_by_proxy(curl: pycurl.Curl, code: int, message: str) -> tuple[int, str, str]:
    """A failure on the way through the proxy, and whose it is: nothing reached the receiver before the tunnel stood.

    A proxy that answers CONNECT with 5xx or 403 tells of the receiver, as far as it can be known; one that is not
    there, breaks off, or wants other credentials tells of itself.
    """
    answered = int(curl.getinfo(pycurl.HTTP_CONNECTCODE))
    if answered // 100 == 2 or curl.getinfo(pycurl.REQUEST_SIZE) > 0:
        return code, message, ""
    if answered and answered != _PROXY_WANTS_CREDENTIALS:
        return pycurl.E_COULDNT_CONNECT, f"the proxy answered {answered}", ""
    if code == pycurl.E_OPERATION_TIMEDOUT and curl.getinfo(pycurl.CONNECT_TIME) > 0:
        return code, message, ""
    return code, message, f"proxy: {message}"
