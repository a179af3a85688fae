"""Who computes when: lanes, each a thread that runs one job at a time, the most urgent first.

The interactive lane takes what a client waits for and what is short. The background lane takes the rest, at a lower
priority of the operating system too: jobs too long to go before others and, where they have no process of their own,
batches and audits. So no interactive calibration ever waits for more than the interactive ones before it. The kernels
release the interpreter lock, which is what makes two lanes and an event loop in one process worthwhile.

Everything here but the lanes' own loops runs on the event loop, so counts need no lock. A job is handed over by a byte
through a pipe: `write` gives the interpreter lock away while it wakes the lane, which begins at once. Woken by a queue
of Python's the lane first has to wait until the event loop comes to rest (35 us of the median round trip, against 5).
What came of it goes back in the same way: `call_soon_threadsafe` wakes the event loop with the lock held, so that the
loop comes to it, finds it taken and goes back to sleep.
"""

import asyncio
import logging
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from time import perf_counter
from typing import Any, TypeVar

from .errors import DeadlineExpired, DeadlineUnreachable, Overloaded

log = logging.getLogger("calibrant.service")

T = TypeVar("T")


class Priority(IntEnum):
    """Of two waiting jobs of one lane the smaller number goes first."""

    INTERACTIVE = 0
    """Short, and a client waits."""
    LONG = 1
    """A client waits, but it would hold up the others."""
    BULK = 2
    """Part of a batch."""
    AUDIT = 3
    """Nobody waits."""


LANES: Mapping[str, Sequence[Priority]] = {
    "interactive": (Priority.INTERACTIVE,),
    "background": (Priority.LONG, Priority.BULK, Priority.AUDIT),
}
"""By their names the priorities that they take."""
QUEUE_LIMITS: Mapping[Priority, int] = {
    Priority.INTERACTIVE: 256,
    Priority.LONG: 32,
    Priority.BULK: 256,
    Priority.AUDIT: 32,
}
DEFAULT_COST = 1e-3
"""Seconds that a job is taken for whose cost nobody estimated."""
BACKGROUND_NICENESS = 3
"""Added to the process's own. Not more: the lane holds the interpreter lock now and then, and a thread that the
operating system does not run does not give it back. Beside a batch, interactive requests took half as long again at 10,
and longer at 0 (medians of three runs in turn)."""
SWITCH_INTERVAL = 5e-4
"""Seconds after which a thread must give the interpreter lock to one that waits. Python's 5 ms is more than a whole
calibration. Two threads that fight for the lock take 0.5 % more of the processor for it (at 0.1 ms, 11 %)."""
GRACE = 0.5
"""Seconds past its deadline after which a job that has begun is not waited for; refinement looks at the clock itself,
so only a job that hangs comes to this."""
HANGING = 3.0
"""Seconds after which a job hangs, unless it was expected to take long: twenty times its cost are allowed."""
HANGING_IN_BACKGROUND = 10.0
"""The same where long jobs run: an estimate may be far off, and others wait for seconds there anyway."""

_JOB, _STOP, _DONE = b"j", b"s", b"d"
_MOST_TOLD = 4096
"""Bytes read at once, from either pipe: more than there can be jobs."""
_EARLY = 1e-3
"""Seconds by which a timer may run too early: uvloop's are in whole milliseconds."""
_EXPIRED = "The deadline passed while the request waited for the engine."


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[], Any]
    priority: Priority
    cost: float
    deadline: float | None
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    due: float = math.inf
    """When the event loop looks whether it is waited for in vain."""
    begun: float = math.nan
    """Written by the lane."""

    @property
    def allowance(self) -> float:
        """Seconds after which it is said to hang."""
        least = HANGING if self.priority is Priority.INTERACTIVE else HANGING_IN_BACKGROUND
        return max(least, 20.0 * self.cost)


@dataclass(slots=True)
class _Queue:
    limit: int
    jobs: deque[_Job] = field(default_factory=deque)
    """Waiting ones, and those whose caller has gone until the lane comes past them: they count against the limit, or a
    lane that hangs would collect them."""
    backlog: float = 0.0
    """Seconds of work handed in and not done."""


