"""Prices of a model with given parameters, by the accurate pricer, with the vols and the gradient that go with them."""

from typing import NamedTuple

import numpy as np

from .arrays import Vector
from .black import implied_volatility
from .errors import InvalidInput, Problem
from .models.model import Model
from .panel import LARGEST_LOG_MONEYNESS, LONGEST_EXPIRY, MAX_PROBLEMS
from .pricing.fourier import UNSETTLED, Values, value_steps
from .steps import Steps


class Prices(NamedTuple):
    """Of options: undiscounted, in units of the forward."""

    call: Vector
    put: Vector
    implied_vol: Vector
    """NaN where the price carries none."""
    gradient: dict[str, Vector] | None
    """Derivative of the call by each parameter; None where it was not asked for."""


def price_steps(
    model: Model, params: Vector, log_moneyness: Vector, expiry: Vector, *, gradient: bool
) -> Steps[Prices]:
    """Calls and puts, in steps of about a millisecond.

    log_moneyness  (n,), log(strike / forward)
    expiry         (n,), years
    raises         InvalidInput if an option has no settled price, ArithmeticError if a number is not finite
    """
    k = log_moneyness
    priced = yield from value_steps(model, k, expiry, params, with_gradient=gradient)
    unsettled = np.flatnonzero(~(priced.error <= UNSETTLED)).tolist()
    if unsettled:
        raise InvalidInput(
            *(
                Problem.at(
                    ("log_moneyness", i),
                    f"cannot be priced: with these parameters and expiry {expiry[i]:g} its value is known to "
                    f"{priced.error[i]:.0e} of the forward only.",
                )
                for i in unsettled[:MAX_PROBLEMS]
            )
        )
    rise = np.expm1(k)
    call, put = priced.time_value + np.maximum(-rise, 0.0), priced.time_value + np.maximum(rise, 0.0)
    if not all(np.isfinite(result).all() for result in (call, put, priced.gradient)):
        raise ArithmeticError("The prices hold a number that is not finite.")
    by_parameter = dict(zip(model.parameters, priced.gradient, strict=True)) if gradient else None
    return Prices(call, put, vols_of(priced, k, expiry), by_parameter)


def vols_of(priced: Values, log_moneyness: Vector, expiry: Vector) -> Vector:
    """(n,) implied vols of what the accurate pricer answered, NaN where a price is not known well enough for one."""
    # By symmetry a put at k is e^k times a call at -k: all of them as out-of-the-money calls, with their error.
    scale = np.exp(np.maximum(-log_moneyness, 0.0))
    return implied_volatility(
        scale * priced.time_value, np.abs(log_moneyness), expiry, price_error=scale * priced.error
    ).volatility


def require_options(expiry: Vector, log_moneyness: Vector) -> None:
    """raises  InvalidInput if there is nothing to price, or an expiry or strike beyond the limits of quotes"""
    if expiry.size == 0:
        raise InvalidInput(Problem.at(("expiry",), "must hold at least one option, but is empty."))
    if log_moneyness.size != expiry.size:
        needed = f"must have as many values as `expiry` ({expiry.size}), but has {log_moneyness.size}."
        raise InvalidInput(Problem.at(("log_moneyness",), needed))
    late = ~((expiry > 0.0) & (expiry <= LONGEST_EXPIRY))
    far = ~(np.abs(log_moneyness) <= LARGEST_LOG_MONEYNESS)
    problems = [
        Problem.at(("expiry", i), f"must be > 0 and at most {LONGEST_EXPIRY:g} years, but is {expiry[i]:g}.")
        for i in np.flatnonzero(late)[:MAX_PROBLEMS].tolist()
    ]
    problems += [
        Problem.at(("log_moneyness", i), f"must lie within +-{LARGEST_LOG_MONEYNESS:g}, but is {log_moneyness[i]:g}.")
        for i in np.flatnonzero(far)[:MAX_PROBLEMS].tolist()
    ]
    if problems:
        raise InvalidInput(*problems)
