"""Model surfaces of many parameter vectors, each at its own strikes: what the answers are judged by."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix, Vector
from calibrant.black import implied_volatility_from_time_value
from calibrant.models import Model
from calibrant.pricing.fit_kernel import time_values
from calibrant.pricing.fourier import otm_values
from training.domain import Domain
from training.exact import SMALLEST_TIME_VALUE

Surfaces = NDArray[np.float64]
"""(n_panels, n_expiries, n_strikes)."""

# A thousandth of the smallest time value that counts as a quote: the panels themselves are made to the same error.
_PRICE_TOLERANCE = 1e-12
# What an answer's option is worth at least: a tenth of a basis point below the smallest quote would otherwise turn a
# vol that is nearly right into none at all.
_LEAST_ANSWER = 1e-11


class Nodes(NamedTuple):
    """The full vol grid of each panel and the truth there."""

    model: Model
    """Of the panels."""

    expiry: Vector
    """(n_expiries,), years."""
    log_moneyness: Surfaces
    """(n, n_expiries, n_strikes), log(strike / forward)."""
    iv: Surfaces
    """(n, n_expiries, n_strikes), NaN where the time value is below `SMALLEST_TIME_VALUE`: there is no quote."""


def nodes_of(domain: Domain, params: Matrix) -> Nodes:
    """Where the panels of these parameters lie on the domain's grid, and their exact vols.

    On a standardised grid a column is a number of standard deviations of the panel's own at-the-money vol.

    params  (n, n_params)
    """
    columns, expiry = domain.grid()
    shape = (len(params), *domain.shape)
    if domain.standardised:
        at_the_money = vols(otm(domain.model, params, np.zeros((len(params), expiry.size, 1)), expiry), 0.0, expiry)
        log_moneyness = columns * (at_the_money * np.sqrt(expiry)[:, None])
    else:
        log_moneyness = np.broadcast_to(columns, shape)
    value = otm(domain.model, params, log_moneyness, expiry)
    return Nodes(
        domain.model,
        expiry,
        log_moneyness,
        vols(np.where(value > SMALLEST_TIME_VALUE, value, np.nan), log_moneyness, expiry),
    )


def vols_at(nodes: Nodes, params: Matrix) -> Surfaces:
    """Vols of the answers `params` (n, n_params) at the nodes of the true panels.

    raises  ArithmeticError unless all are finite: a hole would count as no error
    """
    value = otm(nodes.model, params, nodes.log_moneyness, nodes.expiry)
    # The deepest nodes of an answer far off may be worth their bound; the vol just below it is error enough.
    bound = np.minimum(1.0, np.exp(nodes.log_moneyness))
    value = np.clip(value, np.minimum(_LEAST_ANSWER, 0.5 * bound), bound * (1.0 - 1e-9))
    found = vols(value, nodes.log_moneyness, nodes.expiry)
    if not np.isfinite(found).all():
        first = np.argwhere(~np.isfinite(found))[0]
        raise ArithmeticError(f"the answer {params[first[0]]} has no vol at node {first[1:]}")
    return found


def otm(model: Model, params: Matrix, log_moneyness: Surfaces, expiry: Vector) -> Surfaces:
    """Out-of-the-money values of the model's surfaces, in units of the forward, by the compiled kernel.

    params         (n, n_params), clipped to the admissible bounds: tanh in float32 can round to -1, and Heston's rho
                   cannot be
    log_moneyness  (n, n_expiries, n_strikes), ascending along the strikes
    error          1e-12; what the kernel does not bring there the accurate pricer does
    raises         ValueError for a parameter that is not finite
    """
    if not np.isfinite(params).all():
        raise ValueError("`params` must be finite")
    n, n_expiries, n_strikes = log_moneyness.shape
    admissible = np.clip(params, model.lower, model.upper)
    offsets = np.arange(n_expiries + 1) * n_strikes
    tolerance = np.full(n_expiries, _PRICE_TOLERANCE)
    n_nodes = np.empty(n_expiries, np.int64)
    error = np.empty(n_expiries)
    no_gradient = np.empty((0, n_expiries * n_strikes))
    k = np.ascontiguousarray(log_moneyness).reshape(n, -1)
    out = np.empty(k.shape)
    for i in range(n):
        time_values(model.layout, admissible[i], expiry, offsets, k[i], tolerance, out[i], no_gradient, n_nodes, error)
        if n_nodes.min() < 0:
            out[i] = otm_values(model, k[i], np.repeat(expiry, n_strikes), admissible[i])
    return out.reshape(log_moneyness.shape)


def vols(value: Surfaces, log_moneyness: Surfaces | float, expiry: Vector) -> Surfaces:
    """Implied vols of out-of-the-money values (n, n_expiries, n_strikes), NaN where the value is."""
    found = np.isfinite(value)
    k = np.broadcast_to(log_moneyness, value.shape)[found]
    years = np.broadcast_to(expiry[:, None], value.shape)[found]
    out = np.full(value.shape, np.nan)
    out[found] = implied_volatility_from_time_value(value[found], k, years).volatility
    return out
