"""Exact panels: implied vols of many parameter vectors on one grid, and what they say about the parameters."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import implied_sd_kernel, otm_and_vega
from calibrant.compiled import kernel
from calibrant.pricing.fit_kernel import time_values

from .domain import VISIBLE_DEVIATIONS, Domain

SMALLEST_TIME_VALUE = 1e-9
"""Of the forward. Below it there is no quote: a vol would say more about rounding than about the option."""

# A thousandth of the smallest time value: where vega exceeds 1e-3 of the forward this is 1e-5 bp of vol.
_PRICE_TOLERANCE = 1e-12


class ExactPanels(NamedTuple):
    """Vols and their metric, one row a parameter vector."""

    iv: NDArray[np.float64]
    """(n, n_expiries, n_strikes), NaN where the time value is below `SMALLEST_TIME_VALUE`."""
    metric: Matrix
    """(n, n_params (n_params + 1) / 2): lower triangle, row by row, of J'J / n_quotes over the quotes the network sees,
    with J the derivative of the vols by the parameters on the scale of the network's output."""


def exact_iv_panels(params: Matrix, domain: Domain) -> ExactPanels:
    """Panels of the domain's model on its grid.

    params  (n, n_params)
    error   of a vol: 1e-4 bp where vega exceeds 1e-3 of the forward (tests/training/test_exact.py)
    raises  ValueError for a parameter that is not finite; ArithmeticError if a price does not settle
    """
    if not np.isfinite(params).all():
        raise ValueError("`params` must be finite")
    if domain.standardised:
        raise ValueError(f"the grid of {domain.name} has no fixed strikes: `market_panels` makes its panels")
    log_moneyness, expiry = domain.grid()
    n, n_params = params.shape
    n_quotes = expiry.size * log_moneyness.size
    iv = np.empty((n, n_quotes))
    metric = np.zeros((n, n_params * (n_params + 1) // 2))
    settled: int = _fill_panels(
        domain.model.layout,
        np.ascontiguousarray(params, np.float64),
        log_moneyness,
        expiry,
        domain.output_slope(params),
        iv,
        metric,
    )
    if settled < n:
        raise ArithmeticError(f"the prices of panel {settled}, parameters {params[settled]}, did not settle")
    return ExactPanels(iv.reshape(n, *domain.shape), metric)


@kernel
def _fill_panels(
    layout: IntVector,
    params: Matrix,
    log_moneyness: Vector,
    expiries: Vector,
    scale: Matrix,
    iv: Matrix,
    metric: Matrix,
) -> int:
    """Fill `iv` (n, n_quotes) and `metric`; the number of panels, or the first whose prices did not settle."""
    n_strikes = log_moneyness.size
    n_quotes = expiries.size * n_strikes
    n_params = params.shape[1]
    k = np.empty(n_quotes)
    root_expiry = np.empty(n_quotes)
    offsets = np.empty(expiries.size + 1, np.int64)
    offsets[0] = 0
    for e in range(expiries.size):
        offsets[e + 1] = (e + 1) * n_strikes
        for j in range(n_strikes):
            k[e * n_strikes + j] = log_moneyness[j]
            root_expiry[e * n_strikes + j] = np.sqrt(expiries[e])
    tolerance = np.full(expiries.size, _PRICE_TOLERANCE)
    n_nodes = np.empty(expiries.size, np.int64)
    error = np.empty(expiries.size)
    value = np.empty(n_quotes)
    gradient = np.empty((n_params, n_quotes))
    sd = np.empty(n_quotes)
    priced = np.empty(n_quotes)
    vega = np.empty(n_quotes)
    for p in range(params.shape[0]):
        time_values(layout, params[p], expiries, offsets, k, tolerance, value, gradient, n_nodes, error)
        if n_nodes.min() < 0:
            return p
        for q in range(n_quotes):
            found = value[q] > SMALLEST_TIME_VALUE
            sd[q] = implied_sd_kernel(k[q], value[q], 0.0) if found else 1.0
            iv[p, q] = sd[q] / root_expiry[q] if found else np.nan
        otm_and_vega(k, sd, priced, vega)
        n_visible = 0
        for q in range(n_quotes):
            if value[q] > SMALLEST_TIME_VALUE and abs(k[q]) <= VISIBLE_DEVIATIONS * sd[q]:
                n_visible += 1
                by_vol = 1.0 / (vega[q] * root_expiry[q])
                entry = 0
                for i in range(n_params):
                    for j in range(i + 1):
                        slopes = gradient[i, q] * scale[p, i] * gradient[j, q] * scale[p, j]
                        metric[p, entry] += slopes * by_vol * by_vol
                        entry += 1
        for entry in range(metric.shape[1]):
            metric[p, entry] /= max(n_visible, 1)
    return len(params)
