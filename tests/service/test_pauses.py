"""What holds up every request at once."""

import asyncio
import gc
import time

from service.metrics import Metrics
from service.pauses import PERIOD, Pauses


def test_a_loop_that_was_held_up_shows_it_for_a_while() -> None:
    metrics = Metrics()
    pauses = Pauses(metrics)

    async def hold_up() -> float:
        pauses.start()
        await asyncio.sleep(2 * PERIOD)
        time.sleep(0.2)
        # The timer runs, and is due again while the loop is held up once more.
        await asyncio.sleep(0.5 * PERIOD)
        time.sleep(0.2)
        await asyncio.sleep(0.5 * PERIOD)
        held = pauses.lag
        await asyncio.sleep(1.0)
        assert pauses.lag < 0.25 * held
        pauses.stop()
        return held

    assert asyncio.run(hold_up()) > 0.15
    *counts, _ = metrics.loop_lag.values[()]
    assert sum(counts[-5:]) >= 1
    assert pauses._collected not in gc.callbacks


def test_a_loop_that_was_held_up_once_is_not_thought_slow() -> None:
    metrics = Metrics()
    pauses = Pauses(metrics)

    async def hold_up() -> float:
        pauses.start()
        await asyncio.sleep(5 * PERIOD)
        time.sleep(0.5)
        await asyncio.sleep(5 * PERIOD)
        pauses.stop()
        return pauses.lag

    # As much as the machine of the tests adds by itself.
    assert asyncio.run(hold_up()) < 0.25
    *counts, _ = metrics.loop_lag.values[()]
    assert sum(counts[-5:]) >= 1


def test_each_run_of_the_collector_is_timed() -> None:
    metrics = Metrics()
    pauses = Pauses(metrics)

    async def collect() -> None:
        pauses.start()
        gc.collect(2)
        pauses.stop()
        gc.collect(2)

    asyncio.run(collect())
    assert sum(metrics.pauses.values[("2",)][:-1]) == 1.0
