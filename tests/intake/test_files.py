"""The files that people had and the service refused: what each has to become."""

from pathlib import Path

import numpy as np
import pytest

from calibrant.black import call_price, put_price
from calibrant.errors import InvalidInput
from calibrant.intake import Built, read_quotes
from tests.shared import SHARED, needs_shared

FILES = SHARED / "cases" / "files"
pytestmark = needs_shared


def built(name: str, **settings: object) -> Built:
    (found,) = read_quotes(FILES / name, **settings)
    return found


def fields_asked(name: str, **settings: object) -> set[str | int]:
    with pytest.raises(InvalidInput) as refused:
        read_quotes(FILES / name, **settings)
    return {problem.path[0] for problem in refused.value.problems}


def codes(found: Built) -> set[str]:
    return {caution.code for caution in found.panel().cautions}


def assert_is_the_right_panel(found: Built, within_bp: float) -> None:
    right, panel = built("00_right.csv").panel(), found.panel()
    np.testing.assert_allclose(panel.expiry, right.expiry, atol=5.1e-5)
    np.testing.assert_allclose(panel.log_moneyness, right.log_moneyness, atol=1e-6)
    np.testing.assert_allclose(panel.mid, right.mid, atol=1e-4 * within_bp, rtol=0.0)


@pytest.mark.parametrize(
    ("name", "cautions"),
    [("01_prices_dates_spot.csv", set()), ("02_yfinance.csv", {"as_of_inferred", "columns_ignored"})],
)
def test_prices_become_the_vols_of_the_right_file(name: str, cautions: set[str]) -> None:
    found = built(name)
    assert_is_the_right_panel(found, 0.5)
    assert codes(found) == cautions
    assert {exclusion.reason for exclusion in found.excluded} == {"in the money: the other option of its pair is used"}
    assert [expiry.n_pairs for expiry in found.expiries] == [24, 36, 14, 18, 25]
    assert found.as_of == "2025-11-28"


@pytest.mark.parametrize("name", ["01_prices_dates_spot.csv", "02_yfinance.csv"])
def test_vols_give_the_prices_back(name: str) -> None:
    found = built(name)
    columns = found.columns
    by_years = {expiry.expiry: expiry for expiry in found.expiries}
    rows = (FILES / name).read_text().splitlines()
    at = [rows[0].split(",").index(side) for side in ("bid", "ask")]
    for i, row in enumerate(found.index.tolist()):
        expiry, strike, forward = columns["expiry"][i], columns["strike"][i], columns["forward"][i]
        discount = by_years[expiry].discount
        assert discount is not None
        quoted = [float(rows[row + 1].split(",")[j]) for j in at]
        price = call_price if strike >= forward else put_price
        vols = [columns[name][i] for name in ("bid_iv", "ask_iv", "iv")]
        given = discount * forward * price(np.log(strike / forward), expiry, vols)
        np.testing.assert_allclose(given, [*quoted, 0.5 * sum(quoted)], rtol=1e-9)


def test_a_date_given_stands_in_the_place_of_an_inferred_one() -> None:
    found = built("02_yfinance.csv", as_of="2025-11-27")
    assert codes(found) == {"columns_ignored"}
    assert found.columns["expiry"].min() == 22 / 365


def test_index_roots_settle_at_the_open_where_asked() -> None:
    found = built("02_yfinance.csv", settlement="exchange")
    np.testing.assert_allclose(found.columns["expiry"].min(), (21 - 6.5 / 24) / 365, rtol=1e-12)


@pytest.mark.parametrize(("name", "within_bp"), [("12_caps.csv", 1e-9), ("09_german_excel.csv", 0.51)])
def test_capitals_and_decimal_commas_are_read(name: str, within_bp: float) -> None:
    found = built(name)
    assert_is_the_right_panel(found, within_bp)
    assert codes(found) == set()


def test_percent_is_read_with_a_warning() -> None:
    found = built("05_percent.csv")
    assert_is_the_right_panel(found, 0.51)
    assert codes(found) == {"vols_look_like_percent"}
    assert codes(built("05_percent.csv", vol_unit="percent")) == set()


@pytest.mark.parametrize(
    ("name", "reason"), [("18_zero_bid.csv", "no bid: its vol is zero, and no iv"), ("23_expired.csv", "expired")]
)
def test_unusable_rows_are_left_out_with_one_reason(name: str, reason: str) -> None:
    panel = built(name).panel()
    assert {exclusion.reason for exclusion in panel.excluded} == {reason}
    assert panel.n_quotes + len(panel.excluded) == 117


def test_a_grid_by_delta_asks_what_its_deltas_are() -> None:
    assert fields_asked("03_bbg_delta_grid.csv") == {"pair", "convention"}
    assert fields_asked("03_bbg_delta_grid.csv", pair="EURUSD") == {"foreign_rate"}
    found = built("03_bbg_delta_grid.csv", pair="EURUSD", spot=1.1, domestic_rate=0.04, foreign_rate=0.02)
    panel = found.panel()
    assert (panel.n_quotes, found.label) == (30, "EURUSD")
    np.testing.assert_allclose(panel.mid[:5], [0.192, 0.161, 0.139, 0.128, 0.125], rtol=1e-12)
    assert np.all(np.diff(panel.log_moneyness[:5]) > 0.0)


def test_spot_in_the_place_of_a_forward_asks_for_the_rate() -> None:
    assert fields_asked("14_spot.csv") == {"rate"}
    found = built("14_spot.csv", rate=0.04, dividend_yield=0.013)
    assert codes(found) == set()
    np.testing.assert_allclose(found.columns["forward"], 6800.0 * np.exp(0.027 * found.columns["expiry"]), rtol=1e-14)


def test_days_in_the_place_of_years_ask_for_the_unit() -> None:
    assert fields_asked("30_days_short.csv") == {"expiry_unit"}
    panel = built("30_days_short.csv", expiry_unit="days").panel()
    np.testing.assert_allclose(np.unique(panel.expiry), [21 / 365, 49 / 365], rtol=1e-15)


def test_strikes_and_forwards_exchanged_ask_which_is_which() -> None:
    assert fields_asked("34_swapped.csv") == {"columns"}
    swapped = {"strike": "forward", "forward": "strike"}
    assert_is_the_right_panel(built("34_swapped.csv", columns=swapped), 1e-9)
    kept = built("34_swapped.csv", columns={"strike": "strike", "forward": "forward"})
    assert codes(kept) == {"strike_and_forward_look_exchanged"}


def test_a_panel_written_is_the_panel_read(tmp_path: Path) -> None:
    from calibrant.quotes_csv import write_csv

    found = built("01_prices_dates_spot.csv")
    path = tmp_path / "panel.csv"
    with path.open("w") as file:
        write_csv([found], file)
    (again,) = read_quotes(path)
    for name, column in found.panel().__dict__.items():
        if name in ("expiry", "mid", "bid", "ask", "weight", "forward"):
            np.testing.assert_array_equal(getattr(again.panel(), name), column)
