"""Who computes when."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from time import perf_counter, sleep, thread_time

import numpy as np
import pytest

from calibrant.steps import Progress, Steps
from service.errors import DeadlineExpired, Overloaded
from service.jobs.process import lanes_for
from service.lane import BACKGROUND_NICENESS, HANGING, Priority
from service.scheduler import QUEUE_LIMITS, Driven, Patience, Scheduler
from service.settings import Settings


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    interval = sys.getswitchinterval()
    scheduler = Scheduler()
    yield scheduler
    scheduler.stop()
    sys.setswitchinterval(interval)


def test_work_runs_on_one_thread_in_the_order_handed_in(scheduler: Scheduler) -> None:
    ran: list[tuple[int, str]] = []

    def work(i: int) -> int:
        sleep(0.001 * (5 - i))
        ran.append((i, threading.current_thread().name))
        return i * i

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(scheduler.run(lambda i=i: work(i)) for i in range(5)))  # type: ignore[misc]

    assert asyncio.run(all_of_them()) == [0, 1, 4, 9, 16]
    assert ran == [(i, "interactive") for i in range(5)]


@pytest.mark.parametrize(("threads", "apart"), [(1, True), (2, False), (None, True)])
def test_an_audit_goes_beside_batches_where_they_leave_a_core(
    threads: int | None, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.batches.crew.usable_cores", lambda: 2)
    monkeypatch.setattr("service.jobs.process.usable_cores", lambda: 2)
    scheduler = Scheduler(lanes_for(Settings(batch_threads=threads)))
    hold = threading.Event()

    async def audit() -> bool:
        batch = await held(scheduler, Priority.BULK, hold)
        waiting = asyncio.ensure_future(scheduler.run(lambda: None, priority=Priority.AUDIT))
        done, _ = await asyncio.wait((waiting,), timeout=10.0 if apart else 0.2)
        hold.set()
        await asyncio.gather(batch, waiting)
        return bool(done)

    try:
        assert asyncio.run(audit()) == apart
    finally:
        hold.set()
        scheduler.stop()


def test_a_failure_reaches_the_caller_and_the_thread_goes_on(scheduler: Scheduler) -> None:
    async def both() -> str:
        with pytest.raises(ZeroDivisionError):
            await scheduler.run(lambda: 1 // 0)
        return await scheduler.run(lambda: "still here")

    assert asyncio.run(both()) == "still here"


def test_work_whose_caller_has_gone_is_not_begun(scheduler: Scheduler) -> None:
    ran = []
    hold = threading.Event()

    async def hang_up() -> None:
        first = asyncio.ensure_future(scheduler.run(lambda: hold.wait(10)))
        second = asyncio.ensure_future(scheduler.run(lambda: ran.append("second")))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0)
        hold.set()
        assert await first
        await scheduler.run(lambda: ran.append("third"))

    asyncio.run(hang_up())
    assert ran == ["third"]


def test_a_caller_may_hang_up_while_its_work_runs(scheduler: Scheduler) -> None:
    begun, hold = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        hold.wait(10)

    async def hang_up() -> None:
        task = asyncio.ensure_future(scheduler.run(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(hang_up())
    # Its event loop is closed by now: the answer has nowhere to go, and the thread survives that.
    hold.set()

    async def again() -> int:
        return await scheduler.run(lambda: 7)

    assert asyncio.run(again()) == 7


async def held(scheduler: Scheduler, priority: Priority, hold: threading.Event) -> "asyncio.Future[bool]":
    """A job that keeps the lane of this priority until `hold` is set, begun."""
    begun = threading.Event()

    def work() -> bool:
        begun.set()
        return hold.wait(10)

    job = asyncio.ensure_future(scheduler.run(work, priority=priority))
    await asyncio.to_thread(begun.wait)
    return job


def test_the_more_urgent_goes_first(scheduler: Scheduler) -> None:
    ran: list[Priority] = []
    order = (Priority.AUDIT, Priority.JOB, Priority.BULK, Priority.LONG, Priority.BULK, Priority.LONG)

    async def all_kinds() -> None:
        hold = threading.Event()
        first = await held(scheduler, Priority.AUDIT, hold)
        others = [asyncio.ensure_future(scheduler.run(lambda p=p: ran.append(p), priority=p)) for p in order]  # type: ignore[misc]
        await asyncio.sleep(0)
        # What is interactive waits for none of them.
        await scheduler.run(lambda: ran.append(Priority.INTERACTIVE))
        hold.set()
        await asyncio.gather(first, *others)

    asyncio.run(all_kinds())
    assert ran == sorted([Priority.INTERACTIVE, *order])


@pytest.mark.skipif(sys.platform != "linux", reason="a niceness of a thread is Linux's")
def test_the_background_lane_yields_to_the_interactive_one(scheduler: Scheduler) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def both() -> tuple[int, int]:
        return await scheduler.run(niceness), await scheduler.run(niceness, priority=Priority.BULK)

    interactive, background = asyncio.run(both())
    assert interactive == niceness() <= background
    assert background == min(interactive + BACKGROUND_NICENESS, 19)


def test_a_full_queue_refuses_and_says_when_to_come_back(scheduler: Scheduler) -> None:
    async def fill() -> None:
        hold = threading.Event()
        first = await held(scheduler, Priority.LONG, hold)
        limit = QUEUE_LIMITS[Priority.LONG]
        waiting = [
            asyncio.ensure_future(scheduler.run(lambda: None, priority=Priority.LONG, cost=0.033)) for _ in range(limit)
        ]
        await asyncio.sleep(0)
        assert scheduler.depth(Priority.LONG) == limit
        with pytest.raises(Overloaded) as refused:
            await scheduler.run(lambda: None, priority=Priority.LONG)
        assert int(refused.value.headers["retry-after"]) == 9  # 256 times 0.033, and what is begun
        # Callers that go leave their places to nobody until the lane has come past them: a hanging one grows no queue.
        for job in waiting:
            job.cancel()
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await scheduler.run(lambda: None, priority=Priority.LONG)
        # The other kinds have queues of their own.
        bulk = asyncio.ensure_future(scheduler.run(lambda: 7, priority=Priority.BULK))
        hold.set()
        assert await first
        assert await bulk == 7

    asyncio.run(fill())


def test_what_expires_in_the_queue_is_dropped_while_the_lane_is_still_busy(scheduler: Scheduler) -> None:
    ran: list[str] = []

    async def expire() -> None:
        hold = threading.Event()
        first = await held(scheduler, Priority.INTERACTIVE, hold)
        with pytest.raises(DeadlineExpired):
            await scheduler.run(lambda: ran.append("late"), deadline=perf_counter() + 0.02)
        assert not first.done()
        hold.set()
        assert await first

    asyncio.run(expire())
    assert ran == []


def test_each_deadline_holds_whatever_the_order_they_come_in(scheduler: Scheduler) -> None:
    async def expire() -> None:
        hold = threading.Event()
        first = await held(scheduler, Priority.INTERACTIVE, hold)
        began = perf_counter()
        late = asyncio.ensure_future(scheduler.run(lambda: None, deadline=began + 0.2))
        for seconds in (0.1, 0.02, 0.05):
            with pytest.raises(DeadlineExpired):
                await scheduler.run(lambda: None, deadline=perf_counter() + seconds)
        assert not late.done()
        with pytest.raises(DeadlineExpired):
            await late
        assert 0.19 < perf_counter() - began < 2.0
        hold.set()
        assert await first

    asyncio.run(expire())


def test_a_job_that_does_not_end_is_given_up_a_while_after_its_deadline(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lane.GRACE", 0.05)
    hold = threading.Event()

    async def give_up() -> None:
        began = perf_counter()
        with pytest.raises(DeadlineExpired, match="come back"):
            await scheduler.run(lambda: hold.wait(10), deadline=began + 0.02, cost=1e-3)
        assert 0.06 < perf_counter() - began < 2.0

    asyncio.run(give_up())
    hold.set()


def test_one_event_loop_after_another_may_hand_in_work(scheduler: Scheduler) -> None:
    hold = threading.Event()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(scheduler.run(lambda: hold.wait(10), deadline=perf_counter() + 60.0), 0.02)

    async def expire() -> str:
        with pytest.raises(DeadlineExpired):
            await scheduler.run(lambda: None, deadline=perf_counter() + 0.02)
        hold.set()
        return await scheduler.run(lambda: "heard")

    asyncio.run(leave())
    assert asyncio.run(expire()) == "heard"


def test_a_job_that_has_begun_is_waited_for_beyond_its_deadline(scheduler: Scheduler) -> None:
    async def late() -> str:
        def work() -> str:
            sleep(0.05)
            return "best so far"

        return await scheduler.run(work, deadline=perf_counter() + 0.02)

    assert asyncio.run(late()) == "best so far"


def test_the_wait_is_the_cost_of_what_goes_before(scheduler: Scheduler) -> None:
    async def waits() -> None:
        assert scheduler.wait(Priority.BULK) == 0.0
        hold = threading.Event()
        first = await held(scheduler, Priority.BULK, hold)
        costs = {Priority.LONG: 0.5, Priority.BULK: 0.25, Priority.AUDIT: 2.0}
        others = [
            asyncio.ensure_future(scheduler.run(lambda: None, priority=p, cost=cost)) for p, cost in costs.items()
        ]
        await asyncio.sleep(0)
        # The running job is within a millisecond of its own, unknown, cost.
        assert scheduler.wait(Priority.LONG) == pytest.approx(0.5, abs=2e-3)
        assert scheduler.wait(Priority.BULK) == pytest.approx(0.75, abs=2e-3)
        assert scheduler.wait(Priority.AUDIT) == pytest.approx(2.75, abs=2e-3)
        assert scheduler.wait(Priority.INTERACTIVE) == 0.0
        hold.set()
        await asyncio.gather(first, *others)
        assert scheduler.wait(Priority.AUDIT) == pytest.approx(0.0, abs=1e-12)

    asyncio.run(waits())


def test_a_job_that_has_begun_is_reckoned_with_though_its_caller_has_gone(scheduler: Scheduler) -> None:
    async def leave() -> None:
        hold, begun = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            hold.wait(10)

        job = asyncio.ensure_future(scheduler.run(work, priority=Priority.LONG, cost=100.0))
        await asyncio.to_thread(begun.wait)
        job.cancel()
        await asyncio.sleep(0)
        assert scheduler.wait(Priority.LONG) == pytest.approx(100.0, abs=5.0)
        hold.set()

    asyncio.run(leave())


def test_a_lane_that_does_not_come_back_is_named_and_its_caller_told(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang() -> None:
        hold = threading.Event()
        assert scheduler.hanging() is None
        job = await held(scheduler, Priority.INTERACTIVE, hold)
        for _ in range(2):
            scheduler.watch()
            assert scheduler.hanging() is None
        monkeypatch.setattr("service.lane.HANGING", 0.02)
        await asyncio.sleep(0.05)
        scheduler.watch()
        assert "interactive" in (scheduler.hanging() or "")
        with pytest.raises(DeadlineExpired):
            await job
        hold.set()

    assert HANGING < 10.0
    asyncio.run(hang())


def ticking(ticks: list[str], name: str, n: int, seconds: float = 1e-3) -> Steps[str]:
    """So many steps, each of so much of the processor's time; told that it is enough, it ends there."""
    for i in range(n):
        end = thread_time() + seconds
        while thread_time() < end:
            pass
        ticks.append(name)
        if (yield Progress(i + 1, n)) is True:
            return f"{name} so far"
    return f"{name} to its end"


