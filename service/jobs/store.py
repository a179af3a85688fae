"""Jobs: work that outlives the request that asked for it, and what came of it.

Whichever worker is asked about a job, this process has it, in memory alone: a job ends with the process, and a result
is kept for an hour at most, in a file without a name. There are bounds on how many jobs wait, on how many are known,
and on the bytes of all results; beyond the last two the oldest that has ended is forgotten.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, nullcontext, suppress
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from time import perf_counter
from typing import Any, BinaryIO

from pydantic_core import to_json

from calibrant.steps import Progress

from ..batches.answers import BatchAnswer, Piece, cut
from ..body import mapped, memory_file
from ..errors import (
    EngineFailed,
    NotFound,
    NotReady,
    Overloaded,
    ServiceError,
    TooLarge,
    bare,
    problem_document,
    refusal_of,
)
from ..metrics import Metrics
from ..settings import Settings
from .progress import tell_progress_to

log = logging.getLogger("calibrant.service")

_AT_ONCE = 4
"""Jobs that run; each gets its share of the lane. More would make all of them late."""
_MOST_WAITING = 64
_EVERY = 1.0
"""Seconds between two events of a job that goes on."""
_BIRTH_DIGITS = 8


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


def event(name: str, document: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return f"event: {name}\ndata: ".encode() + to_json(document) + b"\n\n"


NOT_BEGUN = Progress(0.0, 0.0)


@dataclass(slots=True, eq=False)
class Job:
    """One job, from when it is let in."""

    id: str
    kind: str
    owner: str
    """Name of the key that it came with; empty where none is needed."""
    state: State = State.QUEUED
    progress: Progress = NOT_BEGUN
    """Written by whoever does the work, on its thread."""
    began: float = 0.0
    """On the clock of `time.perf_counter`."""
    head: dict[str, str] = field(default_factory=dict)
    """Headers of the result."""
    result: BinaryIO | None = None
    kept: bytes = b""
    """What later requests may refer to by the id, pickled."""
    n_bytes: int = 0
    """Size of the result so far, and of what is kept beside it."""
    problem: ServiceError | None = None
    """Why it failed."""
    task: asyncio.Future[None] = field(init=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, progress: Progress) -> None:
        self.progress = progress

    def document(self) -> dict[str, Any]:
        """`schema.Job`."""
        done, total = self.progress
        share = 1.0 if self.state is State.DONE else min(done / total, 1.0) if total > 0.0 else 0.0
        goes_on = self.state is State.RUNNING and share > 0.0
        eta_s = (perf_counter() - self.began) * (1.0 / share - 1.0) if goes_on else None
        document = {"id": self.id, "kind": self.kind, "state": self.state, "progress": share, "eta_s": eta_s}
        return document if self.problem is None else {**document, "problem": problem_document(self.problem)}


class Jobs:
    """The jobs of a process. Used on its event loop."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._most, self._most_bytes = settings.max_jobs, settings.max_job_bytes
        self._kept_s = settings.job_result_s
        self._metrics = metrics
        self._jobs: dict[str, Job] = {}
        """By their ids, the oldest first."""
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._birth = secrets.token_hex(_BIRTH_DIGITS // 2)
        """Begins the id of every job of this process."""
        self._stopping = False

    def begin(
        self, kind: str, owner: str, work: Callable[[Job], Awaitable[BatchAnswer]], *, brief: bool = False
    ) -> Job:
        """A new job. `work` is called with it once its turn has come, and cancelled with the job.

        brief   whether somebody waits for it and it is soon done: then it waits for no place
        raises  Overloaded
        """
        if sum(job.state is State.QUEUED for job in self._jobs.values()) >= _MOST_WAITING:
            raise Overloaded(f"{_MOST_WAITING} jobs are waiting already.")
        while len(self._jobs) >= self._most:
            if not self._forget_oldest():
                raise Overloaded(f"{self._most} jobs are under way already.")
        job = Job(f"{self._birth}{secrets.token_hex(16)}", kind, owner)
        self._jobs[job.id] = job
        job.task = asyncio.get_running_loop().create_task(self._run(job, work, brief))
        job.task.add_done_callback(partial(self._end, job))
        self._count()
        return job

    def find(self, job_id: str, owner: str) -> Job:
        """raises  NotFound, also where it is another's: nobody learns of the jobs of others"""
        job = self._jobs.get(job_id)
        if job is not None and job.owner == owner:
            return job
        if job is None and len(job_id) == _BIRTH_DIGITS + 32 and not job_id.startswith(self._birth):
            # Perhaps of a process that was here before; who asks is told, rather than left to wonder.
            raise NotFound("There is no such job: its process has ended, and the job with it. Ask for it anew.")
        raise NotFound("There is no such job, or not any more.")

    async def cancel(self, job: Job) -> None:
        """End a job; one that has ended is forgotten with its result."""
        if job.state.ended:
            self.forget(job)
        else:
            job.task.cancel()
            await job.ended.wait()

    async def events(self, job: Job) -> AsyncGenerator[Piece, None]:
        """Server-sent events: `progress` every second, and at last the name of the state in which the job ended."""
        while True:
            ended = job.state.ended
            name = job.state if ended else "progress"
            yield event(name, job.document())
            if ended:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(job.ended.wait(), _EVERY)

    def result(self, job: Job) -> BatchAnswer:
        """raises  what the job failed for; NotFound where there is no result, or not yet"""
        if job.problem is not None:
            # Not the one that is kept: its traceback would hold this frame.
            raise copy(job.problem)
        if job.result is None or not job.state.ended:
            headers = {} if job.state.ended else {"retry-after": "1"}
            raise NotFound(f"There is no result of the job: it is {job.state.value}.", headers=headers)
        # The mapping outlives the file: it may be forgotten while it is read.
        return BatchAnswer({**job.head, "content-length": str(job.n_bytes - len(job.kept))}, cut(mapped(job.result)))

    async def stop(self) -> None:
        """End all of them: whoever watches one is told that it failed."""
        self._stopping = True
        under_way = [job for job in self._jobs.values() if not job.state.ended]
        for job in under_way:
            job.task.cancel()
            await job.ended.wait()
        for job in list(self._jobs.values()):
            self.forget(job)

    async def _run(self, job: Job, work: Callable[[Job], Awaitable[BatchAnswer]], brief: bool) -> None:
        tell_progress_to(job.see)
        async with nullcontext() if brief else self._places:
            job.state, job.began = State.RUNNING, perf_counter()
            self._count()
            await self._write(job, await work(job))

    async def _write(self, job: Job, answer: BatchAnswer) -> None:
        job.head, job.result, job.n_bytes = answer.head, memory_file(), len(job.kept)
        expected = int(answer.head.get("content-length", 0)) + len(job.kept)
        async with aclosing(answer.pieces) as pieces:
            async for piece in pieces:
                job.n_bytes += len(piece)
                # No other has to go for one that is too large by itself.
                if max(job.n_bytes, expected) > self._most_bytes or not self._make_room():
                    raise TooLarge(f"The results of all jobs may take {self._most_bytes} bytes: ask for less.")
                job.result.write(piece)
        job.result.flush()

    def _end(self, job: Job, task: asyncio.Future[None]) -> None:
        """Also of one that was cancelled before it had begun."""
        if task.cancelled():
            job.state = State.FAILED if self._stopping else State.CANCELLED
            job.problem = NotReady("The process that had the job is being stopped.") if self._stopping else None
        elif error := task.exception():
            job.state, job.problem = State.FAILED, bare(_refusal(job, error))
        else:
            job.state = State.DONE
        if job.state is not State.DONE:
            self._drop_result(job)
        # An error of it holds its frames, and with them the body of the request.
        del job.task
        job.ended.set()
        asyncio.get_running_loop().call_later(self._kept_s, self.forget, job)
        self._metrics.jobs_ended.inc(job.kind, job.state)
        if job.began > 0.0:
            self._metrics.jobs_seconds.observe(perf_counter() - job.began, job.kind)
        self._count()

    @property
    def _n_bytes(self) -> int:
        return sum(job.n_bytes for job in self._jobs.values())

    def _make_room(self) -> bool:
        while self._n_bytes > self._most_bytes:
            if not self._forget_oldest():
                return False
        return True

    def _forget_oldest(self) -> bool:
        """Forget the oldest job that has ended; whether there was one."""
        oldest = next((job for job in self._jobs.values() if job.state.ended), None)
        if oldest is not None:
            self.forget(oldest)
        return oldest is not None

    def forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        self._drop_result(job)
        self._count()

    def _drop_result(self, job: Job) -> None:
        if job.result is not None:
            job.result.close()
        job.result, job.kept, job.n_bytes = None, b"", 0

    def _count(self) -> None:
        for state in State:
            self._metrics.jobs.set(sum(job.state is state for job in self._jobs.values()), state)
        self._metrics.jobs_result_bytes.set(self._n_bytes)


def _refusal(job: Job, error: BaseException) -> ServiceError:
    refusal = refusal_of(error)
    if isinstance(refusal, EngineFailed):
        log.error("job %s failed: %s", job.id, error, exc_info=error)
    return refusal
