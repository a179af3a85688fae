"""Requests as the formats want them, made from one request in the words of the schema."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.service.test_market import requests

Tensors = Mapping[str, NDArray[Any]]


REAL = ("spx_201010", "gld_20220715", "btc_20211021", "dax", "vix", "sse50etf")
"""An index, a commodity, a coin, a stressed index, a volatility index and a fund of another continent."""


@cache
def _requests() -> dict[str, dict[str, Any]]:
    return {str(param.id): param.values[0] for param in requests()}


def real_panel(name: str) -> dict[str, Any]:
    """The request made of the market file whose name begins so; of several dates the first."""
    return next(body for id_, body in _requests().items() if id_.startswith(name))


def as_moneyness(request: dict[str, Any]) -> dict[str, Any]:
    """The panel by log-moneyness, mid and equal weights, which every format can say; without the quotes that miss."""
    quotes = request["quotes"]
    strike, forward, expiry = (np.array(quotes[name], float) for name in ("strike", "forward", "expiry"))
    bid, ask, iv = (np.array(quotes[name], float) for name in ("bid_iv", "ask_iv", "iv"))
    mid = np.where(np.isnan(iv), 0.5 * (bid + ask), iv)
    there = ~np.isnan(mid)
    columns = {"expiry": expiry, "log_moneyness": np.log(strike / forward), "iv": mid}
    return {"quotes": {name: column[there].tolist() for name, column in columns.items()}}


def as_tensors(quotes: Mapping[str, Any], dtype: Any = np.float64) -> dict[str, NDArray[Any]]:
    """Columns of a request as arrays, null as NaN."""
    return {name: np.array(column, np.float64).astype(dtype) for name, column in quotes.items() if column is not None}
