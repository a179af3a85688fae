"""The fit kernel's time and accuracy.

    python -m benchmarks.kernel [--panels N] [--draws N] [--admissible N] [--gradient-panels N] [--quotes PATH]
                                [--out PATH]

Times: prices and all gradients of a 10 x 8 panel as called from Python, and of real panels, at the parameters that fit
them. Accuracy of the vols: against the accurate pricer; of the real panels' values, against prices in ball arithmetic
(`exact_values.py`). Accuracy of the gradient: against thirty-digit derivatives (`exact_gradient.py`), which are kept
under `build/benchmarks` since they do not depend on the kernel.
"""

import argparse
import hashlib
from pathlib import Path
from time import perf_counter, thread_time
from typing import NamedTuple

import numpy as np

from benchmarks import paper_box
from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import implied_volatility_from_time_value, vega
from calibrant.calibration import calibrate
from calibrant.errors import InvalidInput
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.objective import FINE
from calibrant.optimisers.objective import Problem as FitProblem
from calibrant.options import CalibrationOptions
from calibrant.panel import LARGEST_LOG_MONEYNESS, LEAST_VEGA, identifiable
from calibrant.pricing.fit_kernel import BENT, time_values
from calibrant.pricing.fourier import PricingError, call_prices_and_gradient, otm_values
from calibrant.quotes_csv import read_csv
from reporting.machine import CACHE, RESULTS, ROOT, describe_machine, table, write_report
from training.exact_panels import model_vols

from . import exact_gradient
from .exact_values import exact_values
from .paper_panels import MASKED, NOISE_BP, Sample, clean_panels, noisy_panels

VOL_ERRORS = (1e-6, 1e-8, 2e-10, 2e-11)
"""Vol errors asked for: 0.01 bp, 1e-4 bp, that of a refinement's last steps, and what the gradient target needs."""
TARGET_US, TARGET_VOL_BP, TARGET_GRADIENT = 60.0, 0.01, 1e-8
ADMISSIBLE_TARGET_BP = 0.1
CLEAN_SEED, NOISY_SEED, DRAW_SEED, EXPIRY_SEED, GRADIENT_SEED = 101, 102, 103, 104, 105
REPEATS = 9
SAMPLED_STRIKES = 5
STRIKES = 61
REACH = 8.0
"""Strikes are looked for this many standard deviations to either side."""


class Panel(NamedTuple):
    """The kernel's answer for one panel."""

    value: Vector
    gradient: Matrix
    n_nodes: IntVector
    error: Vector


def run_kernel(sample: Sample, vol_error: float) -> tuple[Panel, float]:
    """Prices and gradient at the true parameters, and the median time in microseconds of `REPEATS` calls."""
    problem = sample.problem
    n = problem.vol.size
    n_expiries = problem.expiries.size
    answer = Panel(np.empty(n), np.empty((5, n)), np.empty(n_expiries, np.int64), np.empty(n_expiries))
    tolerance = vol_error * problem.least_vega
    times = np.empty(REPEATS)
    for i in range(REPEATS):
        began = perf_counter()
        time_values(
            HESTON.layout, sample.truth, problem.expiries, problem.offsets, problem.log_moneyness, tolerance, *answer
        )
        times[i] = perf_counter() - began
    return answer, 1e6 * float(np.median(times))


class Timing(NamedTuple):
    """All panels of a kind at one tolerance."""

    us: Vector
    """Per panel."""
    vol_error_bp: Vector
    """Largest per panel."""
    gradient_error: Vector
    """Largest per panel, of a parameter's largest entry."""
    n_nodes: IntVector
    """Per expiry."""


