"""Which lane a job takes, and what its deadline means there."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from calibrant.options import MAX_WORK
from calibrant.panel import OptionPanel
from calibrant.pipeline import Assessment
from calibrant.release import Proposal
from calibrant.steps import Steps
from service.costs import Costs
from service.dispatch import Dispatch
from service.engine import CalibrationJob, Engine
from service.errors import DeadlineExpired, DeadlineUnreachable, Overloaded
from service.lane import Priority
from service.metrics import Metrics
from service.scheduler import QUEUE_LIMITS, Scheduler
from service.settings import Settings
from service.wire import schema
from service.wire.jobs import calibration_job, price_job
from tests.service.client import Client
from tests.service.test_scheduler import held


@pytest.fixture
def engine(client: Client) -> Engine:
    engine = client.app.service.engine
    assert isinstance(engine, Engine)
    return engine


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler()
    yield scheduler
    scheduler.stop()


def dispatch(
    scheduler: Scheduler, costs: Costs | None = None, metrics: Metrics | None = None, **settings: float
) -> Dispatch:
    return Dispatch(scheduler, costs or Costs(), Settings(**settings), metrics or Metrics())  # type: ignore[arg-type]


def job_of(body: dict[str, Any], deadline: float | None = None) -> CalibrationJob:
    return calibration_job(schema.CalibrateRequest.model_validate_json(json.dumps(body)), deadline)


def same(one: Assessment, other: Assessment) -> bool:
    """To the last bit, and by the same steps."""
    a, b = one.calibration, other.calibration
    return bool(np.array_equal(a.parameters, b.parameters)) and (a.status, a.iterations) == (b.status, b.iterations)


HOUR = 3600.0


def test_the_answer_is_the_same_by_whichever_lane_and_with_a_deadline_that_suffices(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any]
) -> None:
    async def all_ways() -> list[Assessment]:
        answers = []
        for long_job_ms, deadline in ((60_000.0, None), (1e-3, None), (60_000.0, perf_counter() + HOUR)):
            ways = dispatch(scheduler, long_job_ms=long_job_ms, default_deadline_ms=60_000)
            answer = await ways.calibrate(engine, job_of(dax, deadline))
            answers.append(answer.assessment)
        return answers

    first, *others = asyncio.run(all_ways())
    assert first.calibration.status == "converged"
    assert all(same(first, other) for other in others)


@pytest.mark.parametrize("refine", ["lm", "lbfgs"])
def test_nothing_is_begun_anew(
    refine: str, engine: Engine, dax: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    release, metrics = engine.releases["heston"], Metrics()
    propose, threads = release.propose, []
    job = job_of({**dax, "refine": refine})
    alone = engine.calibrate(job)

    def traced(panel: OptionPanel) -> list[Proposal]:
        threads.append(threading.current_thread().name)
        while scheduler.depth(Priority.INTERACTIVE) == 0:
            time.sleep(1e-3)
        return propose(panel)

    monkeypatch.setattr(release, "propose", traced)
    # Every step is a slice, and others always wait.
    scheduler = Scheduler(slice_s=1e-9)

    async def beside_others() -> Assessment:
        async def crowd() -> None:
            while not asked.done():
                await scheduler.run(lambda: None)

        ways = dispatch(scheduler, metrics=metrics, long_job_ms=60_000, default_deadline_ms=60_000)
        asked = asyncio.ensure_future(ways.calibrate(engine, job))
        await asyncio.gather(*(crowd() for _ in range(4)))
        return (await asked).assessment

    try:
        moved = asyncio.run(beside_others())
    finally:
        scheduler.stop()
    assert metrics.moved.values[()] == [1.0]
    assert len(threads) == 1
    assert same(moved, alone)


def test_a_long_panel_holds_up_no_short_one(scheduler: Scheduler, engine: Engine, dax: dict[str, Any]) -> None:
    long = {"quotes": {name: column * 40 for name, column in dax["quotes"].items()}}

    async def both() -> None:
        hold = threading.Event()
        blocked = await held(scheduler, Priority.LONG, hold)
        behind = asyncio.ensure_future(dispatch(scheduler).calibrate(engine, job_of(long)))
        await asyncio.sleep(0)
        assert scheduler.depth(Priority.LONG) == 1
        # Whatever the machine makes of it, this one ends within its slice.
        ways = dispatch(scheduler, long_job_ms=60_000, default_deadline_ms=60_000)
        for _ in range(3):
            answer = await ways.calibrate(engine, job_of(dax))
            assert answer.assessment.calibration.status == "converged"
        assert not behind.done()
        hold.set()
        await blocked
        assert (await behind).assessment.calibration.n_quotes > 4000

    asyncio.run(both())


def test_a_deadline_of_the_clients_own_ends_with_the_best_so_far(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any]
) -> None:
    many = {name: column * 450 for name, column in dax["quotes"].items()}
    job = job_of({"quotes": many, "refine": "lbfgs"})
    # On either lane.
    for long_job_ms in (1e-3, 60_000.0):
        ways = dispatch(scheduler, long_job_ms=long_job_ms)
        answer = asyncio.run(ways.calibrate(engine, job._replace(deadline=perf_counter() + 0.05)))
        calibration = answer.assessment.calibration
        assert calibration.status == "budget_exhausted"
        assert np.isfinite(calibration.parameters).all()


def test_the_patience_of_the_service_is_for_the_beginning(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any]
) -> None:
    async def late() -> Assessment:
        ways = dispatch(scheduler, default_deadline_ms=20.0, long_job_ms=60_000)
        many = {"quotes": {name: column * 100 for name, column in dax["quotes"].items()}}
        # Long past it when it ends, and whole all the same.
        return (await ways.calibrate(engine, job_of(many))).assessment

    assert asyncio.run(late()).calibration.status == "converged"

    async def too_late() -> None:
        ways = dispatch(scheduler, default_deadline_ms=20.0)
        hold = threading.Event()
        blocked = await held(scheduler, Priority.INTERACTIVE, hold)
        with pytest.raises(Overloaded, match="`CALIBRANT_DEFAULT_DEADLINE_MS` of the service"):
            await ways.calibrate(engine, job_of(dax))
        with pytest.raises(DeadlineExpired, match="its own deadline"):
            await ways.calibrate(engine, job_of(dax, perf_counter() + 0.02))
        hold.set()
        await blocked

    asyncio.run(too_late())


def test_what_cannot_be_reached_is_refused_at_once_and_says_when_to_come_back(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any]
) -> None:
    async def refused() -> int:
        ways = dispatch(scheduler)
        hold = threading.Event()
        blocked = await held(scheduler, Priority.INTERACTIVE, hold)
        waiting = asyncio.ensure_future(scheduler.run(lambda: None, cost=2.5))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineUnreachable) as refusal:
            await ways.calibrate(engine, job_of(dax, perf_counter() + 1.0))
        # A deadline that is far enough is no reason.
        patient = asyncio.ensure_future(ways.calibrate(engine, job_of(dax, perf_counter() + HOUR)))
        await asyncio.sleep(0.05)
        assert not patient.done()
        hold.set()
        await blocked
        await waiting
        await patient
        return int(refusal.value.headers["retry-after"])

    assert asyncio.run(refused()) == 3


def test_a_full_background_refuses_who_has_no_deadline(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any]
) -> None:
    async def refused() -> None:
        ways = dispatch(scheduler, long_job_ms=0.5, default_deadline_ms=60_000)
        hold = threading.Event()
        blocked = await held(scheduler, Priority.LONG, hold)
        waiting = [
            asyncio.ensure_future(scheduler.run(lambda: None, priority=Priority.LONG))
            for _ in range(QUEUE_LIMITS[Priority.LONG])
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await ways.calibrate(engine, job_of({**dax, "refine": "lbfgs"}))
        hold.set()
        await asyncio.gather(blocked, *waiting)

    asyncio.run(refused())


def test_many_prices_go_to_the_background(scheduler: Scheduler, engine: Engine) -> None:
    parameters = {"kappa": 2.0, "theta": 0.05, "xi": 0.5, "rho": -0.7, "v0": 0.05}

    async def price(n: int) -> None:
        asked = {"parameters": parameters, "expiry": [0.1 * (i + 1) for i in range(n)], "log_moneyness": [0.0] * n}
        job = price_job(schema.PriceRequest.model_validate_json(json.dumps(asked)))
        hold = threading.Event()
        blocked = await held(scheduler, Priority.INTERACTIVE, hold)
        ways = dispatch(scheduler, default_deadline_ms=60_000)
        priced = asyncio.ensure_future(ways.price(engine, job))
        done, _ = await asyncio.wait([priced], timeout=0.04 if n == 1 else 30.0)
        assert bool(done) == (n > 1)
        hold.set()
        await blocked
        assert np.isfinite((await priced).call).all()

    asyncio.run(price(1))
    asyncio.run(price(40))


def test_prices_that_are_not_all_known_by_the_deadline_are_not_answered(scheduler: Scheduler, engine: Engine) -> None:
    parameters = {"kappa": 2.0, "theta": 0.05, "xi": 0.5, "rho": -0.7, "v0": 0.05}
    n = 20_000
    asked = {"parameters": parameters, "expiry": [1e-3 * (i + 1) for i in range(n)], "log_moneyness": [0.0] * n}
    job = price_job(schema.PriceRequest.model_validate_json(json.dumps(asked)))
    # On either lane, and soon: all of them take many seconds.
    for long_job_ms in (1.0, 1e6):
        ways = dispatch(scheduler, long_job_ms=long_job_ms)
        began = perf_counter()
        with pytest.raises(DeadlineExpired, match="before all was known"):
            asyncio.run(ways.price(engine, job, began + 0.1))
        assert perf_counter() < began + 3.0
        assert all(lane.held() == 0.0 for lane in scheduler.lanes)


def test_a_panel_that_has_begun_ends_when_its_client_goes(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, closed, ended = threading.Event(), threading.Event(), threading.Event()
    steps = engine.calibration_steps

    def traced(job: CalibrationJob) -> Steps[Assessment]:
        try:
            begun.set()
            assessment = yield from steps(job)
            ended.set()
            return assessment
        finally:
            closed.set()

    monkeypatch.setattr(engine, "calibration_steps", traced)
    many = {"quotes": {name: column * 450 for name, column in dax["quotes"].items()}}

    async def hang_up() -> None:
        asked = asyncio.ensure_future(dispatch(scheduler).calibrate(engine, job_of(many)))
        await asyncio.to_thread(begun.wait)
        asked.cancel()
        assert await asyncio.to_thread(closed.wait, 30.0)
        await scheduler.run(lambda: None, priority=Priority.LONG)

    asyncio.run(hang_up())
    assert not ended.is_set()


def test_the_budget_of_work_is_that_of_the_settings(scheduler: Scheduler, dax: dict[str, Any], engine: Engine) -> None:
    assert Settings().max_work == MAX_WORK
    frugal = Engine(engine.releases, max_work=1.0)
    answers = [asyncio.run(dispatch(scheduler).calibrate(frugal, job_of(dax))).assessment.calibration for _ in range(2)]
    assert [answer.status for answer in answers] == ["budget_exhausted"] * 2
    assert np.array_equal(answers[0].parameters, answers[1].parameters)
