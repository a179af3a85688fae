"""The arbitrage checks and the paper's penalties on the same exact surfaces, and what the checks cost.

    python -m benchmarks.arbitrage_tables [--surfaces N] [--admissible N] [--out PATH]

An exact Heston surface has no arbitrage. So the checks must find none on any, and whatever the penalties P1..P3 find on
them is the penalties' own error. The penalties are taken where the paper takes them, on 200 strikes x 50 expiries over
80-120 % and 0.1-2 years; the surface check within +-5 at-the-money standard deviations of expiries from half the
shortest to one and a half times the longest; the twin in vol space on 200 strikes x 50 expiries there. Market panels
are counted where the folder `shared` lies beside the checkout.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from typing import NamedTuple

import numpy as np
import scipy.fft

from benchmarks import paper_box
from calibrant.arbitrage import (
    KINDS,
    Verdict,
    check_price_surface,
    check_quotes,
    check_surface,
    check_surface_steps,
)
from calibrant.arbitrage.hull import PRICE_ERROR
from calibrant.arbitrage.paper_penalties import PaperPenalties, paper_penalties
from calibrant.arbitrage.surface import price_grid, surface_expiries
from calibrant.arbitrage.surface_kernels import LARGEST_ERROR, N_STRIKES, TARGET_ERROR
from calibrant.arbitrage.surface_twin import LEAST_TIME_VALUE, check_total_variance
from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import implied_volatility_from_time_value, vega
from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.panel import OptionPanel
from calibrant.pricing import fit_kernel
from calibrant.pricing.fourier import otm_values
from calibrant.quotes_csv import read_csv
from reporting.machine import RESULTS, ROOT, describe_machine, table, write_report

SEED, ADMISSIBLE_SEED, SPREAD_SEED = 201, 202, 203
REPEATS = 7
STRIKES = np.linspace(0.8, 1.2, 200)
EXPIRIES = np.linspace(0.1, 2.0, 50)
ASKED_ERROR = 1e-14
"""Price error asked of the fit kernel, which reaches its rounding at about this."""
PRICE_NOISE = 1e-13
"""What its prices are taken to be wrong by; measured against the accurate pricer below."""
CLEARANCE = 10.0
"""A penalty counts if it exceeds what price noise can make of it by this factor."""


def exact_time_values(log_moneyness: Vector, expiries: Vector, params: Vector) -> Matrix:
    """Out-of-the-money values on a grid, (n_expiries, n_strikes)."""
    n = log_moneyness.size
    out = np.empty(expiries.size * n)
    fit_kernel.time_values(
        HESTON.layout,
        params,
        expiries,
        np.arange(expiries.size + 1) * n,
        np.tile(log_moneyness, expiries.size),
        np.full(expiries.size, ASKED_ERROR),
        out,
        np.empty((0, out.size)),
        np.empty(expiries.size, np.int64),
        np.empty(expiries.size),
    )
    return out.reshape(expiries.size, n)


class Penalised(NamedTuple):
    """The paper's penalties on one surface."""

    counts: IntVector
    """(3,) nodes where P1, P2, P3 exceed what price noise can make of them."""
    nodes: IntVector
    """(3,) nodes there are."""
    largest: Vector
    """(3,) of those that count."""


def penalise(time_values: Matrix) -> Penalised:
    """P1..P3 of one surface of exact values."""
    k = np.tile(np.log(STRIKES), EXPIRIES.size)
    years = np.repeat(EXPIRIES, STRIKES.size)
    vols = implied_volatility_from_time_value(time_values.ravel(), k, years).volatility
    found = np.isfinite(vols)
    by_vol = np.full(vols.size, np.nan)
    by_vol[found] = vega(k[found], years[found], vols[found])
    # dw = 2 vol T dvol
    noise = (2.0 * vols * years * PRICE_NOISE / by_vol).reshape(time_values.shape)
    surface = vols.reshape(time_values.shape)
    penalties = paper_penalties(surface, STRIKES, EXPIRIES)
    gap, interval = STRIKES[1] - STRIKES[0], EXPIRIES[1] - EXPIRIES[0]
    above = STRIKES[:-1] >= 1.0
    worst = PaperPenalties(
        4.0 * np.maximum(np.maximum(noise[:, :-2], noise[:, 2:]), noise[:, 1:-1]) / gap**2,
        2.0 * np.maximum(noise[:-1], noise[1:]) / interval,
        2.0 * np.maximum(noise[:, :-1], noise[:, 1:])[:, above] / gap,
    )
    counted = [np.nan_to_num(np.where(p > CLEARANCE * n, p, 0.0)) for p, n in zip(penalties, worst, strict=True)]
    return Penalised(
        np.array([np.count_nonzero(p) for p in counted]),
        np.array([p.size for p in counted]),
        np.array([float(p.max()) for p in counted]),
    )


