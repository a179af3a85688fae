"""The paper's baselines on the same panels: L-BFGS-B, CMA-ES, a shallow network, against the released network.

    python -m benchmarks.baselines --artefact networks/heston/1 --shallow runs/shallow

The optimisers start in the middle of the paper's box and stay inside it: they have no network to ask. Their objective
is the library's compiled one with its Jacobian. Writes a JSON, a Markdown file, and every single time for the figure.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.fit_problem import fit_problem
from calibrant.fits import room_for
from calibrant.grid import project
from calibrant.models import HESTON
from calibrant.network import Network, open_session
from calibrant.optimisers.lbfgs import lbfgs, memory_for
from calibrant.optimisers.objective import Problem
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel, identifiable
from calibrant.release import Release
from model_export.to_onnx import to_onnx
from reporting.machine import RESULTS, describe_machine, table, write_report
from training.augment import AugmentOptions
from training.domain import PAPER
from training.evaluate import FIGURES
from training.evaluation.accuracy import Spread, pearson, rmse_bp
from training.evaluation.inputs import quoted_panels
from training.evaluation.latency import refined_params
from training.evaluation.report import plain
from training.evaluation.surfaces import Nodes, nodes_of, vols_at
from training.panels import panel_parameters
from training.train import load_network

from .objective import POPULATION, cma_es

SEED, NOISE_SEED, CMA_SEED = 14, 15, 16
"""Training, validation and held-out panels have the seeds 1, 2 and 3."""
CLEAN = AugmentOptions(noise_bp=0.0, masked=0.0, half_spread_bp=0.0)
_MAX_EVALUATIONS = 2000
_FIRST_STEP = 0.25
"""Of CMA-ES, in units of the box: its standard deviations then cover the box from the middle."""
_WARM_UP = 5

Method = Callable[[OptionPanel], Vector]
"""A panel in, parameters (5,) out."""


class Row(NamedTuple):
    """One method on one kind of panel."""

    method: str
    rmse_bp: Spread
    """Vol error against the exact surface, full grid."""
    within_1_bp: float
    """Share of the panels whose vol RMSE is at most 1 bp."""
    pearson: dict[str, float]
    median_ms: float
    p95_ms: float


def network_alone(network: Network) -> Method:
    """The released network's answer, the projection onto its grid included."""
    return lambda panel: network.parameters(project(panel, network.grid).iv[np.newaxis])[0]


def network_refined(release: Release) -> Method:
    """The same, refined as the service does."""
    return lambda panel: refined_params(release, panel)


def trained_network(run: Path) -> Method:
    """The network of a training run, exported and run as a released one would be."""
    network, domain = load_network(run)
    session, grid = open_session(to_onnx(network, domain)), domain.network_grid()

    def method(panel: OptionPanel) -> Vector:
        (params,) = session.run(None, {"iv": project(panel, grid).iv[np.newaxis].astype(np.float32)})
        return np.asarray(params[0], np.float64)

    return method


def in_the_box(panel: OptionPanel) -> tuple[Problem, Vector]:
    """The panel's least-squares problem within the paper's box, and the middle of it."""
    low, high = PAPER.sampled_box()
    options = CalibrationOptions(bounds=np.stack((low, high), axis=1))
    return fit_problem(identifiable(panel), HESTON, options), 0.5 * (low + high)


def lbfgs_from_the_middle(panel: OptionPanel) -> Vector:
    """Our L-BFGS with the analytic gradient, its variables scaled by the curvature at the start."""
    problem, params = in_the_box(panel)
    lbfgs(params, problem, _MAX_EVALUATIONS, memory_for(params.size), *room_for(problem))
    return params


def cma_from_the_middle(panel: OptionPanel) -> Vector:
    """CMA-ES, population 14."""
    problem, middle = in_the_box(panel)
    return cma_es(problem, middle, _FIRST_STEP, CMA_SEED).params


def methods(release: Release, shallow: Path | None) -> Iterator[tuple[str, Method]]:
    """Name and method, ours first."""
    yield "network", network_alone(release.networks[0])
    yield "network + refinement", network_refined(release)
    if shallow is not None:
        yield "shallow 512-256 network", trained_network(shallow)
    yield "L-BFGS-B", lbfgs_from_the_middle
    yield "CMA-ES", cma_from_the_middle


def run_method(method: Method, panels: list[OptionPanel]) -> tuple[Matrix, Vector]:
    """Answers (n, 5) and seconds (n,), one panel at a time, each once."""
    for panel in panels[:_WARM_UP]:
        method(panel)
    answers, seconds = np.empty((len(panels), HESTON.n_params)), np.empty(len(panels))
    for i, panel in enumerate(panels):
        began = perf_counter()
        answers[i] = method(panel)
        seconds[i] = perf_counter() - began
    return answers, seconds


