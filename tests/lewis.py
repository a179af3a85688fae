"""Option values and their gradient by brute force: the judge of the fit kernel and the accurate pricer of any model.

Lewis's integral (Lewis 2001) on the straight contour u = x - i/2 through the model's readable characteristic function,
with Black's taken from it, by the midpoint rule with as many nodes as it takes. Nothing is chosen cleverly: the period
of the rule is so long that the images of a value are below 1e-17 without any moment beyond the first, and the integral
ends where |phi| stays below 1e-19 for three octaves: between two turns of a jump it is low for two at most.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from calibrant.arrays import Matrix, Vector
from calibrant.models import Model

_PERIOD = 80.0
_NEGLIGIBLE = -45.0
_OCTAVES = np.geomspace(1.0, 8.0, 385)
_CHUNK = 8192


class Judged(NamedTuple):
    value: Vector
    """(n_strikes,) undiscounted, in units of the forward: the put where log-moneyness < 0, else the call."""
    gradient: Matrix
    """(n_params, n_strikes), or (0, n_strikes)"""


def n_nodes(model: Model, k: Vector, expiry: float, params: Vector) -> int:
    """How many nodes `lewis` takes."""
    return int(_end(model, expiry, params) / step_of(k)) + 1


def step_of(k: Vector) -> float:
    """Between two nodes."""
    return float(2.0 * np.pi / (_PERIOD + 2.0 * np.abs(k).max()))


def _end(model: Model, expiry: float, params: Vector) -> float:
    end = 10.0 / float(np.sqrt(model.expected_variance(expiry, params)))
    while model.log_characteristic(end * _OCTAVES - 0.5j, expiry, params).real.max() > _NEGLIGIBLE:
        end *= 1.2
    return end


def lewis(model: Model, k: Vector, expiry: float, params: Vector, *, with_gradient: bool = False) -> Judged:
    """Options of one expiry; k is log(strike / forward)."""
    variance = model.expected_variance(expiry, params)
    n, step = n_nodes(model, k, expiry, params), step_of(k)
    total, gradient = np.zeros(k.size), np.zeros((model.n_params if with_gradient else 0, k.size))
    for first in range(0, n, _CHUNK):
        x = (np.arange(first, min(n, first + _CHUNK)) + 0.5) * step
        weight = step / (x * x + 0.25)
        turn = np.exp(-1j * np.multiply.outer(x, k))
        if with_gradient:
            log_phi, by_parameter = model.log_characteristic_gradient(x - 0.5j, expiry, params)
            phi = np.exp(log_phi)
            gradient -= ((by_parameter * (phi * weight)) @ turn).real
        else:
            phi = np.exp(model.log_characteristic(x - 0.5j, expiry, params))
        black = np.exp(-0.5 * variance * (x * x + 0.25))
        total += (((black - phi) * weight) @ turn).real
    scale = np.exp(0.5 * k) / np.pi
    sd = float(np.sqrt(variance))
    d = 0.5 * sd - k / sd
    strike = np.exp(k)
    put, call = strike * ndtr(sd - d) - ndtr(-d), ndtr(d) - strike * ndtr(d - sd)
    return Judged(np.where(k < 0.0, put, call) + scale * total, scale * gradient)
