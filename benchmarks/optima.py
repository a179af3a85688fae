"""Whether answers are the best optimum there is, and what making sure costs.

    python -m benchmarks.optima

On odd panels (`benchmarks.odd_panels`), and on real ones where they are at hand, the answer of the library is compared
with the best of 15 starts: those read off the surface and random ones, each refined to its end without regard to the
others. The network's start leads, as in the service; and, for comparison, no network at all.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import thread_time
from typing import NamedTuple

import numpy as np

from benchmarks.market import read_panels
from benchmarks.odd_panels import OddPanel, odd_panels
from calibrant.arrays import Vector
from calibrant.calibration import Calibration, calibrate
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions, Effort, Start
from calibrant.panel import OptionPanel, identifiable
from calibrant.pipeline import starting_from
from calibrant.release import Release, released
from calibrant.starts import N_KINDS, surface_starts
from reporting.machine import RESULTS, ROOT, describe_machine, table, write_report

SEED, STARTS_SEED = 31, 32
N_STARTS = 15
WORSE = 1.001
"""Times the best objective, from which on an answer counts as another, worse optimum."""
_LOWER = np.array([0.1, 0.003, 0.1, -0.95, 0.003])
_UPPER = np.array([30.0, 0.5, 4.0, 0.6, 0.5])
_EXACT_VOL = 1e-7
"""Root mean square error below which all fits are exact: what is left is rounding."""


class Outcome(NamedTuple):
    """What became of a panel."""

    kind: str
    label: str
    best: float
    """Objective of the best of all starts."""
    answer: Calibration
    answer_ms: float
    without_network: Calibration
    alone: Calibration
    """From the network's start, without a second opinion."""
    alone_ms: float

    def misses(self, fit: Calibration) -> bool:
        """Whether a better optimum is known."""
        floor = self.answer.n_quotes * _EXACT_VOL**2
        return fit.objective > WORSE * max(self.best, floor)


def best_of_many(panel: OptionPanel, seed: int) -> float:
    """The lowest objective that any of `N_STARTS` starts leads to: the surface's, and random ones."""
    used = identifiable(panel)
    generator = np.random.default_rng([STARTS_SEED, seed])
    starts = [
        *surface_starts(fit_problem(used, HESTON, CalibrationOptions())),
        *_random_starts(generator, N_STARTS - N_KINDS),
    ]
    alone = Effort(second_opinion=False)
    return min(calibrate(used, HESTON, [Start("given", start)], effort=alone).objective for start in starts)


def _random_starts(generator: np.random.Generator, n: int) -> Iterator[Vector]:
    """Uniform, the positive parameters in their logarithms."""
    positive = _LOWER > 0.0
    low, high = np.log(np.where(positive, _LOWER, 1.0)), np.log(np.where(positive, _UPPER, 1.0))
    for _ in range(n):
        share = generator.random(_LOWER.size)
        yield np.where(positive, np.exp(low + share * (high - low)), _LOWER + share * (_UPPER - _LOWER))


def examine(kind: str, label: str, panel: OptionPanel, release: Release, seed: int) -> Outcome:
    """Every fit of one panel."""
    starts = starting_from(release.propose(panel))
    answer, answer_ms = _timed(panel, starts)
    alone, alone_ms = _timed(panel, starts, Effort(second_opinion=False))
    without_network, _ = _timed(panel, [])
    best = min(best_of_many(panel, seed), answer.objective, without_network.objective)
    return Outcome(kind, label, best, answer, answer_ms, without_network, alone, alone_ms)


def _timed(panel: OptionPanel, starts: Sequence[Start], effort: Effort | None = None) -> tuple[Calibration, float]:
    began = thread_time()
    fit = calibrate(panel, HESTON, starts, effort=effort)
    return fit, 1e3 * (thread_time() - began)


