"""Arbitrage among quotes: planted ones are found, exact panels have none, and the hull decides as a linear program."""

import csv
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from benchmarks.paper_box import EXPIRY, LOG_MONEYNESS, draws
from calibrant.arbitrage import Verdict, Violation, check_quotes
from calibrant.arbitrage.hull import PRICE_ERROR, static_arbitrage
from calibrant.arbitrage.violations import BUTTERFLY, CALENDAR, KINDS, MAX_REPORTED, VERTICAL
from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import call_price, implied_volatility_from_time_value
from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.panel import OptionPanel
from calibrant.pricing.fourier import otm_values

from .shared import market_files, needs_shared

PLANTED = 1e-6
STRIKE = np.exp(LOG_MONEYNESS)
SHAPE = (8, 10)


def vols_of(call: Vector, log_moneyness: Vector = LOG_MONEYNESS, expiry: Vector = EXPIRY) -> Vector:
    """Implied vols of calls, by way of the out-of-the-money option; NaN, a missing quote, where there is none."""
    time_value = np.where(log_moneyness < 0.0, call + np.expm1(log_moneyness), call)
    return implied_volatility_from_time_value(time_value, log_moneyness, expiry).volatility


def panel_of(call: Vector) -> OptionPanel:
    """Mids on the paper's grid."""
    return OptionPanel.from_quotes(expiry=EXPIRY, log_moneyness=LOG_MONEYNESS, iv=vols_of(call))


def exact_calls() -> Matrix:
    """(8, 10) calls of an ordinary Heston model on the paper's grid."""
    params = np.array([2.0, 0.09, 0.6, -0.6, 0.06])
    values = otm_values(HESTON, LOG_MONEYNESS, EXPIRY, params) + np.maximum(1.0 - STRIKE, 0.0)
    calls: Matrix = values.reshape(SHAPE)
    return calls


def only(verdict: Verdict) -> Violation:
    assert not verdict.free
    assert verdict.n_violations == 1, verdict
    return verdict.violations[0]


def test_exact_heston_panels_are_free() -> None:
    for params in draws(60, seed=1):
        values = otm_values(HESTON, LOG_MONEYNESS, EXPIRY, params)
        seen = values > 1e-12
        vols = implied_volatility_from_time_value(values[seen], LOG_MONEYNESS[seen], EXPIRY[seen]).volatility
        panel = OptionPanel.from_quotes(expiry=EXPIRY[seen], log_moneyness=LOG_MONEYNESS[seen], iv=vols)
        assert check_quotes(panel) == Verdict(free=True, n_violations=0, violations=(), numerical_error=PRICE_ERROR)


@pytest.mark.parametrize("strike", [1, 4, 5, 8])
@pytest.mark.parametrize("expiry", [0, 3, 7])
def test_a_planted_butterfly_is_found(expiry: int, strike: int) -> None:
    calls = exact_calls()
    k = STRIKE.reshape(SHAPE)[expiry]
    low = (k[strike + 1] - k[strike]) / (k[strike + 1] - k[strike - 1])
    chord = low * calls[expiry, strike - 1] + (1.0 - low) * calls[expiry, strike + 1]
    # The expiries after it must not undercut the plant: then it would be a calendar violation as well.
    calls[expiry + 1 :] += 0.01
    calls[expiry, strike] = chord + PLANTED
    found = only(check_quotes(panel_of(calls.ravel())))
    assert found.kind == "butterfly"
    assert found.quote == 10 * expiry + strike
    assert (found.expiry, found.log_moneyness) == (EXPIRY[10 * expiry], LOG_MONEYNESS[strike])
    assert found.size == pytest.approx(PLANTED, rel=1e-4)


def test_a_dip_is_found_where_its_neighbours_are_sold() -> None:
    calls = exact_calls()
    below = calls[7].copy()
    k = STRIKE[:10]
    # Seen from strikes 2 and 3, the middle one of which is now 1e-6 above the chord from 2 to 4.
    slope = (below[3] - PLANTED - below[2]) / (k[3] - k[2])
    calls[7, 4] = below[3] - PLANTED + slope * (k[4] - k[3])
    found = check_quotes(panel_of(calls.ravel()))
    assert {violation.quote for violation in found.violations if violation.kind == "butterfly"} >= {73, 75}


