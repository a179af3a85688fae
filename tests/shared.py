"""The reference values and market panels beside the checkout; tests that need them skip, saying so, where absent."""

import csv
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from calibrant.arrays import Vector

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder `shared` is not beside this checkout")


class ReferenceCall(NamedTuple):
    """One row of `call_prices.csv`: an undiscounted call on a forward of one."""

    params: Vector
    expiry: float
    log_strike: float
    call: float
    implied_vol: float | None = None


def reference_calls(model: str) -> list[ReferenceCall]:
    """The rows of one model."""
    with (SHARED / "reference" / "call_prices.csv").open() as file:
        return [
            ReferenceCall(
                np.array([float(row[f"p{i}"]) for i in range(13) if row[f"p{i}"]]),
                float(row["expiry"]),
                float(row["log_strike"]),
                float(row["call"]),
                float(row["implied_vol"]) if row["implied_vol"] else None,
            )
            for row in csv.DictReader(file)
            if row["model"] == model
        ]


def published_values() -> Any:
    """`published_values.json`."""
    return json.loads((SHARED / "reference" / "published_values.json").read_text())


def published_double_heston_jump() -> list[ReferenceCall]:
    """The set `double_heston_merton` of `published_values.json`, in the library's order and units."""
    published = published_values()["double_heston_merton"]
    rate, dividend = published["r"], published["q"]
    rows = []
    for name in ("base", "crisis"):
        v1, *first, v2, kappa2, theta2, xi2, rho2, lam, mu_j, sigma_j = published[name]["p"]
        params = np.array([*first, v1, kappa2, theta2, xi2, rho2, v2, lam, mu_j, sigma_j])
        for years, calls in published[name]["calls"].items():
            expiry = 7.0 / 365.0 if years == "7/365" else float(years)
            forward = published["S"] * math.exp((rate - dividend) * expiry)
            for strike, call in zip(published["strikes"], calls, strict=True):
                undiscounted = call * math.exp(rate * expiry) / forward
                rows.append(ReferenceCall(params, expiry, math.log(strike / forward), undiscounted))
    return rows


def market_files() -> list[Path]:
    """Every panel of quotes, without the files of rejected ones."""
    return sorted(path for path in (SHARED / "market").glob("*.csv") if not path.stem.endswith("_rejected"))
