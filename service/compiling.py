"""What start-up says of itself while kernels compile, which takes minutes where none are compiled yet."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from numba.core import event

log = logging.getLogger("calibrant.service")

_EVERY = 10.0
"""Seconds between two lines."""


class _Progress(event.Listener):
    """Hears of every kernel that is compiled; of one that is found compiled there is nothing to hear."""

    def __init__(self) -> None:
        self.began = self._told = perf_counter()
        self.n = 0

    def on_start(self, event: event.Event) -> None:
        if self.n == 0:
            log.info("compiling kernels, which takes minutes; the next start finds them compiled")
        self.n += 1

    def on_end(self, event: event.Event) -> None:
        now = perf_counter()
        if now - self._told > _EVERY:
            self._told = now
            log.info("still compiling: %d kernels in %.0f s", self.n, now - self.began)


@contextmanager
def telling_of_kernels() -> Iterator[None]:
    """Log what is compiled within."""
    progress = _Progress()
    with event.install_listener("numba:compile", progress):
        yield
    if progress.n:
        log.info("compiled %d kernels in %.0f s", progress.n, perf_counter() - progress.began)
