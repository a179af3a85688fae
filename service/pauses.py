"""What holds up every request at once, measured: the event loop's lateness and the collector's runs."""

import asyncio
import gc
from time import perf_counter
from typing import Any

from .metrics import Metrics

PERIOD = 0.02
"""Seconds between two looks at the clock."""
_FORGET = 0.8
"""Share of a lateness that is still believed a period later, unless there is a new one: some 0.2 s of memory."""


class Pauses:
    """Watches the event loop it is started on."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._collecting = 0.0
        self._late = 0.0
        self.lag = 0.0
        """Seconds that the event loop has been late of late, twice running: what happens now is heard of so much later.
        Once is a machine that stopped for a moment, which says nothing of the requests to come."""

    def start(self) -> None:
        gc.callbacks.append(self._collected)
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = perf_counter() + PERIOD
        self._timer = loop.call_later(PERIOD, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        late = max(perf_counter() - self._due, 0.0)
        self._metrics.loop_lag.observe(late)
        self.lag = max(min(late, self._late), _FORGET * self.lag)
        self._late = late
        self._arm(loop)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._collecting = perf_counter()
        else:
            self._metrics.pauses.observe(perf_counter() - self._collecting, str(info["generation"]))
