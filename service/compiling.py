"""What start-up says of itself while kernels compile, which takes minutes where none are compiled yet."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

from numba.core import event

log = logging.getLogger("calibrant.service")

EVERY = 10.0
"""Seconds between two lines."""


class Compiled(event.Listener):
    """How many kernels were compiled; of one that is found compiled there is nothing to hear."""

    def __init__(self) -> None:
        self.n = 0

    def on_start(self, event: event.Event) -> None:
        if self.n == 0:
            log.info("compiling kernels, which takes minutes; the next start finds them compiled")
        self.n += 1

    def on_end(self, event: event.Event) -> None:
        pass


@contextmanager
def telling_of_kernels(every: float = EVERY) -> Iterator[Compiled]:
    """Log what is compiled within: every so many seconds, however long a single kernel takes."""
    compiled, began, ended = Compiled(), perf_counter(), Event()

    def tell() -> None:
        while not ended.wait(every):
            if compiled.n:
                log.info("still compiling: %d kernels in %.0f s", compiled.n, perf_counter() - began)

    teller = Thread(target=tell, name="kernels")
    teller.start()
    try:
        with event.install_listener("numba:compile", compiled):
            yield compiled
    finally:
        ended.set()
        teller.join()
    if compiled.n:
        log.info("compiled %d kernels in %.0f s", compiled.n, perf_counter() - began)
