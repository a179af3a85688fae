"""Implied volatilities of a whole panel from good guesses, vectorised: the inner step of a fit in vol space.

A refinement inverts the same quotes again and again, each time from the vols of the step before. Two passes of
Householder's method of third order over all quotes together cost a quarter of the careful inversion one by one
(`black.implied_sd_kernel`), which stays for the quotes that have moved too far.
"""

import numpy as np

from ..arrays import Vector
from ..black import implied_sd_kernel, otm_and_vega
from ..compiled import kernel
from .vector_math import exp, log

_LARGEST_SD = 10.0
_NEAR = 1e-3
"""A second step below this leaves a relative error below 1e-12."""


@kernel
def refresh_implied_sd(log_moneyness: Vector, time_value: Vector, sd: Vector, density: Vector) -> None:
    """Move total standard deviations to those of the time values given.

    log_moneyness  (n,)
    time_value     (n,) > 0, in units of the forward
    sd             (n,) > 0, on entry guesses; filled, relative error below 1e-12
    density        (n,), filled with d time value / d sd
    """
    n = sd.size
    value = np.empty(n)
    step = np.empty(n)
    for _ in range(2):
        otm_and_vega(log_moneyness, sd, value, density)
        for i in range(n):
            s = sd[i]
            h = log_moneyness[i] / s
            v = max(value[i], 1e-300)
            # f = log(value / target) and its derivatives in sd, times powers of sd and over the first.
            slope = s * density[i] / v
            newton = -log(v / time_value[i]) / max(slope, 1e-300)
            d1 = h * h - 0.25 * s * s
            f2 = d1 - slope
            f3 = d1 * d1 - 3.0 * h * h - 0.25 * s * s + slope * (2.0 * slope - 3.0 * d1)
            top = 1.0 + 0.5 * newton * f2
            bottom = 1.0 + newton * (f2 + newton * f3 * (1.0 / 6.0))
            move = newton * top / bottom
            # Comparing this way round catches what is not a number too.
            move = move if abs(move) < 0.5 else 0.5
            step[i] = move
            sd[i] = s + s * move
    for i in range(n):
        if not abs(step[i]) < _NEAR:
            sd[i] = implied_sd_kernel(log_moneyness[i], time_value[i], -1.0)
            if sd[i] <= 0.0:  # a price at its upper bound: no finite vol has it
                sd[i] = _LARGEST_SD
        h = log_moneyness[i] / sd[i]
        density[i] = 0.3989422804014327 * exp(0.5 * (log_moneyness[i] - h * h - 0.25 * sd[i] * sd[i]))