def test_a_planted_calendar_spread_is_found() -> None:
    calls = exact_calls()
    calls[4] = calls[3]
    calls[4, 6] -= PLANTED
    found = only(check_quotes(panel_of(calls.ravel())))
    assert (found.kind, found.quote) == ("calendar", 36)
    assert found.size == pytest.approx(PLANTED, rel=1e-4)


def test_a_calendar_spread_is_found_between_different_strikes() -> None:
    # The later expiry quotes no strike in common; its chord covers the earlier call, and costs 1e-6 less.
    later_strike, strike = np.array([0.9, 1.0, 1.1]), 0.94
    later = call_price(np.log(later_strike), np.full(3, 1.0), np.full(3, 0.2))
    chord = np.interp(strike, later_strike, later)
    k = np.log(np.append(later_strike, strike))
    expiry = np.array([1.0, 1.0, 1.0, 0.5])
    for excess, n_found in ((PLANTED, 1), (-PLANTED, 0)):
        vols = vols_of(np.append(later, chord + excess), k, expiry)
        verdict = check_quotes(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=vols))
        assert verdict.n_violations == n_found
    vols = vols_of(np.append(later, chord + PLANTED), k, expiry)
    found = only(check_quotes(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=vols)))
    assert (found.kind, found.expiry, found.log_moneyness) == ("calendar", 0.5, k[3])
    assert found.size == pytest.approx(PLANTED, rel=1e-4)


def test_a_calendar_spread_is_found_across_an_expiry_in_between() -> None:
    k, expiry = np.zeros(3), np.array([0.5, 1.0, 1.5])
    calls = np.array([0.05, 0.08, 0.05 - PLANTED])
    verdict = check_quotes(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=vols_of(calls, k, expiry)))
    assert [(v.kind, v.expiry) for v in verdict.violations] == [("calendar", 1.0), ("calendar", 0.5)]
    assert verdict.violations[1].size == pytest.approx(PLANTED, rel=1e-4)


def test_a_planted_vertical_is_found_on_the_right() -> None:
    calls = exact_calls()
    calls[0, 9] = calls[0, 8] + PLANTED
    found = only(check_quotes(panel_of(calls.ravel())))
    assert (found.kind, found.quote) == ("vertical", 9)
    assert found.size == pytest.approx(PLANTED, rel=1e-4)


def test_a_planted_vertical_is_found_on_the_left() -> None:
    calls = exact_calls()
    put = calls[0, 1] - 1.0 + STRIKE[1]
    calls[0, 0] = put + PLANTED + 1.0 - STRIKE[0]
    verdict = check_quotes(panel_of(calls.ravel()))
    # The put is dearer than its neighbour, so all the more dearer per unit of strike: both covers pay.
    assert [(v.kind, v.quote) for v in verdict.violations] == [("butterfly", 0), ("vertical", 0)]
    assert verdict.violations[1].size == pytest.approx(PLANTED, rel=1e-4)


def test_a_planted_left_wing_is_found() -> None:
    calls = exact_calls()
    put = (calls[0, 1] - 1.0 + STRIKE[1]) * STRIKE[0] / STRIKE[1]
    calls[0, 0] = put + PLANTED + 1.0 - STRIKE[0]
    found = only(check_quotes(panel_of(calls.ravel())))
    assert (found.kind, found.quote) == ("butterfly", 0)
    assert found.size == pytest.approx(PLANTED, rel=1e-4)