def row_of(name: str, answers: Matrix, seconds: Vector, nodes: Nodes, truth: Matrix) -> Row:
    """What is reported of a method."""
    rmse = rmse_bp(vols_at(nodes, answers) - nodes.iv)
    median, p95 = 1e3 * np.quantile(seconds, (0.5, 0.95))
    within = float(np.mean(rmse <= 1.0))
    return Row(name, Spread.of(rmse), within, pearson(PAPER.parameters, answers, truth), float(median), float(p95))


def markdown(result: dict[str, Any]) -> list[str]:
    """The report from the JSON's contents."""
    n = result["panels"]
    lines = [
        "# The paper's baselines",
        "",
        f"`{result['command']}`, {result['seconds']:.0f} s.",
        "",
        result["machine"],
        "",
        f"{n} panels of the paper's box (seed {SEED}), clean and with the paper's noise (0.5 bp on every mid, 5 % "
        f"missing, seed {NOISE_SEED}), the same for every method; equal weights. Network: {result['network']}. "
        "L-BFGS-B (scipy, analytic gradient, variables scaled by the curvature at the start) and CMA-ES (population "
        f"{POPULATION}) minimise the squared vol errors by the library's compiled kernel, from the middle of the box "
        "and within it. Vol RMSE: the exact surface of the answer against that of the truth, over the full grid. "
        "Time: one panel after the other, one thread, warm; the networks' includes the projection onto the grid, none "
        "includes "
        "reading the quotes." + (f" Shallow network: {result['shallow']}." if result["shallow"] else ""),
    ]
    for kind, rows in result["kinds"].items():
        names = list(rows[0]["pearson"])
        lines += [
            "",
            f"## {kind.capitalize()} panels",
            "",
            *table(
                [
                    "method",
                    "vol RMSE bp, median / mean / 90 % / 99 %",
                    "within 1 bp",
                    "Pearson " + ", ".join(names),
                    "ms, median",
                    "ms, 95 %",
                ],
                [
                    [
                        row["method"],
                        " / ".join(f"{value:.2g}" for value in row["rmse_bp"].values()),
                        f"{100.0 * row['within_1_bp']:.1f} %",
                        ", ".join(f"{row['pearson'][name]:.4f}" for name in names),
                        f"{row['median_ms']:.3g}",
                        f"{row['p95_ms']:.3g}",
                    ]
                    for row in rows
                ],
            ),
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artefact", type=Path, required=True, help="released version")
    parser.add_argument("--shallow", type=Path, help="run of training.train with --network shallow")
    parser.add_argument("--panels", type=int, default=200, help="of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS / "baselines.json", help="JSON; the Markdown lies beside")
    given = parser.parse_args()
    began = perf_counter()
    release = Release.load(given.artefact)
    truth = panel_parameters(PAPER, SEED, 0, given.panels)
    nodes = nodes_of(PAPER, truth)
    chosen = list(methods(release, given.shallow))
    kinds: dict[str, list[Any]] = {}
    times: dict[str, Vector] = {}
    for kind, options in (("clean", CLEAN), ("noisy", AugmentOptions())):
        panels = quoted_panels(nodes, NOISE_SEED, options)
        kinds[kind] = []
        for name, method in chosen:
            answers, seconds = run_method(method, panels)
            kinds[kind].append(plain(row_of(name, answers, seconds, nodes, truth)))
            times[f"{kind}/{name}"] = seconds
            print(f"{kind}, {name}: {1e3 * np.median(seconds):.3g} ms", flush=True)
    result = {
        "command": f"python -m benchmarks.baselines --artefact {given.artefact}"
        + (f" --shallow {given.shallow}" if given.shallow else "")
        + f" --panels {given.panels}",
        "machine": describe_machine("onnxruntime", "cma"),
        "network": release.version,
        "shallow": _described(given.shallow) if given.shallow else None,
        "panels": given.panels,
        "seconds": perf_counter() - began,
        "kinds": kinds,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_report(given.out.with_suffix(".md"), markdown(result))
    FIGURES.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(FIGURES / "baselines.npz", allow_pickle=False, **times)


def _described(run: Path) -> str:
    record = json.loads((run / "run.json").read_text())
    return (
        f"{record['data']['count']:,} panels, {len(record['history'])} epochs, "
        f"loss `{record['options']['loss']['name']}`, "
        f"{record['history'][-1]['seconds']:.0f} s of training"
    )


if __name__ == "__main__":
    main()
