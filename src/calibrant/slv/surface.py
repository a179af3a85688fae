"""Implied-volatility surfaces as total variance w(k, t) = vol^2 t with the derivatives that Dupire's formula needs.

k = log(strike / forward(t)) is the log-moneyness and t the expiry in years. The derivatives are those of the formula:
differences of a surface would put their own noise into every local vol.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..arrays import Vector
from ..market import Market


class TotalVariance(NamedTuple):
    """w and its derivatives, each of the shape to which k and t broadcast."""

    w: Vector
    """vol^2 t."""
    w_k: Vector
    w_kk: Vector
    w_t: Vector
    """At constant log-moneyness."""


class Surface(Protocol):
    """What the local volatility, the Heston fit and the checks ask of a surface."""

    @property
    def market(self) -> Market: ...

    @property
    def last_expiry(self) -> float:
        """Years: beyond it the surface says nothing; infinite for a closed form."""

    def total_variance(self, log_moneyness: ArrayLike, expiry: ArrayLike) -> TotalVariance:
        """At any log-moneyness, and expiries > 0 years."""


def implied_vol(surface: Surface, log_moneyness: ArrayLike, expiry: ArrayLike) -> Vector:
    """Of the shape to which the arguments broadcast."""
    vol: Vector = np.sqrt(surface.total_variance(log_moneyness, expiry).w / np.asarray(expiry))
    return vol


class Moving(NamedTuple):
    """A parameter of a slice and its derivative by expiry."""

    value: Vector
    by_t: Vector


def ssvi(k: Vector, theta: Moving, rho: Moving, phi: Moving) -> TotalVariance:
    """w = theta / 2 (1 + rho phi k + sqrt((phi k + rho)^2 + 1 - rho^2)), whose parameters move with the expiry.

    Gatheral & Jacquier 2014, equation 4.1.
    """
    z = phi.value * k
    z_t = phi.by_t * k
    root = np.sqrt(z * (z + 2.0 * rho.value) + 1.0)
    half = 0.5 * theta.value
    shape = 1.0 + rho.value * z + root
    slope = rho.value + (z + rho.value) / root
    return TotalVariance(
        w=half * shape,
        w_k=half * phi.value * slope,
        w_kk=half * phi.value**2 * (1.0 - rho.value**2) / root**3,
        w_t=0.5 * theta.by_t * shape + half * (slope * z_t + rho.by_t * z * (1.0 + 1.0 / root)),
    )


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """Slices by `ssvi` whose parameters are themselves closed forms of the expiry.

    theta = sinf^2 t + (s0^2 - sinf^2) (1 - exp(-b t)) / b,  rho = rinf + (r0 - rinf) exp(-a t),
    phi = eta (theta + th0)^-gam.
    """

    market: Market
    s0: float
    """At-the-money vol of the shortest expiry."""
    sinf: float
    """That of the longest."""
    b: float
    """Rate at which it goes from one to the other, a year, > 0."""
    r0: float
    rinf: float
    a: float
    eta: float
    gam: float
    th0: float
    """Variance > 0 that keeps phi finite as the expiry vanishes."""
    last_expiry: float = np.inf

    def total_variance(self, log_moneyness: ArrayLike, expiry: ArrayLike) -> TotalVariance:
        k, t = np.broadcast_arrays(np.asarray(log_moneyness, np.float64), np.asarray(expiry, np.float64))
        long, gone = self.sinf**2, self.s0**2 - self.sinf**2
        theta = Moving(long * t - gone * np.expm1(-self.b * t) / self.b, long + gone * np.exp(-self.b * t))
        off = (self.r0 - self.rinf) * np.exp(-self.a * t)
        phi = self.eta * (theta.value + self.th0) ** -self.gam
        phi_t = -self.gam * phi * theta.by_t / (theta.value + self.th0)
        return ssvi(k, theta, Moving(self.rinf + off, -self.a * off), Moving(phi, phi_t))
