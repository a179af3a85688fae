"""What it costs to compile the kernels for the processors of the image instead of for this one.

    PYTHONPATH=src:. python docker/baseline.py [--rounds N]

A process each way, in turns of a tenth of a second, so that what else the machine does falls on both; of every panel
the least time of all rounds counts. Panels: noisy ones of the paper's box. A calibration is network, refinement and
both diagnostics.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from reporting.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
SEED, PANELS, VOL_ERROR = 7, 50, 1e-8


def measure() -> None:
    """Time every panel once for each line read."""
    from benchmarks.kernel import Panel
    from benchmarks.paper_panels import Sample, noisy_panels
    from calibrant.models import HESTON
    from calibrant.options import CalibrationOptions
    from calibrant.panel import OptionPanel
    from calibrant.pricing.fit_kernel import time_values
    from service.engine import CalibrationJob, Engine

    engine = Engine.load(ROOT / "networks")
    samples = noisy_panels(PANELS, SEED)

    def prices(sample: Sample) -> Callable[[], object]:
        problem = sample.problem
        n, n_expiries = problem.vol.size, problem.expiries.size
        out = Panel(np.empty(n), np.empty((5, n)), np.empty(n_expiries, np.int64), np.empty(n_expiries))
        asked = problem.expiries, problem.offsets, problem.log_moneyness, VOL_ERROR * problem.least_vega
        return lambda: time_values(HESTON.layout, sample.truth, *asked, *out)

    def calibration(sample: Sample) -> Callable[[], object]:
        problem = sample.problem
        panel = OptionPanel.from_quotes(
            expiry=problem.root_expiry**2, log_moneyness=problem.log_moneyness, iv=problem.vol
        )
        job = CalibrationJob(model=HESTON, panel=panel, options=CalibrationOptions())
        return lambda: engine.calibrate(job)

    work = [[make(sample) for sample in samples] for make in (prices, calibration)]
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps([[seconds(call) for call in calls] for calls in work]), flush=True)


def seconds(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def image_settings() -> dict[str, str]:
    """The defaults of the Dockerfile."""
    return dict(re.findall(r"^ARG (NUMBA_\w+)=(\S+)$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE))


def main(rounds: int) -> None:
    processes = []
    for settings in ({}, image_settings()):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
        process = subprocess.Popen(
            [sys.executable, __file__, "--measure"],
            env={**environment, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        processes.append((process, process.stdin, process.stdout))
    least = np.full((2, 2, PANELS), np.inf)
    for _ in range(rounds):
        for i, (_, asks, answers) in enumerate(processes):
            print("once", file=asks, flush=True)
            least[i] = np.minimum(least[i], json.loads(answers.readline()))
    for process, asks, _ in processes:
        asks.close()
        process.wait()
    native, image = 1e6 * least.mean(axis=-1)
    for name, a, b in zip(("prices and gradients", "calibration"), native, image, strict=True):
        print(f"{name}: {a:.1f} us for this processor, {b:.1f} us for those of the image, ratio {b / a:.3f}")
    print(describe_machine("llvmlite"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure()
    else:
        main(given.rounds)
