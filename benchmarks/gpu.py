"""The networks and the batched refinement on an NVIDIA GPU: latency, throughput, and equality with the processor.

    pip install --constraint constraints.txt --editable ".[tensorrt]"
    python -m benchmarks.gpu [--panels N] [--calls N] [--cold N] [--out PATH]

For the rows of TensorRT build its engines first, `python -m model_export.to_tensorrt`; without them the page says which
command makes them. Every latency is a whole call, from numpy in to numpy out. Cold means after a pause
in which the GPU lowers its clocks, as between the requests of a quiet hour; warm, one call straight after another.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numba import cuda

from calibrant.arrays import Vector
from calibrant.calibration import calibrate
from calibrant.gpu.heston_lm import CONVERGED, NO_DESCENT, OUT_OF_ITERATIONS, SETTLED, TOO_SLOW
from calibrant.gpu.refine import refine
from calibrant.models import HESTON
from calibrant.network import Network
from calibrant.options import Start
from calibrant.release import Release
from calibrant.sessions import BATCH_SIZES, CPU_PROVIDER, CUDA_PROVIDER, TENSORRT_PROVIDER, ArtefactError
from model_export.to_tensorrt import largest_difference, verification_panels
from reporting.machine import RESULTS, ROOT, describe_machine, table, write_report

from .paper_panels import Sample, noisy_panels

SEED = 301
PAUSE = 0.5
"""Seconds between two cold calls."""
ON_CPU = 200
"""Panels that are refined on the processor as well."""
KINDS = (
    ("CPU", CPU_PROVIDER, "fp32"),
    ("CUDA", CUDA_PROVIDER, "fp32"),
    ("TensorRT fp32", TENSORRT_PROVIDER, "fp32"),
    ("TensorRT fp16", TENSORRT_PROVIDER, "fp16"),
)
OUTCOMES = {
    CONVERGED: "converged",
    SETTLED: "settled",
    OUT_OF_ITERATIONS: "out of iterations",
    NO_DESCENT: "no descent",
    TOO_SLOW: "left to the CPU's contour",
}


class Latency(NamedTuple):
    """Of one batch size, in microseconds."""

    size: int
    warm_p50: float
    warm_p99: float
    cold_p50: float
    cold_p99: float


class NetworkRun(NamedTuple):
    """One network on one provider."""

    kind: str
    network: str
    latencies: list[Latency]
    panels_per_second: float
    """At the largest batch size, warm."""
    difference: float
    """Largest from the processor, as a share of a parameter's output range."""


class RefinedRun(NamedTuple):
    """Many panels refined in one call, and some of them on the processor."""

    n_panels: int
    panels_per_second: float
    cpu_panels_per_second: float
    outcomes: dict[str, int]
    parameter_difference: float
    """Largest relative one, of the panels that both refined."""
    vol_difference: float
    """Largest, of the same, in vol."""


def newest_release(root: Path = ROOT / "networks" / HESTON.name) -> Path:
    """The folder of the highest version that holds a network for each domain."""
    return max((path.parent for path in root.glob("*/release.json")), key=lambda path: int(path.name))


def measure_network(kind: str, network: Network, reference: Network, calls: int, cold: int) -> NetworkRun:
    """Latencies by batch size, throughput, and the difference from the processor."""
    iv = verification_panels(reference.manifest)
    difference = largest_difference(reference.manifest, network.parameters(iv), reference.parameters(iv))
    latencies = []
    for size in BATCH_SIZES:
        batch = iv[:size]

        def call(batch: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = batch) -> None:
            network.parameters(batch)

        warm = seconds_of(call, calls)
        slow = seconds_of(call, cold, PAUSE)
        values = [1e6 * float(np.percentile(s, p)) for s in (warm, slow) for p in (50, 99)]
        latencies.append(Latency(size, *values))
    largest = latencies[-1]
    rate = largest.size / (1e-6 * largest.warm_p50)
    return NetworkRun(kind, reference.manifest.domain, latencies, rate, difference)


def seconds_of(call: Callable[[], None], n: int, pause: float = 0.0) -> Vector:
    """How long each of n calls took, after one that does not count."""
    call()
    seconds = np.empty(n)
    for i in range(n):
        if pause:
            time.sleep(pause)
        began = perf_counter()
        call()
        seconds[i] = perf_counter() - began
    return seconds


