"""The COS pricer beside the fit kernel, at equal error, and its stated errors beside its true ones.

    python -m benchmarks.cos [--panels N] [--out PATH]

Both price the same panels with their gradient. The kernel is told the error; COS is given for each expiry the fewest
terms, and the range, with which its true error is that small, which nobody knows beforehand.
"""

import argparse
from pathlib import Path
from time import thread_time
from typing import NamedTuple

import numpy as np

from benchmarks import paper_box
from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.models import MODELS, Model
from calibrant.pricing.cos import CosOptions, cos_values
from calibrant.pricing.fit_kernel import BENT, time_values
from calibrant.pricing.fourier import otm_values
from reporting.machine import RESULTS, describe_machine, table, write_report

from .kernel_of_models import like

SEED = 311
ERRORS = (1e-6, 1e-9)
"""Of a price, in units of the forward."""
TERMS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
WIDTHS = (5.0, 7.0, 10.0, 14.0, 20.0)
REPEATS = 5


class Grid(NamedTuple):
    """Quotes of a panel."""

    name: str
    expiries: Vector
    deviations: float | None
    """Where strikes reach, in standard deviations; None: those of the paper, 80 to 120 %."""


GRIDS = (
    Grid("10 x 8, 0.1 to 2 years", paper_box.EXPIRIES, None),
    Grid("10 x 4, a day to a month", np.array([1.0, 2.0, 7.0, 30.0]) / 365.0, 3.0),
)


class Panel(NamedTuple):
    """A grid and parameters, with the true values."""

    model: Model
    params: Vector
    expiries: Vector
    log_moneyness: Matrix
    """(n_expiries, n_strikes)"""
    value: Matrix


def panels_of(model: Model, grid: Grid, n: int) -> list[Panel]:
    """Random parameters of the paper's box, and jumps as an index has them."""
    panels = []
    for heston in paper_box.draws(n, SEED):
        params = like(model, heston)
        k = np.tile(paper_box.LOG_STRIKES, (grid.expiries.size, 1))
        if grid.deviations:
            sd = np.sqrt([model.expected_variance(years, params) for years in grid.expiries.tolist()])
            k = np.multiply.outer(sd, np.linspace(-grid.deviations, grid.deviations, k.shape[1]))
        value = otm_values(model, k.ravel(), np.repeat(grid.expiries, k.shape[1]), params).reshape(k.shape)
        panels.append(Panel(model, params, grid.expiries, k, value))
    return panels


class Cost(NamedTuple):
    """Of one panel."""

    us: float
    nodes: int
    """Values of the characteristic function."""


def of_kernel(panel: Panel, error: float) -> Cost:
    """The fit kernel's, told the error."""
    n_expiries, n_strikes = panel.log_moneyness.shape
    offsets: IntVector = n_strikes * np.arange(n_expiries + 1)
    out, gradient = np.empty(panel.value.size), np.empty((panel.model.n_params, panel.value.size))
    nodes, stated = np.empty(n_expiries, np.int64), np.empty(n_expiries)
    times = []
    for _ in range(REPEATS):
        began = thread_time()
        time_values(
            panel.model.layout,
            panel.params,
            panel.expiries,
            offsets,
            panel.log_moneyness.ravel(),
            np.full(n_expiries, error),
            out,
            gradient,
            nodes,
            stated,
        )
        times.append(thread_time() - began)
    worst = float(np.abs(out - panel.value.ravel()).max())
    if not worst <= error:
        raise ArithmeticError(f"{panel.model.name}: the kernel is off by {worst:.1e} of {error:.1e}")
    return Cost(1e6 * float(np.median(times)), int((np.abs(nodes) % BENT).sum()))


def of_cos(panel: Panel, error: float) -> Cost | None:
    """Of the COS pricer with the best options for each expiry; None where none of those tried will do."""
    us, nodes = 0.0, 0
    for years, k, value in zip(panel.expiries.tolist(), panel.log_moneyness, panel.value, strict=True):
        t = np.full(k.size, years)
        for n_terms in TERMS:
            fit = [
                options
                for options in (CosOptions(n_terms=n_terms, width=width) for width in WIDTHS)
                if np.abs(
                    cos_values(panel.model, k, t, panel.params, options, with_error=False).time_value - value
                ).max()
                <= error
            ]
            if fit:
                break
        else:
            return None
        times = []
        for _ in range(REPEATS):
            began = thread_time()
            cos_values(panel.model, k, t, panel.params, fit[0], with_gradient=True, with_error=False)
            times.append(thread_time() - began)
        us, nodes = us + 1e6 * float(np.median(times)), nodes + n_terms
    return Cost(us, nodes)


