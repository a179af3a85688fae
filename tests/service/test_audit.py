"""The service checks itself."""

import asyncio
import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.audit import BETTER, Answered, Auditor, Audits
from service.costs import Costs
from service.engine import CalibrationJob, Engine
from service.errors import EngineFailed, NotReady
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.settings import Settings
from service.wire import schema
from service.wire.jobs import calibration_job
from tests.service.client import Client
from tests.shared import ROOT


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


@pytest.fixture
def job(dax: dict[str, Any]) -> CalibrationJob:
    return calibration_job(schema.CalibrateRequest.model_validate_json(json.dumps(dax)), None)


def audited(scheduler: Scheduler, job: CalibrationJob, engine: Engine, spoil: float) -> Metrics:
    """The metrics after an audit of an answer whose objective is that much worse than it could be."""
    metrics = Metrics()
    settings = Settings(audit_share=1.0, audit_starts=6)
    audits = Audits(settings, metrics, Auditor(settings, scheduler, Costs(), metrics).audit)
    assessment = engine.calibrate(job)
    calibration = assessment.calibration
    worse = calibration._replace(
        objective=(1.0 + spoil) * calibration.objective, parameters=1.01 * calibration.parameters
    )

    async def run() -> None:
        audits.consider(job, assessment._replace(calibration=worse if spoil else calibration), "desk-7")
        await asyncio.gather(*audits._tasks)

    asyncio.run(run())
    return metrics


def test_the_best_answer_is_confirmed(scheduler: Scheduler, job: CalibrationJob, engine: Engine) -> None:
    metrics = audited(scheduler, job, engine, 0.0)
    assert metrics.audits.values == {("heston", "confirmed"): [1.0]}
    assert metrics.audit_excess.values[("heston",)][-1] == 0.0


def test_an_answer_that_is_not_the_best_is_counted_and_logged_with_what_was_better(
    scheduler: Scheduler, job: CalibrationJob, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "calibrant.audit"):
        metrics = audited(scheduler, job, engine, 0.05)
    assert metrics.audits.values == {("heston", "better_found"): [1.0]}
    assert metrics.audit_excess.values[("heston",)][-1] == pytest.approx(0.05, rel=1e-3)
    (record,) = caplog.records
    fields: dict[str, Any] = record.__dict__["fields"]
    assert fields["request_id"] == "desk-7"
    assert fields["excess"] > BETTER
    # The published optimum of this panel.
    assert fields["best"][0] == pytest.approx(15.66, abs=0.5)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotReady("The job process does not answer."), "passed_over"),
        (OSError("Too many open files."), "passed_over"),
        (EngineFailed("It failed there."), "failed"),
        (ZeroDivisionError(), "failed"),
    ],
)
def test_an_answer_that_cannot_be_audited_is_counted(
    error: Exception, outcome: str, job: CalibrationJob, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_: Answered) -> None:
        raise error

    async def run() -> None:
        audits.consider(job, engine.calibrate(job), "desk-7")
        await asyncio.gather(*audits._tasks)

    metrics = Metrics()
    audits = Audits(Settings(audit_share=1.0), metrics, refuse)
    asyncio.run(run())
    assert metrics.audits.values == {("heston", outcome): [1.0]}
    assert [record.args for record in caplog.records] == ([("desk-7",)] if outcome == "failed" else [])


def test_what_is_sent_of_an_answer_is_what_was_used_of_its_panel(engine: Engine, dax: dict[str, Any]) -> None:
    n = len(dax["quotes"]["iv"])
    quotes = {name: [*values, *values] for name, values in dax["quotes"].items()} | {
        "iv": [*dax["quotes"]["iv"]] + [None] * n
    }
    job = calibration_job(schema.CalibrateRequest.model_validate_json(json.dumps({**dax, "quotes": quotes})), None)
    assessment = engine.calibrate(job)
    assert len(assessment.calibration.excluded) > n
    answer = pickle.loads(pickle.dumps(Answered.of(job, assessment, "desk-7")))
    assert answer.job.panel.excluded == ()
    assert np.array_equal(answer.job.panel.mid, assessment.calibration.panel.mid)
    assert answer.job.model.name == job.model.name
    assert (answer.objective, answer.request_id) == (assessment.calibration.objective, "desk-7")


def test_the_starts_are_spread_over_the_bounds_and_repeat_with_the_seed(
    scheduler: Scheduler, job: CalibrationJob, engine: Engine
) -> None:
    from calibrant.fit_problem import fit_problem

    problem = fit_problem(engine.calibrate(job).calibration.panel, job.model, job.options)
    first, second = (
        Auditor(Settings(audit_seed=3, audit_starts=500), scheduler, Costs(), Metrics())._random(problem)
        for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert ((first >= problem.lower) & (first <= problem.upper)).all()
    # Of kappa, from 0.001 to 60, a fifth or so in each decade.
    decades = np.histogram(np.log10(first[:, 0]), bins=[-3, -2, -1, 0, 1, 2])[0]
    assert decades.min() > 50
    assert abs(first[:, 3].mean()) < 0.1


def test_audits_do_not_pile_up_and_hold_nobody_up(dax: dict[str, Any]) -> None:
    client = Client(Settings(networks=ROOT / "networks", audit_share=1.0, audit_starts=40, default_deadline_ms=5000.0))
    try:
        for _ in range(30):
            client.calibrate(dax)
        counted = client.app.service.metrics.audits.values
        assert counted[("heston", "passed_over")][0] > 5
        assert len(client.app.service._audits._tasks) <= 2
    finally:
        # Those under way are given up.
        client.close()
