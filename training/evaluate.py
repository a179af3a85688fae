"""How good a network is, alone and refined: one command, a JSON and a Markdown file.

    python -m training.evaluate --artefact networks/heston/1
    python -m training.evaluate --run runs/heston-1 --out runs/heston-1/evaluation.json

Held-out panels of the network's own domain, clean, noisy, masked, and both. For the paper's domain also: noiseless and
noisy panels after refinement, and the noisy ones against their Cramer-Rao bounds. Latency is that of a released
artefact. The 10,000 points of the parameter scatter go to build/figures/, a file of the name of the JSON.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.network import Network
from calibrant.release import Release
from reporting.machine import RESULTS, ROOT, describe_machine, write_report
from training.domain import DOMAINS, PAPER
from training.evaluation.accuracy import Accuracy, HeldOut, accuracy, rmse_bp, vol_errors
from training.evaluation.answers import Candidate, of_artefact, of_run
from training.evaluation.inputs import FILLED, MARKET, inputs, quoted_panels
from training.evaluation.latency import Latency, latency, time_panels
from training.evaluation.noisy import Criterion, criterion, study
from training.evaluation.refinement import Refined, refine_clean
from training.evaluation.report import markdown, plain
from training.evaluation.surfaces import nodes_of
from training.panels import panel_parameters

FIGURES = ROOT / "build" / "figures"
"""Arrays that a figure needs and that are too long for a JSON file; never a number of a table."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Sizes and seeds. Training and validation panels have the seeds 1 and 2."""

    count: int = 10_000
    """Held-out panels."""
    seed: int = 3
    """Of the held-out panels and their noise."""
    noisy: int = 5000
    """Panels of the noisy criterion."""
    noisy_seed: int = 12
    noise_seed: int = 13
    passes: int = 100
    """Of the latency."""


class Typical(NamedTuple):
    """The panel whose error is the median one: it stands for all in a picture."""

    truth: list[float]
    answer: list[float]
    rmse_bp: float


class Evaluation(NamedTuple):
    """One network on its domain."""

    version: str
    domain: str
    inputs: dict[str, Accuracy]
    """By kind of input."""
    residual_bp: list[list[float | None]]
    """(n_expiries, n_strikes) mean absolute vol error of the network at each node, on the most disturbed input."""
    residual_input: str
    typical: Typical
    """On the first kind of input."""
    refined: Refined | None
    """Clean panels; None outside the paper's domain."""
    noisy: Criterion | None
    """Likewise."""
    latency: Latency | None
    """None for a run: it is the artefact that is served."""
    seconds: float


class Scatter(NamedTuple):
    """The first kind of input, panel by panel."""

    truth: Matrix
    """(n, n_params)."""
    answer: Matrix
    """(n, n_params)."""
    level: Vector
    """(n,), mean vol of the panel."""


def evaluate(
    candidate: Candidate, options: EvaluationOptions, say: Callable[[str], None] = print
) -> tuple[Evaluation, Scatter]:
    """Everything about one network."""
    began = perf_counter()
    network, domain, release = candidate
    truth = panel_parameters(domain, options.seed, 0, options.count)
    held_out = HeldOut.of(domain, truth)
    nodes = held_out.nodes
    shown = inputs(domain, nodes.iv, options.seed)
    answers = {kind: network.parameters(iv) for kind, iv in shown.items()}
    by_input = {kind: accuracy(domain, found, held_out) for kind, found in answers.items()}
    filled = None
    if domain.standardised:
        filled = np.isfinite(shown[MARKET])
        by_input = {FILLED: accuracy(domain, answers[MARKET], held_out, filled), **by_input}
    say(f"{network.version}: network alone, {perf_counter() - began:.0f} s")
    first, last = next(iter(answers)), next(reversed(answers))
    residual = 1e4 * np.nanmean(np.abs(vol_errors(answers[last], nodes, filled)), axis=0)
    rmse = rmse_bp(vol_errors(answers[first], nodes))
    middle = int(np.argsort(rmse)[len(rmse) // 2])
    clean = noisy = None
    if domain is PAPER:
        clean = refine_clean(network, nodes, truth, answers[first])
        say(f"{network.version}: refined, {perf_counter() - began:.0f} s")
        others = panel_parameters(domain, options.noisy_seed, 0, options.noisy)
        noisy = criterion(study(network, nodes_of(domain, others), others, options.noise_seed, say))
    evaluation = Evaluation(
        version=network.version,
        domain=domain.name,
        inputs=by_input,
        residual_bp=[[float(x) if np.isfinite(x) else None for x in row] for row in residual],
        residual_input=last if filled is None else FILLED,
        typical=Typical(truth[middle].tolist(), answers[first][middle].tolist(), float(rmse[middle])),
        refined=clean,
        noisy=noisy,
        latency=_latency(network, release, options) if isinstance(network, Network) and release is not None else None,
        seconds=perf_counter() - began,
    )
    say(f"{network.version}: done, {evaluation.seconds:.0f} s")
    return evaluation, Scatter(truth, answers[first], np.nanmean(nodes.iv, axis=(1, 2)))


def _latency(network: Network, release: Release, options: EvaluationOptions) -> Latency:
    """On noisy panels of the model on the paper's grid, whatever the network's domain: that is what the paper times."""
    (domain,) = (one for one in DOMAINS.values() if one.model.name == release.model and not one.standardised)
    truth = panel_parameters(domain, options.noisy_seed, 0, options.passes)
    return latency(time_panels(network, release, quoted_panels(nodes_of(domain, truth), options.noise_seed)))


def json_of(evaluations: Sequence[Evaluation], command: str, options: EvaluationOptions) -> str:
    """All that a report says, and how it came about."""
    result = {
        "command": command,
        "machine": describe_machine("onnxruntime", "torch"),
        "options": asdict(options),
        "networks": plain(evaluations),
    }
    return json.dumps(result, indent=1, allow_nan=False) + "\n"


def main() -> None:
    default = EvaluationOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="folder of training.train")
    source.add_argument("--artefact", type=Path, nargs="+", help="released networks, or folders of several")
    parser.add_argument("--count", type=int, default=default.count, help="held-out panels")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the held-out panels")
    parser.add_argument("--noisy", type=int, default=default.noisy, help="panels of the noisy criterion")
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluation.json", help="JSON; the Markdown lies beside")
    given = parser.parse_args()
    options = EvaluationOptions(count=given.count, seed=given.seed, noisy=given.noisy)
    candidates = [of_run(given.run)] if given.run else [c for folder in given.artefact for c in of_artefact(folder)]
    evaluations, scatters = zip(
        *(evaluate(candidate, options, lambda line: print(line, flush=True)) for candidate in candidates), strict=True
    )
    what = f"--run {given.run}" if given.run else f"--artefact {' '.join(map(str, given.artefact))}"
    command = (
        f"python -m training.evaluate {what} --count {options.count} --seed {options.seed} --noisy {options.noisy}"
    )
    text = json_of(evaluations, command, options)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text)
    write_report(given.out.with_suffix(".md"), markdown(json.loads(text)))
    FIGURES.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{evaluation.domain}_{name}": values
        for evaluation, scatter in zip(evaluations, scatters, strict=True)
        for name, values in (*scatter._asdict().items(), ("version", np.array(evaluation.version)))
    }
    np.savez_compressed(FIGURES / f"{given.out.stem}.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
