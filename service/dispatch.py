"""Which lane a job takes, and what its deadline means there.

A deadline that the client gave (`X-Request-Deadline-Ms`, `budget_ms`) is one for the answer: refinement ends with the
best so far. Who gave none waits for its turn as long as the service has patience, and once begun gets its whole answer,
the same on a busy server as on an idle one: what bounds that is the budget of work, which no load changes. The client's
deadline counts from the first byte received, the patience from when the request is whole: a slow connection is no
reason to refuse who is in no hurry.

No panel tells beforehand whether its first answer will be beyond doubt, and a second opinion costs up to a hundred
times as much. So what is short by its size begins on the interactive lane, and what has had its slice there while
others wait goes on among the long ones, where it was.
"""

from typing import NamedTuple, TypeVar

from calibrant.models.model import Model
from calibrant.pipeline import Assessment
from calibrant.prices import Prices
from calibrant.steps import Steps, told

from .costs import Costs, panel_size
from .engine import CalibrationJob, Engine, PriceJob
from .errors import DeadlineExpired
from .lane import Priority
from .metrics import Metrics
from .scheduler import Driven, Patience, Scheduler
from .settings import Settings, variable

T = TypeVar("T")

_PER_BYTE = 1e-6
"""Seconds that reading a byte of a chain takes, and making its part of a panel."""
_EXPIRY = 100
"""Options that cost the accurate pricer as much as what an expiry costs by itself."""


class Calibrated(NamedTuple):
    """A calibrated panel and how long it waited."""

    assessment: Assessment
    queue: float
    """Seconds."""


class Dispatch:
    def __init__(self, scheduler: Scheduler, costs: Costs, settings: Settings, metrics: Metrics) -> None:
        self._scheduler = scheduler
        self._costs = costs
        self._metrics = metrics
        self._slice = 1e-3 * settings.long_job_ms
        self._patience = {
            Priority.INTERACTIVE: short_patience(settings),
            Priority.LONG: Patience(settings.long_queue_s, variable("long_queue_s")),
        }

    async def calibrate(self, engine: Engine, job: CalibrationJob) -> Calibrated:
        """Calibrate one panel for a client that waits.

        raises  DeadlineUnreachable, DeadlineExpired, Overloaded, EngineFailed, InvalidInput
        """
        steps = engine.calibration_steps(job)
        driven = await self._driven(steps, job.model, job.options.refine, panel_size(job.panel), job.deadline)
        return Calibrated(driven.result, driven.waited)

    async def price(self, engine: Engine, job: PriceJob, given: float | None = None) -> Prices:
        """Price options for a client that waits; `given` is the deadline that it gave. Raises as `calibrate`."""
        work = "price_gradient" if job.gradient else "price"
        size = job.expiry.size + _EXPIRY * len(set(job.expiry.tolist()))
        steps = told(engine.price_steps(job), all_or_nothing)
        return (await self._driven(steps, job.model, work, size, given)).result

    async def panel(self, steps: Steps[T], n_bytes: int, given: float | None = None) -> T:
        """Read a chain of quotes for a client that waits, among the long jobs; `given` as for prices."""
        driven = await self._scheduler.drive(
            steps,
            priority=Priority.LONG,
            deadline=given,
            patience=self._patience[Priority.LONG],
            cost=_PER_BYTE * n_bytes,
        )
        return driven.result

    async def _driven(self, steps: Steps[T], model: Model, work: str, size: int, deadline: float | None) -> Driven[T]:
        long = self._costs.least(model, work, size) > self._slice
        priority = Priority.LONG if long else Priority.INTERACTIVE
        if deadline is not None:
            self._scheduler.require_reachable(priority, deadline)
        driven = await self._scheduler.drive(
            steps,
            priority=priority,
            deadline=deadline,
            patience=self._patience[priority],
            cost=self._costs.mean(model, work, size),
        )
        self._costs.observe(model, work, size, driven.spent)
        if driven.moved:
            self._metrics.moved.inc()
        return driven


def short_patience(settings: Settings) -> Patience:
    """With what is short."""
    return Patience(1e-3 * settings.default_deadline_ms, variable("default_deadline_ms"))


def all_or_nothing(enough: bool) -> bool:
    """For work of which a part is no use.

    raises  DeadlineExpired
    """
    if enough:
        raise DeadlineExpired("The deadline passed before all was known.")
    return False
