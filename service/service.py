"""What the endpoints share: the engine, or why there is none, who computes when, and who is let in."""

import gc
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, get_args

from starlette.requests import Request

from calibrant.arbitrage.violations import KINDS
from calibrant.calibrate import StartName, Status
from calibrant.pipeline import Assessment
from calibrant.sessions import PROVIDERS

from .admission import LARGE_BODY, SHED, Admission
from .audit import OUTCOMES, Audit
from .batch import Batches, Done
from .context import RequestContext
from .costs import Costs
from .crew import Crew, usable_cores
from .dispatch import Dispatch
from .engine import CalibrationJob, Engine
from .errors import DeadlineExpired, EngineFailed, NotReady, ServiceError
from .hugepages import use_huge_pages
from .metrics import Metrics
from .pauses import Pauses
from .scheduler import Priority, Scheduler
from .settings import Settings
from .tally import Snapshot

log = logging.getLogger("calibrant.service")

Read = TypeVar("Read")

_COLLECT_AFTER = 10_000
"""Objects made and not yet freed before the collector looks at them. Requests leave it nothing to free, but of a batch
it walked every number of the panels in hand for each 700 objects, Python's default: 1 ms, twenty times a second."""
_LOADING = 60.0
"""Seconds allowed for, ten times over: the first start on a machine compiles every kernel."""
_RELOADING = 1.0


