"""The surfaces and cases of the reference folder, as the library takes them."""

import csv
import json
from typing import Any

from calibrant.market import Market
from calibrant.slv.particles import Heston
from calibrant.slv.surface import ClosedForm
from tests.shared import SHARED

FOLDER = SHARED / "reference" / "slv"
SURFACES = ("EURUSD_CLARK", "EURUSD_SYN18", "EURBRL_SYN18")
DAYS = {"1M": 30, "2M": 61, "3M": 91, "6M": 182, "1Y": 365, "2Y": 730, "3Y": 1095, "5Y": 1825}


def given(name: str) -> dict[str, Any]:
    """An entry of `surfaces.json`."""
    entry: dict[str, Any] = json.loads((FOLDER / "surfaces.json").read_text())[name]
    return entry


def surface(name: str) -> ClosedForm:
    entry = given(name)
    market = Market.flat(entry["S0"], entry["rd"], entry["rf"])
    return ClosedForm(market=market, **entry["params"])


def rows(file: str) -> list[dict[str, str]]:
    """Of `leverage.csv`, `one_touch.csv` or `repricing.csv`."""
    with (FOLDER / file).open() as lines:
        return list(csv.DictReader(lines))


def case(name: str) -> dict[str, Any]:
    """An entry of `cases.json`, `EURUSD_SYN18_6M` and its like."""
    entry: dict[str, Any] = json.loads((FOLDER / "cases.json").read_text())[name]
    return entry


def heston(name: str) -> Heston:
    """The parameters of a case before mixing."""
    given_there = case(name)["heston"]
    xi = given_there.pop("sigma")
    return Heston(xi=xi, **given_there)