def market_panels(folder: Path) -> Iterator[OddPanel]:
    """Real panels, with the weights that their spreads give them."""
    for panel in read_panels(folder):
        yield OddPanel(panel.label, OptionPanel.from_quotes(**panel.quotes))


def rate_table(outcomes: Sequence[Outcome]) -> list[str]:
    """The rate and the cost of the rule, by kind."""
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    rows = []
    for kind in [*kinds, "all"]:
        of = [outcome for outcome in outcomes if kind in (outcome.kind, "all")]
        ms = np.array([outcome.answer_ms for outcome in of])
        alone_ms = np.array([outcome.alone_ms for outcome in of])
        rows.append(
            [
                kind,
                f"{len(of)}",
                f"{sum(outcome.misses(outcome.answer) for outcome in of)}",
                f"{sum(outcome.misses(outcome.without_network) for outcome in of)}",
                f"{sum(outcome.misses(outcome.alone) for outcome in of)}",
                f"{sum(outcome.answer.status != 'converged' for outcome in of)}",
                f"{100.0 * np.mean([outcome.answer.n_starts > 1 for outcome in of]):.0f} %",
                f"{np.median(ms):.2f}",
                f"{np.quantile(ms, 0.99):.1f}",
                f"{np.median(alone_ms):.2f}",
                f"{ms.sum() / alone_ms.sum():.2f}",
            ]
        )
    columns = (
        "panels",
        "number",
        "worse",
        "worse without network",
        "worse without second opinion",
        "not converged",
        "second opinions",
        "median, ms",
        "p99, ms",
        "median without second opinion, ms",
        "cost of second opinions, times",
    )
    return table(columns, rows)


def exceptions(outcomes: Sequence[Outcome]) -> list[str]:
    """Every answer that is worse than the best, or that did not converge."""
    rows = [
        [
            outcome.label,
            outcome.answer.status,
            f"{outcome.answer.rmse_bp:.2f}",
            f"{outcome.answer.objective / outcome.best:.4f}",
            ", ".join(outcome.answer.at_bounds) or "-",
        ]
        for outcome in outcomes
        if outcome.misses(outcome.answer) or outcome.answer.status != "converged"
    ]
    if not rows:
        return ["Every answer is the best known, and converged."]
    return table(("panel", "status", "RMSE, bp", "objective over the best", "on a bound"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=2000, help="odd panels")
    parser.add_argument("--quotes", type=Path, default=ROOT.parent / "shared" / "market", help="folder of CSV panels")
    parser.add_argument("--out", type=Path, default=RESULTS / "optima.md")
    given = parser.parse_args()
    release = released(ROOT / "networks", HESTON.name)
    odd = list(odd_panels(given.panels, SEED))
    examine("", "", odd[0].panel, release, 0)  # compiles
    outcomes: list[Outcome] = []
    for i, (kind, panel) in enumerate(odd):
        outcomes.append(examine(kind, f"{kind} {i}", panel, release, i))
        if (i + 1) % 50 == 0:
            print(f"{i + 1}/{len(odd)}, {sum(o.misses(o.answer) for o in outcomes)} worse", flush=True)
    real = [examine("market", label, panel, release, i) for i, (label, panel) in enumerate(market_panels(given.quotes))]
    every = [*outcomes, *real]
    lines = [
        "# Optima",
        "",
        f"`python -m benchmarks.optima --panels {given.panels}`, {release.version}, seeds {SEED} and {STARTS_SEED}.",
        "",
        describe_machine("onnxruntime"),
        "",
        f"Worse: the objective exceeds {WORSE} times the best of {N_STARTS} starts refined to their ends and of "
        "the answers themselves. Times are processor time of the calibration without the network's, a panel once. The "
        "cost is that of all answers over that of refining the network's start alone.",
        "",
        *rate_table(every),
        "",
        "## Exceptions",
        "",
        *exceptions(every),
    ]
    write_report(given.out, lines)


if __name__ == "__main__":
    main()
