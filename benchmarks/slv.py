"""The leverage by particles: what it costs, what it is worth, and QuantLib's beside it in the same run.

    python -m benchmarks.slv [--seeds N] [--repeats N] [--out PATH]

Times are the processor's own. Errors of vanillas are those of the leverage alone (`slv_cases.Repricer`): their standard
errors are stated. Cases are those of ../shared/reference/slv.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import thread_time

import numpy as np

from calibrant.arrays import Vector
from calibrant.fx.conventions import Conventions
from calibrant.market import Market
from calibrant.slv.barriers import Barrier
from calibrant.slv.estimators import DEFAULT, ESTIMATORS
from calibrant.slv.heston_surface import HestonSurface
from calibrant.slv.local_vol import LocalVolatility
from calibrant.slv.particles import Heston, ParticleOptions, leverage_steps
from calibrant.slv.paths import Dynamics, PathOptions
from calibrant.slv.pricing import TouchPrice, local, stochastic, touch_steps
from calibrant.slv.requests import MIXING
from calibrant.steps import finish
from reporting.machine import RESULTS, describe_machine, table, write_report

from .slv_cases import FOLDER, Case, Repricer, fitted, published, rms, rows_of
from .slv_quantlib import N_BINS, QuantLibLeverage

COMPARED = ("bins", "binned_local_linear", "purbf")
SIZES = (2048, 100_000)
SIX_MONTHS = ("EURUSD_SYN18_6M", "EURBRL_SYN18_6M")
PUBLISHED = (*SIX_MONTHS, "EURUSD_CLARK_1Y")


def seconds(work: Callable[[], object]) -> float:
    began = thread_time()
    work()
    return thread_time() - began


def speed_section(repeats: int) -> list[str]:
    """Particle-steps of ours and of QuantLib's, by turns."""
    case = published("EURUSD_SYN18_6M")
    theirs = QuantLibLeverage(case)
    rows = []
    for n in SIZES:
        ours = {name: ParticleOptions(n_particles=n, estimator=ESTIMATORS[name]) for name in (DEFAULT, "purbf", "bins")}
        n_steps = case.calibrated(ours[DEFAULT]).leverage.expiry.size - 1
        for options in ours.values():
            case.calibrated(options)
        times: dict[str, list[float]] = {name: [] for name in ("quantlib", *ours)}
        for _ in range(repeats if n > 10_000 else 3 * repeats):
            times["quantlib"].append(seconds(lambda n=n: theirs.calibrated(n, sobol=True)) / (n * theirs.n_steps))  # type: ignore[misc]
            for name, options in ours.items():
                spent = seconds(lambda options=options: case.calibrated(options))  # type: ignore[misc]
                times[name].append(spent / (n * n_steps))
        quantlib = median(times["quantlib"])
        rows.append([f"{n:,}: QuantLib, {theirs.n_steps} steps", f"{1e9 * quantlib:.0f}", "1"])
        rows += [
            [
                f"{n:,}: {name}, {n_steps} steps",
                f"{1e9 * median(times[name]):.0f}",
                f"{quantlib / median(times[name]):.1f}",
            ]
            for name in ours
        ]
    long = fitted("EURUSD_SYN18", 5, 0.7)
    long_rows = []
    for n in SIZES:
        for name in (DEFAULT, "purbf", "bins"):
            options = ParticleOptions(n_particles=n, estimator=ESTIMATORS[name])
            n_steps = long.calibrated(options).leverage.expiry.size - 1
            spent = median([seconds(lambda options=options: long.calibrated(options)) for _ in range(repeats)])  # type: ignore[misc]
            long_rows.append([f"{n:,}", name, str(n_steps), f"{spent:.3f}", f"{spent * 365 / n_steps:.3f}"])
    return [
        "## Speed",
        "",
        f"EUR/USD 6M, steps of 5 days and ours of the first month besides; QuantLib's `HestonSLVMCModel` with {N_BINS} "
        "bins, Sobol numbers and local vols tabulated beforehand. Median of runs by turns.",
        "",
        *table(("particles", "ns a particle-step", "QuantLib over it"), rows),
        "",
        "EUR/USD 5Y:",
        "",
        *table(("particles", "estimator", "steps", "seconds", "seconds for 365 steps"), long_rows),
        "",
    ]


