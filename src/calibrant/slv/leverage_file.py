"""A leverage in a Parquet file: `expiry`, `spot`, `leverage`, a row a node, which any reader of Parquet takes.

What prices under it need besides stands in the file's metadata, under `calibrant`: the request as it was made, Heston's
parameters and the mixing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput, Problem
from .heston_fit import HestonFit
from .leverage import Leverage
from .particles import Heston
from .requests import CalibratedLeverage
from .requests_by_name import KeptLeverage, leverage_named

_KEY = b"calibrant"


def write_leverage(path: Path, calibrated: CalibratedLeverage, request: Mapping[str, Any]) -> None:
    """`request` is the mapping that `leverage_named` read.

    raises  ImportError without pyarrow, OSError
    """
    pyarrow, parquet = _arrow()
    fit = calibrated.fit
    about = {
        "request": request,
        "heston": asdict(fit.heston),
        "rmse_bp": fit.rmse_bp,
        "mixing": calibrated.mixing,
        "n_clipped": calibrated.n_clipped,
    }
    table = pyarrow.table(calibrated.leverage.columns())
    parquet.write_table(table.replace_schema_metadata({_KEY: json.dumps(about, allow_nan=False)}), path)


def read_leverage(path: Path) -> KeptLeverage:
    """raises  InvalidInput if it is no such file, ImportError without pyarrow, OSError"""
    pyarrow, parquet = _arrow()
    try:
        table = parquet.read_table(path)
        about = json.loads((table.schema.metadata or {})[_KEY])
        columns = {name: table[name].to_numpy() for name in ("expiry", "spot", "leverage")}
    except (KeyError, ValueError, pyarrow.ArrowException) as error:
        needed = f"{path.name} must be a leverage that `calibrant leverage --out` has written, but is not: {error}"
        raise InvalidInput(Problem(("leverage",), needed)) from None
    named = leverage_named(about["request"])
    expiry = np.unique(columns["expiry"])
    spot, value = (columns[name].reshape(expiry.size, -1) for name in ("spot", "leverage"))
    heston = Heston(**about["heston"])
    calibrated = CalibratedLeverage(
        request=replace(named.request, heston=heston),
        fit=HestonFit(heston, about["rmse_bp"]),
        mixing=about["mixing"],
        leverage=Leverage.from_dict({"expiry": expiry, "spot": spot, "value": value}),
        n_clipped=about["n_clipped"],
        repriced=None,
        martingale=None,
        timing_ms={},
    )
    return KeptLeverage(calibrated, named.surface.conventions)


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'calibrant[arrow]'.") from error
    return pyarrow, parquet
