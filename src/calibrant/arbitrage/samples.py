"""Samples of a model's characteristic function, the only thing the surface check knows of a model.

They are taken on Lewis's contour u = x - i/2 at x = 0, h, 2h, ..., together with their derivative by expiry, which the
calendar condition needs. `sample_row` takes them in compiled code for the models it knows by number; any other model is
sampled through its readable `log_characteristic`, slower and to the same effect.
"""

import math
from collections.abc import Callable

import numpy as np

from ..arrays import ComplexVector, Matrix, Vector
from ..compiled import kernel
from ..models.model import Model
from ..pricing.heston_block import heston_node
from ..pricing.vector_math import cos_sin, exp

BLOCK = 8
"""Nodes that a tail is judged by."""
GROUP = 4
"""Numbers of nodes are multiples of this."""
REAL, IMAG, RATE_REAL, RATE_IMAG = range(4)
"""Rows of an array of samples: phi = E[exp(iu ln(S_T/F))], and d phi/dT per year."""

_HESTON = 0
COMPILED = {"heston": _HESTON}
"""Models that `sample_row` knows. A number and not a function: numba does not cache what is compiled for a function."""
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
    code: int,
    params: Vector,
    expiry: float,
    step: float,
    target: float,
    interval: float,
    expected: int,
    samples: Matrix,
) -> tuple[int, float, float, float]:
    """Samples of one expiry, as many as it takes.

    code      of the model, in `COMPILED`
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
            if code == _HESTON:
                noise = _sample_heston(params, expiry, step, sampled, end, samples)
            sampled = end
        # No tail is less than its first term says: most blocks need no closer look.
        limit = (target * math.pi * step * n * n) ** 2
        late = max(_largest(samples, REAL, n), interval * interval * _largest(samples, RATE_REAL, n))
        if late > limit and n < n_max:
            continue
        tail = _tail(samples, REAL, n, step)
        rate_tail = _tail(samples, RATE_REAL, n, step)
    return n, noise, tail, rate_tail


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
def natural_scales(code: int, params: Vector, expiry: Vector, scale: Vector) -> None:
    """sqrt(-8 ln E[sqrt(S/F)]) of each expiry, (n_expiries,), filled: the standard deviation of a lognormal S, and a
    scale that any model has, a little above the at-the-money one."""
    if code == _HESTON:
        kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
        for i in range(expiry.size):
            _, _, _, _, _, _, _, _, log_real, _ = heston_node(0.0, 0.0, expiry[i], kappa, theta, xi, rho, v0)
            scale[i] = math.sqrt(-8.0 * log_real)


@kernel
def _sample_heston(params: Vector, expiry: float, step: float, first: int, last: int, samples: Matrix) -> float:
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    beta_real = kappa - 0.5 * rho * xi
    half_square = 0.5 * xi * xi
    # Unsigned: numba would test a signed index for wrapping around, and the loop would not be vectorised.
    for j in range(np.uint64(first), np.uint64(last)):
        x = j * step
        dr, di, _, _, _, _, _, _, log_real, log_imag = heston_node(x, 0.0, expiry, kappa, theta, xi, rho, v0)
        # d log phi/dT = kappa theta D + v0 dD/dT, and dD/dT by the Riccati equation that D solves.
        beta_imag = -rho * xi * x
        gr = half_square * (dr * dr - di * di) - (beta_real * dr - beta_imag * di) - 0.5 * (x * x + 0.25)
        gi = 2.0 * half_square * dr * di - (beta_real * di + beta_imag * dr)
        ar = kappa * theta * dr + v0 * gr
        ai = kappa * theta * di + v0 * gi
        size = exp(log_real)
        cosine, sine = cos_sin(log_imag)
        pr = size * cosine
        pi = size * sine
        samples[REAL, j] = pr
        samples[IMAG, j] = pi
        samples[RATE_REAL, j] = pr * ar - pi * ai
        samples[RATE_IMAG, j] = pr * ai + pi * ar
    # The logarithm in log phi is good to an absolute epsilon, and is multiplied by kappa theta / xi^2.
    noise: float = _EPSILON * (8.0 + 4.0 * kappa * theta / (xi * xi))
    return noise
