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
from .estimators import DEFAULT, ESTIMATORS, Estimator
from .estimators.interface import LEAST_SHARE, TAIL
from .heston_step import step_constants
from .leverage import Leverage
from .local_vol import LocalVolatility
from .particle_kernels import advance, leverage_row, ranked
from .time_grid import time_grid

Scheme = Literal["qe", "euler"]
Numbers = Literal["ranked", "antithetic"]
_LOCAL_VOLS, _WIDTH = 181, 6.0
"""Of a date, and the standard deviations to either side: what is linear between is within 0.03 % of the formula."""


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
    n_nodes: int = 65
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
    log_forward = local_vol.surface.market.log_forward(dates)
    local = local_vol.grid(dates, n_nodes=_LOCAL_VOLS, width=_WIDTH)
    n, n_nodes = options.n_particles, options.n_nodes
    keys = np.random.default_rng(options.seed).integers(2**62, size=dates.size).tolist()
    by_rank, euler = options.numbers == "ranked", options.scheme == "euler"
    x, v = np.zeros(n), np.full(n, heston.v0)
    next_x, next_v, y = np.empty((3, n))
    start, step = np.empty(dates.size), np.empty(dates.size)
    value = np.empty((dates.size, n_nodes))
    # Today it is one number: a row of any width.
    start[0], step[0] = -0.5, 1.0 / (n_nodes - 1)
    value[0] = local_vol(log_forward[0], 0.0) / np.sqrt(heston.v0)
    n_clipped = 0
    unit = np.linspace(0.0, 1.0, n_nodes)
    for i in range(1, dates.size):
        constants = step_constants(heston.kappa, heston.theta, heston.xi, heston.rho, float(dates[i] - dates[i - 1]))
        advance(x, v, value[i - 1], start[i - 1], 1.0 / step[i - 1], constants, euler, by_rank, keys[i])
        mean, deviation, alive, low, high = ranked(x, v, TAIL, next_x, next_v, y)
        curve = options.estimator(y, np.maximum(next_v, 0.0) if euler else next_v, low + (high - low) * unit)
        if by_rank:
            x, v, next_x, next_v = next_x, next_v, x, v
        start[i], step[i] = mean + deviation * low, deviation * (high - low) / (n_nodes - 1)
        n_clipped += leverage_row(
            local.vol[i],
            local.start[i] - log_forward[i],
            1.0 / local.step[i],
            curve,
            LEAST_SHARE * alive,
            start[i],
            step[i],
            local_vol.floor,
            local_vol.cap,
            value[i],
        )
        yield Progress(float(i), float(dates.size - 1))
    leverage = Leverage(expiry=dates, start=log_forward + start, step=step, value=value)
    return ParticleLeverage(leverage, n_clipped, x + log_forward[-1], np.maximum(v, 0.0))
