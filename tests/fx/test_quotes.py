import math
from typing import Any

import numpy as np
import pytest

from calibrant.black import call_price, put_price
from calibrant.errors import InvalidInput
from calibrant.fx import Conventions, conventions_of, quotes_of, quotes_to_strikes
from calibrant.fx.delta import DeltaTerms, delta, log_moneyness_of_delta
from calibrant.fx.smile import Smile
from calibrant.market import Market
from calibrant.slv.surface import implied_vol
from tests.fx.market_quotes import FILES, delta_quotes
from tests.shared import needs_shared
from tests.slv import reference

MARKET = Market.flat(4.05, 0.08, -0.003)
QUOTES: dict[str, list[float | None]] = {
    "atm": [0.12, 0.14], "rr25": [0.03, 0.045], "bf25": [0.005, 0.008], "rr10": [0.055, 0.09], "bf10": [0.02, 0.0375],
}  # fmt: skip
EXPIRY = [0.25, 3.0]
RATES = {
    "EURUSD": (1.18, 0.02, 0.0), "GBPUSD": (1.34, 0.02, 0.005), "EURGBP": (0.88, 0.005, 0.0),
    "EURJPY": (157.0, 0.0, 0.025), "USDJPY": (110.0, 0.0, 0.02), "USDRUB": (81.242, 0.1293, 0.0023),
}  # fmt: skip
REFERENCE_NAMES = {"25P": "K_P25", "10P": "K_P10", "ATM": "K_atm", "25C": "K_C25", "10C": "K_C10"}


@needs_shared
@pytest.mark.parametrize("name", reference.SURFACES)
@pytest.mark.parametrize("butterfly", ["market_strangle", "smile"])
def test_quotes_of_the_reference_surfaces_give_their_strikes_and_vols_back(name: str, butterfly: str) -> None:
    entry, surface = reference.given(name), reference.surface(name)
    conventions = conventions_of("EURBRL" if entry["premium_adjusted"] else "EURUSD", {"butterfly": butterfly})
    given = entry["implied_quotes"]
    fly = "ms" if butterfly == "market_strangle" else "bf_smile"
    fields = {"atm": "atm", "rr25": "rr25", "rr10": "rr10", "bf25": f"{fly}25", "bf10": f"{fly}10"}
    quotes = {field: [row[called] for row in given] for field, called in fields.items()}
    pillars = quotes_to_strikes(surface.market, [row["T"] for row in given], quotes, conventions)
    strikes = [given[i][REFERENCE_NAMES[called]] for i, called in zip(pillars.row, pillars.name, strict=True)]
    np.testing.assert_allclose(pillars.strike, strikes, rtol=1e-9)
    np.testing.assert_allclose(pillars.vol, implied_vol(surface, pillars.log_moneyness, pillars.expiry), rtol=1e-8)


@needs_shared
@pytest.mark.parametrize("name", reference.SURFACES)
def test_a_reference_surface_is_quoted_as_the_reference_says(name: str) -> None:
    entry, surface = reference.given(name), reference.surface(name)
    conventions = conventions_of("EURBRL" if entry["premium_adjusted"] else "EURUSD")
    for row in entry["implied_quotes"]:
        expiry = row["T"]
        atm, rr, bf = quotes_of(lambda k, t=expiry: implied_vol(surface, k, t), surface.market, expiry, conventions)  # type: ignore[misc]
        quoted = [atm, rr[25], bf[25], rr[10], bf[10]]
        np.testing.assert_allclose(quoted, [row[f] for f in ("atm", "rr25", "ms25", "rr10", "ms10")], atol=1e-9)


@needs_shared
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("butterfly", ["market_strangle", "smile"])
def test_real_quotes_have_strikes(file: str, butterfly: str) -> None:
    pair, expiry, quotes = delta_quotes(file)
    conventions = conventions_of(pair, {"butterfly": butterfly})
    pillars = quotes_to_strikes(Market.flat(*RATES[pair]), expiry, quotes, conventions)
    assert len(pillars.name) == sum(int(np.isfinite(column).sum()) for column in quotes.values())
    for i in range(expiry.size):
        mine = [j for j, row in enumerate(pillars.row) if row == i]
        assert (np.diff(pillars.strike[mine]) > 0.0).all()


def test_market_strangles_have_the_price_of_their_quote() -> None:
    conventions = conventions_of("EURBRL")
    pillars = quotes_to_strikes(MARKET, EXPIRY, QUOTES, conventions)
    for i, expiry in enumerate(EXPIRY):
        mine = [j for j, row in enumerate(pillars.row) if row == i]
        smile = Smile.through(expiry, pillars.log_moneyness[mine], pillars.vol[mine])
        terms = DeltaTerms.of(conventions, expiry, math.exp(0.003 * expiry))
        for size in (25, 10):
            single = (QUOTES["atm"][i] or 0.0) + (QUOTES[f"bf{size}"][i] or 0.0)
            put, call = (log_moneyness_of_delta(terms, sign, 0.01 * size, single) for sign in (-1, 1))
            assert put is not None
            assert call is not None
            by_smile = put_price(put, expiry, smile.vol(np.array(put))) + call_price(
                call, expiry, smile.vol(np.array(call))
            )
            assert by_smile == pytest.approx(
                put_price(put, expiry, single) + call_price(call, expiry, single), abs=1e-12
            )
            wings = {name: float(pillars.vol[j]) for j, name in zip(mine, np.array(pillars.name)[mine], strict=True)}
            assert wings[f"{size}C"] - wings[f"{size}P"] == pytest.approx(QUOTES[f"rr{size}"][i])


