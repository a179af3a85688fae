"""Derivatives of Heston prices to thirty digits: the judge of the fit kernel's gradient.

Nothing is shared with the library, neither code nor the derivatives' formulae: Lewis's integral, no control variate,

    C(k) = 1 - e^{k/2}/pi  int_0^inf Re[ e^{-ixk} phi(x - i/2) ] / (x^2 + 1/4) dx,

in the ball arithmetic of Arb (python-flint), where every rounding widens the result's radius, and central differences
of phi with a step of 1e-24 in 80 digits, which are exact to 45. The contour x(y) = (sinh(y + iw) - i sin w) / 2 is bent
to the side on which e^{-ixk} phi decays for the strike. The trapezoidal rule in y converges exponentially, each halving
of the step squares its error, and so a result that agrees with the one before to 1e-17 is good to thirty digits.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from flint import acb, arb, ctx

from calibrant.arrays import Matrix, Vector

_DIGITS = 80
_STEP = "1e-24"
_ANGLE = 0.3
_AGREEMENT = 1e-17
_NEGLIGIBLE = 1e-36
_FIRST_SPACING = 3
"""Spacing of the nodes in y, as a power of one half."""
_LAST_SPACING = 9


class ExactGradient(NamedTuple):
    """Derivatives of undiscounted call prices on a forward of one, rounded to double precision."""

    by_parameter: Matrix
    """(5, n_strikes) by kappa, theta, xi, rho, v0; those of the puts are the same."""
    agreement: float
    """Largest change at the last halving of the spacing, relative to the parameter's largest entry."""
    radius: float
    """Largest radius of the balls: the rounding error of the arithmetic, relative likewise."""


def characteristic(x: Any, expiry: Any, params: list[Any]) -> Any:
    """phi(x - i/2), the "little trap" form (Albrecher et al. 2007)."""
    kappa, theta, xi, rho, v0 = params
    i = acb(0, 1)
    beta = kappa - rho * xi * (i * x + arb("0.5"))
    d = (beta * beta + xi * xi * (x * x + arb("0.25"))).sqrt()
    g = (beta - d) / (beta + d)
    e = (-d * expiry).exp()
    by_theta = (beta - d) * expiry - 2 * ((1 - g * e) / (1 - g)).log()
    by_v0 = (beta - d) * (1 - e) / (1 - g * e)
    return ((kappa * theta * by_theta + v0 * by_v0) / (xi * xi)).exp()


def _derivatives(x: Any, expiry: Any, params: list[Any]) -> list[Any]:
    """d phi(x - i/2) / d params[i], by central differences."""
    step = arb(_STEP)
    result = []
    for i, value in enumerate(params):
        above = characteristic(x, expiry, [*params[:i], value + step, *params[i + 1 :]])
        below = characteristic(x, expiry, [*params[:i], value - step, *params[i + 1 :]])
        result.append((above - below) / (2 * step))
    return result


def _add_nodes(
    ys: range, spacing: int, angle: float, expiry: Any, params: list[Any], strikes: list[Any], sums: list[list[Any]]
) -> int:
    """Add the integrands at y = j / 2^spacing, j in `ys`, until they are negligible; the last j looked at."""
    turn = acb(0, angle)
    offset = acb(0, arb(angle).sin())
    quiet = 0
    j = 0
    for j in ys:
        z = acb(arb(j) / 2**spacing, 0) + turn
        x = (z.sinh() - offset) / 2
        weight = z.cosh() / (2 * (x * x + arb("0.25")))
        if j == 0:
            weight = weight / 2
        parts = [weight * part for part in _derivatives(x, expiry, params)]
        largest = 0.0
        for k, row in zip(strikes, sums, strict=True):
            rotation = (acb(0, -1) * x * k).exp()
            for m, part in enumerate(parts):
                added = (rotation * part).real
                row[m] += added
                largest = max(largest, abs(float(added)))
        quiet = quiet + 1 if largest < _NEGLIGIBLE else 0
        if quiet == 4:
            break
    return j


def _side(k: Vector, expiry: Any, params: list[Any], angle: float) -> tuple[list[list[Any]], list[list[Any]]]:
    """The integrals of the strikes that share a side, with the last spacing and with the one before it."""
    strikes = [arb(float(value)) for value in k]
    sums = [[arb(0)] * 5 for _ in strikes]
    last = _add_nodes(range(10_000), _FIRST_SPACING, angle, expiry, params, strikes, sums)
    before: list[list[Any]] = []
    spacing = _FIRST_SPACING
    while spacing < _LAST_SPACING:
        before = [[value / 2**spacing for value in row] for row in sums]
        spacing += 1
        _add_nodes(range(1, 2 * last + 1, 2), spacing, angle, expiry, params, strikes, sums)
        last *= 2
        now = [[value / 2**spacing for value in row] for row in sums]
        level = [max(abs(float(row[m])) for row in now) for m in range(5)]
        change = [
            max(abs(float(a[m] - b[m])) for a, b in zip(now, before, strict=True)) / max(level[m], 1e-300)
            for m in range(5)
        ]
        if max(change) < _AGREEMENT:
            return now, before
    raise ArithmeticError(f"the derivatives at expiry {float(expiry)} did not settle: last change {max(change):.1e}")


def exact_gradient(params: Vector, expiry: float, log_moneyness: Vector) -> ExactGradient:
    """Derivatives of the prices of one expiry.

    params         (5,) kappa, theta, xi, rho, v0
    expiry         years
    log_moneyness  (n_strikes,)
    error          1e-30 of the parameter's largest entry before rounding to double precision
    raises         ArithmeticError if the spacing would have to be finer than 2^-9
    """
    ctx.dps = _DIGITS
    kappa, theta, xi, rho, v0 = params
    # Far out e^{-ixk} phi turns with k + rho m: the side on which that decays is the strike's.
    m = (v0 + kappa * theta * expiry) / xi
    exact_params = [arb(float(value)) for value in params]
    exact_expiry = arb(float(expiry))
    result = np.empty((5, log_moneyness.size))
    change = np.empty((5, log_moneyness.size))
    radius = np.empty((5, log_moneyness.size))
    left = log_moneyness + rho * m < 0.0
    for chosen, angle in ((left, _ANGLE), (~left, -_ANGLE)):
        if chosen.any():
            now, before = _side(log_moneyness[chosen], exact_expiry, exact_params, angle)
            scale = -np.exp(0.5 * log_moneyness[chosen]) / math.pi
            result[:, chosen] = scale * np.array([[float(value) for value in row] for row in now]).T
            change[:, chosen] = (
                scale
                * np.array(
                    [[float(a - b) for a, b in zip(x, y, strict=True)] for x, y in zip(now, before, strict=True)]
                ).T
            )
            radius[:, chosen] = scale * np.array([[float(value.rad()) for value in row] for row in now]).T
    level = np.abs(result).max(axis=1, keepdims=True)
    return ExactGradient(
        by_parameter=result,
        agreement=float(np.max(np.abs(change) / level)),
        radius=float(np.max(np.abs(radius) / level)),
    )
