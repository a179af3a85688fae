"""This project against other calibrators: the same panels, the same starts, one run, one thread.

    python -m benchmarks.peers [--panels N] [--subset N] [--out PATH]

Every method gets the quotes with a vega of 1e-3 of the forward or more, equal weights, and the same start: the released
network's where there is one; one row does without any network. Every answer is judged alike, by the vols of the
accurate pricer at its parameters. Times are the processor's: nobody who shares the machine is in them.
"""

import argparse
import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np

from calibrant.arrays import Vector
from calibrant.calibration import calibrate
from calibrant.models import HESTON
from calibrant.network import ArtefactError
from calibrant.options import CalibrationOptions, Refine, Start
from calibrant.panel import LEAST_VEGA
from calibrant.release import Release, released
from calibrant.starts import surface_starts
from reporting.machine import RESULTS, ROOT, describe_machine, installed_version, table, write_report
from training.exact_panels import model_vols

from .objective import POPULATION, Objective, cma_es
from .paper_panels import MASKED, NOISE_BP, Sample, clean_panels, noisy_panels

CLEAN_SEED, NOISY_SEED, CMA_SEED = 201, 202, 203
REPEATS = 5
"""Of the fast methods, whose single times are at the mercy of the scheduler."""
SAME_OPTIMUM = 1.001
EXACT_BP = 0.01
TARGET_MS, TARGET_P99_MS, RATIO_TARGET = 0.4, 1.0, 300
OURS, WITHOUT_NETWORK = "Calibrant, Levenberg-Marquardt", "Calibrant, Levenberg-Marquardt, no network"
QUANTLIB = "QuantLib LM, vol errors"
DAYS_A_YEAR = 350
"""(7 + 19 i) / 70 years, the paper's expiries, are whole days of such a year: QuantLib knows no others."""


class Fit(NamedTuple):
    """The answer of a method."""

    params: Vector
    """(5,), NaN where it raised an error."""
    seconds: float
    evaluations: int
    """Of the objective, however the method counts them; 0 where it does not say."""


class Prepared(NamedTuple):
    """A panel with its start."""

    sample: Sample
    start: Vector
    start_seconds: float
    trusted: bool
    """Whether the service would take an answer from this start without a second opinion."""


class Method(NamedTuple):
    """A way to calibrate."""

    name: str
    fit: Callable[[Prepared], Fit]
    fast: bool
    """Run on every panel, `REPEATS` times each; the others once, on the first panels of each kind."""


def prepare(samples: list[Sample], release: Release | None) -> list[Prepared]:
    """Add the starts, and how long each took: the projection onto the network's grid and the network itself."""
    prepared = []
    for sample in samples:
        times = []
        trusted = release is not None
        start = sample.truth
        for _ in range(REPEATS):
            began = process_time()
            if release is None:
                start = surface_starts(sample.problem)[0]
            else:
                proposal = release.propose(sample.panel)[0]
                start = proposal.params
                trusted = proposal.in_domain(start)
            times.append(process_time() - began)
        start = np.clip(start, sample.problem.lower, sample.problem.upper)
        prepared.append(Prepared(sample, start, float(np.median(times)), trusted))
    return prepared


def ours(refine: Refine) -> Callable[[Prepared], Fit]:
    """`calibrate`, whole: from a panel and a start to parameters, standard errors and status."""
    options = CalibrationOptions(refine=refine)

    def fit(prepared: Prepared) -> Fit:
        starts = [Start("network", prepared.start, prepared.trusted)]
        began = process_time()
        result = calibrate(prepared.sample.panel, HESTON, starts, options)
        return Fit(result.parameters, process_time() - began, result.iterations)

    return fit


def without_network(prepared: Prepared) -> Fit:
    """`calibrate` with no proposal: it finds its starts on the surface, by itself."""
    began = process_time()
    result = calibrate(prepared.sample.panel, HESTON, [])
    return Fit(result.parameters, process_time() - began, result.iterations)


