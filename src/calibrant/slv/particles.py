"""The leverage function by particles: step all of them to a date, regress their variance on their spot, go on.

    L(t, S)^2 = sigma_LV(t, S)^2 / E[v_t | S_t = S]                     (Dupire 1996; Guyon & Henry-Labordere 2012)

with the local vol of the very date at which the particles stand, and L(0, S0) = sigma_LV(0, S0) / sqrt(v0). Only the
particles of one date are kept.

By default they draw their numbers by rank (array-RQMC: L'Ecuyer, Lecot & Tuffin 2008): sorted by spot and within it by
variance, neighbours take consecutive points of a low-discrepancy sequence, shifted at random at every step. Each
particle's path has the model's law, while what neighbours do evens out, and it is neighbours that a regression
averages: the noise of the leverage falls to about a half (docs/results/slv.md).
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from ..arrays import Vector
from ..steps import Progress, Steps
from .estimators import DEFAULT, ESTIMATORS, Estimator, floored
from .estimators.interface import TAIL
from .heston_step import step_constants
from .leverage import Leverage
from .local_vol import LocalVolatility
from .particle_kernels import advance, mean_and_deviation, quantiles, rank
from .time_grid import time_grid

Scheme = Literal["qe", "euler"]
Numbers = Literal["ranked", "antithetic"]


@dataclass(frozen=True, kw_only=True)
class Heston:
    """The stochastic variance; `xi` is the calibrated one, before mixing."""

    kappa: float
    theta: float
    xi: float
    rho: float
    v0: float

    def mixed(self, mixing: float) -> "Heston":
        """With the share `mixing` of the vol of variance."""
        return Heston(kappa=self.kappa, theta=self.theta, xi=mixing * self.xi, rho=self.rho, v0=self.v0)


@dataclass(frozen=True, kw_only=True)
class ParticleOptions:
    """How the leverage is calibrated; the answer echoes them."""

    n_particles: int = 2048
    step_days: float = 5.0
    """Largest time step, days; the first month has shorter ones."""
    pillars: tuple[float, ...] = ()
    """Years that the dates must meet, besides the maturity."""
    estimator: Estimator = field(default_factory=lambda: ESTIMATORS[DEFAULT])
    scheme: Scheme = "qe"
    """`qe` (Andersen 2008) or `euler`, full truncation, as in Hakala (2019)."""
    numbers: Numbers = "ranked"
    """`ranked` (array-RQMC) or `antithetic`, independent ones in mirrored pairs."""
    n_nodes: int = 97
    """Of a row of the leverage."""
    seed: int = 0


class ParticleLeverage(NamedTuple):
    """A calibrated leverage and the particles it was calibrated with."""

    leverage: Leverage
    n_clipped: int
    """Local vols at its nodes that were raised to the floor or lowered to the cap."""
    log_spot: Vector
    """(n_particles,) at the maturity, where the particles ended."""
    variance: Vector
    """(n_particles,), as `log_spot`."""


def leverage_steps(
    local_vol: LocalVolatility, heston: Heston, maturity: float, options: ParticleOptions | None = None
) -> Steps[ParticleLeverage]:
    """Calibrate the leverage up to `maturity`, in a step for each date.

    heston    after mixing
    maturity  years
    """
    options = options or ParticleOptions()
    dates = time_grid(maturity, options.pillars, options.step_days)
    market = local_vol.surface.market
    log_forward = market.log_forward(dates)
    n, n_nodes = options.n_particles, options.n_nodes
    keys = np.random.default_rng(options.seed).integers(2**62, size=dates.size)
    ranked, euler = options.numbers == "ranked", options.scheme == "euler"
    x, v = np.zeros(n), np.full(n, heston.v0)
    spare = np.empty((2, n))
    start, step = np.empty(dates.size), np.empty(dates.size)
    value = np.empty((dates.size, n_nodes))
    today = local_vol.at(0.0, 0.0)
    n_clipped = today.below + today.above
    value[0] = today.vol / np.sqrt(heston.v0)
    # Constant, so of any width.
    start[0], step[0] = -0.5, 1.0 / (n_nodes - 1)
    for i in range(1, dates.size):
        constants = step_constants(heston.kappa, heston.theta, heston.xi, heston.rho, dates[i] - dates[i - 1])
        advance(x, v, value[i - 1], start[i - 1], 1.0 / step[i - 1], constants, euler, ranked, int(keys[i]))
        mean, deviation = mean_and_deviation(x)
        if ranked:
            rank(x, v, mean, deviation, spare[0], spare[1])
        y = (x - mean) / deviation
        low, high = quantiles(y, TAIL)
        nodes = np.linspace(low, high, n_nodes)
        alive = np.maximum(v, 0.0) if euler else v
        curve = floored(options.estimator(y, alive, nodes), float(alive.mean()))
        k = mean + deviation * nodes
        local = local_vol.at(k, dates[i])
        n_clipped += local.below + local.above
        value[i] = local.vol / np.sqrt(curve)
        start[i], step[i] = k[0], k[1] - k[0]
        yield Progress(float(i), float(dates.size - 1))
    leverage = Leverage(expiry=dates, start=log_forward + start, step=step, value=value)
    return ParticleLeverage(leverage, n_clipped, x + log_forward[-1], np.maximum(v, 0.0))
