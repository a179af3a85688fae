"""The COS pricer (Fang & Oosterlee 2008): any model, from its log characteristic function, with gradient and error.

The density of y = log(S_T / F) is expanded in cosines on [a, b], whose coefficients the characteristic function gives,
and the put's payoff likewise:

    P(k) = sum'_{j < N} Re[ phi(u_j) e^{-i u_j a} ] V_j(k),    u_j = j pi / (b - a),
    V_j(k) = 2 / (b - a) [ e^k sin t / u - e^k cos t + e^a ] / (1 + u^2),    t = u_j (k - a), u = u_j.

The put is priced whose payoff is bounded, and the call follows by parity. The range is that of the paper, from the
cumulants of y: c1 -+ L sqrt(c2 + sqrt(c4)). The error has two parts, both stated as bounds:

* Range. phi belongs to the density on the whole line, which the cosines fold back into [a, b] at its ends. What lies
  at a - x is folded to a + x, where the put pays nearly the same, and what lies at b + x to b - x, where it pays
  nothing before x > b - k. So a put is off by at most E[min(e^k, 2 e^a sinh(a - y)); y < a] and, the other way,
  E[e^k - e^{2b - y}; y > 2b - k], which moments bound (Chernoff).
* Series. The terms left out are at most |phi| |V_j|, whose envelope is summed until it has died out.

It is the second paper's pricer and a baseline: the fit kernel takes fewer nodes to the same error, and knows beforehand
how many (`docs/results/cos.md`).
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..arrays import BoolVector, IntVector, Matrix, Vector
from ..errors import InvalidInput, Problem
from ..models.model import Model
from .fourier import envelope, finite_moments, require_options
from .nodes import EPSILON

_LEAST_VARIANCE = 1e-30
"""Of the log-price: below, a time value is no number worth a series."""
_CIRCLE = 16
"""Points of the circle on which the cumulants are read off."""
_FALLEN = 1e-5
"""Of the second coefficient, that the last one must have fallen to: then the circle lies well inside the strip."""
_OCTAVES: Vector = 2.0 ** (np.arange(97) / 8.0)
"""Beyond the last term, where the envelope is looked at."""


@dataclass(frozen=True, kw_only=True)
class CosOptions:
    """How far and how finely the density is expanded."""

    n_terms: int = 128
    """N, of each expiry."""
    width: float = 10.0
    """L, in the deviations sqrt(c2 + sqrt(c4)) to either side of the mean."""
    cumulants: Literal[2, 4] = 4
    """The highest that the range knows of: without the fourth, short expiries and jumps are cut off."""

    def __post_init__(self) -> None:
        problems = []
        if self.n_terms < 2:
            problems.append(Problem.at(("n_terms",), f"must be at least 2, but is {self.n_terms}."))
        if not 0.0 < self.width < math.inf:
            problems.append(Problem.at(("width",), f"must be a finite number > 0, but is {self.width}."))
        if self.cumulants not in (2, 4):
            problems.append(Problem.at(("cumulants",), f"must be 2 or 4, but is {self.cumulants}."))
        if problems:
            raise InvalidInput(*problems)


class CosValues(NamedTuple):
    """Options priced, undiscounted, in units of the forward."""

    time_value: Vector
    """(n_quotes,) of the out-of-the-money option: the put where log_moneyness < 0, else the call; 0 to min(1, e^k)."""
    gradient: Matrix
    """(n_params, n_quotes) derivatives by the parameters with the range held, the same for call and put; (0, n_quotes)
    where not asked."""
    outside: BoolVector
    """(n_quotes,) True where the strike lies outside the range: answered by the bound, a time value of zero."""
    expiries: Vector
    """(n_expiries,) distinct, ascending."""
    error: Vector
    """(n_expiries,) what the time values of the expiry may be off by at most, those outside included; NaN where not
    asked."""


def cos_values(
    model: Model,
    log_moneyness: Vector,
    expiry: Vector,
    params: Vector,
    options: CosOptions | None = None,
    *,
    with_gradient: bool = False,
    with_error: bool = True,
) -> CosValues:
    """Out-of-the-money option values, by puts and parity.

    log_moneyness  (n_quotes,), log(strike / forward)
    expiry         (n_quotes,), years, > 0
    params         (n_params,)
    error          stated by expiry (test_the_stated_error_is_a_bound_for_every_model)
    raises         InvalidInput for a shape or value that is no option

    Fang & Oosterlee 2008, equations 22 to 24 and 49.
    """
    options = options or CosOptions()
    k, t, p = (np.asarray(x, dtype=np.float64) for x in (log_moneyness, expiry, params))
    require_options(model, k, t, p)
    expiries, which = np.unique(t, return_inverse=True)
    n_params = model.n_params if with_gradient else 0
    zeros, unknown = np.zeros(k.size), np.full(expiries.size, np.nan)
    values = CosValues(zeros, np.zeros((n_params, k.size)), np.ones(k.size, np.bool_), expiries, unknown)
    for e, years in enumerate(expiries.tolist()):
        error = _fill_expiry(model, k, years, p, options, np.flatnonzero(which == e), values, with_error)
        values.error[e] = error if with_error else np.nan
    return values


def cumulants(model: Model, expiry: float, params: Vector) -> tuple[float, float, float]:
    """c1, c2 and c4 of log(S_T / F), from the Taylor coefficients of log E[e^{sy}] at zero.

    They are read off a circle by Cauchy's formula, which loses no digits to differences. Its radius is halved until the
    coefficients fall off as they do inside the strip of finite moments.
    """
    angle = 2.0j * np.pi / _CIRCLE * np.arange(_CIRCLE // 2 + 1)
    radius = 0.5 / math.sqrt(model.expected_variance(expiry, params))
    for _ in range(60):
        with np.errstate(all="ignore"):
            on_circle = model.log_characteristic(-1j * radius * np.exp(angle), expiry, params)
        if np.isfinite(on_circle).all():
            # The other half of the circle is the conjugate of this one.
            coefficients = np.fft.irfft(np.conj(on_circle), _CIRCLE).real
            if abs(coefficients[_CIRCLE // 2]) <= _FALLEN * abs(coefficients[2]):
                break
        radius *= 0.5
    scaled = coefficients[[1, 2, 4]] * np.array([1.0, 2.0, 24.0]) / radius ** np.array([1.0, 2.0, 4.0])
    c1, c2, c4 = scaled.tolist()
    return c1, c2, c4


def cos_range(model: Model, expiry: float, params: Vector, options: CosOptions) -> tuple[float, float]:
    """[a, b] of log(S_T / F), by its cumulants."""
    c1, c2, c4 = cumulants(model, expiry, params)
    reach = options.width * math.sqrt(abs(c2) + (math.sqrt(abs(c4)) if options.cumulants == 4 else 0.0))
    return c1 - reach, c1 + reach


def _fill_expiry(
    model: Model,
    log_moneyness: Vector,
    expiry: float,
    params: Vector,
    options: CosOptions,
    place: IntVector,
    values: CosValues,
    with_error: bool,
) -> float:
    """Fill the options at `place`, which have one expiry; returns their error."""
    variance = model.expected_variance(expiry, params)
    if not variance >= _LEAST_VARIANCE:
        return math.sqrt(max(variance, 0.0))
    low, high = cos_range(model, expiry, params, options)
    within = (log_moneyness[place] > low) & (log_moneyness[place] < high)
    inner = place[within]
    k = log_moneyness[inner]
    u = np.pi / (high - low) * np.arange(options.n_terms)
    with np.errstate(all="ignore"):
        if values.gradient.size:
            log_phi, by_parameter = model.log_characteristic_gradient(u + 0j, expiry, params)
        else:
            log_phi, by_parameter = (
                model.log_characteristic(u + 0j, expiry, params),
                np.empty((0, u.size), np.complex128),
            )
    weights = np.exp(log_phi - 1j * u * low) * (2.0 / (high - low) / (1.0 + u * u))
    weights[0] *= 0.5
    # Where phi has underflowed its derivatives need not be numbers.
    rows: Matrix = np.concatenate((weights[np.newaxis], np.where(weights == 0.0, 0.0, weights * by_parameter))).real
    strike = np.exp(k)
    turn = np.multiply.outer(u, k - low)
    payoff: Matrix = np.sin(turn)
    payoff[0], payoff[1:] = k - low, payoff[1:] / u[1:, np.newaxis]
    payoff = strike * (payoff - np.cos(turn)) + math.exp(low)
    sums: Matrix = rows @ payoff
    put = sums[0]
    values.time_value[inner] = np.clip(np.where(k < 0.0, put, put - np.expm1(k)), 0.0, np.minimum(1.0, strike))
    values.gradient[:, inner] = sums[1:]
    values.outside[inner] = False
    if not with_error:
        return math.nan
    bounds = [_bound_outside(model, expiry, params, log_moneyness[place[~within]])]
    if k.size:
        top = float(k.max())
        rounding = EPSILON * float(np.abs(rows[0]) @ ((64.0 + 2.0 * turn.max(axis=1)) * np.abs(payoff).max(axis=1)))
        rounding += 16.0 * EPSILON * math.exp(top)
        folded = _folded(model, expiry, params, low, high, top)
        bounds.append(folded + _left_out(model, expiry, params, high - low, low, top, options.n_terms) + rounding)
    return max(bounds)


def _folded(model: Model, expiry: float, params: Vector, low: float, high: float, k: float) -> float:
    """What the fold of the density at the ends of the range may change a put by, up to the strike e^k."""
    tilt, log_moment = finite_moments(model, expiry, params)
    with np.errstate(divide="ignore", invalid="ignore"):
        # For x = a - y > 0 at most e^a min(e^{k - a}, 2 sinh x) <= e^a c e^{p x}, with the smallest such c.
        p = np.maximum(-tilt, 0.0)
        steep = math.log(2.0) - 0.5 * np.log(p * p - 1.0) + 0.5 * p * np.log((p - 1.0) / (p + 1.0))
        left = log_moment + (1.0 + p) * low + np.where(p > 1.0, steep, (k - low) * (1.0 - p))
        # For x = y - (2b - k) > 0 at most e^k (1 - e^{-x}).
        q = np.maximum(tilt, 0.0)
        right = log_moment + (1.0 + q) * k - 2.0 * q * high + np.where(q > 0.0, q * np.log(q / (1.0 + q)), 0.0)
        right -= np.log1p(q)
    below, above = left[tilt <= 0.0], right[tilt >= 0.0]
    return _from_log(min(float(below.min(initial=k)), k)) + _from_log(min(float(above.min(initial=k)), k))


def _bound_outside(model: Model, expiry: float, params: Vector, k: Vector) -> float:
    """The largest time value that options outside the range may have (Chernoff)."""
    if not k.size:
        return 0.0
    tilt, log_moment = finite_moments(model, expiry, params)
    largest = 0.0
    # The put rises with its strike and the call falls.
    for nearest, those in (
        (k[k < 0.0].max(initial=-np.inf), tilt < 0.0),
        (k[k >= 0.0].min(initial=np.inf), tilt > 1.0),
    ):
        if not math.isfinite(nearest):
            continue
        s = tilt[those]
        pole, other = np.abs(s), np.abs(s - 1.0)
        exact = (
            log_moment[those]
            + (1.0 - s) * nearest
            + np.where(s < 0.0, 1.0, -1.0) * (pole * np.log(pole) - other * np.log(other))
        )
        largest = max(largest, _from_log(min(float(exact.min(initial=np.inf)), min(float(nearest), 0.0))))
    return largest


def _left_out(model: Model, expiry: float, params: Vector, length: float, low: float, k: float, n_terms: int) -> float:
    """A bound of the terms from the `n_terms`-th on, up to the strike e^k: their envelope falls with u."""
    u = np.pi / length * n_terms * _OCTAVES
    height = envelope(model, u, expiry, params)
    # No term beyond is larger than the envelope before it, and there are (u_2 - u_1) (b - a) / pi between two.
    payoff = (math.exp(k) * np.sqrt(1.0 + 1.0 / (u * u)) + math.exp(low)) * 2.0 / (length * (1.0 + u * u))
    terms = np.maximum.accumulate((height * payoff)[::-1])[::-1]
    between = np.concatenate(([1.0], np.diff(u) * length / np.pi))
    rest = terms[-1] * u[-1] * length / np.pi
    return float(terms[0] * between[0] + terms[:-1] @ between[1:] + rest)


def _from_log(value: float) -> float:
    return math.exp(min(value, 700.0))
