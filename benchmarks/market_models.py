"""What each model makes of real panels, from its surface starts, and whether a better optimum is known.

    python -m benchmarks.market_models [--quotes ../shared/market]

Panels of three expiries or more, thinned to 200 quotes, equally weighted. Every answer is held against the best of
30 random starts, each refined by itself, and against the optima of the models nested in it. A model is worth its
parameters where it fits what smaller ones cannot; what it costs is beside it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from time import thread_time
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Vector
from calibrant.calibration import Calibration, calibrate
from calibrant.layout import VARIANCE
from calibrant.models import MODELS, Model
from calibrant.options import Effort, Start
from calibrant.panel import OptionPanel
from reporting.machine import RESULTS, ROOT, describe_machine, table, write_report

from .market import read_panels

N_QUOTES, N_EXPIRIES, N_STARTS, SEED = 200, 3, 30, 214
WORSE, NESTED = 1.001, 1.0 + 1e-6
"""Times the best objective known, beyond which an answer is another optimum; and times that of a nested model."""
_EXACT = 1e-7
"""Root mean square error in vol below which fits are exact."""


class Outcome(NamedTuple):
    """A panel and a model."""

    label: str
    model: Model
    answer: Calibration
    best: float
    """Objective of the best of the random starts."""
    ms: float
    """Of the processor."""

    @property
    def missed(self) -> bool:
        floor = self.answer.n_quotes * _EXACT**2
        return self.answer.objective > WORSE * max(self.best, floor)


def market_panels(folder: Path) -> Iterator[tuple[str, OptionPanel]]:
    """The panels with enough expiries, thinned evenly in the order of their quotes."""
    for found in read_panels(folder):
        panel = OptionPanel.from_quotes(**found.quotes)
        if panel.expiries.size >= N_EXPIRIES:
            kept = np.unique(np.linspace(0, panel.n_quotes - 1, N_QUOTES).round().astype(int))
            quotes = {"expiry": panel.expiry, "log_moneyness": panel.log_moneyness, "iv": panel.mid}
            yield found.label, OptionPanel.from_quotes(**{name: values[kept] for name, values in quotes.items()})


def random_start(model: Model, generator: np.random.Generator) -> Vector:
    """Parameters of the size that markets show."""
    parts: list[float] = []
    for factor in model.factors:
        if factor.kind == VARIANCE:
            low, high = np.log([0.1, 0.003, 0.1, 0.003]), np.log([30.0, 0.5, 4.0, 0.5])
            kappa, theta, xi, v0 = np.exp(generator.uniform(low, high)).tolist()
            parts += [kappa, theta, xi, generator.uniform(-0.95, 0.6), v0]
        else:
            lam, sigma_j = np.exp(generator.uniform(np.log([0.02, 0.01]), np.log([5.0, 0.4]))).tolist()
            parts += [lam, generator.uniform(-0.5, 0.2), sigma_j]
    return np.array(parts)


def examine(label: str, panel: OptionPanel, model: Model, seed: int) -> Outcome:
    """The answer, and the best of many starts."""
    generator = np.random.default_rng([SEED, seed])
    began = thread_time()
    answer = calibrate(panel, model, [])
    ms = 1e3 * (thread_time() - began)
    alone = Effort(second_opinion=False)
    starts = [Start("given", random_start(model, generator)) for _ in range(N_STARTS)]
    best = min(calibrate(panel, model, [start], effort=alone).objective for start in starts)
    return Outcome(label, model, answer, best, ms)


def summary(outcomes: list[Outcome]) -> list[str]:
    """A line a model."""
    rows = []
    for model in MODELS.values():
        of = [outcome for outcome in outcomes if outcome.model is model]
        found = sum(not outcome.missed for outcome in of)
        better = sum(outcome.answer.objective < outcome.best / WORSE for outcome in of)
        ms = np.array([outcome.ms for outcome in of])
        rows.append(
            [
                model.name,
                f"{found} of {len(of)} ({100.0 * found / len(of):.1f} %)",
                str(better),
                str(sum(outcome.answer.status == "converged" for outcome in of)),
                str(sum(nested_is_better(outcome, outcomes) for outcome in of)),
                f"{np.median(ms):.1f}",
                f"{ms.max():.1f}",
            ]
        )
    head = [
        "model",
        "within 0.1 % of the best of 30 starts",
        "better than all of them",
        "converged",
        "worse than a nested model",
        "ms, median",
        "most",
    ]
    return table(head, rows)


def nested_is_better(outcome: Outcome, outcomes: list[Outcome]) -> bool:
    """Whether a model of fewer factors of the same kinds fits the panel better."""
    own = outcome.model.layout.tolist()
    floor = outcome.answer.n_quotes * _EXACT**2
    return any(
        other.label == outcome.label
        and len(other.model.factors) < len(own)
        and all(other.model.layout.tolist().count(kind) <= own.count(kind) for kind in other.model.layout.tolist())
        and outcome.answer.objective > NESTED * max(other.answer.objective, floor)
        for other in outcomes
    )


def by_panel(outcomes: list[Outcome]) -> list[str]:
    """Root mean square errors, a line a panel."""
    rows = []
    for label in dict.fromkeys(outcome.label for outcome in outcomes):
        of = [outcome for outcome in outcomes if outcome.label == label]
        rows.append([label, *(f"{o.answer.rmse_bp:.2f}{' *' if o.missed else ''}" for o in of)])
    return table(["panel", *MODELS], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotes", type=Path, default=ROOT.parent / "shared" / "market", help="market panels")
    given = parser.parse_args()
    outcomes = []
    for i, (label, panel) in enumerate(market_panels(given.quotes)):
        outcomes += [examine(label, panel, model, i) for model in MODELS.values()]
        of = outcomes[-len(MODELS) :]
        print(label, *(f"{o.answer.rmse_bp:.2f}{'*' if o.missed else ''}" for o in of), flush=True)
    text = [
        "# What each model makes of real panels",
        "",
        describe_machine(),
        "",
        "`python -m benchmarks.market_models`: panels of three expiries or more, thinned to 200 quotes, equal weights, "
        "no network.",
        "",
        *summary(outcomes),
        "",
        "Root mean square error in basis points of vol; a star where a better optimum is known.",
        "",
        *by_panel(outcomes),
    ]
    write_report(RESULTS / "market_models.md", text)


if __name__ == "__main__":
    main()