class Service:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.scheduler = Scheduler()
        costs = Costs()
        self.dispatch = Dispatch(self.scheduler, costs, settings)
        self.crew = Crew(settings.batch_threads or max(usable_cores() // settings.workers - 1, 1))
        self.pauses = Pauses(self.metrics)
        self.admission = Admission(settings, self.scheduler, self.pauses)
        self.batches = Batches(self.scheduler, self.crew, self.admission.somebody_waits)
        self.audit = Audit(settings, self.scheduler, costs, self.metrics)
        self.scrape: Callable[[], Awaitable[bytes]] | None = None
        """Asks the supervisor for the metrics of all workers; None without one."""
        _begin(self.metrics, settings)
        self.routes: frozenset[str] = frozenset()
        """Paths of the application."""
        self._draining = False
        self._engine: Engine | None = None
        self._not_ready = "The networks are being loaded."

    async def start(self) -> None:
        """Load, verify and warm on the thread that will do the work. A failure is kept for `/health/ready` to tell."""
        try:
            engine = await self.scheduler.run(self._load, cost=_LOADING)
        except Exception as error:
            log.exception("not ready")
            self._not_ready = f"The networks could not be loaded: {error}"
        else:
            self._take(engine)
        # What start-up made lives as long as the process: keep the collector from walking it on every full collection.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        use_huge_pages()
        self.pauses.start()

    async def stop(self) -> None:
        self.metrics.ready.set(0)
        self.pauses.stop()
        await self.audit.finish()
        self.scheduler.stop()
        self.crew.stop()

    async def reload(self) -> str:
        """Load the released networks anew, and serve them if they are sound; what came of it, in a sentence.

        Requests that are being served end on the networks they began with. The old ones stay if the new ones fail.
        """
        try:
            # On the lane at the lower priority: what it costs is not to be felt.
            load = partial(self._load, compiled=self._engine is not None)
            engine = await self.scheduler.run(load, priority=Priority.LONG, cost=_RELOADING)
        except Exception as error:
            log.exception("not reloaded")
            self.metrics.reloads.inc("failed")
            self.metrics.last_reload.set(0.0)
            if self._engine is None:
                self._not_ready = f"The networks could not be loaded: {error}"
            return f"Not reloaded: {error}"
        self.metrics.reloads.inc("done")
        self._take(engine)
        return "Reloaded."

    async def decoded(self, decoding: Callable[[], Read], n_bytes: float, deadline: float | None = None) -> Read:
        """What a body says: read here, or, where that would hold up the event loop, on the background lane."""
        if n_bytes <= LARGE_BODY:
            return decoding()
        return await self.scheduler.run(decoding, priority=Priority.LONG, deadline=deadline)

    def _load(self, compiled: bool = False) -> Engine:
        settings = self.settings
        return Engine.load(
            settings.networks,
            PROVIDERS[settings.provider],
            settings.precision,
            settings.gpu_refinement,
            compiled,
        )

    def _take(self, engine: Engine) -> None:
        self._engine = engine
        self.metrics.model.clear()
        self.metrics.provider.clear()
        for name, release in engine.releases.items():
            self.metrics.model.set(1.0, name, release.version)
            self.metrics.provider.set(1.0, name, engine.provider, release.provider)
            _begin_model(self.metrics, name)
            log.info("serving %s", release.version)
        self.metrics.last_reload.set(1.0)
        self.metrics.ready.set(0.0 if self._draining else 1.0)

    @property
    def draining(self) -> bool:
        """It is about to stop: requests are still served, but no more should come."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self.metrics.ready.set(0.0 if draining or self._engine is None else 1.0)

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise NotReady(self._not_ready)
        return self._engine

    def require_ready(self) -> Engine:
        """The engine, if requests should come.

        raises  NotReady with the reason
        """
        if self._draining:
            raise NotReady("The service is draining: it is about to stop.")
        hanging = self.scheduler.hanging()
        if hanging is not None:
            raise NotReady(hanging)
        return self.engine

    def answered_alone(self, job: CalibrationJob, assessment: Assessment, context: RequestContext) -> None:
        """To be called once the answer to an interactive calibration has left."""
        stages = context.stages
        self.metrics.compute_seconds.observe(sum(stages.values()) - stages["queue"], job.model.name)
        self.answered(job, assessment, context.request_id)

    def answered(self, job: CalibrationJob, assessment: Assessment, request_id: str) -> None:
        """To be called once the answer to a calibration has left, of a batch or alone."""
        self.metrics.observe_calibration(assessment)
        self.audit.consider(job, assessment, request_id)

    def counted(self, group: Sequence[Done[Any]], request_id: str) -> None:
        """To be called with each group of a batch that is done."""
        for done in group:
            if isinstance(done.outcome, ServiceError):
                self.metrics.problems.inc(done.outcome.code)
                if isinstance(done.outcome, EngineFailed):
                    self.metrics.engine_failures.inc()
            elif done.job is not None:
                self.answered(done.job, done.outcome, request_id)

    def observed(self) -> Snapshot:
        """The metrics of this process as they are now."""
        for priority in Priority:
            name = priority.name.lower()
            self.metrics.queue_depth.set(self.scheduler.depth(priority), name)
            self.metrics.queue_wait.set(self.scheduler.wait(priority), name)
        return self.metrics.snapshot()


def _begin(metrics: Metrics, settings: Settings) -> None:
    """The labels that are known before anything has happened."""
    metrics.workers.set(settings.workers)
    metrics.connections_limit.set(settings.max_connections)
    metrics.last_reload.set(1.0)
    for error in ServiceError.__subclasses__():
        metrics.problems.begin(error.code)
    for reason in (*SHED, DeadlineExpired.code):
        metrics.shed.begin(reason)
    for outcome in ("done", "failed"):
        metrics.reloads.begin(outcome)
    for subject in ("quotes", "surface"):
        for kind in KINDS:
            metrics.arbitrage.begin(subject, kind)


def _begin_model(metrics: Metrics, model: str) -> None:
    """The same of a model."""
    for family in (
        metrics.compute_seconds,
        metrics.iterations,
        metrics.rmse_bp,
        metrics.fallbacks,
        metrics.out_of_domain,
        metrics.audit_excess,
    ):
        family.begin(model)
    for status in get_args(Status):
        for start in get_args(StartName):
            metrics.calibrations.begin(model, status, start)
    for outcome in OUTCOMES:
        metrics.audits.begin(model, outcome)


def service_of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
