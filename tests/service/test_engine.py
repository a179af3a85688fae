"""The engine: what it has done before it is ready."""

import subprocess
import sys

import pytest

from calibrant.gpu.target import ON_GPU
from calibrant.models import MODELS
from calibrant.release import released
from service.engine import Engine
from tests.shared import ROOT

# In an interpreter of its own, where nothing but the warm-up can have compiled or loaded a kernel.
WATCH = """
import asyncio, gc, json
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from service.wire import schema
from service.wire.jobs import calibration_job, price_job
from service.wire.json import decode
from service.wire.documents import calibration_document, price_document
from service.audit import Answered, Auditor
from service.costs import Costs
from service.engine import Engine
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.settings import Settings
from service.batches.groups import Groups, _groups
from service.batches.crew import Crew
from service.wire.batch import DocumentBatch, BatchLimits
from service.wire.formats import JSON
from service.wire.oip import decode_request
from calibrant.arbitrage import check_surface
from calibrant.arbitrage.surface import price_grid, surface_expiries, verdict_on
from calibrant.models import MODELS
from calibrant.steps import finish
from benchmarks.load.tensors import inference
import numpy as np

def compiled():
    kernels = [x for x in gc.get_objects() if isinstance(x, Dispatcher) and x.__module__.startswith("calibrant")]
    return {f"{kernel.__module__}.{kernel.__name__}": len(kernel.signatures) for kernel in kernels}

engine = Engine.load(Path("networks"))
before = compiled()
dax = json.loads(Path("examples/dax_20020705.json").read_text())
quotes = dax["quotes"]
bid = [0.98 * vol for vol in quotes["iv"]]
bid[7] = None


# A quadratic one on each expiry, which no Heston surface has.
def smile(expiries, strikes, noise=0.0, spread=None):
    t, k = (x.ravel() for x in np.meshgrid(np.linspace(*expiries), np.linspace(*strikes), indexing="ij"))
    iv = 0.2 - 0.1 * k + 0.3 * k**2 + noise * (-1.0) ** np.arange(k.size)
    columns = {"expiry": t, "log_moneyness": k, "iv": iv}
    if spread is not None:
        columns = {"expiry": t, "log_moneyness": k, "bid_iv": iv - spread, "ask_iv": iv + spread}
    return {"model": "heston", "quotes": {name: column.tolist() for name, column in columns.items()}}


prior = {"parameters": {"kappa": 2.0, "rho": -0.5}, "standard_deviations": {"kappa": 1.0, "rho": 0.2}}
shapes = {
    "poor": smile((0.1, 2.0, 5), (-0.4, 0.3, 8)),
    "poorer": smile((0.1, 2.0, 5), (-0.4, 0.3, 8), noise=0.03),
    "two": smile((0.003, 0.25, 2), (-0.1, 0.1, 7), spread=0.004),
    "one": smile((0.25, 0.25, 1), (-0.3, 0.2, 40)),
    "few": smile((0.25, 0.25, 1), (-0.1, 0.1, 7)),
    "large": smile((0.02, 3.0, 14), (-0.6, 0.4, 50)),
    "far": smile((0.01, 0.1, 4), (-1.5, 1.5, 20), spread=0.02),
    "stale": smile((0.1, 2.0, 5), (-0.4, 0.3, 8)),
}
shapes["stale"]["quotes"]["iv"][17] *= 1.5
kinds = [
    {},
    {"refine": "lbfgs"},
    {"refine": "none"},
    {"loss": "huber"},
    {"loss": "huber", "refine": "lbfgs", "prior": prior},
    {"prior": prior},
    {"prior": {**prior, "noise_bp": 20.0}, "fixed": {"theta": 0.05}, "detail": True},
    {"fixed": {"kappa": 2.0, "theta": 0.05, "xi": 0.5, "rho": -0.6, "v0": 0.04}},
    {"fixed": {"kappa": 2.0}, "bounds": {"xi": [0.1, 0.3], "v0": [0.01, 0.03]}},
    {"start": {"kappa": 15.0, "theta": 0.07, "xi": 3.0, "rho": -0.5, "v0": 0.2}, "exclude": [1, 2]},
]
odd = [{**shape, **kind} for shape in shapes.values() for kind in kinds]
requests = [
    dax,
    {"model": "heston", "quotes": {**quotes, "forward": 4500.0}},
    {"model": "heston", "quotes": {**quotes, "iv": None, "bid_iv": bid, "ask_iv": quotes["iv"]}},
    {"model": "heston", "quotes": {**quotes, "weight": [1.0] * 104}, "refine": "lbfgs", "detail": True},
    {"model": "heston", "quotes": quotes, "fixed": {"kappa": 2.0}, "bounds": {"xi": [0.1, 1.0]}, "budget_ms": 1e6},
    {"model": "heston", "quotes": quotes, "refine": "none"},
    {
        "model": "heston",
        "quotes": quotes,
        "start": {"kappa": 15.0, "theta": 0.07, "xi": 3.0, "rho": -0.5, "v0": 0.2},
        "prior": {"parameters": {"kappa": 15.0}, "standard_deviations": {"kappa": 1.0}},
    },
    {"model": "heston", "quotes": {name: column[:5] for name, column in quotes.items()}},
    *odd,
]
for body in requests:
    asked = decode(json.dumps(body).encode(), schema.CalibrateRequest)
    job = calibration_job(asked, None if asked.budget_ms is None else 1e12)
    calibration_document(asked, engine.calibrate(job), {})
for gradient in (False, True):
    parameters = {"kappa": 15.0, "theta": 0.07, "xi": 3.0, "rho": -0.5, "v0": 0.2}
    for xi in (3.0, 0.001, 15.0):
        grid = {"expiry": [0.01, 9.0, 9.0, 1e-4], "log_moneyness": [-0.1, 2.0, -6.0, 0.5]}
        body = {"parameters": {**parameters, "xi": xi}, **grid, "gradient": gradient}
        job = price_job(decode(json.dumps(body).encode(), schema.PriceRequest))
        price_document(job, engine.price(job))
batch = DocumentBatch(json.dumps({"panels": requests}).encode(), JSON, BatchLimits(100, 1000000))
tensors = {"expiry": quotes["expiry"], "log_moneyness": [0.0] * 104, "iv": quotes["iv"]}
# Bytes that begin at any place, rows of a matrix, and padding.
tensors = {name: np.array([values, [*values[1:], np.nan]]) for name, values in tensors.items()}
body, headers = inference(tensors)
rows = decode_request(body, int(headers["inference-header-content-length"]), MODELS["heston"])
crew, scheduler = Crew(2), Scheduler()
groups = Groups(scheduler, crew)
for panels in (batch, rows):
    for group in _groups(panels, 16, 4000):
        read = finish(groups._read(engine, panels, group, lambda _: 1e12))
        # Together with others, as far as they can be.
        assert all(panel.begun is not None for panel in read.values())
        for done in finish(groups._calibrate(engine, panels, group, lambda _: 1e12, 0.0, lambda answer: None)):
            assert done.job is not None, done.outcome
crew.stop()
auditor = Auditor(Settings(), scheduler, Costs(), Metrics())
job = calibration_job(decode(json.dumps(shapes["poor"]).encode(), schema.CalibrateRequest), None)
answered = Answered.of(job, engine.calibrate(job), "")
asyncio.run(auditor.best(answered))
scheduler.stop()
verdict_on(price_grid(MODELS["heston"], np.array([15.0, 0.07, 3.0, -0.5, 0.2]), surface_expiries(np.array([0.1, 1.0]))))
check_surface(MODELS["heston"], np.array([0.001, 0.02, 8.0, 0.4, 0.003]), np.array([0.1, 1.0]))
print(json.dumps({name: n for name, n in compiled().items() if n != before.get(name)}))
print(len(before))
"""


def test_nothing_is_left_to_compile_when_the_engine_is_ready() -> None:
    run = subprocess.run([sys.executable, "-c", WATCH], cwd=ROOT, capture_output=True, text=True, check=True)
    late, n_kernels = run.stdout.splitlines()
    assert late == "{}"
    assert int(n_kernels) > 20


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
def test_refinement_on_a_gpu_that_is_not_there_is_refused_with_a_sentence() -> None:
    with pytest.raises(RuntimeError, match="numba finds no GPU that it can use"):
        Engine.load(ROOT / "networks", gpu_refinement=True)


def test_only_heston_is_refined_on_the_gpu() -> None:
    releases = {"heston": released(ROOT / "networks", "heston")}
    with_gpu, without = Engine(releases, gpu_refinement=True), Engine(releases)
    assert [name for name in MODELS if with_gpu.refines_on_gpu(name)] == ["heston"]
    assert not any(without.refines_on_gpu(name) for name in MODELS)
