"""A lane: one thread that drives jobs step by step, the most urgent first.

A job is work in steps (`calibrant.steps`). After each the lane looks up. Whoever waited for the job may have gone: then
it is closed. Its deadline may have passed: then it is told that this is enough. Or it has had its slice, counted in the
processor's time so that a panel that others kept waiting is not held long for that, while others wait: then it stands
aside and goes on later where it was, nothing begun anew. Where to depends on its priority: an interactive one leaves
the lane for the one of long jobs, those take turns, and what is less urgent goes on when nothing more urgent waits.

Two threads share a lane, without a lock: the event loop appends to `_handed_in` and counts, the lane's own thread takes
from there, keeps the queues, and appends to `_handed_back`. A job is handed over by a byte through a pipe: `write`
gives the interpreter lock away while it wakes the lane, which begins at once. Woken by a queue of Python's the lane
first has to wait until the event loop comes to rest (35 us of the median round trip, against 5). What came of it goes
back in the same way: `call_soon_threadsafe` wakes the event loop with the lock held, so that the loop comes to it,
finds it taken and goes back to sleep.
"""

import asyncio
import logging
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from time import perf_counter, thread_time
from typing import Any, NamedTuple

from calibrant.steps import Steps

from .errors import DeadlineExpired, Overloaded, ServiceError
from .processes import Stall

log = logging.getLogger("calibrant.service")


class Priority(IntEnum):
    """Of two waiting jobs of one lane the smaller number goes first."""

    INTERACTIVE = 0
    """Short, and a client waits."""
    LONG = 1
    """A client waits, but it would hold up the others."""
    BULK = 2
    """Part of a batch."""
    JOB = 3
    """All of a long job, which its client asks for later."""
    AUDIT = 4
    """Nobody waits."""

    @property
    def takes_turns(self) -> bool:
        """Whether one that has had its slice makes room for others of its kind, and not only for more urgent ones."""
        return self in (Priority.INTERACTIVE, Priority.LONG, Priority.JOB)


BACKGROUND_NICENESS = 3
"""Added to the process's own. Not more: the lane holds the interpreter lock now and then, and a thread that the
operating system does not run does not give it back. Beside a batch, interactive requests took half as long again at 10,
and longer at 0 (medians of three runs in turn)."""
GRACE = 0.5
"""Seconds past its deadline after which a job that has begun is not waited for: it is told of the deadline after its
next step, so only a job that hangs comes to this."""
HANGING = 3.0
"""Seconds without a step after which a lane hangs (`processes.Stall` says which seconds), unless it runs what is not
cut into steps and was expected to take long: twenty times its cost are allowed."""
HANGING_IN_BACKGROUND = 10.0
"""The same where long jobs run: others wait for seconds there anyway."""

_WAKE, _DONE = b"w", b"d"
_MOST_TOLD = 4096
"""Bytes read at once, from either pipe."""


@dataclass(slots=True, eq=False)
class Job:
    """Work for a lane, and who waits for it."""

    work: Steps[Any]
    priority: Priority
    cost: float
    """Seconds that it is expected to take."""
    turn: float
    """Seconds for which it holds a lane at a time: its slice, or all of it where it is not cut."""
    begin_by: float | None
    """On the clock of `time.perf_counter`: not begun by then, it is refused."""
    refusal: Callable[[], ServiceError]
    """The refusal of what was not begun by then."""
    deadline: float | None
    """When it is told that this is enough."""
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    timer: asyncio.TimerHandle | None = None
    """Set for when it may be waited for in vain."""
    lane: "Lane | None" = None
    """The lane that counts it."""
    moved: bool = False
    """From the lane that it began on, to go on where others wait longer."""
    begun: float = math.nan
    """Written by the lane, as what follows."""
    ended: float = math.nan
    spent: float = 0.0
    """Seconds on lanes."""

    @property
    def rest(self) -> float:
        """Seconds that it is expected to take yet. Of one that has outlived its estimate: as long again."""
        return self.cost - self.spent if self.spent < self.cost else self.spent

    @property
    def allowance(self) -> float:
        """Seconds without a step after which it is said to hang."""
        least = HANGING if self.priority is Priority.INTERACTIVE else HANGING_IN_BACKGROUND
        return max(least, 20.0 * self.turn)


@dataclass(slots=True)
class _Queue:
    """The event loop's count of the jobs of one priority."""

    limit: int
    jobs: set[Job] = field(default_factory=set)
    """Handed in and not yet handed back: also those whose caller has gone, until the lane comes past them. They count
    against the limit, or a lane that hangs would collect them."""
    backlog: float = 0.0
    """Seconds for which those that are waited for will hold the lane, a turn each."""


class _HandedBack(NamedTuple):
    job: Job
    result: Any
    error: BaseException | None
    moves_on: bool = False


