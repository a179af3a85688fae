"""The currency panels of the market folder, as columns of quotes."""

import csv
from typing import Any, NamedTuple

import numpy as np

from calibrant.arrays import Vector
from tests.shared import SHARED


class DeltaQuotes(NamedTuple):
    pair: str
    expiry: Vector
    quotes: dict[str, Vector]


FILES = (
    "eurgbp_frhfx_20170929",
    "eurjpy_ore_20250210",
    "eurusd_frhfx_20170929",
    "eurusd_ore_20191230",
    "eurusd_ore_20250210",
    "gbpusd_frhfx_20170929",
    "usdjpy_ore_20191230",
    "usdjpy_ore_20250210",
    "usdrub_20220224_invasion",
)


def delta_quotes(file: str) -> DeltaQuotes:
    """NaN where an expiry has no such quote."""
    with (SHARED / "market" / f"{file}.csv").open() as lines:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    expiry = np.array(sorted({float(row["expiry_years"]) for row in rows}))
    quotes: dict[str, Vector] = {}
    for row in rows:
        kind, size = row["option_type"], round(100 * float(row["delta"]))
        # A market strangle is one quote of a butterfly beside the smile butterfly of the same file.
        name = "atm" if kind == "atm" else f"{kind}{size}"
        values = quotes.setdefault(name, np.full(expiry.size, np.nan))
        values[np.searchsorted(expiry, float(row["expiry_years"]))] = float(row["mid_iv"])
    return DeltaQuotes(rows[0]["underlying"], expiry, quotes)
