"""Threads that share the work of one group of a batch, where there are cores for them.

The thread that has the job works too, so on one core there is no crew and nothing is handed over. Each takes the next
item as it finishes one: panels differ in cost by a hundred times.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..scheduler import BACKGROUND_NICENESS, lower_priority
from ..settings import Settings

T = TypeVar("T")


def usable_cores() -> int:
    """Of those of the machine the ones that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def crew_size(settings: Settings) -> int:
    """Threads that calibrate a batch: one core is left to whatever else there is to do."""
    return settings.batch_threads or max(usable_cores() - 1, 1)


class Crew:
    def __init__(self, size: int) -> None:
        """`size` counts the thread that calls `share`."""
        self.size = size
        self._helpers = size - 1
        self._pool = (
            ThreadPoolExecutor(self._helpers, "crew", lower_priority, (BACKGROUND_NICENESS,)) if size > 1 else None
        )

    def share(self, work: Callable[[int], T], n: int) -> list[T]:
        """`[work(0), ..., work(n - 1)]`; `work` must not raise."""
        done: list[tuple[int, T]] = []
        # Taking the next of a range is one step of the interpreter: no two threads get the same.
        following = iter(range(n))

        def take() -> None:
            for i in following:
                done.append((i, work(i)))

        helpers = [] if self._pool is None else [self._pool.submit(take) for _ in range(min(self._helpers, n - 1))]
        take()
        for helper in helpers:
            helper.result()
        return [result for _, result in sorted(done, key=lambda item: item[0])]

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