def repricing_section(case: Case, names: dict[int, tuple[str, ...]], seeds: int, *, quantlib: bool) -> list[str]:
    """Vanilla errors by number of particles and estimator, and QuantLib's.

    names  the estimators of each number of particles
    """
    repricer = Repricer(case)
    of_reference = f"{rms(repricer.reference_bp):.2f}"
    rows = [["the reference", "4 x 250,000", of_reference, "", f"({repricer.reference_se_bp.max():.2f})"]]
    for n, estimators in names.items():
        for name in estimators:
            found = []
            for seed in range(seeds):
                options = ParticleOptions(n_particles=n, estimator=ESTIMATORS[name], seed=seed)
                found.append(repricer.errors_bp(case.calibrated(options).leverage))
            rows.append(summary(name, n, found))
            print(case.name, *rows[-1], flush=True)
    for n, count in ((2048, seeds), (100_000, min(seeds, 5))) if quantlib else ():
        for shifted in (False, True):
            theirs = QuantLibLeverage(case, shifted=shifted)
            found = [repricer.errors_bp(theirs.as_ours(theirs.calibrated(n, 1 + seed))) for seed in range(count)]
            rows.append(summary("QuantLib" + (", local vol not lagged" if shifted else ""), n, found))
            print(case.name, *rows[-1], flush=True)
    return [
        f"## Vanillas, {case.name}",
        "",
        "Root mean square error over 10-delta put to 10-delta call of every pillar, basis points: median of the seeds "
        f"(lowest to highest), {seeds} seeds; in brackets the largest standard error of a single quote.",
        "",
        *table(("leverage", "particles", "rms, bp", "range", "s.e."), rows),
        "",
    ]


def summary(name: str, n: int, found: list[tuple[Vector, Vector]]) -> list[str]:
    errors = [rms(error) for error, _ in found]
    return [
        name,
        f"{n:,}",
        f"{median(errors):.2f}",
        f"{min(errors):.2f} to {max(errors):.2f}",
        f"({median([float(se.max()) for _, se in found]):.2f})",
    ]


def own_surface_section(seeds: int) -> list[str]:
    """The leverage on surfaces that a Heston model made: it is one."""
    rows = []
    for label, heston in (
        ("currency-like", Heston(kappa=3.0, theta=0.0074, xi=0.265, rho=-0.02, v0=0.0051)),
        ("equity-like", Heston(kappa=1.5, theta=0.04, xi=0.4, rho=-0.6, v0=0.04)),
        ("Feller ratio 0.23", Heston(kappa=2.0, theta=0.039, xi=0.82, rho=-0.1, v0=0.0528)),
    ):
        params = np.array([heston.kappa, heston.theta, heston.xi, heston.rho, heston.v0])
        surface = HestonSurface(market=Market.flat(1.2, 0.03, 0.01), params=params)
        for n in (16_384, 65_536):
            values = []
            for seed in range(seeds):
                options = ParticleOptions(n_particles=n, seed=seed)
                leverage = finish(leverage_steps(LocalVolatility(surface=surface), heston, 0.5, options)).leverage
                if seed == 0:
                    # From the 1 % to the 99 % quantile of rows that reach from 0.05 % to 99.95 %.
                    edges = [0.5 * (1.0 + sign * 2.33 / 3.29) for sign in (-1.0, 1.0)]
                    share = np.linspace(edges[0], edges[1], 41)
                    nodes = [row[0] + share * (row[-1] - row[0]) for row in leverage.log_spot[1:]]
                    dates = leverage.expiry[1:]
                values.append([leverage.row(float(t), row) for t, row in zip(dates, nodes, strict=True)])
            error = np.abs(np.mean(values, axis=0) - 1.0)
            se = np.std(values, axis=0, ddof=1) / np.sqrt(seeds)
            beyond = np.mean(error > 3.0 * se + 0.003)
            rows.append(
                [label, f"{n:,}", f"{error.mean():.2%}", f"{error.max():.2%}", f"{se.mean():.2%}", f"{beyond:.2%}"]
            )
            print(*rows[-1], flush=True)
    columns = (
        "surface of",
        "particles",
        "mean of abs(mean - 1)",
        "largest",
        "mean s.e.",
        "nodes beyond 3 s.e. + 0.3 %",
    )
    return [
        "## Heston's own surface, mixing 1",
        "",
        f"{seeds} seeds, half a year, every date, the 1 to 99 % range.",
        "",
        *table(columns, rows),
        "",
    ]