def test_work_in_steps_is_driven_to_its_end(scheduler: Scheduler) -> None:
    ticks: list[str] = []

    async def drive() -> Driven[str]:
        return await scheduler.drive(ticking(ticks, "work", 20))

    driven = asyncio.run(drive())
    assert driven.result == "work to its end"
    assert ticks == ["work"] * 20
    assert driven.spent >= 0.02
    assert not driven.moved


def test_an_interactive_job_that_has_had_its_slice_goes_on_in_the_background_where_it_was(scheduler: Scheduler) -> None:
    threads: list[str] = []

    def traced() -> Steps[int]:
        for i in range(300):
            threads.append(threading.current_thread().name)
            yield Progress(i, 300)
            end = thread_time() + 1e-3
            while thread_time() < end:
                pass
        return 300

    async def both() -> None:
        long = asyncio.ensure_future(scheduler.drive(traced()))
        while len(threads) < 10:
            await asyncio.sleep(0.001)
        # Until somebody waits it stays.
        assert set(threads) == {"interactive"}
        assert (await scheduler.drive(ticking([], "short", 1))).result == "short to its end"
        assert not long.done()
        driven = await long
        assert (driven.result, driven.moved) == (300, True)

    asyncio.run(both())
    assert len(threads) == 300
    # Once, and in one direction.
    switch = threads.index("background")
    assert threads == ["interactive"] * switch + ["background"] * (300 - switch)


