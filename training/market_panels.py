"""Panels as a market quotes them: any expiries, any strikes, with noise, seen through the library's own projection.

What a network for real panels must know is not a surface on nodes but what a request looks like after
`calibrant.grid.project`: nodes filled by interpolation, smiles continued past the last strike, rows and columns
missing. So every panel is drawn as quotes, priced there, disturbed and projected, and the network never meets in
service what it has not met in training.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import implied_sd_kernel, otm_and_vega
from calibrant.compiled import careful
from calibrant.grid import interpolate
from calibrant.models import HESTON, Model
from calibrant.pricing.fit_kernel import time_values

from .domain import Domain

MOST_EXPIRIES = 12
MOST_STRIKES = 20

# Where the numbers of a panel lie among its uniform draws.
_OF_EXPIRIES = 24
_OF_SMILES = _OF_EXPIRIES + MOST_EXPIRIES
_OF_STRIKES = _OF_SMILES + 3 * MOST_EXPIRIES
_OF_NOISE = _OF_STRIKES + MOST_EXPIRIES * MOST_STRIKES
DRAWS = _OF_NOISE + MOST_EXPIRIES * MOST_STRIKES
"""Uniform numbers that a panel owns: 552, of which the first eight are its parameters'."""

_SHORTEST, _LONGEST = 2.0 / 365.0, 6.0
_LADDERS = ((4, 12), (5, 15))
"""Fewest and most expiries and strikes of a panel with one ladder of strikes at evenly spaced expiries."""
_LADDER_ENDS = ((0.05, 0.25), (1.0, 3.0), (0.65, 0.9), (1.1, 1.4))
"""Its first and last expiry in years, its first and last strike in forwards."""
_CLEAN = 0.25
"""Share of panels without noise."""
LEAST_TIME_VALUE = 1e-7
_PRICE_TOLERANCE = 1e-9


class MarketPanels(NamedTuple):
    """Projected vols and their metric, one row a parameter vector."""

    iv: NDArray[np.float64]
    """(n, n_expiries, n_strikes), NaN where the projection masks the node."""
    metric: Matrix
    """(n, n_params (n_params + 1) / 2): lower triangle, row by row, of J'J / n_quotes, with J the derivative of
    log vol * `REFERENCE_VOL` by the parameters on the scale of the network's output."""


REFERENCE_VOL = 0.2
"""Vol errors of panels between 3 and 150 % are compared as if all were at this level."""


class MarketQuotes(NamedTuple):
    """One drawn panel, sorted by expiry, then log-moneyness."""

    expiry: Vector
    """(n_quotes,), years."""
    log_moneyness: Vector
    iv: Vector
    """With the panel's noise."""
    exact_iv: Vector
    """Of the model."""


def market_quotes(params: Vector, draw: Vector, model: Model = HESTON, laddered: float = 0.0) -> MarketQuotes:
    """The quotes behind one panel of `market_panels`.

    params    (n_params,) of the panel
    draw      (DRAWS,) of the panel
    laddered  of the domain
    """
    params = np.ascontiguousarray(params)
    expiries, offsets, log_moneyness, iv, exact_iv, _ = _quotes(model.layout, params, draw, laddered)
    return MarketQuotes(np.repeat(expiries, np.diff(offsets)), log_moneyness, iv, exact_iv)


