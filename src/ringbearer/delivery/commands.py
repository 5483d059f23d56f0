"""Which command of an operator is which question to a worker's processor, its cache or its queue."""

import msgspec

from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor
from ringbearer.delivery.tuning import ParallelismConfig
from ringbearer.domain.commands import (
    ChangeParallelism,
    Command,
    FindBatchSize,
    OptimizeBackoff,
    OptimizeCache,
    OptimizeConnections,
    OptimizeMemory,
    ProfileCpu,
    WatchBatch,
)
from ringbearer.queue.optimizer import WebhookQueueOptimizer


async def follow(
    command: Command,
    *,
    processor: HighPerformanceWebhookProcessor,
    cache: WebhookCacheManager,
    optimizer: WebhookQueueOptimizer,
) -> msgspec.Struct:
    """Do it; returns what was found, decided and changed. Raises InvalidInput."""
    match command:
        case ChangeParallelism():
            return await processor.implement_parallel_processing(parallelism(command))
        case FindBatchSize():
            return await processor.optimize_batch_size(command.target)
        case OptimizeConnections():
            return await processor.optimize_http_connections(ahead=command.ahead)
        case OptimizeBackoff():
            return await processor.optimize_retry_backoff_strategies()
        case OptimizeMemory():
            return await processor.optimize_memory_usage()
        case ProfileCpu():
            return await processor.profile_cpu_usage(command.seconds)
        case OptimizeCache():
            return await cache.optimize_cache_hit_ratio()
        case WatchBatch():
            return await optimizer.batch_process_webhooks(command.size, command.seconds)


def parallelism(command: ChangeParallelism) -> ParallelismConfig:
    """What the processor is to be told."""
    return ParallelismConfig(
        processes=command.processes,
        couriers=command.couriers,
        slots=command.slots,
        batch=command.batch,
        cpu_share=command.cpu_share,
    )
