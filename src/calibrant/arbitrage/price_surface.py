"""Static arbitrage among the prices of a grid, whatever they come from."""

import numpy as np

from ..arrays import Matrix, Vector
from ..errors import InvalidInput, Problem
from .hull import PRICE_ERROR, static_arbitrage
from .violations import KINDS, Verdict, verdict_of


def check_price_surface(log_moneyness: Vector, expiry: Vector, call: Matrix, error: float = PRICE_ERROR) -> Verdict:
    """Static arbitrage among the calls of a grid, whatever they come from.

    log_moneyness  (n_strikes,), log(strike / forward), ascending
    expiry         (n_expiries,), years, > 0, ascending
    call           (n_expiries, n_strikes), undiscounted, in units of the forward
    error          what each call and put may be wrong by, relative to the larger of strike and forward
    returns        every violation above it (see `hull.py`)
    raises         InvalidInput for arrays that are no such grid
    """
    k, t, c = (np.asarray(x, dtype=np.float64) for x in (log_moneyness, expiry, call))
    for name, values in (("log_moneyness", k), ("expiry", t)):
        if values.ndim != 1 or not np.isfinite(values).all() or not (np.diff(values) > 0.0).all():
            raise InvalidInput(Problem.at((name,), "must be finite numbers in ascending order."))
    if c.shape != (t.size, k.size) or c.size == 0 or not np.isfinite(c).all():
        raise InvalidInput(
            Problem.at(("call",), f"must be {t.size} x {k.size} finite numbers (expiries, strikes), but is {c.shape}.")
        )
    prices = np.ascontiguousarray(c).ravel()
    excess = np.empty((len(KINDS), c.size))
    offsets = np.arange(t.size + 1, dtype=np.int64) * k.size
    static_arbitrage(np.tile(np.exp(k), t.size), offsets, prices, prices, error, excess)
    return verdict_of(excess, np.repeat(t, k.size), np.tile(k, t.size), error, of_quotes=False)