class Lane:
    """One thread and the jobs before it."""

    def __init__(self, name: str, limits: Mapping[Priority, int], niceness: int = 0, patience: float = 1.0) -> None:
        self.name = name
        self._queues = {priority: _Queue(limits[priority]) for priority in sorted(limits)}
        self._wakes, self._wake = os.pipe()
        """A byte a job, or `_STOP`; never full, since the queues are bounded."""
        self._tells, self._tell = os.pipe()
        """The way back: a byte for each of `_finished`."""
        self._finished: deque[tuple[_Job, Any, BaseException | None]] = deque()
        self._listener: asyncio.AbstractEventLoop | None = None
        self._awaited: set[_Job] = set()
        """Those with a deadline."""
        self._look: asyncio.TimerHandle | None = None
        self._look_at = math.inf
        self._running: _Job | None = None
        self._patience = patience
        self._niceness = niceness
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def depth(self, priority: Priority) -> int:
        """Jobs that wait."""
        return len(self._queues[priority].jobs)

    def wait(self, priority: Priority) -> float:
        """Seconds until a job handed in now would begin, by the costs of those before it."""
        backlog = 0.0
        for before, queue in self._queues.items():
            if before <= priority:
                backlog += queue.backlog
        running = self._running
        if running is None:
            return max(backlog, 0.0)
        elapsed = perf_counter() - running.begun
        # A job that has begun is waited for, though it be less urgent or its caller gone, and so not in the backlog.
        rest = running.cost if running.priority > priority or running.done.done() else 0.0
        return max(backlog + rest - min(elapsed, running.cost), 0.0)

    def held(self) -> float:
        """Seconds that the running job has taken; 0 without one."""
        running = self._running
        return 0.0 if running is None else perf_counter() - running.begun

    def hanging(self) -> float | None:
        """Seconds that the running job has taken, if that is more than it may."""
        running = self._running
        if running is None:
            return None
        elapsed = perf_counter() - running.begun
        return elapsed if elapsed > self._patience * running.allowance else None

    async def run(self, job: _Job) -> Any:
        queue = self._queues[job.priority]
        if len(queue.jobs) >= queue.limit:
            raise Overloaded(
                f"{queue.limit} jobs of this kind are waiting already.",
                headers={"retry-after": retry_after(self.wait(job.priority))},
            )
        if job.loop is not self._listener:
            self._listen(job.loop)
        if job.deadline is not None:
            job.due = job.deadline
            self._awaited.add(job)
            self._look_by(job.due, job.loop)
        queue.backlog += job.cost
        queue.jobs.append(job)
        os.write(self._wake, _JOB)
        try:
            return await job.done
        finally:
            queue.backlog -= job.cost
            self._awaited.discard(job)
            # An error that its work raised holds this frame, and is held by its future.
            del job

    def stop(self) -> None:
        """Return once the jobs handed in before have run; a job that hangs is left behind."""
        os.write(self._wake, _STOP)
        self._thread.join(HANGING_IN_BACKGROUND)
        os.close(self._wake)
        self._settle()
        if not self._thread.is_alive():
            self._listen(None)
            for descriptor in (self._wakes, self._tells, self._tell):
                os.close(descriptor)

    def give_up(self) -> None:
        """Have nobody wait any longer: the running job hangs."""
        running = self._running
        waiting = [job for queue in self._queues.values() for job in queue.jobs]
        for job in waiting if running is None else (running, *waiting):
            if not job.done.done():
                job.done.set_exception(DeadlineExpired("The engine does not come back from a request."))

    def _listen(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Have this event loop, and no other, hear of what is done."""
        if self._listener is not None and not self._listener.is_closed():
            self._listener.remove_reader(self._tells)
            if self._look is not None:
                self._look.cancel()
        self._look, self._look_at = None, math.inf
        # Whoever waited on another waits no more.
        self._awaited.clear()
        if loop is not None:
            loop.add_reader(self._tells, self._deliver)
        self._listener = loop

    def _deliver(self) -> None:
        os.read(self._tells, _MOST_TOLD)
        self._settle()

    def _settle(self) -> None:
        while self._finished:
            job, result, error = self._finished.popleft()
            # Its caller may have gone, or the event loop on which it was waited for.
            if job.done.done() or job.loop.is_closed():
                continue
            if error is None:
                job.done.set_result(result)
            else:
                job.done.set_exception(error)

    def _look_by(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all, set anew when it has run: most jobs are done long before they are due."""
        if due < self._look_at:
            if self._look is not None:
                self._look.cancel()
            self._look_at = due
            self._look = loop.call_later(max(due - perf_counter(), 0.0), self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._look, self._look_at = None, math.inf
        late = perf_counter() + _EARLY
        for job in self._awaited:
            if job.due > late or job.done.done():
                continue
            if math.isnan(job.begun):
                job.done.set_exception(DeadlineExpired(_EXPIRED))
            elif job.due == job.deadline:
                job.due = late + max(GRACE, 10.0 * job.cost)
            else:
                job.done.set_exception(DeadlineExpired("The engine did not come back by the deadline."))
        waiting = [job.due for job in self._awaited if not job.done.done()]
        if waiting:
            self._look_by(min(waiting), loop)

    def _serve(self) -> None:
        lower_priority(self._niceness)
        for _ in self._handed_in():
            job = next(queue.jobs for queue in self._queues.values() if queue.jobs).popleft()
            if job.done.done():
                continue
            job.begun = perf_counter()
            if job.deadline is not None and job.begun >= job.deadline:
                # Its timer is late, which a busy event loop makes it.
                self._hand_back(job, None, DeadlineExpired(_EXPIRED))
                continue
            self._running = job
            try:
                result, error = job.work(), None
            except BaseException as raised:  # the caller's to handle, whatever it is; the thread must go on
                result, error = None, raised
            self._running = None
            self._hand_back(job, result, error)
            del job, result, error

    def _handed_in(self) -> Iterator[None]:
        """One for each job, until the lane is to stop. While some wait the pipe is left alone: who reads from it gives
        the interpreter lock away, and a busy event loop does not return it soon."""
        while True:
            for word in os.read(self._wakes, _MOST_TOLD):
                if word == _STOP[0]:
                    return
                yield

    def _hand_back(self, job: _Job, result: Any, error: BaseException | None) -> None:
        self._finished.append((job, result, error))
        os.write(self._tell, _DONE)


class Scheduler:
    """The lanes of a process. `run` is called on its event loop."""

    def __init__(
        self,
        lanes: Mapping[str, Sequence[Priority]] = LANES,
        limits: Mapping[Priority, int] = QUEUE_LIMITS,
        patience: float = 1.0,
    ) -> None:
        """
        lanes     every priority is on one of them; all but the first are behind the rest of the process
        patience  for a process that is seldom run: how many times as long a job takes before it hangs
        """
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.lanes: list[Lane] = []
        self._lane_of: dict[Priority, Lane] = {}
        for name, priorities in lanes.items():
            niceness = BACKGROUND_NICENESS if self.lanes else 0
            lane = Lane(name, {priority: limits[priority] for priority in priorities}, niceness, patience)
            self.lanes.append(lane)
            self._lane_of |= dict.fromkeys(priorities, lane)

    def lane(self, priority: Priority) -> Lane:
        return self._lane_of[priority]

    async def run(
        self,
        work: Callable[[], T],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        cost: float = DEFAULT_COST,
    ) -> T:
        """`work()` on the lane of its priority; not at all if the caller has gone by the time it would begin.

        deadline  on the clock of `time.perf_counter`: not begun by then, the job is dropped. One that has begun is
                  waited for: what stops a refinement in time is the deadline in its own options
        cost      seconds it is expected to take, for the estimate of how long others wait
        raises    Overloaded if too many jobs of this priority wait, DeadlineExpired; what `work` raises
        """
        loop = asyncio.get_running_loop()
        # Not kept in a name: see `Lane.run`.
        result: T = await self.lane(priority).run(_Job(work, priority, cost, deadline, loop.create_future(), loop))
        return result

    def wait(self, priority: Priority) -> float:
        """Seconds until a job of this priority handed in now would begin."""
        return self.lane(priority).wait(priority)

    def require_reachable(self, priority: Priority, begin_by: float) -> None:
        """raises  DeadlineUnreachable if what is before a job of this priority will take longer than that"""
        wait = self.wait(priority)
        now = perf_counter()
        # What has passed already is not out of reach but expired, which `run` says.
        if now < begin_by < now + wait:
            raise unreachable(wait)

    def depth(self, priority: Priority) -> int:
        """Jobs of this priority that wait."""
        return self.lane(priority).depth(priority)

    def hanging(self) -> str | None:
        """Which lane hangs, in a sentence, and all who wait for it told; None while all come back from their jobs."""
        for lane in self.lanes:
            elapsed = lane.hanging()
            if elapsed is not None:
                lane.give_up()
                return f"The {lane.name} lane has not come back from a job for {elapsed:.1f} s."
        return None

    def stop(self) -> None:
        for lane in self.lanes:
            lane.stop()


def retry_after(wait: float) -> str:
    """The header `Retry-After`, whole seconds, for a queue of this many seconds."""
    return str(max(math.ceil(wait), 1))


def unreachable(wait: float) -> DeadlineUnreachable:
    """The refusal of what would wait this many seconds."""
    return DeadlineUnreachable(
        f"Requests before this one will take {1e3 * wait:.0f} ms, which is beyond its deadline.",
        headers={"retry-after": retry_after(wait)},
    )


def lower_priority(niceness: int) -> None:
    """Put the calling thread behind the others of the process, for the operating system."""
    if niceness and sys.platform == "linux":
        # There, and only there, a niceness belongs to a thread; a new thread has that of the one which made it.
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + niceness, 19))