def measure_refinement(samples: Sequence[Sample], reference: Release, on_cpu: int) -> RefinedRun:
    """All samples from the networks' starts in one call, twice, the second timed; the first few by `calibrate` too."""
    starts = np.array([found[0].params for found in (reference.propose(sample.panel) for sample in samples)])
    problems = [sample.problem for sample in samples]
    refine(problems[:1], starts[:1])
    began = perf_counter()
    found = refine(problems, starts)
    seconds = perf_counter() - began
    calibrate(samples[0].panel, HESTON, [Start("network", starts[0])])
    began = perf_counter()
    fits = [calibrate(s.panel, HESTON, [Start("network", p)]) for s, p in zip(samples[:on_cpu], starts, strict=False)]
    cpu_seconds = perf_counter() - began
    both = [i for i, fit in enumerate(fits) if found.outcome[i] == CONVERGED and fit.status == "converged"]
    first = np.cumsum([0, *(problem.vol.size for problem in problems)])
    parameters = [np.abs(found.params[i] / fits[i].parameters - 1.0).max() for i in both]
    vols = [np.abs(found.model_vol[first[i] : first[i + 1]] - fits[i].model_iv).max() for i in both]
    return RefinedRun(
        n_panels=len(samples),
        panels_per_second=len(samples) / seconds,
        cpu_panels_per_second=len(fits) / cpu_seconds,
        outcomes={name: int(np.sum(found.outcome == code)) for code, name in OUTCOMES.items()},
        parameter_difference=float(max(parameters)),
        vol_difference=float(max(vols)),
    )


def report(networks: Sequence[NetworkRun], refined: RefinedRun, missing: Sequence[str], gpu: str) -> list[str]:
    latency = [
        [run.network, run.kind, str(row.size), *(f"{value:.0f}" for value in row[1:])]
        for run in networks
        for row in run.latencies
    ]
    summary = [[run.network, run.kind, f"{run.panels_per_second:,.0f}", f"{run.difference:.1e}"] for run in networks]
    outcomes = ", ".join(f"{count} {name}" for name, count in refined.outcomes.items())
    return [
        "# On a GPU",
        "",
        f"{gpu}. {describe_machine('onnxruntime-gpu', 'numba-cuda', 'tensorrt-cu13', use='one thread of them used')}",
        "",
        "## Networks",
        "",
        "Microseconds of a whole call, numpy to numpy; warm is one call after another, cold after a pause of "
        f"{PAUSE:g} s.",
        "",
        *table(("network", "runs on", "panels", "warm p50", "warm p99", "cold p50", "cold p99"), latency),
        "",
        f"Panels a second in batches of {BATCH_SIZES[-1]}, and the largest difference from the CPU over 1,000 panels "
        "as a share of a parameter's output range:",
        "",
        *table(("network", "runs on", "panels a second", "difference"), summary),
        "",
        *(f"Not measured: {reason}" for reason in missing),
        "",
        "## Refinement",
        "",
        f"{refined.n_panels:,} panels of 80 quotes with noise in one call, from the networks' starts, host work and "
        f"copies included: {refined.panels_per_second:,.0f} panels a second; `calibrate` on one core of this machine: "
        f"{refined.cpu_panels_per_second:,.0f}. Outcomes: {outcomes}.",
        "",
        "Largest differences between the two, over the panels that both refined to the end: "
        f"{refined.parameter_difference:.1e} of a parameter, {refined.vol_difference:.1e} in vol.",
    ]


def describe_gpu() -> str:
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    return f"{name}, compute capability {'.'.join(map(str, device.compute_capability))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=8192, help="refined in one call")
    parser.add_argument("--calls", type=int, default=5000, help="warm ones, of each batch size")
    parser.add_argument("--cold", type=int, default=40, help="cold ones")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.md")
    given = parser.parse_args()
    if not cuda.is_available():
        sys.exit("benchmarks.gpu needs an NVIDIA GPU with its driver, and this machine has none.")
    folder = newest_release()
    reference = Release.load(folder)
    runs, missing = [], []
    for on_cpu in reference.networks:
        for kind, provider, precision in KINDS:
            try:
                network = Network.load(folder / on_cpu.manifest.domain, provider, precision)
            except ArtefactError as error:
                missing.append(f"{kind}, {on_cpu.manifest.domain}: {error}")
                continue
            print(f"{on_cpu.manifest.domain} on {kind}", flush=True)
            runs.append(measure_network(kind, network, on_cpu, given.calls, given.cold))
    print(f"{given.panels} panels refined", flush=True)
    refined = measure_refinement(noisy_panels(given.panels, SEED), reference, min(ON_CPU, given.panels))
    write_report(given.out, report(runs, refined, missing, describe_gpu()))


if __name__ == "__main__":
    main()