def time_panels(samples: list[Sample]) -> dict[float, Timing]:
    """Time the kernel at each tolerance, and hold its answers against the accurate pricer's."""
    us, vol_error, gradient_error, nodes = (
        {e: list[float]() for e in VOL_ERRORS},
        {e: list[float]() for e in VOL_ERRORS},
        {e: list[float]() for e in VOL_ERRORS},
        {e: list[IntVector]() for e in VOL_ERRORS},
    )
    for sample in samples[:20]:
        for asked in VOL_ERRORS:
            run_kernel(sample, asked)
    for sample in samples:
        k, expiry = sample.problem.log_moneyness, sample.problem.root_expiry**2
        call, gradient = call_prices_and_gradient(HESTON, k, expiry, sample.truth)
        value = call - np.maximum(-np.expm1(k), 0.0)
        size = vega(k, expiry, sample.problem.vol)
        level = np.abs(gradient).max(axis=1)
        for asked in VOL_ERRORS:
            answer, microseconds = run_kernel(sample, asked)
            us[asked].append(microseconds)
            vol_error[asked].append(1e4 * float(np.max(np.abs(answer.value - value) / size)))
            gradient_error[asked].append(float(np.max(np.abs(answer.gradient - gradient).max(axis=1) / level)))
            nodes[asked].append(answer.n_nodes)
    return {
        e: Timing(np.array(us[e]), np.array(vol_error[e]), np.array(gradient_error[e]), np.concatenate(nodes[e]))
        for e in VOL_ERRORS
    }


def timing_lines(n: int) -> list[str]:
    """The section on time."""
    kinds = {"clean": clean_panels(n, CLEAN_SEED), "noisy": noisy_panels(n, NOISY_SEED)}
    timings = {name: time_panels(samples) for name, samples in kinds.items()}
    quotes = {name: np.mean([s.problem.vol.size for s in samples]) for name, samples in kinds.items()}
    rows = []
    for name, by_error in timings.items():
        for asked, timing in by_error.items():
            mean = float(timing.us.mean())
            worst_vol, worst_gradient = float(timing.vol_error_bp.max()), float(timing.gradient_error.max())
            good = worst_vol < TARGET_VOL_BP and worst_gradient < TARGET_GRADIENT
            rows.append(
                [
                    f"{name}, {1e4 * asked:g} bp",
                    f"{mean:.1f}",
                    *(f"{x:.1f}" for x in np.percentile(timing.us, [50, 99])),
                    f"{timing.n_nodes.mean():.1f}",
                    f"{np.percentile(timing.n_nodes, 99):.0f}",
                    f"{worst_vol:.1e}",
                    f"{np.median(timing.gradient_error):.1e}",
                    f"{worst_gradient:.1e}",
                    ("yes" if mean <= TARGET_US else "accurate, not fast enough") if good else "not accurate enough",
                ]
            )
    return [
        "## Time",
        "",
        f"{n} clean panels (seed {CLEAN_SEED}) and {n} noisy ones (seed {NOISY_SEED}; mids off by N(0, {NOISE_BP} bp), "
        f"{100 * MASKED:g} % missing) of the paper's box on its 10 x 8 grid; the quotes are those with a vega of "
        f"{LEAST_VEGA:g} of the forward or more, on average {quotes['clean']:.1f} and {quotes['noisy']:.1f} a panel. "
        "Prices and the gradient in all five parameters at the true parameters, one core, warm, the call from Python "
        f"included; the time of a panel is the median of {REPEATS} calls. The error asked for is that of the vol with "
        "the least vega of its expiry. Vol errors are worst over the quotes, price error over vega, against the "
        "accurate pricer; gradient errors are worst over the entries, in units of the largest entry of the parameter's "
        "column.",
        "",
        *table(
            [
                "panels, error asked for",
                "mean us",
                "p50 us",
                "p99 us",
                "nodes, mean",
                "nodes, p99",
                "worst vol error, bp",
                "gradient error, p50",
                "worst gradient error",
                f"vols < {TARGET_VOL_BP} bp, gradient < {TARGET_GRADIENT:.0e}, mean <= {TARGET_US:g} us",
            ],
            rows,
        ),
        "",
    ]


def time_evaluation(params: Vector, problem: FitProblem) -> tuple[Panel, float]:
    """Prices and gradient with the digits of a refinement's last steps, and the median processor time in us."""
    n, n_expiries = problem.vol.size, problem.expiries.size
    answer = Panel(np.empty(n), np.empty((5, n)), np.empty(n_expiries, np.int64), np.empty(n_expiries))
    tolerance = FINE * problem.least_vega
    times = np.empty(2 * REPEATS)
    for i in range(times.size):
        began = thread_time()
        time_values(HESTON.layout, params, problem.expiries, problem.offsets, problem.log_moneyness, tolerance, *answer)
        times[i] = thread_time() - began
    return answer, 1e6 * float(np.median(times))


