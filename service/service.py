"""What the endpoints share: the engine, or why there is none, who computes when, and who is let in."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request

from calibrant.pipeline import Assessment

from .admission import LARGE_BODY, SHED, Admission
from .audit import Answered
from .context import RequestContext
from .core import Core
from .dispatch import Dispatch
from .engine import CalibrationJob, Engine
from .errors import DeadlineExpired, NotReady, ServiceError
from .jobs.handover import Handover, Inbox
from .jobs.requests import JobAnswers
from .lane import Priority
from .metrics import Metrics
from .pauses import Pauses
from .settings import Settings

Read = TypeVar("Read")


class Service(Core):
    def __init__(self, settings: Settings, job_process: socket.socket | None = None) -> None:
        """`job_process` leads to the job process; without one its work is done here."""
        metrics = Metrics()
        here = job_process is None
        super().__init__(settings, metrics, metrics.ready, kind="worker", refines_batches=here)
        self.pauses = Pauses(metrics)
        self.dispatch = Dispatch(self.scheduler, self.costs, settings, metrics)
        self.admission = Admission(settings, self.scheduler, self.pauses, self.memory)
        self.jobs: Handover
        """From `start` on."""
        self._job_process = job_process
        self._inbox: Inbox | None = None
        self.scrape: Callable[[], Awaitable[bytes]] | None = None
        """Asks the supervisor for the metrics of all workers; None without one."""
        metrics.workers.set(settings.workers)
        metrics.connections_limit.set(settings.max_connections)
        for error in ServiceError.__subclasses__():
            metrics.problems.begin(error.code)
        for reason in (*SHED, DeadlineExpired.code):
            metrics.shed.begin(reason)

    async def start(self) -> None:
        await super().start()
        self.pauses.start()
        outbox = self._job_process
        if outbox is None:
            inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.answers = JobAnswers(self)
            self._inbox = Inbox(inbox, self.answers.answer)
            self._inbox.open()
        self.jobs = Handover(outbox)

    async def stop(self) -> None:
        self.pauses.stop()
        self.jobs.close()
        if self._inbox is not None:
            await self._inbox.close()
            await self.answers.stop()
        await super().stop()

    async def audit(self, answer: Answered) -> None:
        await self.jobs.audit(answer)

    async def decoded(self, decoding: Callable[[], Read], n_bytes: float, deadline: float | None = None) -> Read:
        """What a body says: read here, or, where that would hold up the event loop, on the background lane."""
        if n_bytes <= LARGE_BODY:
            return decoding()
        return await self.scheduler.run(decoding, priority=Priority.LONG, deadline=deadline)

    async def exposition(self) -> bytes:
        """The metrics of all workers, whichever is asked, in Prometheus's text format.

        raises  NotReady if the supervisor, which has them, does not answer
        """
        if self.scrape is None:
            # Formatting holds the interpreter lock, but off the event loop it gives it up twice a millisecond.
            return await asyncio.to_thread(self.metrics.exposition, self.observed())
        try:
            return await self.scrape()
        except TimeoutError:
            # Not this worker's alone: a counter that falls is taken for one that began anew.
            raise NotReady("The supervisor does not answer.", headers={"retry-after": "1"}) from None

    def require_ready(self) -> Engine:
        """The engine, if requests should come.

        raises  NotReady with the reason
        """
        if self.draining:
            raise NotReady("The service is draining: it is about to stop.")
        hanging = self.scheduler.hanging()
        if hanging is not None:
            raise NotReady(hanging)
        return self.engine

    def answered_alone(self, job: CalibrationJob, assessment: Assessment, context: RequestContext) -> None:
        """To be called once the answer to an interactive calibration has left."""
        stages, model = context.stages, job.model
        seconds = sum(stages.values()) - stages["queue"]
        self.metrics.compute_seconds.observe(seconds, model.name)
        for stage, duration in stages.items():
            self.metrics.model_seconds.inc(model.name, stage, by=duration)
        self.metrics.on_time.inc(model.name, by=float(1e3 * seconds <= model.objective_ms))
        self.answered(job, assessment, context.request_id)


def service_of(request: Request) -> Service:
    service = request.app.service
    assert isinstance(service, Service)
    return service