def speed_rows(panels: list[Panel], name: str) -> list[list[str]]:
    """A line an error."""
    rows = []
    for error in ERRORS:
        kernel = [of_kernel(panel, error) for panel in panels]
        cos = [of_cos(panel, error) for panel in panels]
        found = [cost for cost in cos if cost is not None]
        ratio = np.median([c.us / k.us for c, k in zip(cos, kernel, strict=True) if c is not None])
        rows.append(
            [
                f"{name}, {panels[0].model.name}",
                f"{error:.0e}",
                f"{np.median([cost.us for cost in kernel]):.0f}",
                f"{np.median([cost.us for cost in found]):.0f}",
                f"{ratio:.0f}",
                f"{np.median([cost.nodes for cost in kernel]):.0f}",
                f"{np.median([cost.nodes for cost in found]):.0f}",
                f"{len(panels) - len(found)}",
            ]
        )
    return rows


def error_rows(panels: list[Panel], name: str) -> list[list[str]]:
    """True and stated errors of the paper's N, with both ranges, and of more terms."""
    rows = []
    for options in (CosOptions(cumulants=2), CosOptions(), CosOptions(n_terms=1024)):
        true, stated = [], []
        for panel in panels:
            k, t = panel.log_moneyness.ravel(), np.repeat(panel.expiries, panel.log_moneyness.shape[1])
            found = cos_values(panel.model, k, t, panel.params, options)
            true += np.abs(found.time_value.reshape(panel.value.shape) - panel.value).max(axis=1).tolist()
            stated += found.error.tolist()
        off, said = np.array(true), np.array(stated)
        rows.append(
            [
                f"{name}, {panels[0].model.name}",
                f"{options.n_terms}, c1 to c{options.cumulants}",
                f"{np.median(off):.0e}",
                f"{off.max():.0e}",
                f"{said.max():.0e}",
                # What the accurate pricer itself may be off by.
                f"{100.0 * np.mean(off <= said + 1e-14):.1f} %",
                f"{np.median(said / np.maximum(off, 1e-16)):.0f}",
            ]
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "cos.md")
    given = parser.parse_args(arguments)
    speed, errors = [], []
    for grid in GRIDS:
        for model in MODELS.values():
            panels = panels_of(model, grid, given.panels)
            speed += speed_rows(panels, grid.name)
            errors += error_rows(panels, grid.name)
    write_report(
        given.out,
        [
            "# The COS pricer beside the fit kernel",
            "",
            "`python -m benchmarks.cos`",
            "",
            describe_machine(),
            "",
            f"{given.panels} panels a model and grid (parameters of the paper's box, seed {SEED}; half of the "
            "variance in a slower second factor, the jumps of an equity index), prices and the gradient in all "
            "parameters, warm, "
            f"processor time of one core, medians. Strikes of the short grid reach {GRIDS[1].deviations:g} standard "
            "deviations. Errors are of a price in units of the forward, against the accurate pricer.",
            "",
            "## Speed at equal error",
            "",
            "The kernel is told the error and keeps it. COS has for each expiry the fewest terms (of "
            f"{', '.join(map(str, TERMS))}) with which, at some L of {', '.join(f'{w:g}' for w in WIDTHS)}, its true "
            "error is within that asked for: a choice in its favour, since a pricer does not know its true error. COS "
            "is written in numpy, a hundred calls an expiry, and the kernel is compiled: the nodes, values of the "
            "characteristic function, compare the methods and the times what is here.",
            "",
            *table(
                ["panels", "error", "kernel, us", "COS, us", "ratio", "kernel, nodes", "COS, nodes", "COS fails"], speed
            ),
            "",
            "## Stated errors of COS",
            "",
            "L = 10; an entry an expiry. The error stated is a bound: of the range by moments, of the series by the "
            "envelope of what is left out.",
            "",
            *table(
                [
                    "panels",
                    "N, cumulants",
                    "true, median",
                    "true, worst",
                    "stated, worst",
                    "true <= stated",
                    "stated / true, median",
                ],
                errors,
            ),
            "",
        ],
    )


if __name__ == "__main__":
    main()
