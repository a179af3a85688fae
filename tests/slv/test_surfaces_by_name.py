from typing import Any

import numpy as np
import pytest

from calibrant.errors import InvalidInput
from calibrant.fx import conventions_of, quotes_to_strikes
from calibrant.models import HESTON
from calibrant.prices import price_steps
from calibrant.slv.surface import implied_vol
from calibrant.slv.surfaces_by_name import surface_named
from calibrant.steps import finish
from tests.fx.market_quotes import FILES, delta_quotes
from tests.fx.test_quotes import RATES
from tests.shared import needs_shared
from tests.slv import reference

PILLARS: dict[str, Any] = {
    "kind": "fx_pillars", "pair": "EURBRL", "spot": 4.05, "domestic_rate": 0.08, "foreign_rate": -0.003,
    "expiry": [0.25, 0.5, 1.0], "atm": [0.122, 0.126, 0.13], "rr25": [0.027, 0.03, 0.032],
    "bf25": [0.005, 0.006, 0.006], "rr10": [0.05, 0.06, 0.06], "bf10": [0.019, 0.02, 0.021],
}  # fmt: skip
QUOTES: dict[str, Any] = {
    "kind": "quotes", "spot": 100.0, "domestic_rate": 0.03, "foreign_rate": 0.01,
    "quotes": {
        "expiry": [0.5] * 5 + [1.0] * 5, "strike": [80, 90, 100, 110, 120] * 2,
        "iv": [0.27, 0.23, 0.2, 0.185, 0.18, 0.25, 0.225, 0.205, 0.195, 0.19],
    },
}  # fmt: skip
HESTON_FORM: dict[str, Any] = {
    "kind": "heston", "spot": 1.2, "domestic_rate": 0.02, "foreign_rate": 0.0,
    "parameters": {"kappa": 3.0, "theta": 0.025, "xi": 0.576, "rho": 0.454, "v0": 0.015},
}  # fmt: skip
SSVI: dict[str, Any] = {
    "kind": "ssvi", "spot": 1.231, "domestic_rate": 0.026, "foreign_rate": -0.003,
    "parameters": {"s0": 0.07, "sinf": 0.092, "b": 0.6, "r0": 0.05, "rinf": -0.13, "a": 1.5, "eta": 0.95, "gam": 0.48,
                   "th0": 0.0004},
}  # fmt: skip


