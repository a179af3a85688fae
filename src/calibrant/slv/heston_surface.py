"""The surface of a Heston model itself: the sharpest test of what follows, since its leverage is 1.

Every derivative that Dupire's formula needs is an integral of the accurate pricer's own kind. With s = iu, an option is
the integral of M(s) e^{(1-s)k} / (s (s - 1)), so that d/dt puts the factor d log M / dt into it, d/dk the factor 1 - s,
and d^2/dk^2 - d/dk, the density, the factor s (s - 1). They are handed to the pricer as if they were derivatives by
parameters, and the derivatives of w follow from those of the price.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from ..arbitrage.surface_twin import durrleman
from ..arrays import BoolVector, ComplexMatrix, ComplexVector, Vector
from ..black import implied_volatility_from_time_value, vega
from ..errors import InvalidInput, Problem
from ..market import Market
from ..models import HESTON
from ..models.variance_factor import log_characteristic_gradient
from ..pricing.fourier import Values, value_steps
from ..steps import finish
from .surface import TotalVariance


def _factors(u: ComplexVector, expiry: float, params: Vector) -> tuple[ComplexVector, ComplexMatrix]:
    """log phi, and by what the integrand is multiplied for d/dt, d/dk and d^2/dk^2 - d/dk of a price."""
    kappa, theta, xi, rho, v0 = params
    s = 1j * u
    log_phi, gradient = log_characteristic_gradient(u, expiry, params)
    # log phi is linear in v0, and its slope D solves D' = xi^2 D^2 / 2 + (rho xi s - kappa) D + s (s - 1) / 2.
    d = gradient[4]
    by_t = kappa * theta * d + v0 * (0.5 * xi * xi * d * d + (rho * xi * s - kappa) * d + 0.5 * s * (s - 1.0))
    nothing = np.zeros_like(s)
    return log_phi, np.stack([by_t, 1.0 - s, s * (s - 1.0), nothing, nothing])


_KNOWN = 1e-5
"""Of a price, what it may be off by: local vols are then off by less."""
_WITH_DERIVATIVES = replace(HESTON, log_characteristic_gradient=_factors)


@dataclass(frozen=True, kw_only=True)
class HestonSurface:
    market: Market
    params: Vector
    """(5,) kappa, theta, xi, rho, v0."""
    last_expiry: float = math.inf

    def total_variance(self, log_moneyness: ArrayLike, expiry: ArrayLike) -> TotalVariance:
        wide, years = np.broadcast_arrays(np.asarray(log_moneyness, np.float64), np.asarray(expiry, np.float64))
        k, t = wide.reshape(-1), years.reshape(-1)
        values, vol = self._priced(k, t)
        known = np.isfinite(vol)
        if not known.all():
            k = _inside(k, t, known)
            values, vol = self._priced(k, t)
        by_t, by_k, density = values.gradient[:3]
        w = vol**2 * t
        root, call = np.sqrt(w), k >= 0.0
        d2 = -k / root - 0.5 * root
        bell = vega(k, 1.0, root)
        # The path may have met the poles so that it gave the other option of the pair: a call's slope is negative.
        by_k = by_k + np.exp(k) * (np.where(call, 0.0, 1.0) - (by_k > 0.0))
        black_by_k = np.exp(k) * np.where(call, -ndtr(d2), ndtr(-d2))
        w_k = 2.0 * root / bell * (by_k - black_by_k)
        g = density * root / bell
        w_kk = 2.0 * (g - durrleman(k, w, w_k, np.zeros_like(w)))
        w_t = 2.0 * root / bell * by_t
        return TotalVariance(*(x.reshape(wide.shape) for x in (w, w_k, w_kk, w_t)))

    def _priced(self, k: Vector, t: Vector) -> tuple[Values, Vector]:
        """Prices with their derivatives, and their vols, NaN where a price does not carry one."""
        values = finish(value_steps(_WITH_DERIVATIVES, k, t, self.params, with_gradient=True))
        vol = implied_volatility_from_time_value(values.time_value, k, t).volatility
        return values, np.where(values.error <= _KNOWN * values.time_value, vol, np.nan)


def _inside(k: Vector, t: Vector, known: BoolVector) -> Vector:
    """Strikes too far out for a price moved to the last of their expiry that have one, from the forward outwards."""
    moved = k.copy()
    for expiry in np.unique(t[~known]):
        row = np.flatnonzero(t == expiry)
        lost = k[row[~known[row]]]
        low, high = np.max(lost[lost < 0.0], initial=-np.inf), np.min(lost[lost >= 0.0], initial=np.inf)
        seen = k[row][(k[row] > low) & (k[row] < high)]
        if not seen.size:
            needed = f"must have prices within double precision, but has none at expiry {expiry:g}."
            raise InvalidInput(Problem.at(("parameters",), needed))
        moved[row] = np.clip(k[row], seen.min(), seen.max())
    return moved
