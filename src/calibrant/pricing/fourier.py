"""The accurate pricer: any model, from its log characteristic function alone, to about 1e-14 of the forward.

Lewis's integral (Lewis 2001) with a Black-Scholes control variate of the model's expected variance,

    C(k) = C_BS(k) + e^{k/2}/pi Re int_0^inf e^{-ixk} (phi_BS - phi)(x - i/2) / (x^2 + 1/4) dx,

on the contour x(y) = b (sinh(y + i w) - i sin w) (Boyarchenko & Levendorskii 2019): it leaves the origin along the real
axis and bends by the angle w to the side on which e^{-ixk} phi decays, so that what would oscillate dies out
exponentially. The midpoint rule in y then converges so fast that 64 nodes do for ordinary parameters; the number is
doubled until two results agree.

This is the transparent, slow twin of the compiled fit kernels: it answers `/v1/price` and is the judge of the tests.
"""

import math

import numpy as np

from ..arrays import ComplexMatrix, ComplexVector, Matrix, Vector
from ..black import time_value
from ..errors import InvalidInput, Problem
from ..models.model import Model

_ANGLES = (-0.3, 0.3)
_FIRST_NODES = 64
_MAX_NODES = 16384
_AGREEMENT = 1e-13
_GRADIENT_AGREEMENT = 1e-9
_ROUNDING = 1e-10
_NEGLIGIBLE = 1e-18


class PricingError(ArithmeticError):
    """The integral did not settle: no price is better than a wrong one."""


def otm_values(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector) -> Vector:
    """Values of the out-of-the-money options: the put where log_moneyness < 0, else the call.

    log_moneyness  (n_quotes,), log(strike / forward)
    expiry         (n_quotes,), years, > 0
    params         (n_params,)
    returns        (n_quotes,), undiscounted, in units of the forward
    error          < 1e-13 over the admissible bounds (tests/test_fourier.py)
    raises         InvalidInput for a shape or value that is no option; PricingError if the integral does not settle
    """
    return _values(model, log_moneyness, expiry, params, with_gradient=False)[0]


def call_prices(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector) -> Vector:
    """Call prices; arguments, units and errors as `otm_values`."""
    return otm_values(model, log_moneyness, expiry, params) + np.maximum(-np.expm1(log_moneyness), 0.0)


def call_prices_and_gradient(
    model: Model, log_moneyness: Vector, expiry: Vector, params: Vector
) -> tuple[Vector, Matrix]:
    """Call prices and their derivatives by the parameters, (n_params, n_quotes); by parity those of the puts too."""
    values, gradient = _values(model, log_moneyness, expiry, params, with_gradient=True)
    return values + np.maximum(-np.expm1(log_moneyness), 0.0), gradient


def _values(
    model: Model, log_moneyness: Vector, expiry: Vector, params: Vector, *, with_gradient: bool
) -> tuple[Vector, Matrix]:
    k, t, p = (np.asarray(x, dtype=np.float64) for x in (log_moneyness, expiry, params))
    if k.ndim != 1 or k.shape != t.shape:
        raise InvalidInput(Problem.at(("expiry",), f"must be as long as `log_moneyness` {k.shape}, but is {t.shape}."))
    for name, values, good in (
        ("log_moneyness", k, np.isfinite(k)),
        ("expiry", t, np.isfinite(t) & (t > 0.0)),
    ):
        if not good.all():
            i = int(np.argmin(good))
            raise InvalidInput(
                Problem.at((name, i), f"must be a finite number, and an expiry > 0, but is {values[i]}.")
            )
    if p.shape != (model.n_params,) or not np.isfinite(p).all():
        raise InvalidInput(
            Problem.at(("parameters",), f"must be {model.n_params} finite numbers, but is {p.tolist()}.")
        )
    out = np.empty(k.size)
    gradient = np.empty((model.n_params if with_gradient else 0, k.size))
    for years in np.unique(t):
        of_expiry = t == years
        variance = model.expected_variance(float(years), p)
        sd = math.sqrt(variance)
        ends, costs = np.array([_extent(model, k[of_expiry], float(years), p, variance, a) for a in _ANGLES]).swapaxes(
            0, 1
        )
        cheaper = np.argmin(costs, axis=0)
        for side, angle in enumerate(_ANGLES):
            chosen = np.flatnonzero(of_expiry)[cheaper == side]
            if chosen.size:
                end = float(ends[side, cheaper == side].max())
                values, gradients = _bent(model, k[chosen], float(years), p, variance, angle, end, with_gradient)
                out[chosen] = time_value(k[chosen], np.full(chosen.size, sd)) + values
                gradient[:, chosen] = gradients
    return out, gradient


