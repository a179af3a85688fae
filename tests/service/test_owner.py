"""The thread that owns the engine."""

import asyncio
import threading
from collections.abc import Iterator
from time import sleep

import pytest

from service.owner import OwnerThread


@pytest.fixture
def owner() -> Iterator[OwnerThread]:
    owner = OwnerThread("test")
    yield owner
    owner.stop()


def test_work_runs_on_one_thread_in_the_order_handed_in(owner: OwnerThread) -> None:
    ran: list[tuple[int, str]] = []

    def work(i: int) -> int:
        sleep(0.001 * (5 - i))
        ran.append((i, threading.current_thread().name))
        return i * i

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(owner.run(lambda i=i: work(i)) for i in range(5)))  # type: ignore[misc]

    assert asyncio.run(all_of_them()) == [0, 1, 4, 9, 16]
    assert ran == [(i, "test") for i in range(5)]


def test_a_failure_reaches_the_caller_and_the_thread_goes_on(owner: OwnerThread) -> None:
    async def both() -> str:
        with pytest.raises(ZeroDivisionError):
            await owner.run(lambda: 1 // 0)
        return await owner.run(lambda: "still here")

    assert asyncio.run(both()) == "still here"


def test_work_whose_caller_has_gone_is_not_begun(owner: OwnerThread) -> None:
    ran = []
    hold = threading.Event()

    async def hang_up() -> None:
        first = asyncio.ensure_future(owner.run(lambda: hold.wait(10)))
        second = asyncio.ensure_future(owner.run(lambda: ran.append("second")))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0)
        hold.set()
        assert await first
        await owner.run(lambda: ran.append("third"))

    asyncio.run(hang_up())
    assert ran == ["third"]


def test_a_caller_may_hang_up_while_its_work_runs(owner: OwnerThread) -> None:
    begun, hold = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        hold.wait(10)

    async def hang_up() -> None:
        task = asyncio.ensure_future(owner.run(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(hang_up())
    # Its event loop is closed by now: the answer has nowhere to go, and the thread survives that.
    hold.set()

    async def again() -> int:
        return await owner.run(lambda: 7)

    assert asyncio.run(again()) == 7