def market_lines(folder: Path) -> list[str]:
    """The section on real panels: the first date of each file, at the parameters that fit it."""
    paper = [time_evaluation(sample.truth, sample.problem)[1] for sample in clean_panels(40, CLEAN_SEED)]
    unit = float(np.median(paper))
    rows = []
    for path in sorted(folder.glob("*.csv")):
        if path.stem.endswith("_rejected"):
            continue
        try:
            label, panel = read_csv(path)[0]
        except InvalidInput:  # strategy quotes, which have no strikes
            continue
        params = calibrate(panel, HESTON, []).parameters
        problem = fit_problem(identifiable(panel), HESTON, CalibrationOptions())
        answer, microseconds = time_evaluation(params, problem)
        wrong, stated = np.zeros(2), np.zeros(2)
        for e in range(problem.expiries.size):
            quotes = np.arange(problem.offsets[e], problem.offsets[e + 1])
            sample = quotes[np.unique(np.linspace(0, quotes.size - 1, SAMPLED_STRIKES).astype(int))]
            exact = exact_values(params, float(problem.expiries[e]), problem.log_moneyness[sample])
            error = float(np.abs(answer.value[sample] - exact).max())
            bent = int(abs(answer.n_nodes[e]) > BENT)
            wrong[bent] = max(wrong[bent], error)
            stated[bent] = max(stated[bent], error / answer.error[e])
        is_bent = np.abs(answer.n_nodes) > BENT
        rows.append(
            [
                label,
                f"{problem.vol.size}",
                f"{problem.expiries.size}",
                f"{microseconds:.0f}",
                f"{microseconds / unit:.1f}",
                f"{100 * np.mean(is_bent):.0f} %",
                f"{wrong.max():.0e}",
                f"{stated.max():.2f}",
            ]
        )
        print("market:", *rows[-1], flush=True)
    return [
        "## Real panels",
        "",
        "The first date of each file of real quotes, at the parameters that fit it: prices and gradient with the error "
        f"that a refinement's last steps ask for, {1e4 * FINE:g} bp of the vol with the least vega of the expiry; "
        f"processor time, median of {2 * REPEATS} calls. The paper's 10 x 8 panels took {unit:.1f} us in the same run "
        "(the median of 40). Errors are those of the out-of-the-money values, in units of the forward, at "
        f"{SAMPLED_STRIKES} strikes of every expiry, against prices in ball arithmetic (`exact_values.py`).",
        "",
        *table(
            [
                "panel",
                "quotes",
                "expiries",
                "us",
                "of the paper's panel",
                "bent expiries",
                "largest error",
                "largest of the error stated",
            ],
            rows,
        ),
        "",
    ]


class Draw(NamedTuple):
    """One expiry at one parameter vector."""

    error_bp: float
    """Largest vol error, NaN where there is no strike or the accurate pricer gave up."""
    n_nodes: int
    n_strikes: int


def price_draw(params: Vector, expiry: float, vol_error: float) -> Draw:
    """Vols of the kernel against the accurate pricer's, at strikes over all of the region with enough vega."""
    sd = float(np.sqrt(HESTON.expected_variance(expiry, params)))
    k = np.linspace(-min(REACH * sd, LARGEST_LOG_MONEYNESS), min(REACH * sd, LARGEST_LOG_MONEYNESS), STRIKES)
    years = np.full(k.size, expiry)
    try:
        value = otm_values(HESTON, k, years, params)
    except PricingError:
        return Draw(np.nan, 0, -1)
    vol = implied_volatility_from_time_value(np.maximum(value, 0.0), k, years).volatility
    found = np.isfinite(vol)
    size = np.zeros(k.size)
    size[found] = vega(k[found], years[found], vol[found])
    used = size >= LEAST_VEGA
    if not used.any():
        return Draw(np.nan, 0, 0)
    out, n_nodes = np.empty(int(used.sum())), np.empty(1, np.int64)
    time_values(
        HESTON.layout,
        params,
        np.array([expiry]),
        np.array([0, out.size]),
        k[used],
        np.array([vol_error * size[used].min()]),
        out,
        np.empty((0, out.size)),
        n_nodes,
        np.empty(1),
    )
    return Draw(1e4 * float(np.max(np.abs(out - value[used]) / size[used])), int(n_nodes[0]), out.size)