def reference_section() -> list[str]:
    """The leverage and the touches of the reference folder."""
    rows, touches, monotone = [], [], []
    for name in PUBLISHED:
        case = published(name)
        lines = [row for row in rows_of("leverage.csv", name) if abs(float(row["z_std"])) <= 2.0]
        column = "ql_fdm_L1" if name in SIX_MONTHS else "particle_250k"
        t, spot, value = (np.array([float(row[key]) for row in lines]) for key in ("t", "S", column))
        pillars = tuple(np.unique(t).tolist())
        runs = [
            case.calibrated(ParticleOptions(n_particles=250_000, pillars=pillars, seed=seed)).leverage
            for seed in range(4)
        ]
        error = np.abs(np.mean([run.at(spot, t) for run in runs], axis=0) / value - 1.0)
        rows.append([name, column, f"{np.median(error):.2%}", f"{error.max():.2%}"])
        wanted = rows_of("one_touch.csv", name)
        barriers = tuple(
            Barrier(expiry=case.maturity, level=float(row["H"]), direction="up" if row["side"] == "up" else "down")
            for row in wanted
        )
        options = PathOptions(n_paths=2**17)
        for model, column, dynamics in (
            ("lv", "LV", local(case.local_vol, options.dates(np.array([case.maturity])))),
            ("slv", "SLV_mc", Dynamics(heston=case.mixed, leverage=runs[0])),
            ("heston", "HES_mc", stochastic(case.heston)),
        ):
            prices = finish(touch_steps(dynamics, case.surface, barriers, options))
            errors = np.array([price.price - float(row[column]) for price, row in zip(prices, wanted, strict=True)])
            given = [float(row["LV_err" if model == "lv" else f"{column}_se"]) for row in wanted]
            se = np.hypot([price.se for price in prices], given)
            within = np.mean(np.abs(errors) <= 1e-3 + 3.0 * se)
            touches.append(
                [f"{name}, {model}", f"{1e4 * np.abs(errors).max():.1f}", f"{1e4 * se.mean():.1f}", f"{within:.0%}"]
            )
        monotone.append(monotone_row(case, barriers))
    long = fitted("EURBRL_SYN18", 3, 1.0)
    levels = tuple(
        Barrier(expiry=3.0, level=long.surface.market.spot * move, direction="up" if move > 1.0 else "down")
        for move in (1.2, 1.5, 1.9, 0.9, 0.8)
    )
    monotone.append(monotone_row(long, levels))
    return [
        "## The reference",
        "",
        "Leverage, mean of 4 runs of 250,000 particles, at dates and spots within 2 standard deviations:",
        "",
        *table(("case", "against", "median error", "largest"), rows),
        "",
        "One-touches, 131,072 paths, differences from the reference in 1e-4 of the payout:",
        "",
        *table(("case, model", "largest", "mean combined s.e.", "within 1e-3 + 3 s.e."), touches),
        "",
        "Monotone in the mixing (0, 0.33, 0.66, 1; same numbers, 65,536 particles and paths), worst step against the "
        "direction of the whole, in its paired standard errors:",
        "",
        *table(("case", "barriers", "worst"), monotone),
        "",
    ]


def monotone_row(case: Case, barriers: tuple[Barrier, ...]) -> list[str]:
    """The largest step back of any barrier's price as the mixing rises."""
    prices = []
    for mixing in (0.0, 0.33, MIXING, 1.0):
        leverage = case.calibrated(ParticleOptions(n_particles=65_536), mixing).leverage
        dynamics = Dynamics(heston=case.heston.mixed(mixing), leverage=leverage)
        prices.append(
            [
                finish(
                    touch_steps(dynamics, case.surface, barriers, PathOptions(n_paths=8192, n_replicates=4, seed=seed))
                )
                for seed in range(8)
            ]
        )
    values = np.array([[[price.price for price in row] for row in runs] for runs in prices])
    steps = np.diff(values, axis=0)
    paired = steps.std(axis=1, ddof=1) / np.sqrt(steps.shape[1])
    mean = steps.mean(axis=1)
    back = np.min(mean * np.sign(mean.sum(axis=0)) / paired, axis=0)
    return [case.name, str(len(barriers)), f"{back.min():+.1f}"]


