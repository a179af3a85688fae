from typing import Any

import numpy as np
import pytest

from calibrant import read_csv
from calibrant.errors import InvalidInput
from calibrant.market import Market
from calibrant.slv.fitted import FitOptions, SurfaceQuotes, fit_surface
from calibrant.slv.local_vol import LocalVolatility
from calibrant.slv.surface import implied_vol
from tests.shared import ROOT, SHARED, needs_shared

MARKET = Market.flat(1.2, 0.02, 0.0)


def quotes_of_panel(path: Any) -> SurfaceQuotes:
    ((_, panel),) = list(read_csv(str(path)))
    names = tuple(f"{k:.3g}" for k in panel.log_moneyness.tolist())
    return SurfaceQuotes(panel.expiry, panel.log_moneyness, panel.mid, names, tuple(panel.index.tolist()))


def smooth(n_strikes: int, expiries: tuple[float, ...] = (0.25, 0.5, 1.0)) -> SurfaceQuotes:
    """A mild smile, the same in standard deviations at every expiry."""
    x = np.linspace(-1.5, 1.5, n_strikes)
    t = np.repeat(expiries, n_strikes)
    k = np.tile(x, len(expiries)) * 0.2 * np.sqrt(t)
    vol = np.tile(0.2 - 0.01 * x + 0.003 * x**2, len(expiries))
    return SurfaceQuotes(t, k, vol, tuple(map(str, range(t.size))), tuple(range(t.size)))


def test_a_stressed_equity_panel_has_a_surface_and_says_what_it_misses() -> None:
    quotes = quotes_of_panel(ROOT / "examples" / "dax_20020705.csv")
    fit = fit_surface(Market.flat(4468.17, 0.0, 0.0), quotes)
    assert fit.method == "andreasen_huge"
    assert [each.code for each in fit.warnings] == ["essvi_misfit"]
    assert len(fit.misfits) == quotes.vol.size
    assert fit.rmse_bp < 50.0
    t = np.unique(quotes.expiry)[:, np.newaxis]
    found = LocalVolatility(surface=fit.surface).at(np.linspace(-2.0, 2.0, 41) * 0.3 * np.sqrt(t), t)
    assert found.below + found.above < 0.01 * found.vol.size


@needs_shared
def test_the_panel_of_andreasen_and_huge_is_met_to_a_few_basis_points() -> None:
    fit = fit_surface(
        Market.flat(2772.7, 0.0, 0.0), quotes_of_panel(SHARED / "market" / "sx5e_20100301_andreasenhuge.csv")
    )
    assert fit.rmse_bp < 12.0


def test_slices_are_enough_where_they_miss_little() -> None:
    fit = fit_surface(MARKET, smooth(5))
    assert fit.method == "essvi"
    assert fit.warnings == ()
    assert fit.max_abs_bp < 10.0


def test_the_limit_decides_which_surface_and_the_answer_says_so() -> None:
    fit = fit_surface(MARKET, smooth(5), options=FitOptions(essvi_limit_bp=0.01))
    assert fit.method == "andreasen_huge"
    (warning,) = fit.warnings
    assert warning.code == "essvi_misfit"
    assert fit.max_abs_bp < 0.1


def test_misfits_are_named_in_the_order_of_expiry_and_strike_whatever_the_order_of_the_quotes() -> None:
    quotes = smooth(5)
    shuffled = np.random.default_rng(1).permutation(quotes.vol.size)
    mixed = SurfaceQuotes(
        quotes.expiry[shuffled],
        quotes.log_moneyness[shuffled],
        quotes.vol[shuffled],
        tuple(quotes.name[j] for j in shuffled),
        tuple(quotes.place[j] for j in shuffled),
    )
    a, b = fit_surface(MARKET, quotes), fit_surface(MARKET, mixed)
    assert [each.name for each in b.misfits] == [each.name for each in a.misfits]
    for each in b.misfits:
        assert each.error_bp == pytest.approx(1e4 * (each.fitted_vol - each.quoted_vol))
        assert implied_vol(b.surface, each.log_moneyness, each.expiry) == pytest.approx(each.fitted_vol)


def test_a_stale_quote_among_many_is_left_out_and_told() -> None:
    quotes = smooth(15)
    vol = quotes.vol.copy()
    vol[20] += 0.08
    fit = fit_surface(MARKET, quotes._replace(vol=vol))
    (warning,) = (each for each in fit.warnings if each.code == "quotes_left_out")
    assert warning.indices == (20,)
    assert len(fit.misfits) == quotes.vol.size - 1
    assert fit.max_abs_bp < 10.0


def test_a_smile_that_no_density_has_is_refused_by_its_expiry() -> None:
    quotes = smooth(5)
    vol = quotes.vol.copy()
    vol[12] += 0.1
    with pytest.raises(InvalidInput, match=r"at 1 years and log-moneyness") as refused:
        fit_surface(MARKET, quotes._replace(vol=vol), path=("surface",))
    assert refused.value.problems[0].pointer == "/surface/expiry/10"


def test_a_small_calendar_arbitrage_is_evened_out_and_told_and_a_large_one_refused() -> None:
    quotes = smooth(5, (0.25, 0.2503, 1.0))
    vol = quotes.vol - 3e-4 * (quotes.expiry == 0.2503)
    fit = fit_surface(MARKET, quotes._replace(vol=vol))
    assert [each.code for each in fit.warnings] == ["calendar_arbitrage"]
    assert "evened out" in fit.warnings[0].detail
    assert fit.max_abs_bp < 10.0
    with pytest.raises(InvalidInput, match=r"from 0.25 to 0.2503 years total variance falls"):
        fit_surface(MARKET, quotes._replace(vol=quotes.vol - 5e-3 * (quotes.expiry == 0.2503)))


def test_nearly_arbitrage_is_clipped_and_the_clips_counted() -> None:
    # Total variance that does not grow: a local vol of nothing, which the floor holds.
    quotes = smooth(5, (0.5, 1.0))
    vol = np.where(quotes.expiry == 1.0, quotes.vol * np.sqrt(0.5), quotes.vol)
    fit = fit_surface(MARKET, quotes._replace(vol=vol, log_moneyness=np.tile(quotes.log_moneyness[:5], 2)))
    found = LocalVolatility(surface=fit.surface).at(np.linspace(-0.1, 0.1, 9), np.array([[0.2], [0.75]]))
    assert found.below >= 9
    assert (found.vol >= 0.01).all()
