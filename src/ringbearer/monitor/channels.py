"""Channels: how a message reaches a person. Everything here blocks; `sending` bounds for how long.

slack      an incoming webhook of Slack, or of whatever speaks its language (Mattermost, Rocket.Chat)
webhook    a POST signed like all of Ringbearer's webhooks; its id stays the same when it is sent again
apprise    any address that apprise knows: text messages, calls, PagerDuty, mail
"""

import base64
import hashlib
import hmac
import logging
from urllib.parse import urlsplit

import msgspec

from ringbearer import __version__, clock
from ringbearer.domain.alerts import Channel
from ringbearer.errors import InvalidInput, RingbearerError

TIMEOUT = 10.0
_SECRET = "whsec_"  # noqa: S105  the prefix that tells what it is
_log = logging.getLogger(__name__)


class ChannelFailed(RingbearerError):
    """A channel did not take a message; the text never holds its address."""


class SignedAddress(msgspec.Struct, frozen=True):
    """The address of a `webhook` channel, as it is sealed."""

    url: str
    secret: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is told. `id` is the same whenever the same is said again."""

    id: str
    title: str
    lines: tuple[str, ...]
    kind: str
    severity: str
    alerts: tuple[str, ...] = ()
    """The ids of the alerts that it is about."""


def check_address(kind: str, address: str) -> None:
    """Raises InvalidInput for an address that no message can be sent to."""
    if kind == "apprise":
        from apprise import Apprise

        _hush()
        if not Apprise().add(address):
            raise _wrong(
                "an address that apprise knows, such as pagerduty://key@service; see its documentation"
            )
        return
    import httpx  # workers, which tell nobody, start without it

    try:
        parts = urlsplit(address)
    except ValueError:  # httpx would take what is no host
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not httpx.URL(address).host:
        raise _wrong("an address that begins with https:// or http:// and a host")


def _wrong(expected: str) -> InvalidInput:
    return InvalidInput(f"/address: expected {expected}", [("/address", f"expected {expected}")])


def send(channel: Channel, address: str, message: Message) -> None:
    """Send a message; raises ChannelFailed when it was not taken."""
    import httpx

    try:
        if channel.kind == "slack":
            _post(
                address,
                msgspec.json.encode({"text": _escaped("\n".join((message.title, *message.lines)))}),
                {},
            )
        elif channel.kind == "webhook":
            signed = msgspec.json.decode(address, type=SignedAddress)
            _post(signed.url, *_signed(signed.secret, message))
        else:
            _by_apprise(address, message)
    except httpx.HTTPError as error:
        raise ChannelFailed(type(error).__name__) from None  # its text may hold the address


def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    import httpx

    headers = {"content-type": "application/json", "user-agent": f"Ringbearer/{__version__}", **headers}
    # The body of the answer is nobody's concern, so that it may be as long, slow or packed as it likes.
    with httpx.stream("POST", url, content=body, headers=headers, timeout=TIMEOUT) as answer:
        if not answer.is_success:
            raise ChannelFailed(f"answered {answer.status_code}")


def _signed(secret: str, message: Message) -> tuple[bytes, dict[str, str]]:
    """The body and headers of Standard Webhooks 1.0."""
    seconds = clock.now() // clock.SECOND
    body = msgspec.json.encode({"type": f"alert.{message.kind}", "data": message})
    key = base64.b64decode(secret.removeprefix(_SECRET))
    signature = hmac.new(key, f"{message.id}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return body, {
        "webhook-id": message.id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }


def _by_apprise(address: str, message: Message) -> None:
    from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType

    _hush()
    ways = Apprise(asset=AppriseAsset(app_id="Ringbearer", async_mode=False, secure_logging=True))
    kind = NotifyType.SUCCESS if message.kind == "resolved" else NotifyType.WARNING
    if message.severity == "critical" and message.kind == "fired":
        kind = NotifyType.FAILURE
    taken = ways.add(address) and ways.notify(
        body="\n".join(message.lines), title=message.title, notify_type=kind, body_format=NotifyFormat.TEXT
    )
    if not taken:
        raise ChannelFailed("it did not take the message")


def _hush() -> None:
    """What apprise, and what it sends with, says of an address may hold all of it."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _escaped(text: str) -> str:
    """What Slack would read as a link or a mention is shown as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