def total_variance_of(params: Vector) -> Callable[[Vector, float], Vector]:
    """w(k, T) of exact prices, for the twin."""

    def total_variance(log_moneyness: Vector, expiry: float) -> Vector:
        values = exact_time_values(log_moneyness, np.array([expiry]), params)[0]
        seen = values > LEAST_TIME_VALUE
        w = np.full(log_moneyness.size, np.nan)
        years = np.full(np.count_nonzero(seen), expiry)
        w[seen] = implied_volatility_from_time_value(values[seen], log_moneyness[seen], years).volatility ** 2 * expiry
        return w

    return total_variance


def microseconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """The least of several timings: what the call costs when nothing else takes the core."""
    best = math.inf
    for _ in range(repeats):
        began = perf_counter()
        call()
        best = min(best, perf_counter() - began)
    return 1e6 * best


def penalty_lines(params: Matrix) -> list[str]:
    penalised, price_errors = [], []
    checked, as_prices, twins = [], [], []
    k = np.log(STRIKES)
    calls_from = np.maximum(1.0 - STRIKES, 0.0)
    rng = np.random.default_rng(SPREAD_SEED)
    for i, p in enumerate(params):
        values = exact_time_values(k, EXPIRIES, p)
        penalised.append(penalise(values))
        as_prices.append(check_price_surface(k, EXPIRIES, values + calls_from))
        checked.append(check_surface(HESTON, p, paper_box.EXPIRIES))
        twins.append(check_total_variance(total_variance_of(p), surface_expiries(paper_box.EXPIRIES)))
        if i % 10 == 0:
            row = int(rng.integers(EXPIRIES.size))
            judged = otm_values(HESTON, k, np.full(k.size, EXPIRIES[row]), p)
            price_errors.append(float(np.max(np.abs(judged - values[row]))))
        if (i + 1) % 100 == 0:
            print(f"{i + 1} surfaces", flush=True)
    n = params.shape[0]
    counts, nodes, largest = (np.array(column) for column in zip(*penalised, strict=True))
    rows = [
        [
            name,
            str(np.count_nonzero(counts[:, i])),
            f"{100.0 * counts[:, i].sum() / nodes[:, i].sum():.2f} %",
            f"{largest[:, i].max():.2g}" if counts[:, i].any() else "none",
        ]
        for i, name in enumerate(("P1 = ReLU(-w_KK)", "P2 = ReLU(-w_T)", "P3 = ReLU(w_K), K > S0"))
    ]
    rows.append(["any of them", str(np.count_nonzero(counts.any(axis=1))), "", ""])
    for name, verdicts in (
        ("arbitrage: surface check", checked),
        ("arbitrage: the exact prices (hull)", as_prices),
        ("arbitrage: twin in vol space", twins),
    ):
        found = [v for v in verdicts if v.violations]
        share = sum(v.n_violations for v in found) / (n * N_STRIKES * EXPIRIES.size)
        size = max((v.violations[0].size for v in found), default=0.0)
        n_found = sum(not v.free for v in verdicts)
        rows.append([name, str(n_found), f"{100.0 * share:.2f} %", f"{size:.1e}" if found else "none"])
    errors = np.array([v.numerical_error for v in checked])
    twin_errors = np.array([v.numerical_error for v in twins])
    return [
        "## The paper's penalties are not arbitrage",
        "",
        f"{n} exact Heston surfaces, uniform over the paper's box (section 4.4, seed {SEED}).",
        "",
        *table(["condition", f"surfaces of {n} that break it", "share of its nodes", "largest"], rows),
        "",
        f"A penalty counts where it exceeds {CLEARANCE:g} times what a price error of {PRICE_NOISE:g} of the forward "
        f"can make of it; the prices' largest difference from the accurate pricer is {max(price_errors):.0e}. P1 and "
        "P3 break on surfaces that cannot be arbitraged, and `tests/test_paper_penalties.py` has a surface with "
        "butterflies that passes all three: they are neither necessary nor sufficient.",
        "",
        f"Stated error of the surface check: median {np.median(errors):.1e}, largest {errors.max():.1e} of the "
        f"forward; of the twin: median {np.median(twin_errors):.1e}, largest {twin_errors.max():.1e}. The hull takes "
        f"prices to be good to {PRICE_ERROR:g}.",
        "",
    ]


