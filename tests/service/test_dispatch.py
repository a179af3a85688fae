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

from calibrant.panel import OptionPanel
from calibrant.pipeline import Assessment
from calibrant.release import Proposal
from service.costs import Costs
from service.dispatch import Dispatch
from service.engine import CalibrationJob, Engine
from service.errors import DeadlineExpired, DeadlineUnreachable, Overloaded
from service.lane import Priority
from service.scheduler import QUEUE_LIMITS, Scheduler
from service.settings import Settings
from service.wire import schema
from service.wire.jobs import calibration_job, price_job
from tests.service.client import Client
from tests.service.test_scheduler import held


@pytest.fixture
def engine(client: Client) -> Engine:
    engine = client.app.state.service.engine
    assert isinstance(engine, Engine)
    return engine


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler()
    yield scheduler
    scheduler.stop()


def dispatch(scheduler: Scheduler, costs: Costs | None = None, **settings: float) -> Dispatch:
    return Dispatch(scheduler, costs or Costs(), Settings(**settings))  # type: ignore[arg-type]


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
        # Ended by the interactive lane; by the background lane after a slice that did not suffice; by it at once.
        for long_job_ms, deadline in ((60_000.0, None), (2.0, None), (1e-3, None), (60_000.0, perf_counter() + HOUR)):
            ways = dispatch(scheduler, long_job_ms=long_job_ms, default_deadline_ms=60_000)
            answer = await ways.calibrate(engine, job_of(dax, deadline))
            answers.append(answer.assessment)
        return answers

    first, *others = asyncio.run(all_ways())
    assert first.calibration.status == "converged"
    assert all(same(first, other) for other in others)


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


def test_a_short_panel_that_others_keep_waiting_is_not_begun_anew(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = engine.releases["heston"]
    propose = release.propose

    def late(panel: OptionPanel) -> list[Proposal]:
        # Twice its slice, in which it does not run.
        time.sleep(0.5)
        return propose(panel)

    monkeypatch.setattr(release, "propose", late)

    async def beside_a_long_one() -> Assessment:
        hold = threading.Event()
        blocked = await held(scheduler, Priority.LONG, hold)
        ways = dispatch(scheduler, long_job_ms=250.0, default_deadline_ms=60_000)
        answer = await ways.calibrate(engine, job_of(dax))
        assert not blocked.done()
        hold.set()
        await blocked
        return answer.assessment

    assert asyncio.run(beside_a_long_one()).calibration.status == "converged"


def test_a_deadline_of_the_clients_own_ends_with_the_best_so_far(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any]
) -> None:
    many = {"quotes": {name: column * 20 for name, column in dax["quotes"].items()}, "refine": "lbfgs"}
    # Those before it were quick: by its size alone this one is not known to be long.
    costs = Costs()
    for _ in range(300):
        costs.observe("lbfgs", 100, 1e-4)

    async def hurried() -> Assessment:
        ways = dispatch(scheduler, costs, long_job_ms=10.0)
        hold = threading.Event()
        blocked = await held(scheduler, Priority.LONG, hold)
        # The slice ends before the fit does, and the background lane does not come to it in time.
        answer = await ways.calibrate(engine, job_of(many, perf_counter() + 0.5))
        hold.set()
        await blocked
        return answer.assessment

    calibration = asyncio.run(hurried()).calibration
    assert calibration.status == "budget_exhausted"
    assert np.isfinite(calibration.parameters).all()


def test_the_default_deadline_is_one_for_the_beginning(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any]
) -> None:
    async def late() -> Assessment:
        ways = dispatch(scheduler, default_deadline_ms=20.0, long_job_ms=1e-3)
        # Long past its default deadline when it ends, and whole all the same.
        return (await ways.calibrate(engine, job_of({**dax, "refine": "lbfgs"}))).assessment

    assert asyncio.run(late()).calibration.status == "converged"

    async def too_late() -> None:
        ways = dispatch(scheduler, default_deadline_ms=20.0)
        hold = threading.Event()
        blocked = await held(scheduler, Priority.INTERACTIVE, hold)
        with pytest.raises(DeadlineExpired):
            await ways.calibrate(engine, job_of(dax))
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


def test_a_long_panel_that_has_begun_ends_when_its_client_goes(
    scheduler: Scheduler, engine: Engine, dax: dict[str, Any]
) -> None:
    columns = {name: column * 450 for name, column in dax["quotes"].items()}

    async def seconds_until_free(hang_up: bool) -> float:
        began = perf_counter()
        ways = dispatch(scheduler, default_deadline_ms=60_000)
        asked = asyncio.ensure_future(ways.calibrate(engine, job_of({"quotes": columns, "refine": "lbfgs"})))
        await asyncio.sleep(0.1)
        if hang_up:
            asked.cancel()
        else:
            await asked
        await scheduler.run(lambda: None, priority=Priority.LONG)
        return perf_counter() - began

    whole = asyncio.run(seconds_until_free(hang_up=False))
    assert asyncio.run(seconds_until_free(hang_up=True)) < 0.5 * whole
