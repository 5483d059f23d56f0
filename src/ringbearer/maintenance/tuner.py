"""The tuner: one worker fits the queue's plan to the load, ranks by new rules, and tells of backlogs."""

from ringbearer.looper import Looper
from ringbearer.queue.optimizer import WebhookQueueOptimizer
from ringbearer.queue.tuning import QueueConfiguration

_TUNE_SECONDS = 5.0
_RANK_SECONDS = 2.0
_BALANCE_SECONDS = 30.0


class Tuner:
    """A duty of the worker that leads; it does nothing to a plan that says that it is not tuned by itself."""

    def __init__(
        self, optimizer: WebhookQueueOptimizer, *, configuration: QueueConfiguration | None = None
    ) -> None:
        self._optimizer = optimizer
        self._configuration = configuration or QueueConfiguration()
        self._loopers = [
            Looper("tuner", self._tune, interval=_TUNE_SECONDS),
            Looper("ranker", self._rank, interval=_RANK_SECONDS),
            Looper("balancer", self._balance, interval=_BALANCE_SECONDS),
        ]

    def __repr__(self) -> str:
        return f"<Tuner of {self._optimizer!r}>"

    def start(self) -> None:
        """Begin."""
        for looper in self._loopers:
            looper.start()

    async def stop(self) -> None:
        """End."""
        for looper in self._loopers:
            await looper.stop()

    async def _tune(self) -> float | None:
        await self._optimizer.alert_on_queue_backlog()
        if self._optimizer.steering.base.automatic:
            await self._optimizer.optimize_queue_processing(self._configuration, damped=True)
        return None

    async def _rank(self) -> float | None:
        await self._optimizer.catch_up_with_rules()
        return None

    async def _balance(self) -> float | None:
        if self._optimizer.steering.base.automatic:
            await self._optimizer.balance_queue_load()
        return None