def error_lines(params: Matrix, n_admissible: int) -> list[str]:
    """The stated error against the true one, and how far the check carries outside the paper's box."""
    rng = np.random.default_rng(SPREAD_SEED)
    ratios = []
    for p in params[:60]:
        grid = price_grid(HESTON, p, surface_expiries(paper_box.EXPIRIES))
        row = int(rng.integers(grid.expiry.size))
        k = grid.log_moneyness[row]
        exact = otm_values(HESTON, k, np.full(k.size, grid.expiry[row]), p)
        otm = np.where(k < 0.0, grid.strike[row], 1.0) - grid.capped[row]
        ratios.append(2.0 * float(np.max(np.abs(otm - exact))) / float(grid.error[row]))
    draws = paper_box.extreme_draws(n_admissible, ADMISSIBLE_SEED)
    looks = [look(p, quoted) for p, quoted in draws]
    by_itself = np.array([not each.more for each in looks])
    errors = np.array([each.verdict.numerical_error for each in looks])
    ratios_unknown = np.array(
        [HESTON.feller_ratio(p) for (p, _), known in zip(draws, by_itself, strict=True) if not known] or [0.0]
    )
    slow, small = ratios_unknown[ratios_unknown < 1.0], ratios_unknown[ratios_unknown >= 1.0]
    more = np.array([seconds for each in looks for seconds in each.more] or [0.0])
    return [
        "## Stated error",
        "",
        f"On one random expiry of each of {len(ratios)} of these surfaces, the error of a size (twice that of a price, "
        f"by the accurate pricer) is at most {100.0 * max(ratios):.1f} % of the stated one, "
        f"{100.0 * np.median(ratios):.2g} % in the median.",
        "",
        f"Over the admissible bounds (all but rho log-uniform, {n_admissible} draws, one to five quoted expiries of a "
        f"day to ten years, seed {ADMISSIBLE_SEED}) the check's own numbers decide for "
        f"{100.0 * np.mean(by_itself):.1f} % of the surfaces, with an error above {TARGET_ERROR:g} for "
        f"{100.0 * np.mean(errors > TARGET_ERROR):.1f} %. For the others it is above {LARGEST_ERROR:g} at some expiry: "
        f"{slow.size} of them have a Feller ratio of {slow.max(initial=0.0):.1e} or less, a vol of vol so large that "
        f"the characteristic function hardly decays, {small.size} one of {small.min(initial=math.inf):.1e} or more, a "
        "vol of vol so small that rounding shows. There a few accurate prices decide, in steps of "
        f"{1e3 * np.median(more):.1f} ms in the median and {1e3 * more.max():.0f} ms at most (processor time), at most "
        f"{max(len(each.more) for each in looks)} a surface.",
        "",
        *table(
            ["verdict", f"surfaces of {n_admissible}"],
            [
                ["free", str(sum(each.verdict.free for each in looks))],
                ["not verified, and said so", str(sum(each.verdict.unverified is not None for each in looks))],
                [
                    "not free without a word",
                    str(sum(not each.verdict.free and each.verdict.unverified is None for each in looks)),
                ],
            ],
        ),
        "",
    ]


class Look(NamedTuple):
    """A surface check, driven step by step."""

    verdict: Verdict
    more: list[float]
    """Seconds of processor time of each step that the accurate pricer took."""


def look(params: Vector, quoted: Vector) -> Look:
    steps = check_surface_steps(HESTON, params, quoted)
    seconds: list[float] = []
    while True:
        began = thread_time()
        try:
            next(steps)
        except StopIteration as ended:
            # The first stretch is the check's own, each of the others the prices of an expiry.
            return Look(ended.value, [*seconds, thread_time() - began][1:])
        seconds.append(thread_time() - began)


