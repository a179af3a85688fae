"""What the networks' starts save, model by model: evaluations, time and optima, with the networks and without.

    python -m benchmarks.network_starts [--panels 200] [--every 1] [--quotes ../shared/market]

Noiseless panels of 8 expiries and 10 strikes, drawn as those that the networks are trained on, and the panels of the
market that `benchmarks.market_models` looks at. Each is fitted from the network's start alone, as the service does, and
as it does without networks; evaluations are those of all quotes until the answer, races and second opinions included.
Times are of the processor.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import thread_time
from typing import NamedTuple

import numpy as np

from calibrant.calibration import Calibration, calibrate, calibration_steps
from calibrant.models import MODELS, Model
from calibrant.options import CalibrationOptions, Effort, Start
from calibrant.panel import OptionPanel
from calibrant.pipeline import starting_from
from calibrant.release import Release, networks_folder, released
from reporting.machine import RESULTS, ROOT, describe_machine, table, write_report
from training.domain import DOMAINS
from training.evaluation.inputs import grid_panel
from training.evaluation.surfaces import nodes_of
from training.panels import panel_parameters

from .market_models import WORSE, market_panels

SEED = 31
EXACT_BP = 0.1
"""Root mean square error below which the fit of a noiseless panel has found its surface."""
ROUTES = {"network alone": Effort(second_opinion=False), "network": Effort(), "surface": Effort()}


class Outcome(NamedTuple):
    """One panel by one route."""

    rmse_bp: float
    objective: float
    evaluations: float
    """Of all quotes."""
    ms: float
    """Of the processor, the network's answer included."""
    start: str


class Examined(NamedTuple):
    """One panel."""

    start_bp: float
    """From the quotes to the surface of the network's start, root mean square."""
    routes: Mapping[str, Outcome]


def noiseless(model: Model, n: int) -> list[OptionPanel]:
    """Panels of the model's domain on a grid, on its very nodes."""
    (domain,) = (domain for domain in DOMAINS.values() if domain.model is model and not domain.standardised)
    nodes = nodes_of(domain, panel_parameters(domain, SEED, 0, n))
    return [grid_panel(nodes, i, nodes.iv[i]) for i in range(n)]


def examine(panel: OptionPanel, release: Release) -> Examined:
    """A panel by all routes."""
    model = MODELS[release.model]
    proposed = starting_from(release.propose(panel))
    at_start = calibrate(panel, model, proposed, CalibrationOptions(refine="none"))
    return Examined(at_start.rmse_bp, {name: _by(name, panel, release) for name in ROUTES})


def _by(route: str, panel: OptionPanel, release: Release) -> Outcome:
    began = thread_time()
    starts: list[Start] = [] if route == "surface" else starting_from(release.propose(panel))
    steps = calibration_steps(panel, MODELS[release.model], starts, effort=ROUTES[route])
    spent = 0.0
    while True:
        try:
            spent = next(steps).done
        except StopIteration as ended:
            found: Calibration = ended.value
            break
    ms = 1e3 * (thread_time() - began)
    return Outcome(found.rmse_bp, found.objective, spent / found.n_quotes, ms, found.start)


def rows_of(model: Model, examined: Sequence[Examined], *, exact: bool) -> list[list[str]]:
    """Of the table: a row a route."""
    rows = []
    for route in ROUTES:
        outcomes = [one.routes[route] for one in examined]
        if exact:
            found = [outcome.rmse_bp < EXACT_BP for outcome in outcomes]
        else:
            best = [min(other.objective for other in one.routes.values()) for one in examined]
            found = [outcome.objective <= WORSE * least for outcome, least in zip(outcomes, best, strict=True)]
        start = np.array([one.start_bp for one in examined])
        rows.append(
            [
                model.name,
                route,
                "" if route == "surface" else _spread(start, (0.5, 0.9)),
                _spread(np.array([outcome.evaluations for outcome in outcomes]), (0.5, 0.9, 0.99)),
                f"{100.0 * np.mean(found):.1f} %",
                _spread(np.array([outcome.ms for outcome in outcomes]), (0.5, 0.9, 0.99)),
            ]
        )
    return rows


def _spread(values: np.ndarray[tuple[int], np.dtype[np.float64]], at: Sequence[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in np.quantile(values, at))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=200, help="noiseless ones of each model")
    parser.add_argument("--quotes", type=Path, default=ROOT.parent / "shared" / "market", help="market panels")
    parser.add_argument("--every", type=int, default=1, help="market panels: one of so many")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--out", type=Path, default=RESULTS / "network_starts.md")
    given = parser.parse_args()
    folder = networks_folder()
    if folder is None:
        parser.error("there are no released networks")
    market = [panel for _, panel in market_panels(given.quotes)][:: given.every]
    head = [
        "model",
        "from",
        "start, bp, median / 90 %",
        "evaluations, median / 90 / 99 %",
        "",
        "ms, median / 90 / 99 %",
    ]
    exact_head, market_head = ([*head[:4], found, head[5]] for found in ("under 0.1 bp", "best of the routes"))
    exact_rows: list[list[str]] = []
    market_rows: list[list[str]] = []
    versions = []
    for name in given.models:
        model, release = MODELS[name], released(folder, name)
        versions.append(release.version)
        for panels, rows, exact in ((noiseless(model, given.panels), exact_rows, True), (market, market_rows, False)):
            examine(panels[0], release)
            rows += rows_of(model, [examine(panel, release) for panel in panels], exact=exact)
            print("\n".join(" | ".join(row) for row in rows[-len(ROUTES) :]), flush=True)
    write_report(
        given.out,
        [
            "# What the networks' starts save",
            "",
            f"`python -m benchmarks.network_starts --panels {given.panels} --every {given.every}`: "
            f"{__doc__.split(chr(10) * 2)[2].strip()}",
            "",
            describe_machine("onnxruntime"),
            "",
            f"Networks: {', '.join(versions)}.",
            "",
            f"## {given.panels} noiseless panels of 80 quotes",
            "",
            *table(exact_head, exact_rows),
            "",
            f"## {len(market)} market panels",
            "",
            f"Found: within {100.0 * (WORSE - 1.0):.1f} % of the best of the three.",
            "",
            *table(market_head, market_rows),
        ],
    )


if __name__ == "__main__":
    main()