def changed(form: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """The form with one field set, or left out for ...; `quotes.iv` is one inside another."""
    first, _, rest = where.partition(".")
    if rest:
        return {**form, first: changed(form[first], rest, value)}
    return {name: old for name, old in form.items() if name != first} | ({} if value is ... else {first: value})


@needs_shared
@pytest.mark.parametrize("name", reference.SURFACES)
def test_quotes_of_the_reference_surfaces_go_to_the_surface_and_back(name: str) -> None:
    entry, true = reference.given(name), reference.surface(name)
    given = entry["implied_quotes"]
    columns = {"atm": "atm", "rr25": "rr25", "rr10": "rr10", "bf25": "ms25", "bf10": "ms10"}
    named = surface_named(
        {
            "kind": "fx_pillars", "pair": "EURBRL" if entry["premium_adjusted"] else "EURUSD", "spot": entry["S0"],
            "domestic_rate": entry["rd"], "foreign_rate": entry["rf"], "expiry": [row["T"] for row in given],
            **{field: [row[called] for row in given] for field, called in columns.items()},
        }
    )  # fmt: skip
    assert named.fitted is not None
    assert named.fitted.method == "essvi"
    assert named.fitted.max_abs_bp < 0.01
    assert named.warnings == ()
    k = np.linspace(-2.5, 2.5, 21)
    for row in given:
        places = k * row["atm"] * np.sqrt(row["T"])
        off = implied_vol(named.surface, places, row["T"]) - implied_vol(true, places, row["T"])
        assert np.abs(off).max() < 1e-6, "the slices are those of the closed form, beyond the quotes too"


@needs_shared
@pytest.mark.parametrize("file", [file for file in FILES if "frhfx" in file])
def test_wing_vols_of_the_frhfx_files_are_fitted_within_5_bp(file: str) -> None:
    named = surface_named(real(file))
    assert named.fitted is not None
    assert named.fitted.method == "essvi"
    assert named.fitted.max_abs_bp < 5.0


def real(file: str) -> dict[str, Any]:
    pair, expiry, quotes = delta_quotes(file)
    spot, domestic, foreign = RATES[pair]
    columns = {name: [None if np.isnan(x) else x for x in column.tolist()] for name, column in quotes.items()}
    form = {"kind": "fx_pillars", "pair": pair, "spot": spot, "domestic_rate": domestic, "foreign_rate": foreign}
    return {**form, "expiry": expiry.tolist(), **columns}


@needs_shared
def test_usdjpy_of_2019_reports_its_calendar_arbitrage_and_is_used_to_5_years() -> None:
    form = real("usdjpy_ore_20191230")
    with pytest.raises(InvalidInput, match="from 9 to 10 years total variance falls") as refused:
        surface_named(form)
    assert refused.value.problems[0].pointer == "/surface/expiry/22"
    named = surface_named(form, maturity=5.0)
    assert named.surface.last_expiry == 5.0
    codes = {each.code: each.detail for each in named.warnings}
    assert "from 9 to 10 years" in codes["calendar_arbitrage"]
    assert "essvi_misfit" in codes


@needs_shared
def test_usdrub_of_the_invasion_has_a_surface_with_its_quotes() -> None:
    named = surface_named(real("usdrub_20220224_invasion"))
    assert named.fitted is not None
    assert named.fitted.method == "andreasen_huge"
    assert named.fitted.max_abs_bp < 0.1
    assert [each.code for each in named.warnings] == ["essvi_misfit"]


def test_wing_vols_and_their_risk_reversals_are_one_surface() -> None:
    pillars = quotes_to_strikes(
        surface_named(PILLARS).surface.market,
        PILLARS["expiry"],
        {name: PILLARS[name] for name in ("atm", "rr25", "bf25", "rr10", "bf10")},
        conventions_of("EURBRL"),
    )
    wings: dict[str, Any] = {name: PILLARS[name] for name in PILLARS if name[:2] not in ("rr", "bf")}
    for field, name in (("call25", "25C"), ("put25", "25P"), ("call10", "10C"), ("put10", "10P")):
        wings[field] = [v for v, called in zip(pillars.vol.tolist(), pillars.name, strict=True) if called == name]
    a, b = surface_named(PILLARS).surface, surface_named(wings).surface
    k = np.linspace(-0.3, 0.3, 13)
    np.testing.assert_allclose(implied_vol(a, k, 0.7), implied_vol(b, k, 0.7), rtol=1e-7)


def test_options_by_strike_and_by_delta_are_one_surface() -> None:
    market = surface_named(PILLARS).surface.market
    quotes = {"atm": [0.13], "call25": [0.15], "put25": [0.12], "call10": [0.18], "put10": [0.13]}
    pillars = quotes_to_strikes(market, [1.0], quotes, conventions_of("EURBRL"))
    common = {name: PILLARS[name] for name in ("spot", "domestic_rate", "foreign_rate")} | {"kind": "quotes"}
    years = [1.0] * 5
    by_strike = {"expiry": years, "strike": pillars.strike.tolist(), "iv": pillars.vol.tolist()}
    types = ["put", "put", "atm", "call", "call"]
    deltas = {"expiry": years, "delta": [0.1, 0.25, 0.5, 0.25, 0.1], "type": types, "iv": pillars.vol.tolist()}
    fits = [
        surface_named({**common, "quotes": by_strike}).fitted,
        surface_named({**common, "quotes": deltas, "pair": "EURBRL"}).fitted,
    ]
    assert fits[0] is not None
    assert fits[1] is not None
    for one, other in zip(fits[0].misfits, fits[1].misfits, strict=True):
        assert one.log_moneyness == pytest.approx(other.log_moneyness, abs=1e-10)
    assert [each.name for each in fits[1].misfits] == ["10P", "25P", "ATM", "25C", "10C"]


def test_forwards_may_stand_in_for_the_foreign_rate() -> None:
    forward = [100.0 * float(np.exp(0.02 * t)) for t in QUOTES["quotes"]["expiry"]]
    form = changed(changed(QUOTES, "foreign_rate", ...), "quotes.forward", forward)
    a, b = surface_named(form).surface, surface_named(QUOTES).surface
    np.testing.assert_allclose(a.market.forward([0.3, 1.0]), b.market.forward([0.3, 1.0]))
    np.testing.assert_allclose(implied_vol(a, 0.1, 0.8), implied_vol(b, 0.1, 0.8))


def test_rates_are_numbers_or_one_an_expiry_or_curves() -> None:
    expected = surface_named(PILLARS).surface.market.forward([0.1, 0.7])
    for rate in ([0.08] * 3, {"expiry": [0.5, 2.0], "zero": [0.08, 0.08]}):
        form = changed(PILLARS, "domestic_rate", rate)
        np.testing.assert_allclose(surface_named(form).surface.market.forward([0.1, 0.7]), expected)
    rising = surface_named(changed(PILLARS, "domestic_rate", [0.07, 0.08, 0.09])).surface.market
    np.testing.assert_allclose(rising.discount([0.25, 1.0]), np.exp([-0.0175, -0.09]))


def test_the_surface_of_heston_has_the_vols_of_heston() -> None:
    k, t = np.array([-0.1, 0.0, 0.2]), np.array([0.2, 1.0, 2.0])
    exact = finish(price_steps(HESTON, np.array([3.0, 0.025, 0.576, 0.454, 0.015]), k, t, gradient=False)).implied_vol
    np.testing.assert_allclose(implied_vol(surface_named(HESTON_FORM).surface, k, t), exact, rtol=1e-8)


@pytest.mark.parametrize(
    ("form", "where", "value", "pointer"),
    [
        (PILLARS, "kind", ..., "/surface/kind"),
        (PILLARS, "kind", "sabr", "/surface/kind"),
        (PILLARS, "pair", ..., "/surface/pair"),
        (PILLARS, "spot", ..., "/surface/spot"),
        (PILLARS, "spot", -4.05, "/surface/spot"),
        (PILLARS, "domestic_rate", ..., "/surface/domestic_rate"),
        (PILLARS, "domestic_rate", 8.0, "/surface/domestic_rate"),
        (PILLARS, "foreign_rate", [0.01, 0.02], "/surface/foreign_rate"),
        (PILLARS, "foreign_rate", "1 %", "/surface/foreign_rate"),
        (PILLARS, "foreign_rate", {"expiry": [1.0, 2.0], "zero": [0.01]}, "/surface/foreign_rate/zero"),
        (PILLARS, "expiry", ..., "/surface/expiry"),
        (PILLARS, "expiry", [0.25, -0.5, 1.0], "/surface/expiry/1"),
        (PILLARS, "expiry", [0.25, 0.0, 1.0], "/surface/expiry/1"),
        (PILLARS, "atm", [0.122, 0.0, 0.13], "/surface/atm/1"),
        (PILLARS, "atm", [0.122, -0.12, 0.13], "/surface/atm/1"),
        (PILLARS, "atm", [0.2, 0.13, 0.08], "/surface/expiry/1"),
        (PILLARS, "bf25", [0.005, -0.1, 0.006], "/surface/bf25/1"),
        (PILLARS, "rr25", [0.027, 0.5, 0.032], "/surface/rr25/1"),
        (PILLARS, "strangle", [0.1] * 3, "/surface/strangle"),
        (PILLARS, "butterfly", "broker", "/surface/conventions/butterfly"),
        (QUOTES, "quotes", ..., "/surface/quotes"),
        (QUOTES, "quotes.strike", ..., "/surface/quotes/strike"),
        (QUOTES, "quotes.strike", [0.0] + [90.0] * 9, "/surface/quotes/strike/0"),
        (QUOTES, "quotes.iv", [0.2] * 9, "/surface/quotes/iv"),
        (QUOTES, "quotes.iv", [0.2] * 9 + [0.0], "/surface/quotes/iv/9"),
        (QUOTES, "quotes.iv", [None] * 10, "/surface/quotes/iv"),
        (QUOTES, "quotes.iv", [0.2, 0.2, 0.6, 0.2, 0.2] * 2, "/surface/quotes/expiry/0"),
        (QUOTES, "quotes.iv", [0.4] * 5 + [0.2] * 5, "/surface/quotes/expiry/5"),
        (QUOTES, "quotes.expiry", [0.5] * 5 + [-1.0] * 5, "/surface/quotes/expiry/5"),
        (QUOTES, "quotes.vega", [1.0] * 10, "/surface/quotes/vega"),
        (HESTON_FORM, "parameters", ..., "/surface/parameters"),
        (HESTON_FORM, "parameters.rho", ..., "/surface/parameters/rho"),
        (HESTON_FORM, "parameters.v0", -0.1, "/surface/parameters/v0"),
        (SSVI, "parameters.th0", ..., "/surface/parameters/th0"),
        (SSVI, "parameters.r0", -1.5, "/surface/parameters/r0"),
        (SSVI, "parameters.nu", 0.1, "/surface/parameters/nu"),
        (SSVI, "parameters.eta", 40.0, "/surface/parameters"),
        (SSVI, "parameters.rinf", -0.999, "/surface/parameters"),
        (SSVI, "forward", 1.2, "/surface/forward"),
    ],
)  # fmt: skip
def test_what_is_no_surface_is_refused_by_its_field(form: dict[str, Any], where: str, value: Any, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        surface_named(changed(form, where, value))
    assert refused.value.problems[0].pointer == pointer


def test_quotes_that_end_before_the_maturity_are_refused_and_those_after_it_are_not_used() -> None:
    with pytest.raises(InvalidInput, match="must reach the maturity of 2 years, but ends at 1"):
        surface_named(PILLARS, maturity=2.0)
    assert surface_named(PILLARS, maturity=0.4).surface.last_expiry == 0.5


@needs_shared
@pytest.mark.parametrize("name", reference.SURFACES)
def test_the_closed_forms_of_the_reference_are_taken(name: str) -> None:
    entry = reference.given(name)
    common = {"spot": entry["S0"], "domestic_rate": entry["rd"], "foreign_rate": entry["rf"]}
    named = surface_named({"kind": "ssvi", **common, "parameters": entry["params"]}, maturity=5.0)
    assert implied_vol(named.surface, 0.05, 0.7) == implied_vol(reference.surface(name), 0.05, 0.7)


def test_an_answer_says_how_the_surface_was_made() -> None:
    document = surface_named(PILLARS).document()
    assert document["kind"] == "fx_pillars"
    assert document["conventions"]["premium_adjusted"] is True
    assert [each["name"] for each in document["misfits"][:5]] == ["10P", "25P", "ATM", "25C", "10C"]
    assert surface_named(SSVI).document() == {"kind": "ssvi"}
