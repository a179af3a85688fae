"""Samples of a model's characteristic function, the only thing the surface check knows of a model.

They are taken on Lewis's contour u = x - i/2 at x = 0, h, 2h, ..., together with their derivative by expiry, which the
calendar condition needs. `sample_row` takes them in compiled code for models made of factors; any other model is
sampled through its readable `log_characteristic`, slower and to the same effect.
"""

import math
from collections.abc import Callable

import numpy as np

from ..arrays import ComplexVector, IntVector, Matrix, Vector
from ..compiled import kernel
from ..layout import VARIANCE
from ..models.model import Model
from ..pricing.heston_block import heston_node
from ..pricing.jump_block import jump_node
from ..pricing.vector_math import cos_sin, exp

BLOCK = 8
"""Nodes that a tail is judged by."""
GROUP = 4
"""Numbers of nodes are multiples of this."""
REAL, IMAG, RATE_REAL, RATE_IMAG = range(4)
"""Rows of an array of samples: phi = E[exp(iu ln(S_T/F))], and d phi/dT per year."""

_EPSILON = 2.2e-16

Sampler = Callable[[float, float, float, float, Matrix], tuple[int, float, float, float]]
"""(expiry, step, target, interval, samples) -> as `sample_row`, for one model and its parameters."""


def plain_sampler(model: Model, params: Vector) -> Sampler:
    """Samples through `model.log_characteristic`, with the derivative by expiry from five points."""

    def sample(
        expiry: float, step: float, target: float, interval: float, samples: Matrix
    ) -> tuple[int, float, float, float]:
        n_max = samples.shape[1]
        n = 0
        tail = rate_tail = math.inf
        while n < n_max and max(tail, interval * rate_tail) > target:
            end = min(2 * n if n else BLOCK, n_max)
            phi, rate = _phi_and_rate(model, np.arange(n, end) * step, expiry, params)
            samples[:, n:end] = phi.real, phi.imag, rate.real, rate.imag
            n = end
            tail = _tail(samples, REAL, n, step)
            rate_tail = _tail(samples, RATE_REAL, n, step)
        return n, 8.0 * _EPSILON, tail, rate_tail

    return sample


def _phi_and_rate(model: Model, x: Vector, expiry: float, params: Vector) -> tuple[ComplexVector, ComplexVector]:
    u = x - 0.5j
    # Fourth order in a thousandth of the expiry: 1e-12 relative, and rounding as small.
    gap = 1e-3 * expiry
    at = [model.log_characteristic(u, expiry + m * gap, params) for m in (-2, -1, 0, 1, 2)]
    rate = (8.0 * (at[3] - at[1]) - (at[4] - at[0])) / (12.0 * gap)
    phi = np.exp(at[2])
    return phi, phi * rate


@kernel
def sample_row(
    layout: IntVector,
    params: Vector,
    expiry: float,
    step: float,
    target: float,
    interval: float,
    expected: int,
    samples: Matrix,
) -> tuple[int, float, float, float]:
    """Samples of one expiry, as many as it takes.

    layout    kinds of the model's factors, see `calibrant.layout`
    expiry    years, > 0
    step      the spacing h of the nodes
    target    nodes are taken until the tails below, the second one times the interval, are no larger
    interval  years
    expected  nodes to sample at once, for speed; what is returned does not depend on it
    samples   (4, n_max), filled at least up to the number of nodes; n_max is a multiple of `BLOCK`
    returns   number of nodes; relative rounding error of the samples; what the nodes not taken add at most to
              1/pi int |phi| / (x^2 + 1/4) dx, and to the same integral of |d phi/dT|
    """
    n_max = samples.shape[1]
    sampled = 0
    n = GROUP
    noise = 0.0
    tail = 1e300
    rate_tail = 1e300
    while n < n_max and max(tail, interval * rate_tail) > target:
        n += GROUP
        if n > sampled:
            end = min(max(expected - expected % GROUP, n), n_max)
            noise = _sample(layout, params, expiry, step, sampled, end, samples)
            sampled = end
        # No tail is less than its first term says: most blocks need no closer look.
        limit = (target * math.pi * step * n * n) ** 2
        late = max(_largest(samples, REAL, n), interval * interval * _largest(samples, RATE_REAL, n))
        if late > limit and n < n_max:
            continue
        rise = _rise(layout, params, expiry, n * step)
        tail = rise * _tail(samples, REAL, n, step)
        rate_tail = rise * _tail(samples, RATE_REAL, n, step)
    return n, noise, tail, rate_tail


@kernel
def _rise(layout: IntVector, params: Vector, expiry: float, x: float) -> float:
    """By how much |phi| may exceed, beyond x, what its fall says: while jumps turn it comes back."""
    log_rise = 0.0
    p = 0
    for kind in layout:
        if kind == VARIANCE:
            p += 5
        else:
            mu_j, square = params[p + 1], params[p + 2] * params[p + 2]
            log_rise += 2.0 * params[p] * expiry * math.exp(0.5 * mu_j + square * (0.125 - 0.5 * x * x))
            p += 3
    return math.exp(min(log_rise, 300.0))