def market_panels(params: Matrix, domain: Domain, draws: Matrix) -> MarketPanels:
    """Panels of random quotes, projected onto the domain's grid.

    params   (n, n_params)
    draws    (n, DRAWS), uniform
    """
    log_moneyness, expiry = domain.grid()
    n, n_params = params.shape
    iv = np.empty((n, *domain.shape))
    metric = np.zeros((n, n_params * (n_params + 1) // 2))
    _fill(
        domain.model.layout,
        np.ascontiguousarray(params),
        draws,
        domain.output_slope(params),
        expiry,
        log_moneyness,
        domain.laddered,
        iv,
        metric,
    )
    return MarketPanels(iv, metric)


@careful
def expiries_of(draw: Vector) -> Vector:
    """Sorted expiries of a panel: from one to twelve, between a random shortest and a random longest."""
    n = 1 + int(draw[8] * MOST_EXPIRIES)
    shortest = math.log(_SHORTEST) + math.log(_LONGEST / _SHORTEST) * draw[9] ** 1.5
    longest = shortest + (math.log(_LONGEST) - shortest) * draw[10]
    out = np.empty(n)
    for e in range(n):
        place = (e + 0.9 * draw[_OF_EXPIRIES + e]) / n
        out[e] = math.exp(shortest + (longest - shortest) * place)
    return out


@careful
def strikes_of(draw: Vector, e: int, expiry: float, middle: float, out: Vector) -> int:
    """Fill standardised moneyness of one expiry; how many.

    Half of the panels quote the same range of deviations at every expiry, half the same range of strikes.
    """
    low, high = 0.5 + 4.5 * draw[11], 0.5 + 3.5 * draw[12]
    width = 0.6 + 0.6 * draw[_OF_SMILES + 3 * e]
    if draw[13] < 0.5:
        width *= math.sqrt(middle / expiry)
    low, high = min(max(low * width, 0.3), 6.0), min(max(high * width, 0.3), 5.0)
    n = min(3 + int(draw[14] * (MOST_STRIKES - 2)), MOST_STRIKES)
    for j in range(n):
        place = (j + 0.6 * (draw[_OF_STRIKES + e * MOST_STRIKES + j] - 0.5)) / (n - 1)
        out[j] = -low + (low + high) * place
    return n


@careful
def _whole(low: int, high: int, unit: float) -> int:
    """A number from low to high."""
    return min(low + int((high + 1 - low) * unit), high)


@careful
def _ladder(draw: Vector) -> tuple[Vector, IntVector, Vector]:
    """Expiries, their offsets and the log-moneyness of a panel with the same strikes at evenly spaced expiries."""
    (fewest, most), (fewest_strikes, most_strikes) = _LADDERS
    (soonest, soon), (late, latest), (lowest, low), (high, highest) = _LADDER_ENDS
    n, n_strikes = _whole(fewest, most, draw[8]), _whole(fewest_strikes, most_strikes, draw[14])
    expiries = np.linspace(_between(soonest, soon, draw[9]), _between(late, latest, draw[10]), n)
    strikes = np.linspace(lowest + (low - lowest) * draw[11], high + (highest - high) * draw[12], n_strikes)
    k = np.empty(n * n_strikes)
    for e in range(n):
        k[e * n_strikes : (e + 1) * n_strikes] = np.log(strikes)
    return expiries, np.arange(n + 1) * n_strikes, k


@careful
def _between(low: float, high: float, unit: float) -> float:
    """Log-uniform."""
    return float(low * (high / low) ** unit)


@careful
def _placed(layout: IntVector, params: Vector, draw: Vector, expiries: Vector) -> tuple[IntVector, Vector]:
    """Offsets of the expiries (n_expiries + 1,) and the log-moneyness of the quotes, before any is dropped."""
    n = expiries.size
    # At the money first: strikes are placed in its standard deviations.
    atm = np.empty(n)
    time_values(
        layout,
        params,
        expiries,
        np.arange(n + 1),
        np.zeros(n),
        np.full(n, _PRICE_TOLERANCE),
        atm,
        np.empty((0, n)),
        np.empty(n, np.int64),
        np.empty(n),
    )
    offsets = np.zeros(n + 1, np.int64)
    k = np.empty(n * MOST_STRIKES)
    x = np.empty(MOST_STRIKES)
    for e in range(n):
        sd = max(implied_sd_kernel(0.0, atm[e], 0.0), 1e-4)
        n_strikes = strikes_of(draw, e, expiries[e], expiries[n // 2], x)
        for j in range(n_strikes):
            k[offsets[e] + j] = x[j] * sd
        offsets[e + 1] = offsets[e] + n_strikes
    return offsets, k[: offsets[n]].copy()


@careful
def _quotes(
    layout: IntVector, params: Vector, draw: Vector, laddered: float
) -> tuple[Vector, IntVector, Vector, Vector, Vector, Matrix]:
    """Expiries and offsets, log-moneyness, quoted and exact vols, and the derivative of REFERENCE_VOL log vol by the
    parameters (n_params, n_quotes), of the quotes that carry a vol.
    """
    if draw[19] < laddered:
        expiries, offsets, k = _ladder(draw)
    else:
        expiries = expiries_of(draw)
        offsets, k = _placed(layout, params, draw, expiries)
    n_expiries = expiries.size
    n_params = params.size
    n_quotes = k.size
    value = np.empty(n_quotes)
    gradient = np.empty((n_params, n_quotes))
    n_nodes = np.empty(n_expiries, np.int64)
    tolerance = np.full(n_expiries, _PRICE_TOLERANCE)
    time_values(layout, params, expiries, offsets, k, tolerance, value, gradient, n_nodes, np.empty(n_expiries))
    sd = np.empty(n_quotes)
    for q in range(n_quotes):
        sd[q] = implied_sd_kernel(k[q], value[q], 0.0) if value[q] > LEAST_TIME_VALUE else -1.0
    vega = np.empty(n_quotes)
    otm_and_vega(k, np.maximum(sd, 1e-4), np.empty(n_quotes), vega)

    noisy = draw[15] >= _CLEAN
    of_quote = _between(2e-4, 3e-2, draw[16]) if noisy else 0.0
    of_level = _between(1e-4, 2e-2, draw[17]) if noisy else 0.0
    of_skew = _between(1e-4, 1e-2, draw[18]) if noisy else 0.0
    kept_expiries = np.empty(n_expiries)
    kept_offsets = np.zeros(n_expiries + 1, np.int64)
    iv = np.empty(n_quotes)
    exact_iv = np.empty(n_quotes)
    n_kept = 0
    n_rows = 0
    for e in range(n_expiries):
        before = n_kept
        level = of_level * (2.0 * draw[_OF_SMILES + 3 * e + 1] - 1.0)
        skew = of_skew * (2.0 * draw[_OF_SMILES + 3 * e + 2] - 1.0)
        widest = max(sd[offsets[e] : offsets[e + 1]].max(), 1e-4)
        root = math.sqrt(expiries[e])
        for q in range(offsets[e], offsets[e + 1]):
            # Neither a price that did not settle nor one that carries no vol is quoted.
            if n_nodes[e] < 0 or sd[q] <= 0.0:
                continue
            # Logistic, whose tails are heavier than the normal's, at unit standard deviation.
            u = min(max(draw[_OF_NOISE + e * MOST_STRIKES + q - offsets[e]], 1e-6), 1.0 - 1e-6)
            noise = 0.5513 * math.log(u / (1.0 - u))
            factor = 1.0 + level + skew * k[q] / widest + of_quote * noise
            exact_iv[n_kept] = sd[q] / root
            iv[n_kept] = sd[q] / root * min(max(factor, 0.5), 2.0)
            by_value = REFERENCE_VOL / (max(vega[q], 1e-12) * sd[q])
            for i in range(n_params):
                slope = gradient[i, q]
                gradient[i, n_kept] = slope * by_value if math.isfinite(slope) else 0.0
            k[n_kept] = k[q]
            n_kept += 1
        if n_kept > before:
            kept_expiries[n_rows] = expiries[e]
            n_rows += 1
            kept_offsets[n_rows] = n_kept
    return (
        kept_expiries[:n_rows],
        kept_offsets[: n_rows + 1],
        k[:n_kept],
        iv[:n_kept],
        exact_iv[:n_kept],
        gradient[:, :n_kept],
    )


@careful
def _fill(
    layout: IntVector,
    params: Matrix,
    draws: Matrix,
    slope: Matrix,
    rows: Vector,
    columns: Vector,
    laddered: float,
    iv: NDArray[np.float64],
    metric: Matrix,
) -> None:
    for p in range(params.shape[0]):
        expiries, offsets, k, mid, _, jacobian = _quotes(layout, params[p], draws[p], laddered)
        iv[p] = np.nan
        n = k.size
        if n == 0:
            continue
        for q in range(n):
            entry = 0
            for i in range(params.shape[1]):
                for j in range(i + 1):
                    metric[p, entry] += jacobian[i, q] * slope[p, i] * jacobian[j, q] * slope[p, j] / n
                    entry += 1
        interpolate(expiries, offsets, k, mid, np.ones(n), rows, columns, True, iv[p])