class Lane:
    """One thread and the jobs before it."""

    def __init__(
        self,
        name: str,
        limits: Mapping[Priority, int],
        *,
        slice_s: float,
        niceness: int = 0,
        move_on: Callable[[Job], None],
    ) -> None:
        """
        slice_s  of the processor's time that a job has while others wait
        move_on  takes an interactive job that has had its slice to where it goes on; called on the event loop
        """
        self.name = name
        self._slice = slice_s
        self._move_on = move_on
        self._queues = {priority: _Queue(limits[priority]) for priority in sorted(limits)}
        self._wakes, self._wake = os.pipe()
        # Full, it wakes the lane as well.
        os.set_blocking(self._wake, False)
        self._tells, self._tell = os.pipe()
        """The way back: a byte for each of `_handed_back`."""
        self._handed_in: deque[Job] = deque()
        self._handed_back: deque[_HandedBack] = deque()
        self._ready: dict[Priority, deque[Job]] = {priority: deque() for priority in self._queues}
        """The thread's own."""
        self._stopping = False
        self._listener: asyncio.AbstractEventLoop | None = None
        self._running: Job | None = None
        self._turn_began = 0.0
        self._signs = 0
        """Signs of life: jobs begun and steps made."""
        self._seen = -1
        self._stalled: float | None = None
        """Seconds for which there was none, from when that was first seen."""
        self._niceness = niceness
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()
        self._stall = Stall(os.getpid(), self._thread.native_id or 0)

    # On the event loop.

    def depth(self, priority: Priority) -> int:
        """Jobs that wait."""
        jobs, running = self._queues[priority].jobs, self._running
        return len(jobs) - (running in jobs)

    def wait(self, priority: Priority) -> float:
        """Seconds until a job handed in now would begin, by the turns of those before it."""
        backlog = 0.0
        for before, queue in self._queues.items():
            if before <= priority:
                backlog += queue.backlog
        running = self._running
        if running is None:
            return max(backlog, 0.0)
        elapsed = perf_counter() - self._turn_began
        # A turn that has begun is waited for, though it be of one less urgent or whose caller has gone, and so not in
        # the backlog.
        rest = running.turn if running.priority > priority or running.done.done() else 0.0
        return max(backlog + rest - min(elapsed, running.turn), 0.0)

    def delay(self, priority: Priority, cost: float) -> float:
        """Seconds by which the others hold up a job that costs so much: turn about, none by more than that itself."""
        return sum(
            min(job.rest, cost)
            for before, queue in self._queues.items()
            if before <= priority
            for job in queue.jobs
            if not job.done.done()
        )

    def hand_in(self, job: Job, *, whatever_waits: bool = False) -> None:
        """raises  Overloaded if too many jobs of its priority wait"""
        queue = self._queues[job.priority]
        if self.depth(job.priority) >= queue.limit and not whatever_waits:
            raise Overloaded(
                f"{queue.limit} jobs of this kind are waiting already.",
                headers={"retry-after": retry_after(self.delay(job.priority, math.inf))},
            )
        if job.loop is not self._listener:
            self._listen(job.loop)
        begins = job.begin_by if math.isnan(job.begun) else None
        due = min(math.inf if at is None else at for at in (begins, job.deadline))
        if due < math.inf:
            job.timer = job.loop.call_later(max(due - perf_counter(), 0.0), _expire, job)
        job.lane = self
        queue.backlog += job.turn
        queue.jobs.add(job)
        self._handed_in.append(job)
        with suppress(BlockingIOError):
            os.write(self._wake, _WAKE)

    def forget(self, job: Job) -> None:
        """Nobody waits here for this job any more."""
        self._queues[job.priority].backlog -= job.turn
        if job.timer is not None:
            job.timer.cancel()
        job.lane = None

    def watch(self) -> None:
        """To be called now and then: has the lane come on since?"""
        if self._running is None or self._signs != self._seen:
            self._seen, self._stalled = self._signs, None
        elif self._stalled is None:
            # Only now: what it asks of the system takes a part of a millisecond.
            self._stalled = 0.0
            self._stall.restart()
        else:
            self._stalled += self._stall.passed()

    def held(self) -> float:
        """Seconds since the job that has its turn began it; 0 without one."""
        return 0.0 if self._running is None else perf_counter() - self._turn_began

    def hanging(self) -> float | None:
        """Seconds without a step, if those are more than there may be."""
        running = self._running
        if running is None or self._stalled is None or self._signs != self._seen:
            return None
        return self._stalled if self._stalled > running.allowance else None

    def give_up(self) -> None:
        """Have nobody wait any longer: the running job hangs."""
        for queue in self._queues.values():
            for job in queue.jobs:
                if not job.done.done():
                    job.done.set_exception(DeadlineExpired("The engine does not come back from a request."))

    def stop(self) -> None:
        """Return once the jobs handed in before have run; a job that hangs is left behind."""
        self._stopping = True
        with suppress(BlockingIOError):
            os.write(self._wake, _WAKE)
        self._thread.join(HANGING_IN_BACKGROUND)
        os.close(self._wake)
        self._settle()
        if not self._thread.is_alive():
            self._listen(None)
            for descriptor in (self._wakes, self._tells, self._tell):
                os.close(descriptor)

    def _listen(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Have this event loop, and no other, hear of what is done."""
        if self._listener is not None and not self._listener.is_closed():
            self._listener.remove_reader(self._tells)
        if loop is not None:
            loop.add_reader(self._tells, self._deliver)
        self._listener = loop

    def _deliver(self) -> None:
        os.read(self._tells, _MOST_TOLD)
        self._settle()

    def _settle(self) -> None:
        while self._handed_back:
            job, result, error, moves_on = self._handed_back.popleft()
            self._queues[job.priority].jobs.discard(job)
            # Its caller may have gone, or the event loop on which it was waited for.
            if job.done.done() or job.loop.is_closed():
                job.work.close()
            elif moves_on:
                self.forget(job)
                self._move_on(job)
            elif error is None:
                job.done.set_result(result)
            else:
                job.done.set_exception(error)

    # On the lane's own thread.

    def _serve(self) -> None:
        lower_priority(self._niceness)
        while (job := self._next()) is not None:
            self._drive(job)
            # Not until the next one comes.
            del job

    def _next(self) -> Job | None:
        """The next to have its turn; None at the end. While some wait the pipe is left alone: who reads from it gives
        the interpreter lock away, and a busy event loop does not return it soon."""
        while True:
            self._take_in()
            for priority, queue in self._ready.items():
                if queue:
                    return _first_due(queue) if priority is Priority.LONG else queue.popleft()
            if self._stopping and not self._handed_in:
                return None
            os.read(self._wakes, _MOST_TOLD)

    def _take_in(self) -> None:
        while self._handed_in:
            job = self._handed_in.popleft()
            self._ready[job.priority].append(job)

    def _drive(self, job: Job) -> None:
        """A turn of a job."""
        self._signs += 1
        now = perf_counter()
        enough: bool | None = job.deadline is not None and now >= job.deadline
        if math.isnan(job.begun) and not job.done.done():
            if job.begin_by is not None and now >= job.begin_by:
                # Its timer is late, which a busy event loop makes it.
                self._hand_back(_HandedBack(job, None, job.refusal()))
                return
            job.begun, enough = now, None
        self._running, self._turn_began = job, now
        end = thread_time() + self._slice
        back: _HandedBack | None = None
        try:
            while not job.done.done():
                job.work.send(enough)  # type: ignore[arg-type]  # None begins it
                self._signs += 1
                if thread_time() >= end and self._stands_aside(job):
                    break
                enough = job.deadline is not None and perf_counter() >= job.deadline
            else:
                # The caller has gone.
                job.work.close()
                back = _HandedBack(job, None, None)
        except StopIteration as ended:
            back = _HandedBack(job, ended.value, None)
        except BaseException as raised:  # the caller's to handle, whatever it is; the thread must go on
            back = _HandedBack(job, None, raised)
        job.ended = perf_counter()
        job.spent += job.ended - now
        self._running = None
        if back is not None:
            self._hand_back(back)
        elif job.priority is Priority.INTERACTIVE:
            self._hand_back(_HandedBack(job, None, None, moves_on=True))
        elif job.priority.takes_turns:
            self._ready[job.priority].append(job)
        else:
            self._ready[job.priority].appendleft(job)
        # An error that its work raised holds this frame, and is held by its future.
        del job, back

    def _stands_aside(self, job: Job) -> bool:
        """Whether others wait for whom a job that has had its slice makes room."""
        self._take_in()
        for priority, queue in self._ready.items():
            if queue and (priority < job.priority or (priority is job.priority and priority.takes_turns)):
                return True
        return False

    def _hand_back(self, back: _HandedBack) -> None:
        self._handed_back.append(back)
        os.write(self._tell, _DONE)


def _expire(job: Job) -> None:
    """The time to begin by has come, or the deadline, or nearly: timers of uvloop are in whole milliseconds."""
    if job.done.done():
        return
    if math.isnan(job.begun):
        job.done.set_exception(job.refusal())
    elif job.deadline is not None:
        # It is told so after its next step.
        rest = job.deadline + max(GRACE, 10.0 * job.cost) - perf_counter()
        if rest > 0.0:
            job.timer = job.loop.call_later(rest, _expire, job)
        else:
            job.done.set_exception(DeadlineExpired("The engine did not come back by the deadline."))


def _first_due(queue: deque[Job]) -> Job:
    """The first whose deadline has passed, since it ends now; else the first."""
    now = perf_counter()
    job = next((job for job in queue if job.deadline is not None and now >= job.deadline), queue[0])
    queue.remove(job)
    return job


def retry_after(wait: float) -> str:
    """The header `Retry-After`, whole seconds, for a queue of this many seconds."""
    return str(max(math.ceil(wait), 1))


def lower_priority(niceness: int) -> None:
    """Put the calling thread behind the others of the process, for the operating system."""
    if niceness and sys.platform == "linux":
        # There, and only there, a niceness belongs to a thread; a new thread has that of the one which made it.
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + niceness, 19))