def time_lines(params: Matrix) -> list[str]:
    quoted = {
        f"its {paper_box.EXPIRIES.size} expiries": paper_box.EXPIRIES,
        "one expiry": np.array([0.5]),
        "a day to ten years": np.array([1.0 / 365.0, 10.0]),
    }
    times = {
        name: np.array([microseconds(partial(check_surface, HESTON, p, expiry)) for p in params])
        for name, expiry in quoted.items()
    }
    k, t = paper_box.LOG_MONEYNESS, paper_box.EXPIRY
    vols = implied_volatility_from_time_value(otm_values(HESTON, k, t, np.array([2.0, 0.09, 0.6, -0.6, 0.06])), k, t)
    mids = OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=vols.volatility)
    both = OptionPanel.from_quotes(
        expiry=t, log_moneyness=k, bid_iv=vols.volatility - 0.001, ask_iv=vols.volatility + 0.001
    )
    rng = np.random.default_rng(SPREAD_SEED)
    expiry = rng.choice(np.linspace(0.02, 3.0, 100), 10_000)
    many = OptionPanel.from_quotes(
        expiry=expiry, log_moneyness=rng.uniform(-0.4, 0.4, 10_000) * np.sqrt(expiry), iv=np.full(10_000, 0.2)
    )
    for panel in (mids, both, many):
        check_quotes(panel)
    # What the inversion would cost by fast Fourier transform: prices and growths of 50 expiries, 400 points a period of
    # 20 standard deviations, which puts 200 of them within +-5.
    spectrum = rng.standard_normal((100, 33)) + 1j * rng.standard_normal((100, 33))
    transform = microseconds(lambda: scipy.fft.irfft(spectrum, 400, axis=1), 200)
    rows = [
        *(
            [f"{params.shape[0]} surfaces, {name}", *(f"{np.quantile(of_all, q):.0f}" for q in (0.5, 0.9, 0.99))]
            for name, of_all in times.items()
        ),
        ["quotes, 10 x 8 mids", f"{microseconds(lambda: check_quotes(mids), 200):.0f}", "", ""],
        ["quotes, 10 x 8 with bid and ask", f"{microseconds(lambda: check_quotes(both), 200):.0f}", "", ""],
        ["quotes, 10,000 of 100 expiries", f"{microseconds(lambda: check_quotes(many), 20):.0f}", "", ""],
        ["for comparison: FFT of the dense grid alone", f"{transform:.0f}", "", ""],
    ]
    return [
        "## Time",
        "",
        f"Microseconds from Python, each the least of {REPEATS} calls or more; quantiles are over surfaces. The "
        "surface check includes its characteristic function, its grid and its verdict.",
        "",
        *table(["check", "median", "90 %", "99 %"], rows),
        "",
    ]


def market_lines(folder: Path) -> list[str]:
    rows = []
    for path in sorted(folder.glob("*.csv")):
        if path.stem.endswith("_rejected"):
            continue
        try:
            panels = read_csv(path)
        except InvalidInput:
            # Deltas instead of strikes, or no forward: nothing to compare at a strike.
            continue
        verdicts = [check_quotes(panel) for _, panel in panels]
        n_quotes = sum(panel.n_quotes for _, panel in panels)
        two_sided = sum(np.count_nonzero(np.isfinite(panel.bid)) for _, panel in panels)
        worst = max((v.violations[0] for v in verdicts if v.violations), key=lambda v: v.size, default=None)
        rows.append(
            [
                path.stem,
                str(len(panels)),
                str(n_quotes),
                f"{100.0 * two_sided / n_quotes:.0f} %",
                str(sum(v.free for v in verdicts)),
                str(sum(v.n_violations for v in verdicts)),
                f"{worst.size:.1e} {worst.kind}" if worst else "none",
            ]
        )
    if not rows:
        return []
    return [
        "## Real quotes",
        "",
        f"Violations of the kinds {', '.join(KINDS)}, largest in units of the forward. With bid and ask only what can "
        "be executed counts; mids are taken at their word, so stale closes and rounded vols show.",
        "",
        *table(["panel", "dates", "quotes", "with a bid", "dates free", "violations", "largest"], rows),
        "",
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=int, default=1000, help="of the paper's box")
    parser.add_argument("--admissible", type=int, default=2000, help="draws of the admissible bounds")
    parser.add_argument("--quotes", type=Path, default=ROOT.parent / "shared" / "market", help="folder of CSV panels")
    parser.add_argument("--out", type=Path, default=RESULTS / "arbitrage.md")
    given = parser.parse_args(arguments)
    params = paper_box.draws(given.surfaces, SEED)
    sections = [
        *penalty_lines(params),
        *error_lines(params, given.admissible),
        *time_lines(params),
        *market_lines(given.quotes),
    ]
    head = ["# Arbitrage checks", "", "`python -m benchmarks.arbitrage_tables`", "", describe_machine(), ""]
    write_report(given.out, [*head, *sections])


if __name__ == "__main__":
    main()