def scipy_lbfgs(unit: float, options: Any) -> Callable[[Prepared], Fit]:
    """L-BFGS-B from scipy on the bare parameters."""
    from scipy.optimize import minimize

    def fit(prepared: Prepared) -> Fit:
        problem = prepared.sample.problem
        began = process_time()
        objective = Objective(problem, unit)
        found = minimize(
            objective.value_and_gradient,
            prepared.start,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(problem.lower.tolist(), problem.upper.tolist(), strict=True)),
            options=options,
        )
        return Fit(np.asarray(found.x, np.float64), process_time() - began, objective.count)

    return fit


def scipy_least_squares(prepared: Prepared) -> Fit:
    """The trust-region reflective method of scipy's `least_squares`, scaled by the Jacobian."""
    from scipy.optimize import least_squares

    problem = prepared.sample.problem
    # It wants its start strictly inside.
    inside = 1e-9 * (problem.upper - problem.lower)
    began = process_time()
    objective = Objective(problem, 1e-4)
    found = least_squares(
        objective.residual,
        np.clip(prepared.start, problem.lower + inside, problem.upper - inside),
        jac=objective.jacobian,
        bounds=(problem.lower, problem.upper),
        x_scale="jac",
    )
    return Fit(np.asarray(found.x, np.float64), process_time() - began, objective.count)


def cma_from_start(prepared: Prepared) -> Fit:
    """CMA-ES around the start."""
    began = process_time()
    found = cma_es(prepared.sample.problem, prepared.start, 0.05, CMA_SEED)
    return Fit(found.params, process_time() - began, found.evaluations)


def quantlib(error: str, nodes: int | None) -> Callable[[Prepared], Fit]:
    """QuantLib's HestonModel by Levenberg-Marquardt with the tolerances of its own test suite.

    Only `calibrate` is timed: building the helpers is not.

    error  a name of `BlackCalibrationHelper`'s kinds of error
    nodes  of Gauss-Laguerre quadrature, None for the engine's default
    """
    import QuantLib as ql

    today = ql.Date(1, ql.January, 2024)
    ql.Settings.instance().evaluationDate = today
    rates = ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, ql.Actual365Fixed()))
    spot = ql.QuoteHandle(ql.SimpleQuote(1.0))
    kind = getattr(ql.BlackCalibrationHelper, error)
    # In QuantLib's time, 365 days a year, our year lasts 350/365; variances, kappa and xi are per unit of time.
    year = DAYS_A_YEAR / 365.0

    def fit(prepared: Prepared) -> Fit:
        problem = prepared.sample.problem
        kappa, theta, xi, rho, v0 = (float(value) for value in prepared.start)
        model = ql.HestonModel(
            ql.HestonProcess(rates, rates, spot, v0 / year, kappa / year, theta / year, xi / year, rho)
        )
        engine = ql.AnalyticHestonEngine(model) if nodes is None else ql.AnalyticHestonEngine(model, nodes)
        helpers = []
        for k, root, vol in zip(problem.log_moneyness, problem.root_expiry, problem.vol, strict=True):
            helper = ql.HestonModelHelper(
                ql.Period(round(root * root * DAYS_A_YEAR), ql.Days),
                ql.NullCalendar(),
                1.0,
                math.exp(k),
                ql.QuoteHandle(ql.SimpleQuote(vol / math.sqrt(year))),
                rates,
                rates,
                kind,
            )
            helper.setPricingEngine(engine)
            helpers.append(helper)
        method = ql.LevenbergMarquardt(1e-8, 1e-8, 1e-8)
        began = process_time()
        try:
            model.calibrate(helpers, method, ql.EndCriteria(400, 40, 1e-8, 1e-8, 1e-8))
        except RuntimeError:
            return Fit(np.full(5, np.nan), process_time() - began, 0)
        seconds = process_time() - began
        params = np.array(
            [model.kappa() * year, model.theta() * year, model.sigma() * year, model.rho(), model.v0() * year]
        )
        return Fit(params, seconds, int(model.functionEvaluation()))

    return fit


