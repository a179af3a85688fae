"""Releases of a model's networks side by side: what a start costs, and what the refinement makes of it.

    python -m benchmarks.releases --release networks/heston/4 networks/heston/5 [--quotes ../shared/market]

A network is worth what it saves: one that answers sooner from a worse start may cost more in all. So the last row of
each kind has no network at all, only the starts read off the surface. Panels of the paper's box, irregular ones drawn
as those that the `market` networks are trained on, and the panels of the market, each through every release in turns,
so that a busy machine slows all of them alike. Times are of the processor, not of the wall.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import thread_time
from typing import Any, NamedTuple

import numpy as np

from calibrant.calibration import Calibration, calibrate
from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.panel import OptionPanel, identifiable
from calibrant.pipeline import starting_from
from calibrant.release import Release
from reporting.machine import RESULTS, describe_machine, table, write_report
from training.domain import MARKET
from training.market_panels import DRAWS, market_quotes

from .market import read_panels
from .paper_panels import clean_panels, noisy_panels

SEED = 111
REPEATS = 3
WARM_UP = 20
SAME_OBJECTIVE = 1e-6
"""Relative: further above the lowest of all releases, an answer is another optimum."""
EXACT_BP = 1e-3
"""Below it a fit is exact, and its objective rounding."""


class Run(NamedTuple):
    """One panel by one release."""

    network_us: float
    """Of the processor: projection and network."""
    refine_us: float
    """Of the processor: refinement, second opinions and standard errors."""
    iterations: int
    n_starts: int
    objective: float
    rmse_bp: float


def run(release: Release | None, panel: OptionPanel) -> Run:
    """Calibrate as the service does; the quickest of `REPEATS`. None: without a network."""
    network, refine = [], []
    for _ in range(REPEATS):
        began = thread_time()
        proposals = [] if release is None else release.propose(panel)
        proposed = thread_time()
        found: Calibration = calibrate(panel, HESTON, starting_from(proposals))
        refine.append(1e6 * (thread_time() - proposed))
        network.append(1e6 * (proposed - began))
    return Run(min(network), min(refine), found.iterations, found.n_starts, found.objective, found.rmse_bp)


def compare(releases: Sequence[Release | None], panels: Sequence[OptionPanel]) -> list[list[Run]]:
    """Of each panel, of each release in their order."""
    for release in releases:
        for panel in panels[:WARM_UP]:
            run(release, panel)
    return [[run(release, panel) for release in releases] for panel in panels]


def drawn_panels(n: int, seed: int) -> list[OptionPanel]:
    """Panels as the networks of the domain `market` are trained on, of those that the library takes."""
    draws = np.random.default_rng(seed).random((n, DRAWS))
    drawn = map(market_quotes, MARKET.draw(draws[:, : MARKET.n_params]), draws)
    return taken({"expiry": one.expiry, "log_moneyness": one.log_moneyness, "iv": one.iv} for one in drawn)


def taken(quotes: Iterable[Mapping[str, Any]]) -> list[OptionPanel]:
    """The panels of those quotes, arguments of `from_quotes`, that the library calibrates."""
    panels = []
    for given in quotes:
        try:
            panel = OptionPanel.from_quotes(**given)
            if identifiable(panel).n_quotes >= HESTON.n_params:
                panels.append(panel)
        except InvalidInput:
            continue
    return panels


def rows_of(kind: str, releases: Sequence[Release | None], runs: Sequence[Sequence[Run]]) -> list[list[str]]:
    """Of the table: a row a release."""
    lowest = np.array([min(run.objective for run in of_panel) for of_panel in runs])
    rows = []
    for release, of_release in zip(releases, zip(*runs, strict=True), strict=True):

        def numbers(of: Callable[[Run], float], found: Sequence[Run] = of_release) -> np.ndarray[tuple[int], np.dtype]:
            return np.array([of(run) for run in found])

        total = numbers(lambda run: run.network_us + run.refine_us)
        iterations = numbers(lambda run: run.iterations)
        higher = numbers(lambda run: run.objective) > lowest * (1.0 + SAME_OBJECTIVE)
        higher &= numbers(lambda run: run.rmse_bp) > EXACT_BP
        rows.append(
            [
                f"{kind}, {'no network' if release is None else release.version}",
                f"{len(runs):,}",
                f"{np.median(numbers(lambda run: run.network_us)):.1f}",
                f"{np.median(numbers(lambda run: run.refine_us)):.1f}",
                f"{np.median(total):.1f}",
                f"{total.mean():.1f}",
                f"{np.median(iterations):g} / {iterations.mean():.2f} / {np.quantile(iterations, 0.99):g}",
                f"{int((numbers(lambda run: run.n_starts) > 1).sum()):,}",
                f"{int(higher.sum()):,}",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, nargs="+", required=True, help="folders networks/<model>/<version>")
    parser.add_argument("--panels", type=int, default=2000, help="of each kind of the paper's box")
    parser.add_argument("--quotes", type=Path, help="folder of market quotes")
    parser.add_argument("--out", type=Path, default=RESULTS / "releases.md")
    given = parser.parse_args()
    releases = [*map(Release.load, given.release), None]
    kinds = {
        "paper, clean": [sample.panel for sample in clean_panels(given.panels, SEED)],
        "paper, noisy": [sample.panel for sample in noisy_panels(given.panels, SEED + 1)],
    }
    kinds["drawn, irregular"] = drawn_panels(given.panels, SEED + 2)
    if given.quotes is not None:
        panels = taken(panel.quotes for panel in read_panels(given.quotes))
        kinds["market, one expiry"] = [panel for panel in panels if panel.expiries.size == 1]
        kinds["market, several expiries"] = [panel for panel in panels if panel.expiries.size > 1]
    columns = [
        "panels",
        "n",
        "network us",
        "refine us",
        "sum us, median",
        "sum us, mean",
        "evaluations, median / mean / 99 %",
        "second opinions",
        "worse optimum",
    ]
    rows = []
    for kind, panels in kinds.items():
        rows += rows_of(kind, releases, compare(releases, panels))
        print("\n".join(" | ".join(row) for row in rows[-len(releases) :]), flush=True)
    folders = " ".join(map(str, given.release))
    quotes = "" if given.quotes is None else f" --quotes {given.quotes}"
    lines = [
        "# Releases side by side",
        "",
        f"`python -m benchmarks.releases --release {folders} --panels {given.panels}{quotes}`",
        "",
        describe_machine("onnxruntime"),
        "",
        f"Processor time of one thread, the least of {REPEATS} passes over a panel, the releases in turns. Network: "
        "projection onto the grid and the network's answer. Refine: all that `calibrate` does after it. Paper and "
        f"drawn panels: seeds {SEED} to {SEED + 2}; the noisy ones have 0.5 bp on every mid and 5 % missing, three "
        "quarters of the drawn ones the noise of `training/market_panels.py`. Worse optimum: objective more than "
        f"{SAME_OBJECTIVE:g} of itself above the lowest that any of these releases led to.",
        "",
        *table(columns, rows),
    ]
    write_report(given.out, lines)


if __name__ == "__main__":
    main()
