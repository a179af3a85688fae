"""Who computes when: the lanes of a process, and who is refused because of what waits for them.

The interactive lane takes what a client waits for and what is short. The background lane takes the rest, at a lower
priority of the operating system too: jobs too long to go before others and, where they have no process of their own,
batches and audits. So no interactive calibration ever waits for more than a slice of those before it. The kernels
release the interpreter lock, which is what makes two lanes and an event loop in one process worthwhile.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

from calibrant.steps import Steps, in_one_step

from .errors import DeadlineExpired, DeadlineUnreachable, Overloaded, ServiceError
from .lane import BACKGROUND_NICENESS, Job, Lane, Priority, retry_after

T = TypeVar("T")

LANES: Mapping[str, Sequence[Priority]] = {
    "interactive": (Priority.INTERACTIVE,),
    "background": (Priority.LONG, Priority.BULK, Priority.JOB, Priority.AUDIT),
}
"""The lanes by their names, with the priorities that they take."""
QUEUE_LIMITS: Mapping[Priority, int] = {
    Priority.INTERACTIVE: 256,
    Priority.LONG: 256,
    Priority.BULK: 256,
    Priority.JOB: 256,
    Priority.AUDIT: 32,
}
"""In number; in seconds it is a matter of each request's patience."""
SLICE = 3e-3
"""Seconds of the processor's time."""
DEFAULT_COST = 1e-3
"""Seconds that a job is taken for whose cost nobody estimated."""
SWITCH_INTERVAL = 5e-4
"""Seconds after which a thread must give the interpreter lock to one that waits. Python's 5 ms is more than a whole
calibration. Two threads that fight for the lock take 0.5 % more of the processor for it (at 0.1 ms, 11 %)."""
_ITS_OWN = "its own deadline (`X-Request-Deadline-Ms`, `budget_ms` or `timeout`)"


class Patience(NamedTuple):
    """How long the service lets a request wait that has no deadline of its own."""

    seconds: float
    setting: str
    """The setting of the service that says so."""


class Driven(NamedTuple, Generic[T]):
    """A job that has ended."""

    result: T
    waited: float
    """Seconds, for its turns."""
    spent: float
    """Seconds on lanes."""
    moved: bool
    """Whether it went on, where it was, on another lane than it began on."""