def moustache_section() -> list[str]:
    """QuantLib's double no-touches."""
    given = json.loads((FOLDER.parent / "published_values.json").read_text())["slv_moustache"]
    heston = Heston(xi=given["sigma"], **{name: given[name] for name in ("kappa", "theta", "rho", "v0")})
    params = np.array([heston.kappa, heston.theta, heston.xi, heston.rho, heston.v0])
    spot = given["S"]
    surface = HestonSurface(market=Market.flat(spot, given["r"], given["q"]), params=params)
    found = finish(
        leverage_steps(
            LocalVolatility(surface=surface), heston.mixed(given["eta"]), 1.0, ParticleOptions(n_particles=100_000)
        )
    )
    dynamics = Dynamics(heston=heston.mixed(given["eta"]), leverage=found.leverage)
    barriers = tuple(Barrier(expiry=1.0, levels=(spot - h, spot + h), kind="no_touch") for h in given["half_width"])
    conventions = Conventions(premium_adjusted=False, atm="spot")
    options = PathOptions(n_paths=2**17)
    prices: list[TouchPrice] = finish(touch_steps(dynamics, surface, barriers, options, conventions=conventions))
    errors = np.array([price.price - price.tv for price in prices]) - given["slv_minus_bs_double_no_touch"]
    return [
        "## Published double no-touches",
        "",
        f"QuantLib's `testMoustacheGraph`: {errors.size} differences to Black-Scholes, largest error "
        f"{np.abs(errors).max():.4f} (its tolerance {given['tol']:g}, our largest standard error "
        f"{max(price.se for price in prices):.4f}).",
        "",
    ]


def numbers_section(seeds: int) -> list[str]:
    """What kinds of random numbers and which scheme are worth."""
    rows = []
    for name in PUBLISHED:
        case = published(name)
        lines = [row for row in rows_of("leverage.csv", name) if abs(float(row["z_std"])) <= 2.0]
        t, spot = (np.array([float(row[key]) for row in lines]) for key in ("t", "S"))
        plain = ParticleOptions(pillars=tuple(np.unique(t).tolist()))
        exact = np.mean(
            [
                case.calibrated(replace(plain, n_particles=250_000, step_days=1.0, seed=500 + seed)).leverage.at(
                    spot, t
                )
                for seed in range(2)
            ],
            axis=0,
        )
        for n in (2048, 32_768):
            for label, options in (
                ("qe, by rank", plain),
                ("qe, independent and mirrored", replace(plain, numbers="antithetic")),
                ("euler, by rank", replace(plain, scheme="euler")),
            ):
                runs = np.array(
                    [
                        case.calibrated(replace(options, n_particles=n, seed=seed)).leverage.at(spot, t)
                        for seed in range(seeds)
                    ]
                )
                noise, bias = rms(runs.std(axis=0, ddof=1) / exact), rms(runs.mean(axis=0) / exact - 1.0)
                rows.append([f"{name}, {n:,}", label, f"{noise:.2%}", f"{bias:.2%}"])
    return [
        "## Numbers and schemes",
        "",
        f"Leverage within 2 standard deviations, {seeds} seeds, steps of 5 days: its scatter, and how far its mean is "
        "from that of 2 x 250,000 particles at daily steps.",
        "",
        *table(("case, particles", "", "scatter", "mean's error"), rows),
        "",
    ]


def title(seeds: int, repeats: int) -> list[str]:
    return [
        "# Stochastic local vol",
        "",
        f"`python -m benchmarks.slv --seeds {seeds} --repeats {repeats}`. Processor seconds.",
        "",
        describe_machine("QuantLib"),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5, help="of every timing")
    parser.add_argument("--out", type=Path, default=RESULTS / "slv.md")
    given = parser.parse_args()
    sections: list[str] = []
    made: tuple[Callable[[], list[str]], ...] = (
        lambda: speed_section(given.repeats),
        lambda: repricing_section(
            published("EURUSD_SYN18_6M"),
            {2048: tuple(ESTIMATORS), 16_384: COMPARED, 100_000: COMPARED},
            given.seeds,
            quantlib=True,
        ),
        lambda: repricing_section(
            fitted("EURBRL_SYN18", 3, 1.0), {2048: tuple(ESTIMATORS), 16_384: COMPARED}, given.seeds, quantlib=False
        ),
        moustache_section,
        reference_section,
        lambda: numbers_section(given.seeds),
        lambda: own_surface_section(given.seeds),
    )
    for section in made:
        sections += section()
        # What is kept if it is stopped: all that is whole.
        write_report(given.out, [*title(given.seeds, given.repeats), *sections])


if __name__ == "__main__":
    main()