def accuracy_lines(title: str, draws: Matrix, expiries: Vector, vol_error: float, target_bp: float) -> list[str]:
    """A section on the vols: quantiles of the error, of the nodes, and what the kernel had to do."""
    results = [price_draw(p, float(t), vol_error) for p, t in zip(draws, expiries, strict=True)]
    judged = [r for r in results if r.n_strikes > 0]
    error = np.array([r.error_bp for r in judged])
    nodes = np.array([r.n_nodes for r in judged])
    bent = np.abs(nodes) > BENT
    taken = np.abs(nodes) - BENT * bent
    missed = error >= target_bp
    unsaid = missed & (nodes > 0)
    shares = [50, 90, 99, 99.9, 100]
    n_kept = np.mean([r.n_strikes for r in judged])
    without = sum(r.n_strikes == 0 for r in results)
    unsettled = sum(r.n_strikes < 0 for r in results)
    return [
        f"## {title}",
        "",
        f"{draws.shape[0]} draws of the parameters, each with one expiry, log-uniform from 7 days to 5 years (seeds "
        f"{DRAW_SEED}, {EXPIRY_SEED}); {STRIKES} strikes over +-{REACH:g} standard deviations, of which those with a "
        f"vega above {LEAST_VEGA:g} of the forward are kept, on average {n_kept:.0f}; "
        f"error asked for: {1e4 * vol_error:g} bp. {without} draws have no such strike"
        + (f"; in {unsettled} the accurate pricer itself did not settle" if unsettled else "")
        + ".",
        "",
        *table(
            ["", *(f"p{s:g}" if s < 100 else "largest" for s in shares)],
            [
                ["vol error, bp", *(f"{x:.1e}" for x in np.percentile(error, shares))],
                ["nodes", *(f"{x:.0f}" for x in np.percentile(taken, shares))],
            ],
        ),
        "",
        *table(
            ["of the expiries", "share", "count"],
            [
                [name, f"{100 * np.mean(which):.2f} %", f"{int(np.sum(which))}"]
                for name, which in (
                    (f"error of {target_bp:g} bp or more", missed),
                    ("... and not reported by the kernel", unsaid),
                    ("switched to the bent contour", bent),
                    ("reported as not reaching the tolerance", nodes < 0),
                )
            ],
        ),
        "",
    ]


class Reference(NamedTuple):
    """Thirty-digit derivatives of one panel on the paper's grid."""

    gradient: Matrix
    """(5, 80)"""
    agreement: float
    radius: float


def reference_gradients(draws: Matrix, name: str) -> list[Reference]:
    """The derivatives, computed or read back: what was computed is kept after every panel.

    The name of the file carries the hash of the code that wrote it.
    """
    code = hashlib.sha256(Path(exact_gradient.__file__).read_bytes() + draws.tobytes()[: draws[:1].nbytes])
    path = CACHE / f"{name}-{code.hexdigest()[:12]}.npz"
    kept: list[Reference] = []
    if path.exists():
        with np.load(path) as stored:
            kept = [
                Reference(g, float(a), float(r))
                for g, a, r in zip(stored["gradient"], stored["agreement"], stored["radius"], strict=True)
            ]
    for i in range(len(kept), draws.shape[0]):
        parts = [exact_gradient.exact_gradient(draws[i], float(t), paper_box.LOG_STRIKES) for t in paper_box.EXPIRIES]
        kept.append(
            Reference(
                np.hstack([part.by_parameter for part in parts]),
                max(part.agreement for part in parts),
                max(part.radius for part in parts),
            )
        )
        CACHE.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part.npz")
        np.savez(
            scratch,
            gradient=np.array([r.gradient for r in kept]),
            agreement=np.array([r.agreement for r in kept]),
            radius=np.array([r.radius for r in kept]),
        )
        scratch.replace(path)
        if (i + 1) % 10 == 0:
            print(f"thirty-digit gradients: {i + 1} of {draws.shape[0]} panels", flush=True)
    return kept[: draws.shape[0]]


