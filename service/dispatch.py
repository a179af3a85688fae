"""Which lane a job takes, and what its deadline means there.

A deadline that the client gave (`X-Request-Deadline-Ms`, `budget_ms`) is one for the answer: refinement ends with the
best so far. The default deadline is one for the beginning: a request that nobody limited waits no longer than that for
its turn, since its client has probably gone by then, but once begun it gets its whole answer, the same on a busy server
as on an idle one. The client's counts from the first byte received, the default from when the request is whole: a slow
connection is no reason to refuse who is in no hurry.

No panel tells beforehand whether its first answer will be beyond doubt, and a second opinion costs up to a hundred
times as much. So what is short by its size gets a slice of the interactive lane, counted in the processor's time, and
if that does not end it, it is begun anew on the background lane. Anew, so that the answer does not depend on when the
slice ended; that it costs the slice again is the price.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from threading import Event
from time import perf_counter, thread_time
from typing import NamedTuple

from calibrant.pipeline import Assessment, StageSeconds
from calibrant.steps import finish

from .costs import Costs, panel_size
from .engine import CalibrationJob, Engine, PriceJob, Prices
from .errors import DeadlineExpired, DeadlineUnreachable, Overloaded
from .scheduler import Priority, Scheduler
from .settings import Settings

_EXPIRY = 40
"""Options that cost the accurate pricer as much as what an expiry costs by itself."""


class Answer(NamedTuple):
    """A calibrated panel and how long it waited."""

    assessment: Assessment
    queue: float
    """Seconds."""


class Dispatch:
    def __init__(self, scheduler: Scheduler, costs: Costs, settings: Settings) -> None:
        self._scheduler = scheduler
        self._costs = costs
        self._slice = 1e-3 * settings.long_job_ms
        self._default = 1e-3 * settings.default_deadline_ms
        self._patience = settings.long_queue_s

    async def calibrate(self, engine: Engine, job: CalibrationJob) -> Answer:
        """Calibrate one panel for a client that waits.

        raises  DeadlineUnreachable, DeadlineExpired, Overloaded, EngineFailed, InvalidInput
        """
        kind, size = job.options.refine, panel_size(job.panel)
        given = job.deadline
        mean = self._costs.mean(kind, size)
        if self._costs.least(kind, size) > self._slice:
            return await self._calibrate_long(engine, job, given, mean)
        begin_by = given if given is not None else perf_counter() + self._default
        self._scheduler.require_reachable(Priority.INTERACTIVE, begin_by)
        submitted = perf_counter()
        work = partial(_tried, engine, job, self._slice)
        started, first, ended = await self._scheduler.run(work, deadline=begin_by, cost=min(mean, self._slice))
        queue = started - submitted
        if first.calibration.status != "budget_exhausted" or _passed(given):
            self._costs.observe(kind, size, ended - started)
            return Answer(first, queue)
        try:
            second, again = await self._calibrate_long(engine, job, given, mean)
        except (DeadlineExpired, DeadlineUnreachable, Overloaded):
            if given is None:
                raise
            # Its client asked for the best by then, and this is it.
            return Answer(first, queue)
        spent = StageSeconds(*(a + b for a, b in zip(first.seconds, second.seconds, strict=True)))
        return Answer(second._replace(seconds=spent), queue + again)

    async def price(self, engine: Engine, job: PriceJob, given: float | None = None) -> Prices:
        """Price options for a client that waits; `given` is the deadline that it gave. Raises as `calibrate`."""
        kind = "price_gradient" if job.gradient else "price"
        size = job.expiry.size + _EXPIRY * len(set(job.expiry.tolist()))
        cost = self._costs.mean(kind, size)
        long = self._costs.least(kind, size) > self._slice
        priority = Priority.LONG if long else Priority.INTERACTIVE
        begin_by = given if given is not None else perf_counter() + (self._patience if long else self._default)
        self._scheduler.require_reachable(priority, begin_by)
        work = partial(_priced, engine, job)
        started, prices, ended = await self._scheduler.run(work, priority=priority, deadline=begin_by, cost=cost)
        self._costs.observe(kind, size, ended - started)
        return prices

    async def _calibrate_long(self, engine: Engine, job: CalibrationJob, given: float | None, cost: float) -> Answer:
        submitted = perf_counter()
        begin_by = given if given is not None else submitted + self._patience
        self._scheduler.require_reachable(Priority.LONG, begin_by)
        gone = Event()
        try:
            started, assessment, ended = await self._scheduler.run(
                partial(_timed, engine, job, gone.is_set),
                priority=Priority.LONG,
                deadline=begin_by,
                cost=cost,
            )
        except asyncio.CancelledError:
            # Its client has gone: what has begun need not go on to its end.
            gone.set()
            raise
        self._costs.observe(job.options.refine, panel_size(job.panel), ended - started)
        return Answer(assessment, started - submitted)


def _passed(deadline: float | None) -> bool:
    return deadline is not None and perf_counter() >= deadline


def _timed(engine: Engine, job: CalibrationJob, enough: Callable[[], bool]) -> tuple[float, Assessment, float]:
    started = perf_counter()
    assessment = finish(engine.calibration_steps(job), lambda: enough() or _passed(job.deadline))
    return started, assessment, perf_counter()


def _tried(engine: Engine, job: CalibrationJob, slice_: float) -> tuple[float, Assessment, float]:
    """As far as it comes in a slice of the processor's time: a short panel that others kept waiting, for the processor
    or the interpreter lock, is not begun anew for that."""
    end = thread_time() + slice_
    return _timed(engine, job, lambda: thread_time() >= end)


def _priced(engine: Engine, job: PriceJob) -> tuple[float, Prices, float]:
    started = perf_counter()
    return started, engine.price(job), perf_counter()
