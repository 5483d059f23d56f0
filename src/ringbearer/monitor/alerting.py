"""The watch: looks every two seconds, writes down what began and ended, and tells people, each thing once.

It runs on the API process that leads. What fires is in the store before anybody is told, and a notice is claimed
there before it is sent: a restart, or another leader, goes on where this one stopped. When a sender dies between
its claim and the confirmation, nobody knows whether the message left; after 30 s it is sent again, and says so.

When the store itself is away nothing can be claimed: then every process tells its channels by itself, once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from ringbearer import clock, ids
from ringbearer.domain.alerts import Alert, Channel, Rule
from ringbearer.errors import NotFound, RingbearerError, StoreUnavailable
from ringbearer.looper import Looper
from ringbearer.monitor import sending
from ringbearer.monitor.alerts import GIVE_UP, Due, due, step
from ringbearer.monitor.burning import BurnBook
from ringbearer.monitor.channels import Message
from ringbearer.monitor.rules import DEFAULT_RULES
from ringbearer.monitor.signals import gather
from ringbearer.storage.base import Storage

_log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
_HEARTBEAT_PATIENCE = 2.0  # seconds: looking at the signals waits for it
_HEARTBEAT_AGAIN = 10.0  # seconds until the next try after one that failed
HEARTBEAT_SECONDS = 60.0
_SHOWN = 10  # alerts that one message names


def rules_of(storage: Storage) -> list[Rule]:
    """The rules in force: those that everybody starts with, changed ones in their place, and added ones; blocks."""
    changed = storage.alerts.rules()
    own = [changed.pop(rule.id, rule) for rule in DEFAULT_RULES]
    return own + [changed[rule_id] for rule_id in sorted(changed)]


def look(storage: Storage, book: BurnBook, *, now: int) -> list[Alert]:
    """Look once: write down what began, changed and ended, and return that. Blocks; raises StoreUnavailable."""
    signals = gather(storage, book, now=now)
    changed, dropped = step(
        rules_of(storage), storage.alerts.live(), signals, now=clock.to_datetime(now), new_id=ids.alert
    )
    if changed or dropped:
        storage.alerts.write(changed, dropped, now=now)
    for alert in changed:
        if alert.state != "pending":
            _log.warning("alert %s", alert.state, extra={"rule": alert.rule, "group": alert.group})
    return changed


class AlertWatch:
    """A duty of the leader: has the monitor look, and sends what is due.

    `look` is `WebhookPerformanceMonitor.alert_on_performance_degradation`, which writes down what began and ended.
    `heartbeat_url` is called each minute that it works.
    """

    def __init__(
        self, *, storage: Storage, look: Callable[[], Awaitable[object]], heartbeat_url: str | None = None
    ) -> None:
        self._storage = storage
        self._look_once = look
        self._heartbeat_url = heartbeat_url
        self._next_heartbeat = 0.0
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(sending.AT_A_TIME)
        self._looper = Looper("alert watch", self._look, interval=LOOK_SECONDS)

    def __repr__(self) -> str:
        return f"<AlertWatch sending over {len(self._sending)} channels>"

    def start(self) -> None:
        """Begin to look."""
        self._looper.start()

    async def stop(self) -> None:
        """End; what is being sent is sent."""
        await self._looper.stop()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)

    async def _look(self) -> float | None:
        await self._look_once()
        for channel, notices in (await asyncio.to_thread(self._due, clock.now())).values():
            if channel.id not in self._sending:  # one at a time: a channel that hangs delays nobody else
                task = asyncio.create_task(self._tell(channel, notices))
                self._sending[channel.id] = task
                task.add_done_callback(partial(self._sent, channel.id))
        await self._beat()
        return None

    def _sent(self, channel_id: str, _: asyncio.Task[None]) -> None:
        del self._sending[channel_id]

    def _due(self, now: int) -> dict[tuple[str, str], tuple[Channel, list[Due]]]:
        """What is to be sent, by channel and kind: what happens at once is one message."""
        book = self._storage.alerts
        ways = book.channels()
        if not ways:
            return {}
        ended = book.ended(since=now - int(GIVE_UP.total_seconds()) * clock.SECOND)
        alerts = [*book.live(), *ended]
        silences = book.silences(now=now)
        notices = book.notices([alert.id for alert in alerts])
        found: dict[tuple[str, str], tuple[Channel, list[Due]]] = {}
        for each in due(alerts, ways, silences, notices, now=clock.to_datetime(now)):
            found.setdefault((each.channel.id, each.kind), (each.channel, []))[1].append(each)
        return found

    async def _tell(self, channel: Channel, notices: list[Due]) -> None:
        try:
            async with self._turns:
                await tell(self._storage, channel, notices)
        except Exception as error:
            _log.warning("channel %s was not told, will try again: %s", channel.id, error)

    async def _beat(self) -> None:
        """The dead man's switch: whoever waits for this call raises the alarm when it does not come."""
        if self._heartbeat_url is None or clock.monotonic() < self._next_heartbeat:
            return
        import httpx  # workers, which never get here, start without it

        self._next_heartbeat = clock.monotonic() + HEARTBEAT_SECONDS
        try:
            async with asyncio.timeout(_HEARTBEAT_PATIENCE), httpx.AsyncClient() as client:
                (await client.get(self._heartbeat_url)).raise_for_status()
        except (httpx.HTTPError, TimeoutError) as error:
            self._next_heartbeat = clock.monotonic() + _HEARTBEAT_AGAIN
            _log.warning("the heartbeat was not taken: %s", type(error).__name__)