@pytest.mark.parametrize(("side", "kind"), [(1.0, "vertical"), (-1.0, "butterfly")])
@pytest.mark.parametrize(("slope", "free"), [(1.2, True), (2.1, False)])
def test_a_wing_steeper_than_lees_bound_is_found(side: float, kind: str, slope: float, free: bool) -> None:
    k = np.sort(side * np.linspace(1.0, 1.9, 10))
    total_variance = 1.8 + slope * (np.abs(k) - 1.0)
    # Lee's bound says something where w < 2 |k| only.
    assert np.all(total_variance < 2.0 * np.abs(k))
    verdict = check_quotes(OptionPanel.from_quotes(expiry=np.ones(10), log_moneyness=k, iv=np.sqrt(total_variance)))
    at_the_end = [v.kind for v in verdict.violations if abs(v.log_moneyness) == 1.9]
    assert verdict.free == free
    assert at_the_end == ([] if free else [kind])


def test_a_steep_slope_at_a_large_variance_is_no_arbitrage() -> None:
    # w = 32 + 2.4 k near the money: twice as steep as Lee's bound on wings allows, and free.
    k = np.linspace(-0.2, 0.2, 9)
    panel = OptionPanel.from_quotes(expiry=np.full(9, 2.0), log_moneyness=k, iv=np.sqrt((32.0 + 2.4 * k) / 2.0))
    assert check_quotes(panel).free


def test_two_mids_at_one_strike_are_a_vertical_of_their_difference() -> None:
    calls = exact_calls()
    k, expiry = np.append(LOG_MONEYNESS, LOG_MONEYNESS[24]), np.append(EXPIRY, EXPIRY[24])
    for excess in (0.0, PLANTED):
        vols = vols_of(np.append(calls, calls.ravel()[24] + excess), k, expiry)
        verdict = check_quotes(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=vols))
        assert verdict.free == (excess == 0.0)
    found = only(verdict)
    assert (found.kind, found.expiry, found.log_moneyness) == ("vertical", EXPIRY[24], LOG_MONEYNESS[24])
    assert found.size == pytest.approx(PLANTED, rel=1e-4)


@pytest.mark.parametrize("steps", [-3, -1, 1, 3])
def test_strikes_a_rounding_apart_are_as_duplicates(steps: int) -> None:
    calls = exact_calls()
    moved = LOG_MONEYNESS[24] + steps * np.spacing(LOG_MONEYNESS[24])
    k, expiry = np.append(LOG_MONEYNESS, moved), np.append(EXPIRY, EXPIRY[24])
    same = vols_of(np.append(calls, calls.ravel()[24]), k, expiry)
    assert check_quotes(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=same)).free
    dearer = vols_of(np.append(calls, calls.ravel()[24] + PLANTED), k, expiry)
    found = only(check_quotes(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=dearer)))
    assert (found.kind, found.log_moneyness) == ("vertical", moved)
    assert found.size == pytest.approx(PLANTED, rel=1e-4)


def test_only_what_bid_and_ask_leave_is_reported() -> None:
    calls = exact_calls()
    k = STRIKE[:10]
    low = (k[6] - k[5]) / (k[6] - k[4])
    chord = low * calls[7, 4] + (1.0 - low) * calls[7, 6]
    calls[7, 5] = chord + 1e-3
    half = 2e-4
    for spread, left in ((half, 1e-3 - 2.0 * half), (6e-4, 0.0)):
        bid, ask = vols_of(calls.ravel() - spread), vols_of(calls.ravel() + spread)
        panel = OptionPanel.from_quotes(expiry=EXPIRY, log_moneyness=LOG_MONEYNESS, bid_iv=bid, ask_iv=ask)
        verdict = check_quotes(panel)
        if left:
            # Bids and asks that exist; the far ones of the short expiry have none and are missing quotes.
            found = only(verdict)
            assert found.kind == "butterfly"
            assert found.log_moneyness == LOG_MONEYNESS[5]
            assert found.size == pytest.approx(left, rel=1e-6)
        else:
            assert verdict.free


