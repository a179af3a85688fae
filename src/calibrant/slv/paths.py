"""Pricing paths: independent of the particles, quasi-random, in blocks that are never all kept.

A scrambled Sobol sequence (Owen 1998), its bits flipped at random for each replicate, is turned into paths by Brownian
bridges, and each path is walked twice, the second time mirrored. The scatter of the replicates' means gives the
standard errors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import qmc

from ..arrays import IntVector, Matrix, Vector
from ..steps import Progress, Steps
from .bridge import bridge_over, bridged
from .heston_step import step_constants
from .leverage import Leverage
from .particles import Heston
from .time_grid import time_grid
from .walk import BLOCK, walk

_SHARE = 1.0 / 250.0
_BITS = 30


@dataclass(frozen=True, kw_only=True)
class PathOptions:
    """How prices are simulated; the answer echoes them."""

    n_paths: int = 32_768
    """In all, mirrored ones counted; rounded up to a power of two for each replicate."""
    n_replicates: int = 16
    """Independent flips of the points' bits, which the standard errors come from."""
    step_days: float | None = None
    """Largest time step, days; None for a 250th of the time to the longest expiry, at most 5 days: what the leverage's
    slope within a step is neglected for goes with that share (docs/slv.md)."""
    seed: int = 0

    @property
    def points(self) -> int:
        """Points of a replicate, each walked twice."""
        return int(2 ** np.ceil(np.log2(max(self.n_paths / (2 * self.n_replicates), 1.0))))

    def dates(self, ends: Vector) -> Vector:
        """Dates that paths step through, from 0 to the last of `ends` (years, ascending), all of them met."""
        step_days = min(_SHARE * 365.0 * float(ends[-1]), 5.0) if self.step_days is None else self.step_days
        return time_grid(float(ends[-1]), ends.tolist(), step_days)


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """What paths follow: dS/S = (rd - rf) dt + L(t, S) sqrt(v) dW with Heston's v."""

    heston: Heston
    """After mixing."""
    leverage: Leverage


class Watch(NamedTuple):
    """What is asked of the paths, besides the log-spot at dates."""

    low: Vector
    """(n_barriers,) ln of the lower level, -1e3 for none."""
    high: Vector
    """(n_barriers,) ln of the upper level, 1e3 for none."""
    until: IntVector
    """(n_barriers,) index of the date at which each ends."""

    @classmethod
    def nothing(cls) -> "Watch":
        return cls(np.empty(0), np.empty(0), np.empty(0, np.int64))


class Block(NamedTuple):
    """What became of a block of paths."""

    log_spot: Matrix
    """(n_watched, n_paths)."""
    alive: Matrix
    """(n_barriers, n_paths) probability of not having touched."""
    paid: Matrix
    """(n_barriers, n_paths) value today of 1 unit paid at the touch."""


Payoff = Callable[[Block], Matrix]
"""From a block to what is averaged, (n_values, n_paths)."""


def mean_steps(
    dynamics: Dynamics,
    dates: Vector,
    log_forward: Vector,
    discount: Vector,
    watched: IntVector,
    watch: Watch,
    payoff: Payoff,
    options: PathOptions,
    shifts: tuple[float, ...] = (0.0,),
) -> Steps[Matrix]:
    """Means of a payoff over each replicate, a step for each block of paths.

    dates        (n_steps + 1,) years from 0; `log_forward` and `discount` likewise
    watched      indices of dates at which the payoff wants the log-spot
    shifts       of the log-spot today, all walked with the same numbers
    returns      (n_replicates, n_shifts, n_values)
    """
    n_steps = dates.size - 1
    bridge = bridge_over(dates)
    h = dynamics.heston
    constants = np.array([step_constants(h.kappa, h.theta, h.xi, h.rho, dt) for dt in np.diff(dates)])
    leverage = dynamics.leverage.resampled(dates)
    rng = np.random.default_rng(options.seed)
    # A scramble for each replicate would be a little better, and cost more than the walk.
    points = qmc.Sobol(2 * n_steps, rng=rng, bits=_BITS)
    size = min(BLOCK, options.points)
    path, z_v, z_s = np.empty((n_steps + 1, size)), np.empty((n_steps, size)), np.empty((n_steps, size))
    block = Block(*(np.empty((n, size)) for n in (watched.size, watch.low.size, watch.low.size)))
    means = []
    for done in range(options.n_replicates):
        flips = rng.integers(2**_BITS, size=(2 * n_steps, 1))
        points.reset()
        total = np.zeros(())
        for walked in range(0, options.points, size):
            flipped = (points.random(size).T * 2**_BITS).astype(np.int64) ^ flips
            uniforms = (flipped + 0.5) * 0.5**_BITS
            bridged(uniforms, 0, bridge, path, z_s)
            bridged(uniforms, 1, bridge, path, z_v)
            sums = []
            for shift in shifts:
                both = 0.0
                for mirror in (1.0, -1.0):
                    walk(
                        z_v,
                        z_s,
                        mirror,
                        shift,
                        h.v0,
                        constants,
                        leverage.start,
                        leverage.step,
                        leverage.value,
                        log_forward,
                        watch.low,
                        watch.high,
                        watch.until,
                        discount,
                        watched,
                        *block,
                    )
                    both = both + payoff(block).sum(axis=1)
                sums.append(both)
            total = total + np.array(sums)
            yield Progress(done + (walked + size) / options.points, float(options.n_replicates))
        means.append(total / (2 * options.points))
    return np.array(means)
