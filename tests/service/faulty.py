"""The service with an engine that fails on demand: `python -m tests.service.faulty`, and its worker, by its arguments;
its job process is `faulty_jobs`.

Which fault a request meets is told by the number of its quotes; everything else is the service as it is.
"""

import sys
import time
from typing import Any

import numba
import numpy as np

from calibrant.pipeline import Assessment
from calibrant.steps import Steps
from service import worker
from service.engine import CalibrationJob, Engine
from service.settings import Settings
from service.supervisor import supervise

HANGS, RAISES, NOT_A_NUMBER = 7, 8, 9
"""Numbers of quotes."""

_sound = Engine.calibration_steps


def _faulty(engine: Engine, job: CalibrationJob, *rest: Any) -> Steps[Assessment]:
    n = job.panel.n_quotes
    if n == HANGS:
        time.sleep(3600.0)
    if n == RAISES:
        raise ZeroDivisionError("secret")
    if n == NOT_A_NUMBER:
        # Without a refinement, which would notice by itself.
        return (yield from _spoilt(engine, job._replace(options=job.options._replace(refine="none"))))
    return (yield from _sound(engine, job, *rest))


def _spoilt(engine: Engine, job: CalibrationJob) -> Steps[Assessment]:
    networks = engine.releases[job.model.name].networks
    for network in networks:
        network.parameters = lambda iv: np.full((1, 5), np.nan)  # type: ignore[method-assign]
    try:
        return (yield from _sound(engine, job))
    finally:
        for network in networks:
            del network.parameters


def fail_on_demand() -> None:
    Engine.calibration_steps = _faulty  # type: ignore[method-assign, assignment]


def compile_at_the_start() -> None:
    load = Engine.load

    def compiling(*settings: Any) -> Engine:
        successor: Any = numba.njit(lambda x: x + 1.0)
        assert successor(1.0) == 2.0
        return load(*settings)

    Engine.load = compiling  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fail_on_demand()
        compile_at_the_start()
        sys.exit(worker.main(sys.argv[1:]))
    sys.exit(supervise(Settings(), worker="tests.service.faulty", job_process="tests.service.faulty_jobs"))