class Scheduler:
    """The lanes of a process. All of this is called on its event loop."""

    def __init__(
        self,
        lanes: Mapping[str, Sequence[Priority]] = LANES,
        limits: Mapping[Priority, int] = QUEUE_LIMITS,
        slice_s: float = SLICE,
    ) -> None:
        """
        lanes    every priority is on one of them; all but the first are behind the rest of the process
        slice_s  of the processor's time that a job has while others wait
        """
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._slice = slice_s
        self.lanes: list[Lane] = []
        self._lane_of: dict[Priority, Lane] = {}
        for name, priorities in lanes.items():
            niceness = BACKGROUND_NICENESS if self.lanes else 0
            of_lane = {priority: limits[priority] for priority in priorities}
            lane = Lane(name, of_lane, slice_s=slice_s, niceness=niceness, move_on=self._move_on)
            self.lanes.append(lane)
            self._lane_of |= dict.fromkeys(priorities, lane)

    def lane(self, priority: Priority) -> Lane:
        return self._lane_of[priority]

    async def drive(
        self,
        steps: Steps[T],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        patience: Patience | None = None,
        cost: float = DEFAULT_COST,
    ) -> Driven[T]:
        """The steps to their end, on the lane of their priority and, if they take longer than what is interactive may,
        on that of long jobs; closed once the caller has gone.

        deadline  of the client, on the clock of `time.perf_counter`: not begun by then, the job is dropped; else it is
                  told after its next step that this is enough
        patience  where there is no deadline: how long it waits to begin, and by how much it lets others delay it
        cost      seconds it is expected to take, for the estimate of how long others wait
        raises    Overloaded if too many jobs of this priority wait, or for longer than the patience lasts;
                  DeadlineExpired; what the steps raise
        """
        # The result is not kept in a name, nor an error by one: see `_run`.
        return await self._run(steps, priority, deadline, patience, cost, min(cost, self._slice))

    async def run(
        self,
        work: Callable[[], T],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        cost: float = DEFAULT_COST,
    ) -> T:
        """`work()` as one step; otherwise as `drive`. Once begun it is waited for beyond its deadline."""
        return (await self._run(in_one_step(work), priority, deadline, None, cost, cost)).result

    async def _run(
        self,
        steps: Steps[T],
        priority: Priority,
        deadline: float | None,
        patience: Patience | None,
        cost: float,
        turn: float,
    ) -> Driven[T]:
        loop = asyncio.get_running_loop()
        handed_in = perf_counter()
        begin_by = deadline
        refusal: Callable[[], ServiceError] = _expired
        if deadline is None and patience is not None:
            self._require_patience(priority, patience, cost)
            begin_by, refusal = handed_in + patience.seconds, partial(_waited_in_vain, patience)
        job = Job(steps, priority, cost, turn, begin_by, refusal, deadline, loop.create_future(), loop)
        self.lane(priority).hand_in(job)
        try:
            result = await job.done
            return Driven(result, max(job.ended - handed_in - job.spent, 0.0), job.spent, job.moved)
        finally:
            if job.lane is not None:
                job.lane.forget(job)
            # An error that its work raised holds this frame, and is held by its future.
            del job

    def _move_on(self, job: Job) -> None:
        """Have a job that has had its slice of the interactive lane go on, where it is, among the long ones."""
        job.priority, job.moved = Priority.LONG, True
        job.turn = min(job.rest, self._slice)
        try:
            # What has a deadline ends by it.
            self.lane(Priority.LONG).hand_in(job, whatever_waits=job.deadline is not None)
        except Overloaded as error:
            job.work.close()
            job.done.set_exception(error)

    def wait(self, priority: Priority) -> float:
        """Seconds until a job of this priority handed in now would begin."""
        return self.lane(priority).wait(priority)

    def require_reachable(self, priority: Priority, deadline: float) -> None:
        """raises  DeadlineUnreachable if a job of this priority would not begin by then"""
        wait = self.wait(priority)
        now = perf_counter()
        # What has passed already is not out of reach but expired, which `drive` says.
        if now < deadline < now + wait:
            raise unreachable(wait)

    def _require_patience(self, priority: Priority, patience: Patience, cost: float) -> None:
        wait = self.wait(priority)
        if priority is not Priority.INTERACTIVE:
            wait = max(wait, self.lane(priority).delay(priority, cost))
        if wait > patience.seconds:
            raise impatient(wait, patience)

    def depth(self, priority: Priority) -> int:
        """Jobs of this priority that wait."""
        return self.lane(priority).depth(priority)

    def watch(self) -> None:
        """To be called now and then, for `hanging` to know."""
        for lane in self.lanes:
            lane.watch()

    def hanging(self) -> str | None:
        """Which lane hangs, in a sentence, and all who wait for it told; None while all make their steps."""
        for lane in self.lanes:
            stalled = lane.hanging()
            if stalled is not None:
                lane.give_up()
                return f"The {lane.name} lane has made no step for {stalled:.1f} s."
        return None

    def stop(self) -> None:
        for lane in self.lanes:
            lane.stop()


def unreachable(wait: float) -> DeadlineUnreachable:
    """The refusal of what would wait this many seconds, beyond its deadline."""
    return DeadlineUnreachable(
        f"Requests before this one will take {1e3 * wait:.0f} ms, which is beyond {_ITS_OWN}.",
        headers={"retry-after": retry_after(wait)},
    )


def impatient(wait: float, patience: Patience) -> Overloaded:
    """The refusal of what would wait this many seconds, longer than the service lets it."""
    return Overloaded(
        f"Requests before this one will take {1e3 * wait:.0f} ms; one without a deadline of its own waits at most "
        f"{1e3 * patience.seconds:.0f} ms (`{patience.setting}` of the service).",
        headers={"retry-after": retry_after(wait)},
    )


def _expired() -> DeadlineExpired:
    return DeadlineExpired(f"The request waited for the engine until {_ITS_OWN} had passed.")


def _waited_in_vain(patience: Patience) -> Overloaded:
    return Overloaded(
        f"The request waited {1e3 * patience.seconds:.0f} ms for its turn, as long as one without a deadline of its "
        f"own does (`{patience.setting}` of the service).",
        headers={"retry-after": retry_after(patience.seconds)},
    )