def test_long_jobs_take_turns(scheduler: Scheduler) -> None:
    ticks: list[str] = []

    async def both() -> None:
        giant = asyncio.ensure_future(scheduler.drive(ticking(ticks, "giant", 1000), priority=Priority.LONG, cost=56.0))
        while not ticks:
            await asyncio.sleep(0.001)
        small = await scheduler.drive(ticking(ticks, "small", 30), priority=Priority.LONG, deadline=perf_counter() + 60)
        assert small.result == "small to its end"
        assert not giant.done()
        giant.cancel()

    asyncio.run(both())
    first = ticks.index("small")
    # Three of a millisecond each are a slice, as near as a clock tells.
    shared = ticks[first : len(ticks) - ticks[::-1].index("small")]
    assert 10 <= shared.count("giant") <= 60


def test_what_is_less_urgent_goes_on_when_nothing_more_urgent_waits(scheduler: Scheduler) -> None:
    ticks: list[str] = []

    async def three() -> None:
        bulk = [
            asyncio.ensure_future(scheduler.drive(ticking(ticks, name, 100), priority=Priority.BULK)) for name in "ab"
        ]
        while not ticks:
            await asyncio.sleep(0.001)
        await scheduler.drive(ticking(ticks, "long", 10), priority=Priority.LONG)
        await asyncio.gather(*bulk)

    asyncio.run(three())
    assert ticks.index("long") < 100
    # Batches do not take turns: the first is done first.
    assert [name for name in ticks if name != "long"] == ["a"] * 100 + ["b"] * 100


