"""The price columns of real chains, with nothing else: what parity and inversion make of them."""

import csv
import io
from collections.abc import Sequence

import numpy as np
import pytest

from calibrant.black import call_price, put_price
from calibrant.errors import InvalidInput
from calibrant.intake import Built, built_of_bytes, settings_of
from tests.shared import SHARED, needs_shared

pytestmark = needs_shared
COLUMNS = ("underlying", "as_of", "expiry_date", "option_type", "strike", "bid_price", "ask_price")
# Closes of those days, which the files do not have.
STOCKS = {"nvda_20251029_barchart": 207.04, "amd_20251022_barchart": 230.23, "intc_20251113_barchart": 37.9}


def rows_of(name: str) -> list[dict[str, str]]:
    found = []
    for file in (f"{name}.csv", f"{name}_rejected.csv"):
        with (SHARED / "market" / file).open(newline="") as opened:
            found += list(csv.DictReader(opened))
    return found


def chain_of(rows: Sequence[dict[str, str]], **settings: object) -> Built:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    (found,) = built_of_bytes(text.getvalue().encode(), "chain.csv", settings_of(settings))
    return found


def reasons(found: Built) -> set[str]:
    return {exclusion.reason for exclusion in found.excluded}


def test_an_index_of_2011_has_the_forwards_and_vols_stated_for_it() -> None:
    rows = rows_of("spx_20110124_cboe")
    found = chain_of(rows)
    assert {caution.code for caution in found.cautions} == set()
    stated = {row["expiry_date"]: float(row["forward"]) for row in rows if row["forward"]}
    assert {expiry.expiration for expiry in found.expiries} == set(stated)
    for expiry in found.expiries:
        # Two ways to weigh pairs whose spreads are 25 bp of the forward.
        assert expiry.forward == pytest.approx(stated[expiry.expiration], rel=4e-4)
        assert expiry.forward_error is not None
        assert expiry.forward_error < 1e-4 * expiry.forward
        assert expiry.n_pairs > 20
    columns = found.columns
    discounts = {expiry.expiry: expiry.discount for expiry in found.expiries}
    for i, row in enumerate(found.index.tolist()):
        forward, strike, t = columns["forward"][i], columns["strike"][i], columns["expiry"][i]
        price = call_price if rows[row]["option_type"] == "call" else put_price
        middle = 0.5 * (float(rows[row]["bid_price"]) + float(rows[row]["ask_price"]))
        given = float(discounts[t] * forward * price(np.log(strike / forward), t, columns["iv"][i]))
        assert given == pytest.approx(middle, rel=1e-7)
    assert reasons(found) == {"in the money: the other option of its pair is used", "expired", "below intrinsic value"}
    assert len(found.index) + len(found.excluded) == len(rows)


@pytest.mark.parametrize("name", STOCKS)
def test_a_stock_is_warned_of_or_valued_with_early_exercise(name: str) -> None:
    pytest.importorskip("QuantLib")
    rows = rows_of(name)
    assert {caution.code for caution in chain_of(rows).cautions} == {"exercise_assumed_european"}
    with pytest.raises(InvalidInput, match="`spot` must be given"):
        chain_of(rows, exercise="american")
    # A range of strikes is enough to see it, and each vol costs a search.
    near = [row for row in rows if 0.8 * STOCKS[name] < float(row["strike"]) < 1.25 * STOCKS[name]]
    found = chain_of(near, exercise="american", spot=STOCKS[name], rate=0.04)
    assert found.cautions == []
    (expiry,) = found.expiries
    stated = float(next(row["forward"] for row in rows if row["forward"]))
    assert expiry.forward == pytest.approx(stated, rel=2e-3)
    assert expiry.early_exercise is not None
    assert 0.0 < expiry.early_exercise.median_bp < expiry.early_exercise.max_bp < 100.0
    assert abs(expiry.early_exercise.dividend_yield) < 0.06
    stated_vols = {(row["option_type"], float(row["strike"])): row["mid_iv"] for row in near}
    for i, row in enumerate(found.index.tolist()):
        vol = stated_vols[near[row]["option_type"], float(near[row]["strike"])]
        if vol:
            # Theirs are European vols, at a forward a few basis points away.
            assert found.columns["iv"][i] == pytest.approx(float(vol), abs=0.012)
