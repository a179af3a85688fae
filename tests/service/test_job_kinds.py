"""A kind of job whose work is made of steps, as it runs in the job process."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from calibrant.steps import Progress, Steps
from service.batches.answers import BatchAnswer, cut
from service.errors import EngineFailed, NotFound, NotReady, Overloaded
from service.jobs.progress import driven
from service.jobs.store import Job, Jobs, State
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.settings import Settings
from service.wire import schema

N = 20


class Countdown(NamedTuple):
    """As little as takes steps."""

    scheduler: Scheduler
    gate: threading.Event
    """Closed it holds up the step in the middle."""
    ended: threading.Event
    fails: bool = False

    def steps(self) -> Steps[int]:
        try:
            for i in range(N):
                if i == N // 2:
                    self.gate.wait(30.0)
                    if self.fails:
                        raise ZeroDivisionError("secret")
                yield Progress(i + 1, N)
            return N
        finally:
            self.ended.set()

    async def answer(self) -> BatchAnswer:
        result = await driven(self.scheduler, self.steps(), 1e-3)
        return BatchAnswer({"content-type": "application/json"}, cut(json.dumps(result).encode()))


@asynccontextmanager
async def jobs_of(**settings: Any) -> AsyncIterator[tuple[Jobs, Scheduler]]:
    jobs, scheduler = Jobs(Settings(**settings), Metrics()), Scheduler()
    try:
        yield jobs, scheduler
        await jobs.stop()
    finally:
        scheduler.stop()


def countdown(scheduler: Scheduler, **kwargs: Any) -> Countdown:
    return Countdown(scheduler, threading.Event(), threading.Event(), **kwargs)


def begin(jobs: Jobs, work: Countdown) -> Job:
    return jobs.begin("countdown", "desk", lambda _: work.answer())


async def until(condition: Any) -> None:
    async with asyncio.timeout(30.0):
        while not condition():
            await asyncio.sleep(0.005)


async def events(jobs: Jobs, job: Job) -> list[tuple[str, Any]]:
    told = []
    async for piece in jobs.events(job):
        name, data = bytes(piece).decode().strip().split("\n")
        told.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return told


def test_its_progress_is_that_of_its_steps_and_its_result_is_kept() -> None:
    async def test() -> None:
        async with jobs_of() as (jobs, scheduler):
            work = countdown(scheduler)
            job = begin(jobs, work)
            await until(lambda: job.progress.done == N // 2)
            document = job.document()
            assert (document["state"], document["progress"]) == ("running", 0.5)
            assert document["eta_s"] > 0.0
            watching = asyncio.create_task(events(jobs, job))
            work.gate.set()
            assert (await watching)[-1] == ("done", job.document())
            assert (job.document()["progress"], job.document()["eta_s"]) == (1.0, None)
            for told in (document, job.document()):
                schema.Job.model_validate_json(json.dumps(told))
            head, pieces = jobs.result(job)
            assert (head["content-type"], head["content-length"]) == ("application/json", "2")
            assert b"".join([bytes(piece) async for piece in pieces]) == b"20"

    asyncio.run(test())


@pytest.mark.parametrize("begun", [False, True])
def test_one_that_is_cancelled_ends_after_its_step_and_keeps_nothing(begun: bool) -> None:
    async def test() -> None:
        async with jobs_of() as (jobs, scheduler):
            work = countdown(scheduler)
            job = begin(jobs, work)
            if begun:
                await until(lambda: job.progress.done == N // 2)
            await jobs.cancel(job)
            assert (job.state, job.result, job.n_bytes) == (State.CANCELLED, None, 0)
            with pytest.raises(NotFound, match="cancelled"):
                jobs.result(job)
            work.gate.set()
            if begun:
                await until(work.ended.is_set)
                assert job.progress.done <= N // 2 + 1
            await jobs.cancel(job)
            with pytest.raises(NotFound):
                jobs.find(job.id, "desk")

    asyncio.run(test())


def test_one_that_fails_says_nothing_of_why_and_no_other_fails() -> None:
    async def test() -> None:
        async with jobs_of() as (jobs, scheduler):
            works = [countdown(scheduler, fails=fails) for fails in (True, False)]
            for work in works:
                work.gate.set()
            failing, fine = (begin(jobs, work) for work in works)
            assert (await events(jobs, failing))[-1][1]["problem"]["code"] == "engine_failed"
            assert "secret" not in str(failing.document())
            assert (await events(jobs, fine))[-1][0] == "done"
            for _ in range(2):
                with pytest.raises(EngineFailed):
                    jobs.result(failing)

    asyncio.run(test())


def test_those_that_wait_are_few_and_take_turns() -> None:
    async def test() -> None:
        async with jobs_of() as (jobs, scheduler):
            works = [countdown(scheduler) for _ in range(68)]
            begun = [begin(jobs, work) for work in works[:4]]
            await until(lambda: [job.state for job in begun].count(State.RUNNING) == 4)
            begun += [begin(jobs, work) for work in works[4:]]
            with pytest.raises(Overloaded):
                begin(jobs, countdown(scheduler))
            assert begun[-1].document()["state"] == "queued"
            for work in works:
                work.gate.set()
            await until(lambda: all(job.state is State.DONE for job in begun))

    asyncio.run(test())


def test_the_end_of_the_process_is_told_to_who_watches() -> None:
    async def test() -> None:
        async with jobs_of() as (jobs, scheduler):
            work = countdown(scheduler)
            job = begin(jobs, work)
            await until(lambda: job.progress.done == N // 2)
            watching = asyncio.create_task(events(jobs, job))
            await asyncio.sleep(0.05)
            await jobs.stop()
            work.gate.set()
            name, document = (await watching)[-1]
            assert (name, document["problem"]["code"]) == ("failed", NotReady.code)

    asyncio.run(test())


def test_a_job_is_found_by_its_owner_alone() -> None:
    async def test() -> None:
        async with jobs_of() as (jobs, scheduler):
            work = countdown(scheduler)
            work.gate.set()
            job = begin(jobs, work)
            assert jobs.find(job.id, "desk") is job
            for job_id, owner in ((job.id, "risk"), (job.id, ""), (job.id[:-1], "desk"), ("", "desk")):
                with pytest.raises(NotFound, match="not any more"):
                    jobs.find(job_id, owner)
            with pytest.raises(NotFound, match="process has ended"):
                jobs.find("0" * len(job.id), "desk")
            await events(jobs, job)

    asyncio.run(test())