async def tell(storage: Storage, channel: Channel, notices: Sequence[Due]) -> None:
    """Claim notices of one channel and kind, send them as one message, and write down what came of it."""
    book = storage.alerts
    claimed = await asyncio.to_thread(_claim, storage, channel, notices)
    if not claimed:
        return
    error: str | None = None
    try:
        address = await asyncio.to_thread(book.address, channel.id)
        await sending.send(channel, address, message(claimed))
    except NotFound:
        error = "the channel was deleted"
    except RingbearerError as failure:
        error = str(failure)
        _log.warning("channel %s did not take a message: %s", channel.id, failure)
    told = [each.alert.id for each in claimed]
    await asyncio.to_thread(
        book.close_notices, told, channel.id, claimed[0].kind, error=error, now=clock.now()
    )


def _claim(storage: Storage, channel: Channel, notices: Sequence[Due]) -> list[Due]:
    return [
        each
        for each in notices
        if storage.alerts.claim_notice(
            each.alert.id, channel.id, each.kind, tries=each.tries, now=clock.now()
        )
    ]


def message(notices: Sequence[Due]) -> Message:
    """What is said of alerts that fire, or are over, at once."""
    first = notices[0]
    over = first.kind == "resolved"
    worst = max((n.alert for n in notices), key=lambda a: ("info", "warning", "critical").index(a.severity))
    mark = "over" if over else worst.severity
    again = " (perhaps for the second time)" if any(n.again for n in notices) else ""
    subject = worst.rule if len(notices) == 1 else f"{len(notices)} alerts"
    lines = [_line(n.alert, over=over) for n in notices[:_SHOWN]]
    if len(notices) > _SHOWN:
        lines.append(f"… and {len(notices) - _SHOWN} more")
    if not over:
        lines.append(f"I take care of it: ringbearer alerts ack {worst.id}")
    return Message(
        id=f"{first.alert.id}.{first.channel.id}.{first.kind}",
        title=f"[{mark}] Ringbearer: {subject}{again}",
        lines=tuple(lines),
        kind=first.kind,
        severity=worst.severity,
        alerts=tuple(n.alert.id for n in notices),
    )


def _line(alert: Alert, *, over: bool) -> str:
    name = f"{alert.rule} ({alert.group})" if alert.group else alert.rule
    if over and alert.fired_at is not None and alert.resolved_at is not None:
        lasted = alert.resolved_at - alert.fired_at
        return f"{name}: is over after {_span(lasted)}; it was: {alert.summary}"
    return f"{name}: {alert.summary} (since {alert.since:%Y-%m-%d %H:%M:%S} UTC)"


def _span(lasted: timedelta) -> str:
    return str(timedelta(seconds=round(lasted.total_seconds())))


def trial(moment: datetime) -> Message:
    """What `ringbearer alerts test` sends."""
    return Message(
        id=ids.alert(),
        title="[test] Ringbearer",
        lines=(f"This channel works. Sent at {moment:%Y-%m-%d %H:%M:%S} UTC, nothing is wrong.",),
        kind="test",
        severity="info",
    )


class StoreWatch:
    """Tells the channels that the store is away, which no leader can do then; each process for itself.

    It keeps the channels' addresses in memory for that hour, and says when the store is back.
    """

    AWAY_SECONDS = 8.0
    """So long the store may be away before somebody is told."""

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage
        self._ways: list[tuple[Channel, str]] = []
        self._away_since: float | None = None
        self._told = False
        self._episode = ""
        self._turns = asyncio.Semaphore(sending.AT_A_TIME)
        self.ready = asyncio.Event()
        """Set once the channels are known."""
        self._looper = Looper("store watch", self._look, interval=LOOK_SECONDS)

    def __repr__(self) -> str:
        return f"<StoreWatch, the store is {'there' if self._away_since is None else 'away'}>"

    def start(self) -> None:
        """Begin to look."""
        self._looper.start()

    async def stop(self) -> None:
        """End."""
        await self._looper.stop()

    async def _look(self) -> float | None:
        try:
            async with asyncio.timeout(self.AWAY_SECONDS):
                self._ways = await asyncio.to_thread(self._channels)
        except (StoreUnavailable, TimeoutError):
            now = clock.monotonic()
            if self._away_since is None:
                self._away_since, self._episode = now, ids.alert()
            if not self._told and now - self._away_since >= self.AWAY_SECONDS:
                self._told = True
                await self._tell(
                    "fired", "the store does not answer: nothing is accepted, nothing is delivered"
                )
            return None
        self.ready.set()
        if self._told:
            await self._tell("resolved", "the store answers again")
        self._away_since, self._told = None, False
        return None

    def _channels(self) -> list[tuple[Channel, str]]:
        book = self._storage.alerts
        known = {channel.id: address for channel, address in self._ways}
        ways = [c for c in book.channels() if "critical" in c.severities]
        return [(c, known.get(c.id) or book.address(c.id)) for c in ways]

    async def _tell(self, kind: str, line: str) -> None:
        said = Message(
            id=f"{self._episode}.{kind}",
            title=f"[{'critical' if kind == 'fired' else 'over'}] Ringbearer: store_away",
            lines=(line,),
            kind=kind,
            severity="critical",
        )

        async def to(channel: Channel, address: str) -> None:
            async with self._turns:
                await sending.send(channel, address, said)

        sent = (to(channel, address) for channel, address in self._ways)
        for result in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(result, Exception):
                _log.warning("a channel was not told of the store's absence: %s", result)