def test_a_missing_side_of_a_quote_trades_nothing() -> None:
    k, expiry = np.log(np.array([0.9, 1.0, 1.1])), np.ones(3)
    # The middle one lies far above the chord of the mids of its neighbours.
    mid = np.array([0.2, 0.4, 0.2])
    bid, ask = mid - 0.01, mid + 0.01
    nothing = np.full(3, np.nan)

    def free(bid_iv: Vector, ask_iv: Vector) -> bool:
        return check_quotes(
            OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=mid, bid_iv=bid_iv, ask_iv=ask_iv)
        ).free

    assert not free(bid, ask)
    assert not free(nothing, nothing)
    middle = np.array([False, True, False])
    # No bid in the middle: nobody buys the dear one. No asks around it: the cover cannot be bought.
    assert free(np.where(middle, np.nan, bid), ask)
    assert free(bid, np.where(middle, ask, np.nan))
    assert not free(np.where(middle, bid, np.nan), np.where(middle, np.nan, ask))


def linear_program_says_free(strike: Vector, offsets: IntVector, bid: Vector, ask: Vector) -> bool:
    """Whether prices exist within all bids and asks that are convex, decreasing and rising with expiry."""
    nodes = np.unique(np.concatenate([[0.0], strike]))
    n, n_expiries = nodes.size, offsets.size - 1
    at = np.searchsorted(nodes, strike)
    bounds = [(0.0, 1.0)] * (n * n_expiries)
    rows = []

    def row(*terms: tuple[int, float]) -> None:
        rows.append(np.zeros(n * n_expiries))
        for column, factor in terms:
            rows[-1][column] += factor

    limit = []
    for e in range(n_expiries):
        base = n * e
        bounds[base] = (1.0, 1.0)
        for j in range(offsets[e], offsets[e + 1]):
            low, high = bounds[base + at[j]]
            bounds[base + at[j]] = (max(low, bid[j]), min(high, ask[j]))
            if bounds[base + at[j]][0] > bounds[base + at[j]][1]:
                return False
        for m in range(n - 1):
            row((base + m + 1, 1.0), (base + m, -1.0))
            row((base + m, 1.0), (base + m + 1, -1.0))
            limit += [0.0, nodes[m + 1] - nodes[m]]
        for m in range(1, n - 1):
            low = (nodes[m + 1] - nodes[m]) / (nodes[m + 1] - nodes[m - 1])
            row((base + m, 1.0), (base + m - 1, -low), (base + m + 1, low - 1.0))
            limit.append(0.0)
        if e + 1 < n_expiries:
            for m in range(n):
                row((base + m, 1.0), (base + n + m, -1.0))
                limit.append(0.0)
    result = linprog(np.zeros(n * n_expiries), A_ub=np.array(rows), b_ub=np.array(limit), bounds=bounds, method="highs")
    assert result.status in (0, 2), result.message
    return bool(result.status == 0)


def noisy_calls(seed: int) -> Iterator[tuple[Vector, IntVector, Vector, Vector]]:
    """Small panels of calls with bids and asks, some with arbitrage and some without, some with duplicate strikes."""
    rng = np.random.default_rng(seed)
    for _ in range(150):
        sizes = rng.integers(1, 6, size=rng.integers(1, 4))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        n = int(offsets[-1])
        expiry = np.repeat(0.2 + 0.3 * np.arange(sizes.size), sizes)
        strike = rng.choice(np.linspace(0.7, 1.4, 15), n)
        for e in range(sizes.size):
            strike[offsets[e] : offsets[e + 1]].sort()
        mid = call_price(np.log(strike), expiry, np.full(n, 0.25)) + rng.normal(0.0, 0.004, n)
        half = rng.uniform(0.0, 0.008, n)
        yield strike, offsets, mid - half, mid + half


def test_the_hull_decides_as_a_linear_program() -> None:
    verdicts = []
    for strike, offsets, bid, ask in noisy_calls(seed=2):
        excess = np.empty((len(KINDS), strike.size))
        count = static_arbitrage(strike, offsets, bid, ask, 1e-9, excess)
        assert count == np.count_nonzero(excess)
        verdicts.append(count == 0)
        assert verdicts[-1] == linear_program_says_free(strike, offsets, bid, ask), (strike, offsets, bid, ask)
    # Both answers occur often, so that the agreement says something.
    assert 30 < sum(verdicts) < 120


