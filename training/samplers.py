"""How parameters of training panels are drawn from the unit cube, for domains to name."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from calibrant.arrays import BoolVector, Matrix, Vector


class Box(NamedTuple):
    """Where parameters come from."""

    low: Vector
    """(n_params,)"""
    high: Vector
    """(n_params,)"""
    logs: BoolVector
    """(n_params,), True where the logarithm counts."""

    def at(self, unit: Matrix) -> Matrix:
        """Points of the unit cube (n, n_params) moved into the box, linearly or in the logarithm."""
        low, high, logs = self
        out = low + (high - low) * unit
        out[:, logs] = low[logs] * (high[logs] / low[logs]) ** unit[:, logs]
        return out


Sampler = Callable[[Box, Matrix], Matrix]
"""(box, points of the unit cube (n, n_params)) -> parameters (n, n_params) inside the box."""

_LARGEST_RATIO = 15.0
"""v0 and theta differ by this factor at most: beyond it one of them is not seen."""
_FELLER = (0.02, 30.0)
"""Of 2 kappa theta / xi^2, log-uniform: calibrated equity surfaces reach down to a few hundredths."""
_FASTER = 2.5
"""Times the next slower speed, at least: variances of nearly one speed are seen as one."""
_LARGEST_ODDS = 9.0
"""Of two variances one is this many times the other at most: a smaller one is not seen."""
_JUMP_VARIANCE = (0.02, 2.0)
"""Of the jumps in a year, in units of the long-run variance: rarer or smaller ones are not seen."""


def uniform(box: Box, unit: Matrix) -> Matrix:
    """Independent parameters, uniform in themselves or in their logarithm."""
    return box.at(unit)


def as_markets_show(*variances: int) -> Sampler:
    """Variances that belong together: v0 near theta, xi by its Feller ratio, cut to the box; of two the faster is the
    first, so that one surface has one parameter vector. Independent draws would mostly be surfaces that no market
    shows. Parameters of no variance are `uniform`.

    variances  the place of each variance's kappa, theta, xi, rho, v0, in that order, among the parameters
    """

    def sampled(box: Box, unit: Matrix) -> Matrix:
        params = box.at(unit)
        for first in variances:
            kappa, theta = params[:, first], params[:, first + 1]
            feller = _FELLER[0] * (_FELLER[1] / _FELLER[0]) ** unit[:, first + 2]
            params[:, first + 2] = np.sqrt(2.0 * kappa * theta / feller)
            params[:, first + 4] = theta * _LARGEST_RATIO ** (2.0 * unit[:, first + 4] - 1.0)
        return fastest_first(np.clip(params, box.low, box.high), variances)

    return sampled


def told_apart(variances: Sequence[int], jumps: Sequence[int] = ()) -> Sampler:
    """Factors that a surface tells apart: variances from the fastest to the slowest, each a part of the whole that is
    seen and of another speed than the next; v0 near theta and xi by the Feller ratio, as markets show; jumps whose
    variance is seen beside the others'. All is cut to the box.

    variances  the place of each variance's kappa, theta, xi, rho, v0, in that order, among the parameters
    jumps      of each jump's lam, mu_j, sigma_j
    """

    def sampled(box: Box, unit: Matrix) -> Matrix:
        params = box.at(unit)
        first = np.array(variances)
        slower = np.zeros(len(unit))
        for at in first[::-1]:
            slowest, fastest = np.maximum(box.low[at], _FASTER * slower), box.high[at]
            params[:, at] = slower = slowest * (fastest / slowest) ** unit[:, at]
        # The draws of the first variance are those of the sum of all.
        least = 1.0 / (1.0 + _LARGEST_ODDS * (first.size - 1))
        low, high = box.low[first[0] + 1] / least, box.high[first[0] + 1]
        long_run = low * (high / low) ** unit[:, first[0] + 1]
        now = long_run * _LARGEST_RATIO ** (2.0 * unit[:, first[0] + 4] - 1.0)
        for whole, place in ((long_run, first + 1), (now, first + 4)):
            odds = _LARGEST_ODDS ** (2.0 * unit[:, place] - 1.0)
            odds[:, 0] = 1.0
            params[:, place] = whole[:, np.newaxis] * odds / odds.sum(axis=1, keepdims=True)
        feller = _FELLER[0] * (_FELLER[1] / _FELLER[0]) ** unit[:, first + 2]
        params[:, first + 2] = np.sqrt(2.0 * params[:, first] * params[:, first + 1] / feller)
        for at in jumps:
            of_one = params[:, at + 1] ** 2 + params[:, at + 2] ** 2
            rarest, most = (np.clip(share * long_run / of_one, box.low[at], box.high[at]) for share in _JUMP_VARIANCE)
            params[:, at] = rarest * (most / rarest) ** unit[:, at]
        return np.clip(params, box.low, box.high)

    return sampled


def fastest_first(params: Matrix, variances: Sequence[int]) -> Matrix:
    """The same surfaces with their variances by falling kappa; arguments as above, the variances' boxes alike."""
    columns = np.array(variances)[:, np.newaxis] + np.arange(5)
    order = np.argsort(-params[:, columns[:, 0]], axis=1, kind="stable")
    out = params.copy()
    out[:, columns] = np.take_along_axis(params[:, columns], order[:, :, np.newaxis], axis=1)
    return out