def gradient_lines(n: int) -> list[str]:
    """The section on the gradient."""
    draws = paper_box.draws(n, GRADIENT_SEED)
    references = reference_gradients(draws, f"gradient-{GRADIENT_SEED}")
    offsets: IntVector = np.arange(0, paper_box.EXPIRY.size + 1, paper_box.LOG_STRIKES.size)
    errors = {asked: np.empty((n, 5)) for asked in VOL_ERRORS}
    for i, (params, reference) in enumerate(zip(draws, references, strict=True)):
        vol = model_vols(HESTON, paper_box.LOG_MONEYNESS, paper_box.EXPIRY, params)
        found = np.isfinite(vol)
        size = np.zeros(vol.size)
        size[found] = vega(paper_box.LOG_MONEYNESS[found], paper_box.EXPIRY[found], vol[found])
        # As in a fit: quotes below the floor are not priced, so they do not ask for digits.
        least = np.minimum.reduceat(np.where(size >= LEAST_VEGA, size, np.inf), offsets[:-1])
        least = np.where(np.isfinite(least), least, LEAST_VEGA)
        level = np.abs(reference.gradient).max(axis=1)
        for asked in VOL_ERRORS:
            out, gradient, n_nodes = np.empty(80), np.empty((5, 80)), np.empty(8, np.int64)
            time_values(
                HESTON.layout,
                params,
                paper_box.EXPIRIES,
                offsets,
                paper_box.LOG_MONEYNESS,
                asked * least,
                out,
                gradient,
                n_nodes,
                np.empty(8),
            )
            errors[asked][i] = np.abs(gradient - reference.gradient).max(axis=1) / level
    rows = []
    for asked, error in errors.items():
        worst = error.max(axis=1)
        rows.append(
            [
                f"{1e4 * asked:g} bp",
                *(f"{x:.1e}" for x in error.max(axis=0)),
                f"{np.median(worst):.1e}",
                f"{100 * np.mean(worst < TARGET_GRADIENT):.1f} %",
            ]
        )
    return [
        "## Gradient",
        "",
        f"{n} random panels of the paper's box (seed {GRADIENT_SEED}), all 80 quotes of the grid, against derivatives "
        "in ball arithmetic by central differences of the characteristic function in 80 digits (`exact_gradient.py`). "
        f"Their last halving of the spacing changed them by {max(r.agreement for r in references):.0e} of the column's "
        "largest entry at most, and each halving squares the error; the arithmetic's own rounding is below "
        f"{max(r.radius for r in references):.0e}. Errors are in units of the largest entry of the parameter's column "
        "in the panel.",
        "",
        *table(
            [
                "error asked for",
                *(f"worst, {name}" for name in HESTON.parameters),
                "p50 of the panels' worst",
                f"panels below {TARGET_GRADIENT:.0e}",
            ],
            rows,
        ),
        "",
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=1000, help="clean and as many noisy panels to time")
    parser.add_argument("--draws", type=int, default=10_000, help="draws of the paper's box")
    parser.add_argument("--admissible", type=int, default=2000, help="draws of the admissible bounds")
    parser.add_argument("--gradient-panels", type=int, default=200)
    parser.add_argument(
        "--quotes", type=Path, default=ROOT.parent / "shared" / "market", help="CSV files of real quotes"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "kernel.md")
    given = parser.parse_args(arguments)
    sections = [
        *timing_lines(given.panels),
        *(market_lines(given.quotes) if given.quotes.is_dir() else []),
        *accuracy_lines(
            "Vols over the paper's box",
            paper_box.draws(given.draws, DRAW_SEED),
            paper_box.expiries(given.draws, EXPIRY_SEED),
            1e-6,
            TARGET_VOL_BP,
        ),
        *accuracy_lines(
            "Vols up to the admissible bounds (all but rho log-uniform)",
            paper_box.admissible_draws(given.admissible, DRAW_SEED),
            paper_box.expiries(given.admissible, EXPIRY_SEED),
            1e-6,
            ADMISSIBLE_TARGET_BP,
        ),
        *gradient_lines(given.gradient_panels),
    ]
    write_report(
        given.out,
        ["# The fit kernel", "", "`python -m benchmarks.kernel`", "", describe_machine("python-flint"), "", *sections],
    )


if __name__ == "__main__":
    main()
