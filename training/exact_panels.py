"""Panels of a training domain with vols and derivatives from the accurate pricer, never from the kernel that fits."""

from typing import NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.black import implied_volatility_from_time_value, vega
from calibrant.models.model import Model
from calibrant.pricing.fourier import call_prices_and_gradient, otm_values
from training.domain import Domain


class ExactVols(NamedTuple):
    """One surface."""

    vol: Vector
    """(n_quotes,), NaN where the price carries none."""
    by_params: Matrix
    """(n_params, n_quotes) derivatives of the vols."""


def grid_quotes(domain: Domain) -> tuple[Vector, Vector]:
    """Expiry and log-moneyness of every node of the domain's grid, row by row: (n_quotes,) each."""
    log_moneyness, expiry = domain.grid()
    return np.repeat(expiry, log_moneyness.size), np.tile(log_moneyness, expiry.size)


def model_vols(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector) -> Vector:
    """Implied vols of the accurate pricer, (n_quotes,), NaN where the price carries none."""
    values = otm_values(model, log_moneyness, expiry, params)
    return implied_volatility_from_time_value(values, log_moneyness, expiry).volatility


def vols_and_gradient(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector) -> ExactVols:
    """Implied vols of the accurate pricer and their derivatives."""
    calls, by_params = call_prices_and_gradient(model, log_moneyness, expiry, params)
    values = calls - np.maximum(-np.expm1(log_moneyness), 0.0)
    vol = implied_volatility_from_time_value(values, log_moneyness, expiry).volatility
    found = np.isfinite(vol)
    size = np.full(vol.size, np.nan)
    size[found] = vega(log_moneyness[found], expiry[found], vol[found])
    return ExactVols(vol, by_params / size)
