"""Heston prices to twenty digits and more: the judge of the fit kernel's values where the accurate pricer is none.

Nothing is shared with the library: Lewis's integral less that of a Black-Scholes price of the same expected variance,
in the ball arithmetic of Arb (python-flint), on the contour x(y) = b (sinh(y + iw) - i sin w) bent to the side on which
e^{-ixk} phi decays for the strike, by the trapezoidal rule in y. Each halving of the spacing squares its error, and two
in a row have to agree.
"""

import math
from typing import Any

import numpy as np
from flint import acb, arb, ctx

from calibrant.arrays import Vector

from .exact_gradient import characteristic

_DIGITS = 50
_ANGLE = 0.3
_AGREEMENT = 1e-19
_NEGLIGIBLE = 1e-27
_FIRST_SPACING = 3
"""Spacing of the nodes in y, as a power of one half."""
_LAST_SPACING = 12


def exact_values(params: Vector, expiry: float, log_moneyness: Vector) -> Vector:
    """Out-of-the-money values of one expiry in units of the forward: the put for log_moneyness < 0, else the call.

    params         (5,) kappa, theta, xi, rho, v0
    expiry         years
    log_moneyness  (n_strikes,)
    error          1e-18 before rounding to double precision
    raises         ArithmeticError if the spacing would have to be finer than 2^-12
    """
    ctx.dps = _DIGITS
    kappa, theta, xi, rho, v0 = (arb(float(value)) for value in params)
    years = arb(float(expiry))
    variance = theta * years - (v0 - theta) * ((-kappa * years).exp() - 1) / kappa
    # Far out e^{-ixk} phi turns with k + rho m: the side on which that decays is the strike's.
    left = log_moneyness + float(rho * (v0 + kappa * theta * years) / xi) < 0.0
    result = np.empty(log_moneyness.size)
    for chosen, angle in ((left, _ANGLE), (~left, -_ANGLE)):
        if chosen.any():
            result[chosen] = _side(log_moneyness[chosen], years, [kappa, theta, xi, rho, v0], variance, angle)
    return result


def _side(k: Vector, expiry: Any, params: list[Any], variance: Any, angle: float) -> list[float]:
    """Values of the strikes that share a side."""
    strikes = [arb(float(value)) for value in k]
    b = 0.5 / math.sqrt(float(variance))
    turn = acb(0, angle)
    offset = acb(0, arb(angle).sin())

    def add(ys: range, spacing: int, sums: list[Any]) -> int:
        """Add the integrands at y = j / 2^spacing, j in `ys`, until they are negligible; the last j looked at."""
        quiet = 0
        j = 0
        for j in ys:
            z = acb(arb(j) / 2**spacing, 0) + turn
            x = (z.sinh() - offset) * b
            a = x * x + arb("0.25")
            part = (characteristic(x, expiry, params) - (-variance * a / 2).exp()) * z.cosh() * b / a
            part = part / 2 if j == 0 else part
            largest = 0.0
            for i, strike in enumerate(strikes):
                added = (acb(0, -1) * x * strike).exp() * part
                sums[i] += added.real
                largest = max(largest, float(added.abs_upper()))
            quiet = quiet + 1 if largest < _NEGLIGIBLE else 0
            if quiet == 4:
                break
        return j

    sums = [arb(0) for _ in strikes]
    last = add(range(100_000), _FIRST_SPACING, sums)
    now = [value / 2**_FIRST_SPACING for value in sums]
    agreed = 0
    for spacing in range(_FIRST_SPACING + 1, _LAST_SPACING + 1):
        add(range(1, 2 * last + 2, 2), spacing, sums)
        last *= 2
        before, now = now, [value / 2**spacing for value in sums]
        change = max(abs(float(x - y)) for x, y in zip(now, before, strict=True))
        agreed = agreed + 1 if change < _AGREEMENT else 0
        if agreed == 2:
            return [_value(strike, variance, integral) for strike, integral in zip(strikes, now, strict=True)]
    raise ArithmeticError(f"the values at expiry {float(expiry)} did not settle: last change {change:.1e}")


def _value(k: Any, variance: Any, integral: Any) -> float:
    """Black's price less the integral, out of the money."""
    sd = variance.sqrt()
    d = -k / sd + sd / 2

    def normal(z: Any) -> Any:
        return (-z / arb(2).sqrt()).erfc() / 2

    call = normal(d) - k.exp() * normal(d - sd) - (k / 2).exp() / arb.pi() * integral
    return float(call if float(k) >= 0.0 else call - 1 + k.exp())