def _contour(y: Vector, variance: float, angle: float) -> tuple[ComplexVector, ComplexVector]:
    """x(y) and dx/dy."""
    b = 0.5 / math.sqrt(variance)
    z = y + 1j * angle
    return b * (np.sinh(z) - 1j * math.sin(angle)), b * np.cosh(z)


def _extent(
    model: Model, k: Vector, expiry: float, params: Vector, variance: float, angle: float
) -> tuple[Vector, Vector]:
    """Where the integrand of each strike becomes negligible on the contour, and what the contour costs there.

    Which side a strike prefers depends on more than its sign, since phi itself turns: so both sides are looked at. The
    cost is the length, and above all the growth before the decay, for that is lost in rounding.
    """
    y = 0.25 * np.arange(1, 240, dtype=np.float64)
    x, slope = _contour(y, variance, angle)
    with np.errstate(all="ignore"):
        size = np.maximum(
            model.log_characteristic(x - 0.5j, expiry, params).real, -0.5 * variance * (x * x + 0.25).real
        ) + np.log(np.abs(slope / (x * x + 0.25)))
        size = np.nan_to_num(size + np.outer(k, x.imag), nan=-np.inf)  # (n_quotes, n_y)
    # Only the first stretch counts: far out, past what double precision holds, the formula is noise.
    over = size < math.log(_NEGLIGIBLE)
    last = np.where(over.any(axis=1), over.argmax(axis=1), y.size - 1)
    peak = np.array([row[: i + 1].max() for row, i in zip(size, last, strict=True)])
    return y[last], y[last] + 10.0 * np.maximum(peak, 0.0)


def _bent(
    model: Model,
    k: Vector,
    expiry: float,
    params: Vector,
    variance: float,
    angle: float,
    end: float,
    with_gradient: bool,
) -> tuple[Vector, Matrix]:
    """What the model adds to the control variate, for strikes that share a side."""
    scale = np.exp(0.5 * k) / math.pi

    def integrate(n: int) -> Matrix:
        step = end / n
        y: Vector = (np.arange(n, dtype=np.float64) + 0.5) * step
        x, slope = _contour(y, variance, angle)
        turn = np.exp(-1j * np.outer(k, x)) * (slope * step / (x * x + 0.25))
        parts: ComplexMatrix
        if with_gradient:
            log_phi, log_gradient = model.log_characteristic_gradient(x - 0.5j, expiry, params)
            phi = np.exp(log_phi)
            parts = np.vstack([phi, phi * log_gradient])
        else:
            parts = np.exp(model.log_characteristic(x - 0.5j, expiry, params))[None, :]
        parts[0] -= np.exp(-0.5 * variance * (x * x + 0.25))
        total: Matrix = -scale * (parts @ turn.T).real
        return total

    n = _FIRST_NODES
    last = integrate(n)
    worst_before = math.inf
    while n < _MAX_NODES:
        n *= 2
        result = integrate(n)
        change = np.abs(result - last).max(axis=1)
        level = np.abs(result).max(axis=1)
        # Doubling the nodes squares the error: the last result is far better than the last two agree.
        worst = float(np.max(change / (_AGREEMENT + _GRADIENT_AGREEMENT * level * (np.arange(level.size) > 0))))
        # A tiny xi amplifies rounding by 1 / xi^2: what no longer falls is rounding, and no more nodes will help.
        stalled = change[0] <= _ROUNDING and worst > 0.1 * worst_before
        if worst <= 1.0 or stalled:
            return result[0], result[1:]
        last = result
        worst_before = worst
    raise PricingError(
        f"The price of {model.name} with {dict(zip(model.parameters, params.tolist(), strict=True))} at expiry "
        f"{expiry} did not settle with {_MAX_NODES} nodes (last change {change[0]:.1e} of the forward)."
    )