def test_each_size_is_what_the_cheapest_cover_leaves() -> None:
    # One at a time, the bid is lowered by its largest size: after all of them nothing is left, and not before.
    for strike, offsets, bid, ask in noisy_calls(seed=3):
        excess = np.empty((len(KINDS), strike.size))
        if static_arbitrage(strike, offsets, bid, ask, 1e-9, excess) == 0 or excess[0].any():
            continue
        worst = excess.max(axis=0)
        assert static_arbitrage(strike, offsets, bid - worst, ask, 1e-9, excess) == 0
        assert static_arbitrage(strike, offsets, bid - 0.999 * worst, ask, 1e-12, excess) >= np.count_nonzero(worst)


def test_ten_thousand_quotes_of_one_surface_are_free_and_a_plant_is_found() -> None:
    rng = np.random.default_rng(4)
    n = 10_000
    for n_expiries in (20, 2000):
        expiry = rng.choice(np.linspace(0.02, 3.0, n_expiries), n)
        k = rng.uniform(-2.0, 2.0, n) * 0.2 * np.sqrt(expiry)
        vols = np.full(n, 0.2)
        assert check_quotes(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=vols)).free
        vols[1234] = 0.3
        verdict = check_quotes(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=vols))
        assert verdict.violations[0].log_moneyness == k[1234]


def test_at_most_so_many_are_listed_largest_first() -> None:
    rng = np.random.default_rng(5)
    calls = exact_calls().ravel() + rng.normal(0.0, 0.01, 80)
    verdict = check_quotes(panel_of(calls))
    sizes = [violation.size for violation in verdict.violations]
    assert verdict.n_violations > MAX_REPORTED == len(sizes)
    assert sizes == sorted(sizes, reverse=True)


def test_kinds_have_their_names() -> None:
    assert (KINDS[VERTICAL], KINDS[BUTTERFLY], KINDS[CALENDAR]) == ("vertical", "butterfly", "calendar")


_COLUMNS = ("expiry_years", "strike", "forward", "mid_iv", "bid_iv", "ask_iv")


def market_panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Columns of every panel with strikes and forwards, each date apart."""
    for path in market_files():
        panels: dict[str, dict[str, list[float]]] = {}
        with path.open() as file:
            for row in csv.DictReader(file):
                if row["strike"] and row["forward"]:
                    panel = panels.setdefault(
                        row["as_of"], {name: [] for name in ("expiry", "strike", "forward", "iv", "bid_iv", "ask_iv")}
                    )
                    cells = (
                        row["expiry_years"],
                        row["strike"],
                        row["forward"],
                        row["mid_iv"],
                        row["bid_iv"],
                        row["ask_iv"],
                    )
                    for values, cell in zip(panel.values(), cells, strict=True):
                        values.append(float(cell) if cell else math.nan)
        for as_of, panel in panels.items():
            yield f"{path.stem} {as_of}", panel


@needs_shared
def test_every_market_panel_is_judged_in_any_order_and_unit() -> None:
    rng = np.random.default_rng(6)
    n_panels = 0
    for name, columns in market_panels():
        try:
            panel = OptionPanel.from_quotes(**columns)
        except InvalidInput:
            # A vol above 500 %: the panel refuses it, and the checker never sees it.
            continue
        n_panels += 1
        verdict = check_quotes(panel)
        assert verdict.free == (verdict.n_violations == 0), name
        assert all(np.isfinite(v.size) and v.size > PRICE_ERROR for v in verdict.violations), name
        order = rng.permutation(len(columns["expiry"]))
        shuffled: dict[str, Any] = {key: np.array(values)[order] for key, values in columns.items()}
        shuffled["strike"] *= 1000.0
        shuffled["forward"] *= 1000.0
        again = check_quotes(OptionPanel.from_quotes(**shuffled))
        assert again.n_violations == verdict.n_violations, name
        assert [v.size for v in again.violations] == pytest.approx([v.size for v in verdict.violations], abs=1e-12), (
            name
        )
    assert n_panels > 60
