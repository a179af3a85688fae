"""One time step of a Heston variance and of the log-spot that a leverage function drives by it.

    dS/S = (rd - rf) dt + L sqrt(v) dW,    dv = kappa (theta - v) dt + xi sqrt(v) dB,    d<W, B> = rho dt

By Andersen's (2008) quadratic-exponential scheme the variance is drawn from one of two families that match its mean and
variance given the last; the log-spot follows by its Brownian part independent of B, and by the part along B, which is
read off the variance itself:

    integral of sqrt(v) dB  =  (v' - E[v' | v]) e^(kappa dt / 2) / xi    up to third order in dt.

The drift is such that exp(log-spot) is a martingale step by step, exactly, whatever L (his "martingale correction").
Full truncation (Lord, Koekkoek & van Dijk 2010), the scheme of Hakala (2019), is biased at steps of days where Feller's
condition fails; it is there for comparison. L and v are those at the beginning of the step.
"""

from typing import NamedTuple

import numpy as np

from ..compiled import inlined
from ..pricing.vector_math import log, select

SWITCH = 1.5
"""Squared variation coefficient of v' from which the exponential family takes over."""
LEAST_XI = 1e-5
"""Below it the variance is deterministic to all purposes, while the quotients by xi lose their digits."""


class StepConstants(NamedTuple):
    """What a step of length dt needs to know of the model."""

    dt: float
    theta: float
    decay: float
    """e^(-kappa dt)."""
    by_variance: float
    """Var[v' | v] = by_variance v + by_level."""
    by_level: float
    slope: float
    """rho e^(kappa dt / 2) / xi: what an innovation of the variance does to the log-spot."""
    across: float
    """1 - rho^2."""
    kappa: float
    xi: float
    rho: float


def step_constants(kappa: float, theta: float, xi: float, rho: float, dt: float) -> StepConstants:
    """Of one step; xi after mixing."""
    xi = max(xi, LEAST_XI)
    gone = -np.expm1(-kappa * dt)
    share = gone / kappa if kappa > 0.0 else dt
    decay = 1.0 - gone
    return StepConstants(
        dt=dt,
        theta=theta,
        decay=decay,
        by_variance=xi * xi * decay * share,
        by_level=0.5 * theta * xi * xi * gone * share,
        slope=rho * np.exp(0.5 * kappa * dt) / xi,
        across=1.0 - rho * rho,
        kappa=kappa,
        xi=xi,
        rho=rho,
    )


@inlined
def quadratic_exponential(
    v: float, leverage: float, u: float, z_v: float, z: float, c: StepConstants
) -> tuple[float, float, float]:
    """(v', change of the log-spot beside its drift, quadratic variation of the log-spot) of a step.

    v         >= 0
    leverage  L at the beginning
    u, z_v    a uniform number and the normal one of the same probability, for the variance
    z         a normal number independent of them
    """
    # Divisions are what this costs: there is one for each quantity that several terms share.
    mean = c.theta + (v - c.theta) * c.decay
    inverse_mean = 1.0 / mean
    by_mean = (c.by_variance * v + c.by_level) * inverse_mean
    spread = max(by_mean * inverse_mean, 1e-14)
    quadratic = spread <= SWITCH
    # The quadratic family: a (b + z)^2.
    double = 2.0 / min(spread, SWITCH)
    b2 = double - 1.0 + np.sqrt(double * (double - 1.0))
    a = mean / (1.0 + b2)
    root = np.sqrt(b2) + z_v
    # The exponential one: zero with probability (spread - 1) / (spread + 1), else an exponential of mean `tail`.
    tail = 0.5 * (mean + by_mean)
    weight = spread + 1.0
    new = select(quadratic, a * root * root, -tail * log(min(max(0.5 * weight * (1.0 - u), 1e-300), 1.0)))
    # log E[exp(A v')], A what the log-spot gains by v' once the independent part is averaged.
    half = 0.5 * leverage * leverage * c.dt
    tilt = leverage * c.slope - 0.5 * half * (1.0 - c.across)
    tilted = min(tilt * select(quadratic, 2.0 * a, tail), 0.9)
    left = 1.0 - tilted
    ratio = tilted * select(quadratic, 0.5 * b2, 2.0) / (left * select(quadratic, 1.0, weight))
    logarithm = log(select(quadratic, left, 1.0 + ratio))
    moment = select(quadratic, ratio - 0.5 * logarithm, logarithm)
    variation = half * (v + new)
    across = c.across * variation
    change = tilt * new - moment - 0.5 * across + np.sqrt(across) * z
    return new, change, variation


@inlined
def full_truncation(v: float, leverage: float, z_v: float, z: float, c: StepConstants) -> tuple[float, float, float]:
    """The same by Euler's scheme; here v and v' may be negative, and count as zero."""
    alive = max(v, 0.0)
    new = v + c.kappa * (c.theta - alive) * c.dt + c.xi * np.sqrt(alive * c.dt) * z_v
    variation = leverage * leverage * alive * c.dt
    change = np.sqrt(variation) * (c.rho * z_v + np.sqrt(c.across) * z) - 0.5 * variation
    return new, change, variation
