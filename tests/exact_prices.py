"""Out-of-the-money Heston values to thirty digits and more: the judge of the accurate pricer.

Nothing is shared with the library: Lewis's integral between the poles (Lewis 2001), on a contour that bends, by the
trapezoidal rule in ball arithmetic (Arb, by python-flint). As many digits are taken as the value, which may be far
below the integral, needs.
"""

import math
from typing import Any, NamedTuple

from flint import acb, arb, ctx

from calibrant.arrays import Vector

_ANGLE = 0.3
_FIRST_SPACING = 3
_LAST_SPACING = 9
_LONGEST = 200.0


class ExactValue(NamedTuple):
    value: float
    """Undiscounted, in units of the forward: the put where log_moneyness < 0, else the call."""
    error: float
    """Bound of its error: below 1e-16 of the value, unless that is below 1e-40."""


def _log_moment(s: Any, expiry: Any, params: list[Any]) -> Any:
    """log E[(S_T/F)^s], the "little trap" form (Albrecher et al. 2007)."""
    kappa, theta, xi, rho, v0 = params
    beta = kappa - rho * xi * s
    d = (beta * beta - xi * xi * (s * s - s)).sqrt()
    g = (beta - d) / (beta + d)
    e = (-d * expiry).exp()
    by_theta = (beta - d) * expiry - 2 * ((1 - g * e) / (1 - g)).log()
    return (kappa * theta * by_theta + v0 * (beta - d) * (1 - e) / (1 - g * e)) / (xi * xi)


def _integral(params: list[Any], expiry: Any, k: Any, angle: float, scale: float, digits: int) -> tuple[Any, Any]:
    """The call less one, and how far the last two rules differ."""
    sine, cosine = arb(angle).sin(), arb(angle).cos()

    def term(y: Any) -> Any:
        sinh, cosh = y.sinh(), y.cosh()
        s = acb(arb("0.5") + scale * sine * (cosh - 1), scale * cosine * sinh)
        slope = acb(scale * cosine * cosh, -scale * sine * sinh)
        return ((_log_moment(s, expiry, params) + (1 - s) * k).exp() * slope / (s * (s - 1))).real

    negligible = arb(10) ** round(-0.7 * digits)
    total = term(arb(0)) / 2
    largest, quiet, n = abs(total), 0, 0
    while quiet < 6:
        n += 1
        added = term(arb(n) / 2**_FIRST_SPACING)
        total += added
        if abs(added) > largest:
            largest = abs(added)
        quiet = quiet + 1 if abs(added) < largest * negligible else 0
        if n > _LONGEST * 2**_FIRST_SPACING:
            raise ArithmeticError("the integrand does not fall")
    before = total / 2**_FIRST_SPACING
    for spacing in range(_FIRST_SPACING + 1, _LAST_SPACING + 1):
        for j in range(1, 2 * n, 2):
            total += term(arb(j) / 2**spacing)
        n *= 2
        now = total / 2**spacing
        if abs(now - before) < largest * negligible:
            return now / arb.pi(), (now - before) / arb.pi()
        before = now
    raise ArithmeticError("the rule does not settle")


def exact_otm_value(params: Vector, expiry: float, log_moneyness: float) -> ExactValue:
    """The out-of-the-money option.

    params  (5,) kappa, theta, xi, rho, v0
    raises  ArithmeticError where neither side of the contour settles
    """
    kappa, theta, xi, rho, v0 = params.tolist()
    sd = math.sqrt(theta * expiry - (v0 - theta) * math.expm1(-kappa * expiry) / kappa)
    # Far out M turns with rho (v0 + kappa theta T) / xi: the side on which the integrand falls is the strike's.
    right = log_moneyness + rho * (v0 + kappa * theta * expiry) / xi > 0.0
    found = None
    for digits in (60, 120):
        ctx.dps = digits
        exact_params, k = [arb(value) for value in params.tolist()], arb(log_moneyness)
        for angle in (_ANGLE, -_ANGLE) if right else (-_ANGLE, _ANGLE):
            try:
                integral, change = _integral(exact_params, arb(expiry), k, angle, min(0.35, 0.5 / sd), digits)
            except ArithmeticError:
                continue
            value = integral + (1 if log_moneyness >= 0.0 else k.exp())
            error = float(abs(change).mid()) + float(value.rad())
            if not -error <= float(value.mid()) <= 1.0 + error:
                continue
            found = ExactValue(float(value.mid()), error)
            if error < 1e-16 * found.value:
                return found
            break
    if found is None or found.error > 1e-40:
        raise ArithmeticError(f"no exact value of {params.tolist()} at expiry {expiry}, {log_moneyness}")
    return found
