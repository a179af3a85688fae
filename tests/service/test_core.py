"""What every process of the service has."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from service.core import Core
from service.metrics import Metrics
from service.settings import Settings


def test_the_event_loop_says_that_it_lives_while_start_up_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def slowly() -> None:
        threads.append(threading.current_thread().name)
        time.sleep(1.0)

    monkeypatch.setattr("service.core.use_huge_pages", slowly)
    metrics = Metrics()
    # There are no networks: that is found out soon, and what follows is done all the same.
    core = Core(Settings(networks=tmp_path), metrics, metrics.ready, kind="worker", refines_batches=False)

    async def ticks_of_start() -> int:
        starting, ticks = asyncio.ensure_future(core.start()), 0
        while not starting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        await starting
        await core.stop()
        return ticks

    ticks = asyncio.run(ticks_of_start())
    assert threads == ["interactive"]
    assert ticks > 10
    assert not core.loaded
