"""Tables of quotes: series of Heston surfaces whose parameters wander, a few panels of them bad."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

import calibrant

EXPIRY = np.repeat([0.1, 0.5, 1.5], 5)
LOG_MONEYNESS = np.tile([-0.2, -0.1, 0.0, 0.1, 0.2], 3)
BEGIN = datetime(2024, 1, 20)
_LOWER, _UPPER = np.array([1.0, 0.03, 0.3, -0.8, 0.03]), np.array([5.0, 0.12, 0.9, -0.3, 0.12])


def surfaces(n: int, seed: int) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Vols of n days in a row."""
    random = np.random.default_rng(seed)
    params, found = 0.5 * (_LOWER + _UPPER), []
    for _ in range(n):
        params = np.clip(params + 0.03 * (_UPPER - _LOWER) * random.standard_normal(5), _LOWER, _UPPER)
        named = dict(zip(calibrant.models.HESTON.parameters, params.tolist(), strict=True))
        found.append(calibrant.price("heston", named, EXPIRY, LOG_MONEYNESS).implied_vol)
    return found


def quotes_of(underlyings: Sequence[str], n_days: int, bad: Sequence[tuple[str, int]] = ()) -> "pyarrow.Table":
    """A row a quote: a panel a day of each underlying.

    bad  (underlying, day) of panels whose vols are all zero
    """
    tables = []
    for seed, name in enumerate(underlyings):
        for day, vols in enumerate(surfaces(n_days, seed)):
            columns = {
                "underlying": [name] * EXPIRY.size,
                "as_of": pyarrow.array([BEGIN + timedelta(days=day)] * EXPIRY.size, pyarrow.timestamp("us")),
                "expiry": EXPIRY,
                "strike": 100.0 * np.exp(LOG_MONEYNESS),
                "forward": np.full(EXPIRY.size, 100.0),
                "iv": vols * ((name, day) not in bad),
            }
            tables.append(pyarrow.table(columns))
    return pyarrow.concat_tables(tables)


def written(table: "pyarrow.Table", path: Path, rows_in_group: int = 100) -> Path:
    parquet.write_table(table, path, row_group_size=rows_in_group)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Of the parts."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Of all parts, by underlying and date."""
    rows: list[dict[str, Any]] = parquet.read_table(folder).to_pylist()
    return sorted(rows, key=lambda row: (row["underlying"], str(row["as_of"])))
