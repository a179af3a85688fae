"""Kernel regression on every particle: Nadaraya-Watson and local linear, by Silverman's bandwidth or leave-one-out.

Both run over sorted particles and look at those within the kernel's range alone. Leave-one-out needs no fit without
each particle: with h_i the weight of particle i in its own estimate, the estimate without it errs by
(v_i - m(x_i)) / (1 - h_i), exactly, for a regression that is linear in the responses. So a bandwidth is judged in
O(n window), and the best of a ladder around Silverman's is taken.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...arrays import Vector
from ...compiled import kernel, reduction
from .kernels import CODES, RANGE, KernelName, silverman, weight

Bandwidth = Literal["silverman", "leave_one_out"]
LADDER = 2.0 ** np.arange(-2.0, 2.01, 0.5)
"""Multiples of Silverman's bandwidth among which leave-one-out chooses."""


@dataclass(frozen=True, kw_only=True)
class KernelRegression:
    """Options of the estimators `nw_...` and `local_linear_...`."""

    kernel: KernelName = "quartic"
    local_linear: bool = False
    """A line through each window instead of a mean: without the mean's bias at the ends (Fan 1992)."""
    bandwidth: Bandwidth | float = "silverman"
    """A rule, or a multiple of Silverman's."""

    def __call__(self, x: Vector, v: Vector, at: Vector) -> Vector:
        x, v = in_order(x, v)
        out = np.empty(at.size)
        _estimate(x, v, CODES[self.kernel], RANGE[self.kernel], self.chosen_bandwidth(x, v), self.local_linear, at, out)
        return out

    def chosen_bandwidth(self, x: Vector, v: Vector) -> float:
        """In standard deviations of the log-spot."""
        rule = silverman(self.kernel, x.size)
        if self.bandwidth == "silverman":
            return rule
        if self.bandwidth != "leave_one_out":
            return float(self.bandwidth) * rule
        return float(rule * LADDER[np.argmin([self.leave_one_out_error(x, v, rule * step) for step in LADDER])])

    def leave_one_out_error(self, x: Vector, v: Vector, bandwidth: float) -> float:
        """Mean squared error at each particle of the estimate from all others, at a bandwidth."""
        x, v = in_order(x, v)
        return _leave_one_out(x, v, CODES[self.kernel], RANGE[self.kernel], bandwidth, self.local_linear)


def in_order(x: Vector, v: Vector) -> tuple[Vector, Vector]:
    """The particles by rising x."""
    if np.all(x[:-1] <= x[1:]):
        return x, v
    order = np.argsort(x)
    return x[order], v[order]


@reduction
def _moments(
    x: Vector, v: Vector, code: int, inverse: float, at: float, first: int, last: int
) -> tuple[float, float, float, float, float]:
    """Sums of w, w u, w u^2, w v, w u v over particles `first` to `last`, u = (x - at) / bandwidth."""
    s0 = s1 = s2 = t0 = t1 = 0.0
    for j in range(first, last):
        u = (x[j] - at) * inverse
        w = weight(code, u)
        s0 += w
        s1 += w * u
        s2 += w * u * u
        t0 += w * v[j]
        t1 += w * u * v[j]
    return s0, s1, s2, t0, t1


@kernel
def _value(s0: float, s1: float, s2: float, t0: float, t1: float, local_linear: bool) -> tuple[float, float]:
    """(estimate, weight of a particle at the very place, over the kernel's height)."""
    determinant = s0 * s2 - s1 * s1
    if local_linear and determinant > 1e-10 * s0 * s0:
        return (s2 * t0 - s1 * t1) / determinant, s2 / determinant
    return t0 / s0, 1.0 / s0


@kernel
def _estimate(
    x: Vector, v: Vector, code: int, reach: float, bandwidth: float, local_linear: bool, at: Vector, out: Vector
) -> None:
    for i in range(at.size):
        h = bandwidth
        while True:
            first = np.searchsorted(x, at[i] - reach * h)
            last = np.searchsorted(x, at[i] + reach * h, side="right")
            s0, s1, s2, t0, t1 = _moments(x, v, code, 1.0 / h, at[i], first, last)
            if s0 > 1e-12:
                break
            h *= 2.0  # nobody within the window
        out[i] = _value(s0, s1, s2, t0, t1, local_linear)[0]


@kernel
def _leave_one_out(x: Vector, v: Vector, code: int, reach: float, bandwidth: float, local_linear: bool) -> float:
    n = x.size
    height = weight(code, 0.0)
    total = 0.0
    first = last = 0
    for i in range(n):
        while x[i] - x[first] > reach * bandwidth:
            first += 1
        while last < n and x[last] - x[i] <= reach * bandwidth:
            last += 1
        s0, s1, s2, t0, t1 = _moments(x, v, code, 1.0 / bandwidth, x[i], first, last)
        value, own = _value(s0, s1, s2, t0, t1, local_linear)
        # Alone in its window a particle says nothing of the bandwidth but that it is too small: its whole response.
        left = 1.0 - height * own
        error = (v[i] - value) / left if left > 1e-9 else v[i]
        total += error * error
    return total / n