def test_work_whose_caller_goes_is_closed_after_its_step(scheduler: Scheduler) -> None:
    closed = threading.Event()
    ticks: list[int] = []

    def endless() -> Steps[None]:
        try:
            while True:
                ticks.append(1)
                yield Progress(len(ticks), float("inf"))
                sleep(1e-3)
        finally:
            closed.set()

    async def hang_up(priority: Priority) -> None:
        ticks.clear()
        closed.clear()
        job = asyncio.ensure_future(scheduler.drive(endless(), priority=priority))
        while not ticks:
            await asyncio.sleep(0.001)
        job.cancel()
        assert await asyncio.to_thread(closed.wait, 10.0)
        # The lane is free again.
        assert await scheduler.run(lambda: 7, priority=priority) == 7

    for priority in Priority:
        asyncio.run(hang_up(priority))


def test_work_is_told_of_its_deadline_and_gives_what_it_has(scheduler: Scheduler) -> None:
    async def told(priority: Priority) -> str:
        job = scheduler.drive(ticking([], "work", 10**9), priority=priority, deadline=perf_counter() + 0.05)
        return (await job).result

    for priority in Priority:
        assert asyncio.run(told(priority)) == "work so far"


def test_what_is_late_ends_before_the_others_have_their_turns(scheduler: Scheduler) -> None:
    ticks: list[str] = []

    async def crowd() -> float:
        others = [
            asyncio.ensure_future(scheduler.drive(ticking(ticks, str(i), 400), priority=Priority.LONG, cost=0.4))
            for i in range(100)
        ]
        deadline = perf_counter() + 1.0
        job = scheduler.drive(ticking(ticks, "hurried", 10**9), priority=Priority.LONG, deadline=deadline)
        assert (await job).result == "hurried so far"
        rounds = ticks.count("hurried")
        for other in others:
            other.cancel()
        return rounds

    # It had its turn about with a hundred others, and its last one as soon as its time was up: within a second there
    # are three rounds, of a third of a second each.
    assert asyncio.run(crowd()) <= 20


def test_who_gave_no_deadline_waits_as_long_as_the_service_has_patience(scheduler: Scheduler) -> None:
    async def refused() -> None:
        hold = threading.Event()
        first = await held(scheduler, Priority.INTERACTIVE, hold)
        began = perf_counter()
        with pytest.raises(Overloaded, match="`THE_SETTING` of the service") as late:
            await scheduler.drive(ticking([], "late", 1), patience=Patience(0.05, "THE_SETTING"))
        assert 0.04 < perf_counter() - began < 5.0
        assert int(late.value.headers["retry-after"]) == 1
        # What will take longer is told so at once.
        waiting = asyncio.ensure_future(scheduler.run(lambda: None, cost=8.0))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"will take \d+ ms; .* at most 2000 ms .`THE_SETTING`") as at_once:
            await scheduler.drive(ticking([], "late", 1), patience=Patience(2.0, "THE_SETTING"))
        assert int(at_once.value.headers["retry-after"]) in (8, 9)
        hold.set()
        await asyncio.gather(first, waiting)

    asyncio.run(refused())


def test_patience_is_for_the_beginning(scheduler: Scheduler) -> None:
    async def whole() -> str:
        return (await scheduler.drive(ticking([], "work", 100, 2e-3), patience=Patience(0.05, "THE_SETTING"))).result

    assert asyncio.run(whole()) == "work to its end"


