"""The service checks itself: a share of its answers is calibrated again from many starts, where nobody waits for it.

An answer is the best that its starts led to, and whether there is a better one no fit tells of itself. The starts here
are those read off the surface and random ones from all over the admissible parameters, so that what is found says
something about the rule by which the service chooses its starts, and not about the rule's own idea of where to look.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.fit_problem import fit_problem
from calibrant.fits import refined
from calibrant.nesting import spread_out
from calibrant.optimisers.objective import OUT_OF_ITERATIONS, Problem
from calibrant.options import StartName
from calibrant.pipeline import Assessment
from calibrant.starts import N_KINDS, surface_starts
from calibrant.steps import Progress, Steps

from .costs import Costs, panel_size
from .engine import CalibrationJob
from .errors import EngineFailed, ServiceError
from .lane import Priority
from .metrics import Metrics
from .scheduler import Scheduler
from .settings import Settings

log = logging.getLogger("calibrant.audit")

BETTER = 1e-6
"""Share of the objective below which two optima are one."""
OUTCOMES = ("confirmed", "better_found", "failed", "passed_over")
_EVALUATIONS = 200
_AT_ONCE = 2
"""Audits that one process has under way; further answers are passed over. Nobody waits for them, so they must not pile
up."""


class Answered(NamedTuple):
    """What an audit has to know of an answer that has left: little, since it may be sent to another process."""

    job: CalibrationJob
    """Its panel holds the quotes used."""
    parameters: Vector
    objective: float
    rmse_bp: float
    start: StartName
    model_version: str | None
    request_id: str

    @classmethod
    def of(cls, job: CalibrationJob, assessment: Assessment, request_id: str) -> "Answered":
        of = assessment.calibration
        # What was excluded may be many times what was used.
        used = job._replace(panel=replace(of.panel, excluded=()))
        return cls(used, of.parameters, of.objective, of.rmse_bp, of.start, assessment.model_version, request_id)


class Best(NamedTuple):
    """What an audit found."""

    objective: float
    params: Vector


class Audits:
    """Chooses the answers of a process that are audited. Used on the event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, audit: Callable[[Answered], Awaitable[None]]) -> None:
        """`audit` has it done and counted, or raises."""
        self._share = settings.audit_share
        self._metrics = metrics
        self._audit = audit
        self._rng = np.random.default_rng(settings.audit_seed)
        self._tasks: set[asyncio.Task[None]] = set()

    def consider(self, job: CalibrationJob, assessment: Assessment, request_id: str) -> None:
        """Have an answer audited, if its turn has come."""
        if self._share == 0.0 or self._rng.random() >= self._share:
            return
        calibration = assessment.calibration
        if calibration.status not in ("converged", "not_converged"):
            return
        if len(self._tasks) >= _AT_ONCE:
            self._metrics.audits.inc(calibration.model.name, "passed_over")
            return
        task = asyncio.get_running_loop().create_task(self._audited(Answered.of(job, assessment, request_id)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Give up the audits under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _audited(self, answer: Answered) -> None:
        try:
            await self._audit(answer)
        except Exception as error:
            # No room for it, nobody there to do it, or no descriptors just now.
            passed_over = isinstance(error, ServiceError | OSError) and not isinstance(error, EngineFailed)
            if not passed_over:
                log.exception("request %s could not be audited", answer.request_id)
            self._metrics.audits.inc(answer.job.model.name, "passed_over" if passed_over else "failed")


class Auditor:
    """Carries audits out: on the lane of their priority, one start at a time."""

    def __init__(self, settings: Settings, scheduler: Scheduler, costs: Costs, metrics: Metrics) -> None:
        self._n_random = settings.audit_starts
        self._scheduler = scheduler
        self._costs = costs
        self._metrics = metrics
        self._rng = np.random.default_rng(settings.audit_seed)

    async def audit(self, answer: Answered) -> None:
        """Count what comes of it, and log an answer that was not the best.

        raises  Overloaded if there is no room for it
        """
        model = answer.job.model.name
        best = await self.best(answer)
        # An exact fit leaves nothing but rounding to compare.
        floor = answer.job.panel.n_quotes * 1e-20
        excess = answer.objective / max(best.objective, floor) - 1.0
        better = answer.objective > floor and excess > BETTER
        self._metrics.audits.inc(model, "better_found" if better else "confirmed")
        self._metrics.audit_excess.observe(max(excess, 0.0) if better else 0.0, model)
        if better:
            fields = {
                "request_id": answer.request_id,
                "model_version": answer.model_version,
                "start": answer.start,
                "excess": excess,
                "given": answer.parameters.tolist(),
                "best": best.params.tolist(),
                "rmse_bp": answer.rmse_bp,
            }
            log.warning("a better answer was found", extra={"fields": fields})

    async def best(self, answer: Answered) -> Best:
        """The lowest objective that any of the starts leads to."""
        job = answer.job
        problem = fit_problem(job.panel, job.model, job.options)
        cost = self._costs.mean(job.model, "lm", panel_size(job.panel))
        read_off = await self._scheduler.run(partial(_read_off, problem), priority=Priority.AUDIT, cost=cost)
        found = []
        for start in np.concatenate((read_off, self._random(problem))):
            driven = await self._scheduler.drive(_refined(problem, start), priority=Priority.AUDIT, cost=cost)
            found.append(driven.result)
        return min(found, key=lambda best: best.objective)

    def _random(self, problem: Problem) -> Matrix:
        """Starts from all over the bounds: (n, n_params), of positive parameters the logarithms uniform."""
        lower, upper = problem.lower, problem.upper
        share = self._rng.random((self._n_random, lower.size))
        positive = lower > 0.0
        low, high = np.where(positive, lower, 1.0), np.where(positive, upper, 1.0)
        starts: Matrix = np.where(positive, low * (high / low) ** share, lower + share * (upper - lower))
        return starts


def _read_off(problem: Problem) -> Matrix:
    """Starts without a network: read off the surface, or for several factors spread over what markets show."""
    return surface_starts(problem) if problem.layout.size == 1 else spread_out(problem, N_KINDS)


def _refined(problem: Problem, start: Vector) -> Steps[Best]:
    fit = refined(problem, start)
    while fit.outcome == OUT_OF_ITERATIONS and fit.evaluations < _EVALUATIONS:
        yield Progress(fit.evaluations, _EVALUATIONS)
        fit = refined(problem, fit)
    return Best(float(fit.objective) if np.isfinite(fit.objective) else np.inf, fit.params)
