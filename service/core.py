"""What every process of the service has: the networks and the lanes that they run on, metrics and audits."""

import gc
import logging
from collections.abc import Mapping, Sequence
from typing import get_args

from calibrant.arbitrage.violations import KINDS
from calibrant.calibration import Status
from calibrant.models import MODELS
from calibrant.models.model import Model
from calibrant.options import StartName
from calibrant.pipeline import Assessment
from calibrant.sessions import PROVIDERS

from .audit import OUTCOMES, Answered, Auditor, Audits
from .compiling import telling_of_kernels
from .costs import Costs
from .engine import CalibrationJob, Engine
from .errors import NotReady
from .hugepages import use_huge_pages
from .lane import Priority
from .memory import Memory
from .metrics import Metrics
from .scheduler import LANES, Scheduler
from .settings import Settings
from .tally import Gauge, Snapshot

log = logging.getLogger("calibrant.service")

_COLLECT_AFTER = 10_000
"""Objects made and not yet freed before the garbage collector runs; Python's default is 700. A request leaves the
collector nothing to free, but with a batch in hand each run walks all numbers of its panels, which took 1 ms, twenty
times a second."""
_LOADING = 60.0
"""Seconds that the first load is expected to take; twenty times that is allowed, since it may compile every kernel."""
_RELOADING = 1.0
"""The same of a reload, which compiles nothing."""


class Core:
    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        ready: Gauge,
        *,
        kind: str,
        refines_batches: bool,
        lanes: Mapping[str, Sequence[Priority]] = LANES,
    ) -> None:
        """
        ready            which of the metrics says that the networks are served
        kind             of process, in the metrics
        refines_batches  whether the refinement of batches on the GPU, where the settings want it, is for this process
        lanes            those of its scheduler
        """
        self.settings = settings
        self.metrics = metrics
        self.memory = Memory(settings.max_memory_bytes)
        self.scheduler = Scheduler(lanes, slice_s=1e-3 * settings.long_job_ms)
        self.costs = Costs()
        self.auditor = Auditor(settings, self.scheduler, self.costs, metrics)
        self._audits = Audits(settings, metrics, self.audit)
        self._ready = ready
        self._kind = kind
        metrics.memory_budget.set(settings.max_memory_bytes)
        self._gpu_refinement = settings.gpu_refinement and refines_batches
        self._draining = False
        self._engine: Engine | None = None
        self.n_compiled = 0
        """Kernels that were compiled at the start; the others were found compiled."""
        self._not_ready = "The networks are being loaded."
        _begin(metrics)

    async def start(self) -> None:
        """Load, verify and warm on the thread that will do the work. A failure is kept for `/health/ready` to tell."""
        try:
            engine = await self.scheduler.run(self._first_loaded, cost=_LOADING)
        except Exception as error:
            log.exception("not ready")
            self._not_ready = f"The networks could not be loaded: {error}"
        else:
            self._take(engine)

    async def stop(self) -> None:
        self._ready.set(0)
        await self._audits.finish()
        self.scheduler.stop()

    async def reload(self) -> str:
        """Load the released networks anew, and serve them if they are sound; what came of it, in a sentence.

        Requests that are being served end on the networks they began with. The old ones stay if the new ones fail.
        """
        try:
            # On the lane at the lower priority: what it costs is not to be felt.
            engine = await self.scheduler.run(self._reloaded, priority=Priority.LONG, cost=_RELOADING)
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

    def _first_loaded(self) -> Engine:
        """All that takes long at the start, on the lane: the event loop says meanwhile that the process lives."""
        log.info("loading the networks and the kernels")
        try:
            with telling_of_kernels() as compiled:
                return self._load()
        finally:
            self.n_compiled = compiled.n
            # What start-up made lives as long as the process: keep the collector from walking it on every full
            # collection.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_COLLECT_AFTER)
            use_huge_pages()

    def _load(self, compiled: bool = False) -> Engine:
        settings = self.settings
        return Engine.load(
            settings.networks,
            PROVIDERS[settings.provider],
            settings.precision,
            self._gpu_refinement,
            compiled,
            settings.max_work,
        )

    def _reloaded(self) -> Engine:
        engine = self._load(compiled=self._engine is not None)
        lost = [] if self._engine is None else [name for name in engine.without if name in self._engine.releases]
        if lost:
            raise RuntimeError(" ".join(engine.without[name] for name in lost))
        return engine

    def _take(self, engine: Engine) -> None:
        self._engine = engine
        self.metrics.model.clear()
        self.metrics.provider.clear()
        for model in MODELS.values():
            begin_model(self.metrics, model)
        for name, release in engine.releases.items():
            self.metrics.model.set(1.0, name, release.version)
            self.metrics.provider.set(1.0, name, engine.provider, release.provider)
            log.info("serving %s", release.version)
        self.metrics.last_reload.set(1.0)
        self._ready.set(0.0 if self._draining else 1.0)

    @property
    def loaded(self) -> bool:
        """Whether there are networks to serve."""
        return self._engine is not None

    @property
    def draining(self) -> bool:
        """It is about to stop: requests are still served, but no more should come."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self._ready.set(0.0 if draining or self._engine is None else 1.0)

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise NotReady(self._not_ready)
        return self._engine

    def answered(self, job: CalibrationJob, assessment: Assessment, request_id: str) -> None:
        """To be called once the answer to a calibration has left, of a batch or alone."""
        self.metrics.observe_calibration(assessment)
        self._audits.consider(job, assessment, request_id)

    async def audit(self, answer: Answered) -> None:
        """Audit an answer, wherever that is done."""
        await self.auditor.audit(answer)

    def observed(self) -> Snapshot:
        """The metrics of this process as they are now."""
        for priority in Priority:
            name = priority.name.lower()
            self.metrics.queue_depth.set(self.scheduler.depth(priority), name)
            self.metrics.queue_wait.set(self.scheduler.wait(priority), name)
        for lane in self.scheduler.lanes:
            self.metrics.lane_held.set(lane.held(), lane.name)
        self.metrics.memory_reserved.set(self.memory.reserved, self._kind)
        self.metrics.observe_process(self._kind)
        return self.metrics.snapshot()


def _begin(metrics: Metrics) -> None:
    """The labels that are known before anything has happened."""
    metrics.last_reload.set(1.0)
    for outcome in ("done", "failed"):
        metrics.reloads.begin(outcome)
    for subject in ("quotes", "surface"):
        for kind in KINDS:
            metrics.arbitrage.begin(subject, kind)


def begin_model(metrics: Metrics, served: Model) -> None:
    """The same of a model."""
    model = served.name
    metrics.objective.set(1e-3 * served.objective_ms, model)
    for family in (
        metrics.compute_seconds,
        metrics.refusal_seconds,
        metrics.last_calibration,
        metrics.on_time,
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
