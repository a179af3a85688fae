"""Threads that share the work of one group of a batch, where there are cores for them.

The thread that has the job works too, so on one core there is no crew and nothing is handed over. Each takes the next
item as it finishes one: panels differ in cost by a hundred times. The steps are those of that thread: while it makes
room for others its crew works on.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import TypeVar

from calibrant.steps import Progress, Steps

from ..lane import BACKGROUND_NICENESS, lower_priority
from ..settings import Settings

T = TypeVar("T")

_WHILE = 0.1
"""Seconds between two looks at whether the others have come on."""


def usable_cores() -> int:
    """How many of the machine's cores this process may run on."""
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

    def share(self, work: Callable[[int], Steps[T]], n: int) -> Steps[list[T]]:
        """`[work(0), ..., work(n - 1)]`, each to its end; none must raise. Closed, the whole crew leaves off."""
        done: list[tuple[int, T]] = []
        steps = [0] * self.size
        """Made by each of the others."""
        closed = False
        # Taking the next of a range is one step of the interpreter: no two threads get the same.
        following = iter(range(n))

        def take() -> Steps[None]:
            for i in following:
                done.append((i, (yield from work(i))))

        def help_along(place: int) -> None:
            with closing(take()) as taking:
                for _ in taking:
                    steps[place] += 1
                    if closed:
                        return

        n_helpers = min(self._helpers, n - 1)
        helpers = [self._pool.submit(help_along, i) for i in range(n_helpers)] if self._pool is not None else []
        try:
            yield from take()
            for helper in helpers:
                seen = sum(steps)
                while not _is_done(helper):
                    # A sign of life, if there is one.
                    if sum(steps) != seen:
                        seen = sum(steps)
                        yield Progress(len(done), n)
                helper.result()
        finally:
            closed = True
        return [result for _, result in sorted(done, key=lambda item: item[0])]

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def _is_done(helper: "Future[None]") -> bool:
    """Whether it is, after a while."""
    wait((helper,), _WHILE)
    return helper.done()
