"""A sampling profile of one thread of this process: which functions it is found in, and how much it waits."""

import sys
import threading
from collections import Counter
from collections.abc import Callable

import psutil

from ringbearer import clock
from ringbearer.delivery.tuning import CpuProfile, HotSpot

_INTERVAL = 0.005
_MOST = 15


def profile(thread: int | None, seconds: float, deliveries: Callable[[], int]) -> CpuProfile:
    """Sample a thread, by its identifier, for so many seconds; blocks.

    `deliveries` tells how many came to an end so far. Where the thread waits in libcurl or epoll, the sample shows
    the function that called them: how much of it was waiting is told by the thread's CPU time.
    """
    process = psutil.Process()
    native = next((each.native_id for each in threading.enumerate() if each.ident == thread), None)
    began, used, busy = clock.monotonic(), _cpu(process), _thread_cpu(process, native)
    ended_before = deliveries()
    functions: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    waiter = threading.Event()
    while clock.monotonic() - began < seconds:
        waiter.wait(_INTERVAL)
        frame = sys._current_frames().get(thread) if thread is not None else None
        if frame is not None:
            module = str(frame.f_globals.get("__name__", "?"))
            functions[f"{module}.{frame.f_code.co_qualname}"] += 1
            modules[module] += 1
    took = clock.monotonic() - began
    spent = _cpu(process) - used
    count = deliveries() - ended_before
    samples = functions.total()
    return CpuProfile(
        seconds=took,
        samples=samples,
        process_cpu_share=spent / took,
        deliveries=count,
        cpu_per_delivery=spent / count * 1e6 if count else None,
        idle=min(1.0, max(0.0, 1.0 - (_thread_cpu(process, native) - busy) / took)),
        by_module={name: n / samples for name, n in modules.most_common(_MOST)},
        hottest=[HotSpot(function=name, share=n / samples) for name, n in functions.most_common(_MOST)],
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _thread_cpu(process: psutil.Process, native: int | None) -> float:
    return float(sum(t.user_time + t.system_time for t in process.threads() if t.id == native))