@kernel
def _largest(samples: Matrix, part: int, end: int) -> float:
    """The largest |f|^2 of the half block before `end`, f in the rows `part` and `part` + 1."""
    largest = 0.0
    for j in range(end - BLOCK // 2, end):
        largest = max(largest, samples[part, j] ** 2 + samples[part + 1, j] ** 2)
    return largest


@kernel
def _tail(samples: Matrix, part: int, n: int, step: float) -> float:
    """What the nodes from n on add at most to 1/pi int |f| / (x^2 + 1/4) dx, f in the rows `part` and `part` + 1.

    |f| is taken to go on falling at half the rate it falls at from the first to the second half of the last block, or,
    if that says less, not to rise any more: the rate of a characteristic function may slow down once, from a Gaussian's
    to an exponential's.
    """
    if n < BLOCK:
        return 1e300
    early = _largest(samples, part, n - BLOCK // 2)
    late = _largest(samples, part, n)
    # Nodes that fall by this ratio, the root of the one measured, add up to 1 / (1 - ratio); that do not fall, to n.
    ratio = math.sqrt(math.sqrt(math.sqrt(math.sqrt(late / early)))) if late < early else 1.0
    return math.sqrt(late) * min(1.0 / max(1.0 - ratio, 1e-3), float(n)) / (math.pi * step * n * n)


@kernel
def natural_scales(layout: IntVector, params: Vector, expiry: Vector, scale: Vector) -> None:
    """sqrt(-8 ln E[sqrt(S/F)]) of each expiry, (n_expiries,), filled: the standard deviation of a lognormal S, and a
    scale that any model has, a little above the at-the-money one."""
    at_zero = np.empty((4, 1))
    for i in range(expiry.size):
        at_zero[REAL, 0] = 0.0
        _add_factors(layout, params, expiry[i], 0.0, 0, 1, at_zero)
        scale[i] = math.sqrt(-8.0 * at_zero[REAL, 0])


@kernel
def _sample(
    layout: IntVector, params: Vector, expiry: float, step: float, first: int, last: int, samples: Matrix
) -> float:
    for j in range(np.uint64(first), np.uint64(last)):
        samples[REAL, j] = samples[IMAG, j] = samples[RATE_REAL, j] = samples[RATE_IMAG, j] = 0.0
    noise = _add_factors(layout, params, expiry, step, first, last, samples)
    for j in range(np.uint64(first), np.uint64(last)):
        size = exp(samples[REAL, j])
        cosine, sine = cos_sin(samples[IMAG, j])
        ar, ai = samples[RATE_REAL, j], samples[RATE_IMAG, j]
        pr = size * cosine
        pi = size * sine
        samples[REAL, j] = pr
        samples[IMAG, j] = pi
        samples[RATE_REAL, j] = pr * ar - pi * ai
        samples[RATE_IMAG, j] = pr * ai + pi * ar
    return noise


@kernel
def _add_factors(
    layout: IntVector, params: Vector, expiry: float, step: float, first: int, last: int, samples: Matrix
) -> float:
    """Add log phi and d log phi/dT to the samples; returns the relative rounding error of phi."""
    noise = 8.0 * _EPSILON
    p = 0
    for kind in layout:
        if kind == VARIANCE:
            noise += _add_heston(params[p : p + 5], expiry, step, first, last, samples)
            p += 5
        else:
            noise += _add_jumps(params[p : p + 3], expiry, step, first, last, samples)
            p += 3
    return noise


@kernel
def _add_heston(params: Vector, expiry: float, step: float, first: int, last: int, samples: Matrix) -> float:
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    beta_real = kappa - 0.5 * rho * xi
    half_square = 0.5 * xi * xi
    # Unsigned: numba would test a signed index for wrapping around, and the loop would not be vectorised.
    for j in range(np.uint64(first), np.uint64(last)):
        x = j * step
        dr, di, _, _, _, _, _, _, log_real, log_imag = heston_node(x, 0.0, expiry, kappa, theta, xi, rho, v0, False)
        # d log phi/dT = kappa theta D + v0 dD/dT, and dD/dT by the Riccati equation that D solves.
        beta_imag = -rho * xi * x
        gr = half_square * (dr * dr - di * di) - (beta_real * dr - beta_imag * di) - 0.5 * (x * x + 0.25)
        gi = 2.0 * half_square * dr * di - (beta_real * di + beta_imag * dr)
        samples[REAL, j] += log_real
        samples[IMAG, j] += log_imag
        samples[RATE_REAL, j] += kappa * theta * dr + v0 * gr
        samples[RATE_IMAG, j] += kappa * theta * di + v0 * gi
    # The logarithm in log phi is good to an absolute epsilon, and is multiplied by kappa theta / xi^2.
    noise: float = 4.0 * _EPSILON * kappa * theta / (xi * xi)
    return noise


@kernel
def _add_jumps(params: Vector, expiry: float, step: float, first: int, last: int, samples: Matrix) -> float:
    lam, mu_j, sigma_j = params[0], params[1], params[2]
    drift = math.expm1(mu_j + 0.5 * sigma_j * sigma_j)
    for j in range(np.uint64(first), np.uint64(last)):
        x = j * step
        jr, ji, _ = jump_node(x, 0.5, mu_j, sigma_j)
        rate_real, rate_imag = lam * (jr - 1.0 - 0.5 * drift), lam * (ji - x * drift)
        samples[REAL, j] += expiry * rate_real
        samples[IMAG, j] += expiry * rate_imag
        samples[RATE_REAL, j] += rate_real
        samples[RATE_IMAG, j] += rate_imag
    noise: float = 4.0 * _EPSILON * lam * expiry * max(1.0, math.exp(0.5 * mu_j + 0.125 * sigma_j * sigma_j))
    return noise