def test_a_market_strangle_is_not_the_smile_butterfly_where_the_smile_is_skewed() -> None:
    conventions = conventions_of("EURBRL")
    pillars = quotes_to_strikes(MARKET, EXPIRY, QUOTES, conventions)
    by_name = {(row, name): vol for row, name, vol in zip(pillars.row, pillars.name, pillars.vol, strict=True)}
    smile = 0.5 * (by_name[1, "10C"] + by_name[1, "10P"]) - by_name[1, "ATM"]
    assert abs(smile - 0.0375) > 0.003


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("butterfly", ["market_strangle", "smile"])
@pytest.mark.parametrize("delta_kind", ["spot", "forward"])
@pytest.mark.parametrize("atm", ["delta_neutral", "forward", "spot"])
def test_quotes_come_back_under_every_convention(adjusted: bool, butterfly: Any, delta_kind: Any, atm: Any) -> None:
    conventions = Conventions(premium_adjusted=adjusted, delta=delta_kind, atm=atm, butterfly=butterfly)
    market = Market.flat(1.2, 0.03, 0.01)
    quotes = {"atm": [0.1], "rr25": [-0.01], "bf25": [0.003], "rr10": [-0.02], "bf10": [0.011]}
    pillars = quotes_to_strikes(market, [1.0], quotes, conventions)
    smile = Smile.through(1.0, pillars.log_moneyness, pillars.vol)
    back = quotes_of(smile.vol, market, 1.0, conventions)
    assert back.atm == pytest.approx(0.1, abs=1e-10)
    for size in (25, 10):
        assert back.rr[size] == pytest.approx(quotes[f"rr{size}"][0], abs=1e-9)
        assert back.bf[size] == pytest.approx(quotes[f"bf{size}"][0], abs=1e-9)


def test_wing_vols_have_their_own_deltas_and_any_size_may_be_quoted() -> None:
    conventions = conventions_of("EURUSD")
    quotes = {"atm": [0.1], "call15": [0.11], "put15": [0.12], "call5": [0.13], "put5": [0.15]}
    pillars = quotes_to_strikes(Market.flat(1.2, 0.03, 0.01), [2.0], quotes, conventions)
    assert pillars.name == ("5P", "15P", "ATM", "15C", "5C")
    terms = DeltaTerms.of(conventions, 2.0, math.exp(-0.02))
    for name, k, vol in zip(pillars.name, pillars.log_moneyness, pillars.vol, strict=True):
        if name != "ATM":
            sign: Any = 1 if name.endswith("C") else -1
            assert delta(terms, sign, float(k), float(vol)) == pytest.approx(sign * 0.01 * int(name[:-1]), rel=1e-9)


def test_an_expiry_may_lack_quotes_that_others_have() -> None:
    quotes = {**QUOTES, "rr10": [0.055, None], "bf10": [0.02, None]}
    pillars = quotes_to_strikes(MARKET, EXPIRY, quotes, conventions_of("EURBRL"))
    assert [pillars.row.count(i) for i in (0, 1)] == [5, 3]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"atm": [0.0, 0.14]}, "/surface/atm/0"),
        ({"atm": [0.12, -0.1]}, "/surface/atm/1"),
        ({"atm": [None, 0.14]}, "/surface/atm/0"),
        ({"atm": [12.0, 14.0]}, "/surface/atm/0"),
        ({"atm": None}, "/surface/atm"),
        ({"bf25": None}, "/surface/bf25"),
        ({"bf25": [0.005, None]}, "/surface/bf25/1"),
        ({"bf25": [0.005]}, "/surface/bf25"),
        ({"rr25": [0.3, 0.045]}, "/surface/rr25/0"),
        ({"bf10": [-0.2, 0.03]}, "/surface/bf10/0"),
        ({"bf25": [0.005, 0.2], "bf10": [0.02, -0.08]}, "/surface/bf10/1"),
        ({"call25": [0.1, 0.1]}, "/surface/rr25"),
        ({"rr50": [0.1, 0.1], "bf50": [0.0, 0.0]}, "/surface/rr50"),
        ({"strangle25": [0.1, 0.1]}, "/surface/strangle25"),
        ({"atm": "twelve"}, "/surface/atm"),
    ],
)
def test_quotes_that_no_smile_has_are_refused_by_their_field(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        quotes_to_strikes(MARKET, EXPIRY, {**QUOTES, **change}, conventions_of("EURBRL"), ("surface",))
    assert refused.value.problems[0].pointer == pointer


def test_crossed_strikes_are_refused_as_crossed() -> None:
    quotes = {"atm": [0.2], "rr25": [0.0], "bf25": [0.1], "rr10": [0.0], "bf10": [-0.1]}
    with pytest.raises(InvalidInput, match="crossed") as refused:
        quotes_to_strikes(MARKET, [1.0], quotes, conventions_of("EURUSD", {"butterfly": "smile"}))
    assert refused.value.problems[0].pointer == "/bf10/0"


def test_expired_tenors_are_refused_each() -> None:
    with pytest.raises(InvalidInput) as refused:
        quotes_to_strikes(MARKET, [-0.1, 0.0], QUOTES, conventions_of("EURBRL"))
    assert [problem.pointer for problem in refused.value.problems] == ["/expiry/0", "/expiry/1"]