def test_among_the_long_ones_the_small_is_not_refused_for_a_giant(scheduler: Scheduler) -> None:
    patience = Patience(10.0, "THE_SETTING")

    async def small_and_giant() -> None:
        giants = [
            asyncio.ensure_future(
                scheduler.drive(ticking([], "giant", 10**9), priority=Priority.LONG, cost=56.0, patience=patience)
            )
        ]
        await asyncio.sleep(0.01)
        small = await scheduler.drive(ticking([], "small", 10), priority=Priority.LONG, cost=0.01, patience=patience)
        assert small.result == "small to its end"
        # One as large would be delayed by all of it.
        with pytest.raises(Overloaded, match="THE_SETTING"):
            await scheduler.drive(ticking([], "giant", 10**9), priority=Priority.LONG, cost=56.0, patience=patience)
        for giant in giants:
            giant.cancel()

    asyncio.run(small_and_giant())


def test_a_job_that_moves_and_finds_no_room_is_refused_unless_it_has_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = Scheduler(limits={**QUEUE_LIMITS, Priority.LONG: 1})

    async def full() -> None:
        hold = threading.Event()
        first = await held(scheduler, Priority.LONG, hold)
        waiting = asyncio.ensure_future(scheduler.run(lambda: 7, priority=Priority.LONG))
        patient = asyncio.ensure_future(scheduler.drive(ticking([], "patient", 10**9)))
        hurried = asyncio.ensure_future(scheduler.drive(ticking([], "hurried", 10**9), deadline=perf_counter() + 2.0))
        await asyncio.sleep(0.1)
        # For whom both make room.
        await scheduler.run(lambda: None)
        with pytest.raises(Overloaded, match="are waiting already"):
            await patient
        hold.set()
        driven = await hurried
        assert (driven.result, driven.moved) == ("hurried so far", True)
        assert await first
        assert await waiting == 7

    try:
        asyncio.run(full())
    finally:
        scheduler.stop()


def test_a_lane_that_makes_steps_does_not_hang_however_long_the_job(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lane.HANGING", 0.3)

    async def long() -> None:
        job = asyncio.ensure_future(scheduler.drive(ticking([], "long", 10**9, 0.02)))
        for _ in range(10):
            await asyncio.sleep(0.1)
            scheduler.watch()
            assert scheduler.hanging() is None
        job.cancel()

    asyncio.run(long())


def test_a_step_that_does_not_end_hangs_by_its_own_processor_time(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lane.HANGING", 0.3)

    async def hang() -> float:
        job = asyncio.ensure_future(scheduler.drive(ticking([], "endless", 1, 3.0)))
        began = perf_counter()
        while scheduler.hanging() is None:
            await asyncio.sleep(0.05)
            scheduler.watch()
            assert not job.done()
        with pytest.raises(DeadlineExpired):
            await job
        return perf_counter() - began

    assert asyncio.run(hang()) >= 0.3


def test_whatever_comes_and_goes_everyone_is_answered_and_nothing_is_left(scheduler: Scheduler) -> None:
    rng = np.random.default_rng(12)
    outcomes: list[str] = []

    async def one(i: int) -> None:
        await asyncio.sleep(float(rng.uniform(0.0, 0.5)))
        priority = Priority(int(rng.integers(4)))
        n, seconds = int(rng.integers(1, 30)), float(rng.uniform(0.0, 5e-4))
        deadline = perf_counter() + float(rng.uniform(0.0, 1.0)) if rng.random() < 0.3 else None
        patience = Patience(float(rng.uniform(0.0, 1.0)), "THE_SETTING") if rng.random() < 0.3 else None
        steps = ticking([], str(i), n, seconds)
        job = scheduler.drive(steps, priority=priority, deadline=deadline, patience=patience, cost=n * seconds)
        leaves = float(rng.uniform(0.0, 0.3)) if rng.random() < 0.3 else None
        try:
            async with asyncio.timeout(leaves):
                outcomes.append((await job).result.partition(" ")[2])
        except (TimeoutError, DeadlineExpired, Overloaded) as error:
            outcomes.append(type(error).__name__)

    async def all_of_them() -> None:
        async with asyncio.timeout(120.0):
            await asyncio.gather(*(one(i) for i in range(600)))
            # What was given up is closed after its step.
            while any(scheduler.depth(priority) for priority in Priority):
                await asyncio.sleep(0.01)
        for priority in Priority:
            assert scheduler.wait(priority) == pytest.approx(0.0, abs=1e-9)

    asyncio.run(all_of_them())
    assert len(outcomes) == 600
    assert {"to its end", "so far", "TimeoutError", "DeadlineExpired"} <= set(outcomes)
