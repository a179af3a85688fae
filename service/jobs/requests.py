"""What workers hand to the job process: work whose client waits, work that becomes a job, questions about a job."""

import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

from ..batches.answers import BatchAnswer, BatchAnswers, BatchContext, BatchRequest
from ..core import Core
from .simulations import Simulation, Simulations, described
from .store import Job, Jobs


class Submission(NamedTuple):
    """Work whose answer is asked for later; the body is that of the work."""

    owner: str
    """Name of the key that it came with; empty where none is needed."""
    kind: str
    work: BatchRequest

    @property
    def asked(self) -> BatchContext:
        return self.work.asked


class Question(NamedTuple):
    """What is asked of a job, without a body."""

    asked: BatchContext
    owner: str
    job_id: str
    what: Literal["state", "events", "result", "cancel"]


Request: TypeAlias = BatchRequest | Submission | Simulation | Question


Answering: TypeAlias = Callable[[Request, BinaryIO], Awaitable[BatchAnswer]]
"""Answers a request with its body, which may be closed then. What is wrong with the request as a whole it raises, as
ServiceError or InvalidInput."""


class JobAnswers:
    """Answers all of these in this process."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.batches = BatchAnswers(core)
        self.jobs = Jobs(core.settings, core.metrics)
        self.simulations = Simulations(core, self.jobs)

    async def answer(self, request: Request, body: BinaryIO) -> BatchAnswer:
        if isinstance(request, Submission):
            return described(self._begun(request, body))
        if isinstance(request, Simulation):
            return await self.simulations.answer(request, body)
        if isinstance(request, Question):
            return await self._about(request)
        return await self.batches.answer(request, body)

    async def stop(self) -> None:
        await self.jobs.stop()
        self.batches.stop()

    def _begun(self, request: Submission, body: BinaryIO) -> Job:
        with ExitStack() as kept:
            kept.enter_context(self._core.memory.hold()).grow(os.fstat(body.fileno()).st_size)
            own = kept.enter_context(os.fdopen(os.dup(body.fileno()), "rb"))
            job = self.jobs.begin(request.kind, request.owner, lambda _: self.batches.answer(request.work, own))
            until_ended = kept.pop_all()
        job.task.add_done_callback(lambda _: until_ended.close())
        return job

    async def _about(self, question: Question) -> BatchAnswer:
        job = self.jobs.find(question.job_id, question.owner)
        if question.what == "events":
            return BatchAnswer({}, self.jobs.events(job))
        if question.what == "result":
            return self.jobs.result(job)
        if question.what == "cancel":
            await self.jobs.cancel(job)
        return described(job)