def stochvolmodels() -> Callable[[Prepared], Fit]:
    """StochVolModels (Sepp): its Heston calibrator, SLSQP on vols with the Feller condition as a constraint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        option_chain = import_module("stochvolmodels").OptionChain
        heston = import_module("stochvolmodels.pricers.heston_pricer")
    pricer = heston.HestonPricer()

    def fit(prepared: Prepared) -> Fit:
        problem = prepared.sample.problem
        quotes = [slice(a, b) for a, b in zip(problem.offsets[:-1], problem.offsets[1:], strict=True)]
        vols = [problem.vol[q].copy() for q in quotes]
        chain = option_chain(
            ttms=problem.expiries.copy(),
            forwards=np.ones(problem.expiries.size),
            strikes_ttms=[np.exp(problem.log_moneyness[q]) for q in quotes],
            optiontypes_ttms=[np.where(problem.log_moneyness[q] < 0.0, "P", "C") for q in quotes],
            ids=np.array([f"{t:.4f}" for t in problem.expiries]),
            bid_ivs=vols,
            ask_ivs=vols,
        )
        kappa, theta, xi, rho, v0 = (float(value) for value in prepared.start)
        start = heston.HestonParams(v0=v0, theta=theta, kappa=kappa, rho=rho, volvol=xi)
        began = process_time()
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = pricer.calibrate_model_params_to_chain(chain, params0=start, is_vega_weighted=False)
        except Exception:  # it raises its own and scipy's errors where the optimiser reports a failure
            return Fit(np.full(5, np.nan), process_time() - began, 0)
        params = np.array([found.kappa, found.theta, found.volvol, found.rho, found.v0])
        return Fit(params, process_time() - began, 0)

    return fit


def methods() -> tuple[list[Method], list[str]]:
    """All that are installed, ours first, and a line for each that is not."""
    found = [
        Method(OURS, ours("lm"), True),
        Method(WITHOUT_NETWORK, without_network, True),
        Method("Calibrant, L-BFGS-B scaled", ours("lbfgs"), True),
    ]
    absent = []
    for package, names in _peers():
        if installed_version(package) == "absent":
            absent.append(f"{package} is not installed: left out.")
        else:
            found += [Method(name, make(), False) for name, make in names]
    return found, absent


def _peers() -> Iterator[tuple[str, list[tuple[str, Callable[[], Callable[[Prepared], Fit]]]]]]:
    yield (
        "QuantLib",
        [
            (QUANTLIB, lambda: quantlib("ImpliedVolError", None)),
            ("QuantLib LM, vol errors, 64 nodes", lambda: quantlib("ImpliedVolError", 64)),
            ("QuantLib LM, relative price errors", lambda: quantlib("RelativePriceError", None)),
        ],
    )
    tight = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000, "maxfun": 2000}
    yield (
        "scipy",
        [
            ("scipy L-BFGS-B, defaults", lambda: scipy_lbfgs(1.0, {})),
            ("scipy L-BFGS-B, bp^2, ftol 1e-15", lambda: scipy_lbfgs(1e-4, tight)),
            ("scipy least_squares (TRF), defaults", lambda: scipy_least_squares),
        ],
    )
    yield "cma", [(f"CMA-ES, population {POPULATION}", lambda: cma_from_start)]
    yield "stochvolmodels", [("StochVolModels SLSQP, Feller enforced", stochvolmodels)]


class Judged(NamedTuple):
    """A fit and what it is worth."""

    fit: Fit
    objective: float
    """Sum of squared vol errors by the accurate pricer; infinite for a failure."""
    rmse_bp: float
    worst_bp: float


def judge(sample: Sample, fit: Fit) -> Judged:
    """Vols of the accurate pricer at the answer, against the quotes."""
    problem = sample.problem
    if not np.isfinite(fit.params).all():
        return Judged(fit, math.inf, math.inf, math.inf)
    params = np.clip(fit.params, HESTON.lower, HESTON.upper)
    try:
        away = model_vols(HESTON, problem.log_moneyness, problem.root_expiry**2, params) - problem.vol
    except ArithmeticError:
        return Judged(fit, math.inf, math.inf, math.inf)
    if not np.isfinite(away).all():
        return Judged(fit, math.inf, math.inf, math.inf)
    objective = float(away @ away)
    return Judged(fit, objective, 1e4 * math.sqrt(objective / away.size), 1e4 * float(np.abs(away).max()))


def run_method(method: Method, prepared: list[Prepared]) -> list[Judged]:
    """One method on its panels, after a warm-up."""
    for one in prepared[:2]:
        method.fit(one)
    results = []
    for one in prepared:
        fits = [method.fit(one) for _ in range(REPEATS if method.fast else 1)]
        seconds = float(np.median([fit.seconds for fit in fits]))
        results.append(judge(one.sample, fits[0]._replace(seconds=seconds)))
    return results


def compare(kind: str, prepared: list[Prepared], subset: int, chosen: list[Method]) -> list[str]:
    """One table: all methods on the panels of one kind."""
    results: dict[str, list[Judged]] = {}
    for method in chosen:
        results[method.name] = run_method(method, prepared if method.fast else prepared[:subset])
        print(f"{kind}: {method.name} done, {len(results[method.name])} panels", flush=True)
    best = [min(r[i].objective for r in results.values() if i < len(r)) for i in range(len(prepared))]
    reference = results[chosen[0].name]
    rows = []
    for name, judged in results.items():
        ms = 1e3 * np.array([j.fit.seconds for j in judged])
        same = 1e3 * np.median([j.fit.seconds for j in reference[: len(judged)]])
        reached = [
            j.objective <= SAME_OPTIMUM * b or j.worst_bp < EXACT_BP
            for j, b in zip(judged, best[: len(judged)], strict=True)
        ]
        rmse = np.array([j.rmse_bp for j in judged])
        evaluations = np.median([j.fit.evaluations for j in judged])
        rows.append(
            [
                name,
                f"{len(judged)}",
                *(_three_digits(x) for x in np.percentile(ms, [50, 95, 99])),
                _three_digits(float(np.median(ms) / same)),
                f"{evaluations:.0f}" if evaluations else "",
                f"{np.median(rmse):.2g}",
                f"{np.sort(rmse)[int(0.99 * (rmse.size - 1))]:.2g}",
                f"{100 * np.mean(reached):.1f} %",
            ]
        )
    p50, p99 = np.percentile([1e3 * j.fit.seconds for j in reference], [50, 99])
    theirs = [j.fit.seconds for j in results.get(QUANTLIB, [])]
    ratio = float(np.median(theirs) / np.median([j.fit.seconds for j in reference[: len(theirs)]])) if theirs else 0.0
    start_us = 1e6 * np.array([p.start_seconds for p in prepared])
    with_network = 1e3 * np.array([p.start_seconds + j.fit.seconds for p, j in zip(prepared, reference, strict=True)])
    without = 1e3 * np.array([j.fit.seconds for j in results[WITHOUT_NETWORK]])
    return [
        f"## {kind}",
        "",
        *table(
            [
                "method",
                "panels",
                "p50 ms",
                "p95 ms",
                "p99 ms",
                "ratio of medians",
                "evaluations, p50",
                "rmse bp, p50",
                "rmse bp, p99",
                "reached the optimum",
            ],
            rows,
        ),
        "",
        f"The start itself (projection onto the grid and network, or the fallback) took {np.median(start_us):.0f} us "
        f"(median; p99 {np.percentile(start_us, 99):.0f} us) and is in no row. Targets: refinement, median "
        f"{TARGET_MS} ms or less: {_verdict(p50 <= TARGET_MS)} ({p50:.3f}); p99 {TARGET_P99_MS:g} ms or less: "
        f"{_verdict(p99 <= TARGET_P99_MS)} ({p99:.3f})"
        + (
            f"; QuantLib {RATIO_TARGET} times slower or more: {_verdict(ratio >= RATIO_TARGET)} ({ratio:.0f})"
            if ratio
            else ""
        )
        + ".",
        "",
        "What the network buys: with it, its own time included, an answer takes "
        f"{np.median(with_network):.3f} ms in the median and {np.percentile(with_network, 99):.3f} in the 99 % "
        f"quantile, without it {np.median(without):.3f} and {np.percentile(without, 99):.3f}, "
        f"{np.median(without / with_network):.2f} times as much in the median panel.",
        "",
    ]


def _verdict(met: bool) -> str:
    return "met" if met else "not met"


def _three_digits(value: float) -> str:
    return f"{value:.3f}" if value < 1.0 else f"{value:.2f}" if value < 10.0 else f"{value:,.0f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=1000, help="clean and as many noisy ones, for ours")
    parser.add_argument("--subset", type=int, default=100, help="of each, the first ones, for the slow methods")
    parser.add_argument("--networks", type=Path, default=ROOT / "networks")
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.md")
    given = parser.parse_args(arguments)
    release: Release | None = None
    with contextlib.suppress(ArtefactError):
        release = released(given.networks, HESTON.name)
    start = f"the released network {release.version}" if release else "read off the surface (no released network found)"
    chosen, absent = methods()
    sections = []
    for kind, samples in (
        ("Clean panels", clean_panels(given.panels, CLEAN_SEED)),
        ("Noisy panels", noisy_panels(given.panels, NOISY_SEED)),
    ):
        sections += compare(kind, prepare(samples, release), given.subset, chosen)
    lines = [
        "# Calibration against other programs",
        "",
        f"`python -m benchmarks.peers --panels {given.panels} --subset {given.subset}`",
        "",
        describe_machine("QuantLib", "cma", "stochvolmodels", "onnxruntime"),
        "",
        f"{given.panels} clean panels (seed {CLEAN_SEED}) and {given.panels} noisy ones (seed {NOISY_SEED}; mids off "
        f"by N(0, {NOISE_BP} bp), {100 * MASKED:g} % missing) of the paper's box on its 10 x 8 grid, priced by the "
        f"accurate pricer; the slow methods run on the first {given.subset} of each. Quotes with a vega of "
        f"{LEAST_VEGA:g} of the forward or more, equal weights, admissible bounds. The start of all: {start}, but for "
        "the row without a network, which finds its own starts on the surface. Warm, one thread, the processor's time. "
        "Ours is the whole of `calibrate`: checks, refinement, standard errors and any second "
        f"opinion; each panel {REPEATS} times and its median taken, the others once a panel. Ratios are to the median "
        "of the first row over the same panels. Rmse: vols of the accurate pricer at the answer against the quotes. "
        f"Reached: sum of squares within {100 * (SAME_OPTIMUM - 1):.1f} % of the best of all methods on the panel, or "
        f"every vol within {EXACT_BP:g} bp of its quote.",
        "",
        "QuantLib: `HestonModel`, `AnalyticHestonEngine` (144 nodes unless said), `LevenbergMarquardt(1e-8, 1e-8, "
        "1e-8)`, `EndCriteria(400, 40, 1e-8, 1e-8, 1e-8)`, only `calibrate` timed; time is rescaled by "
        f"{DAYS_A_YEAR}/365 so that the paper's expiries are whole days. The scipy methods and CMA-ES use this "
        "project's compiled objective, and all but CMA-ES its gradient: they compare algorithms, not pricers. "
        "StochVolModels minimises squared vol errors too, with ftol 1e-8, under the Feller condition, within its own "
        "bounds and by its own quadrature: on panels that violate Feller it cannot reach the optimum.",
        "",
        *absent,
        "",
        *sections,
    ]
    write_report(given.out, lines)


if __name__ == "__main__":
    main()
