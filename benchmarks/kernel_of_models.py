"""The fit kernel's time for each model, in units of Heston's.

    python -m benchmarks.kernel_of_models [--panels N] [--pairs N] [--out PATH]

All models price the same 10 x 8 grid with their gradient, with like variance: a second variance factor takes over half
of Heston's and a quarter of its speed, jumps are those of an equity index. Their rounds alternate in one run.
"""

import argparse
from pathlib import Path
from time import thread_time

import numpy as np

from benchmarks import paper_box
from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import vega
from calibrant.layout import VARIANCE
from calibrant.models import HESTON, MODELS, Model
from calibrant.optimisers.objective import COARSE, FINE
from calibrant.pricing.fit_kernel import BENT, time_values
from reporting.machine import RESULTS, describe_machine, table, write_report

SEED = 107
JUMPS = (0.3, -0.1, 0.1)
"""lam, mu_j, sigma_j"""
LIMITS = {"bates": 1.8, "double_heston": 2.2, "double_heston_jump": 2.7}
OFFSETS: IntVector = np.arange(0, paper_box.EXPIRY.size + 1, paper_box.LOG_STRIKES.size)


def like(model: Model, heston: Vector) -> Vector:
    """Parameters of the model with about the variance of Heston's."""
    kappa, theta, xi, rho, v0 = heston.tolist()
    n_variance = sum(factor.kind == VARIANCE for factor in model.factors)
    parts: list[float] = []
    for i, factor in enumerate(model.factors):
        if factor.kind == VARIANCE:
            parts += [kappa / 4.0**i, theta / n_variance, xi, rho, v0 / n_variance]
        else:
            parts += JUMPS
    return np.array(parts)


def round_us(model: Model, params: Matrix, tolerance: Matrix, nodes: IntVector) -> float:
    """Processor time of a panel, in microseconds: the mean of one round over all; the nodes taken are filled in."""
    n = paper_box.EXPIRY.size
    out, gradient, error = np.empty(n), np.empty((model.n_params, n)), np.empty(paper_box.EXPIRIES.size)
    began = thread_time()
    for at, allowed, taken in zip(params, tolerance, nodes, strict=True):
        time_values(
            model.layout, at, paper_box.EXPIRIES, OFFSETS, paper_box.LOG_MONEYNESS, allowed, out, gradient, taken, error
        )
    return 1e6 * (thread_time() - began) / len(params)


def rows_of(n_panels: int, n_pairs: int, vol_error: float) -> list[list[str]]:
    """A row a model."""
    heston = paper_box.draws(n_panels, SEED)
    tolerance = np.empty((n_panels, paper_box.EXPIRIES.size))
    for i, params in enumerate(heston):
        variance = [HESTON.expected_variance(t, params) for t in paper_box.EXPIRIES.tolist()]
        vol = np.repeat(np.sqrt(np.array(variance) / paper_box.EXPIRIES), paper_box.LOG_STRIKES.size)
        size = vega(paper_box.LOG_MONEYNESS, paper_box.EXPIRY, vol)
        tolerance[i] = vol_error * np.maximum(np.minimum.reduceat(size, OFFSETS[:-1]), 1e-3)
    params = {name: np.array([like(model, p) for p in heston]) for name, model in MODELS.items()}
    nodes = {name: np.empty(tolerance.shape, np.int64) for name in MODELS}
    times: dict[str, list[float]] = {name: [] for name in MODELS}
    for pair in range(n_pairs + 1):
        for name, model in MODELS.items():
            took = round_us(model, params[name], tolerance, nodes[name])
            if pair > 0:
                times[name].append(took)
    rows = []
    for name, of_model in times.items():
        ratio = np.sort(np.array(of_model) / np.array(times["heston"]))
        # The interval of a median between order statistics: 95 % of thirty pairs.
        half = int(np.ceil(0.98 * np.sqrt(ratio.size)))
        middle = ratio.size // 2
        low, high = ratio[max(middle - half, 0)], ratio[min(middle + half, ratio.size - 1)]
        rows.append(
            [
                name,
                f"{1e4 * vol_error:g} bp",
                f"{np.median(of_model):.1f}",
                f"{np.median(ratio):.2f}",
                f"{low:.2f} to {high:.2f}",
                f"{LIMITS[name]:g}" if name in LIMITS else "",
                f"{np.mean(np.abs(nodes[name]) % BENT):.0f}",
                f"{100.0 * np.mean(np.abs(nodes[name]) > BENT):.0f} %",
            ]
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "kernel_of_models.md")
    given = parser.parse_args(arguments)
    rows = [row for error in (COARSE, FINE) for row in rows_of(given.panels, given.pairs, error)]
    write_report(
        given.out,
        [
            "# The fit kernel, model by model",
            "",
            "`python -m benchmarks.kernel_of_models`",
            "",
            describe_machine(),
            "",
            f"{given.panels} panels of the paper's 10 x 8 grid (seed {SEED}), prices and the gradient in all "
            f"parameters, warm, processor time of one core; {given.pairs} rounds in which the models alternate, the "
            "first of all not counted. Ratios are those of one round; their median, and its 95 % interval.",
            "",
            *table(
                [
                    "model",
                    "error asked for",
                    "us",
                    "times Heston's",
                    "95 % interval",
                    "wanted at most",
                    "nodes, mean",
                    "bent expiries",
                ],
                rows,
            ),
            "",
        ],
    )


if __name__ == "__main__":
    main()
