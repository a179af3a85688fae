"""Black's formula, undiscounted and in units of the forward, and its inverse.

The primitive is the time value: the price of the out-of-the-money option of the pair, a put for strikes below the
forward and a call above. Everything else follows from it by parity, and it alone carries the volatility. With
k = log(strike / forward), s = vol * sqrt(expiry), h = |k| / s, t = s / 2 and E = exp(k/2 - h^2/2 - t^2/2),

    time value = E/2 * (erfcx((h - t) / sqrt 2) - erfcx((h + t) / sqrt 2)),     d(time value)/ds = E / sqrt(2 pi),

in which nothing underflows before the price itself does and, with the difference taken by `erfcx_pair`, nothing
cancels. The inverse is Jaeckel's plan ("Let's be rational", 2015) on this form: a starting value from a rational
function, then Householder's method of fifth order on the logarithm of the price. The start is the implied volatility
of Bachelier's formula, whose price over |k| depends on h alone, so that one rational function serves every option;
the lognormal correction is of order s^2.

Functions named `*_kernel` are compiled, trust their caller and may be called from other kernels.
"""

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import BoolVector, Vector
from .compiled import careful, inlined, kernel
from .errors import InvalidInput, Problem
from .pricing.normal import LOWEST, erfcx_pair, fma
from .pricing.vector_math import exp, log, select

# A price may carry a volatility that its own rounding moves by at most this much, relatively; beyond, it carries none.
# The implied vol of an in-the-money price is then good to six digits, 0.002 bp of a vol of 20 %.
LARGEST_UNCERTAINTY = 1e-6

# Time values below exp(-700) = 1e-304 count as zero: the exponential of the kernels ends there.
_LOWEST_EXPONENT = -700.0
_SQRT_HALF = 0.7071067811865476
_INVERSE_SQRT_2PI = 0.3989422804014327
_SQRT_2PI = 2.5066282746310002
_TWO_PI = 6.283185307179586


@inlined
def _time_value_and_density(k: float, sd: float) -> tuple[float, float]:
    """(time value, its derivative in `sd`), both within 2e-15 relative down to 1e-300; every |k| <= 700 and sd >= 0."""
    s = min(max(sd, 1e-300), 1e300)
    a = abs(k)
    inverse = 1.0 / s
    t = min(0.5 * s, 100.0)
    # More than 40 apart, the exponential is below 1e-304 whatever the rest: the cap keeps h finite.
    h = min(a * inverse, 40.0 + t)
    # h t = a / 2, so E is exp(-(h - t)^2 / 2) for a call and exp(-(h + t)^2 / 2) for a put. What the quotient and the
    # sums lose is carried along: times the size of the exponent it would be 1e-13.
    lost = fma(-h, s, a) * inverse
    minus = h - t
    back = minus - h
    minus_lost = (h - (minus - back)) - (t + back) + lost
    plus = h + t
    back = plus - h
    plus_lost = (h - (plus - back)) + (t - back) + lost
    root = select(k < 0.0, plus, minus)
    square = root * root
    exponent = -0.5 * square
    e = exp(exponent)
    e = select(
        exponent < _LOWEST_EXPONENT,
        0.0,
        e - e * (0.5 * fma(root, root, -square) + root * select(k < 0.0, plus_lost, minus_lost)),
    )
    x = (minus + minus_lost) * _SQRT_HALF
    y = plus * _SQRT_HALF
    # Below -1/2 the reflection erfcx(-x) = 2 exp(x^2) - erfcx(x) turns the difference into a complement.
    reflect = x < LOWEST
    gap = select(reflect, h, t) * (2.0 * _SQRT_HALF)
    difference, total = erfcx_pair(select(reflect, -x, x), y, gap)
    value = 0.5 * e * select(reflect, -total, difference) + select(reflect, exp(min(k, 0.0)), 0.0)
    alive = sd > 0.0
    return select(alive, value, 0.0), select(alive | (k == 0.0), e * _INVERSE_SQRT_2PI, 0.0)


@kernel
def time_value_kernel(k: float, sd: float) -> float:
    """The time value of one option, within 2e-15 relative down to 1e-300, zero below 1e-304."""
    return _time_value_and_density(k, sd)[0]


@kernel
def otm_and_vega(log_moneyness: Vector, sd: Vector, out_time_value: Vector, out_vega: Vector) -> None:
    """Time values and their derivatives in the total standard deviation, for |k| <= 100 and 0 < sd <= 200, in one
    vectorised loop.

    log_moneyness, sd          (n,), contiguous; sd is the total standard deviation vol * sqrt(expiry)
    out_time_value, out_vega   (n,), filled
    error                      as `time_value_kernel`, plus 2e-16 h^2 relative: the rounding of h^2 is not repaired
    """
    for i in range(log_moneyness.size):
        k = log_moneyness[i]
        s = max(sd[i], 1e-300)
        h = min(abs(k) / s, 40.0)
        exponent = 0.5 * (k - h * h - 0.25 * s * s)
        e = select(exponent < _LOWEST_EXPONENT, 0.0, exp(exponent))
        p = h * _SQRT_HALF
        q = s * (0.5 * _SQRT_HALF)
        difference, _ = erfcx_pair(max(p - q, LOWEST), p + q, 2.0 * q)
        out_time_value[i] = 0.5 * e * difference
        out_vega[i] = e * _INVERSE_SQRT_2PI
    for i in range(log_moneyness.size):
        # Where the reflection is needed, (s/2 - h) / sqrt 2 > 1/2, s exceeds sqrt 2: rare enough for a second look,
        # and a second exponential for every quote would cost more.
        if sd[i] > 1.414:
            _one_into(log_moneyness, sd, out_time_value, out_vega, i)


@kernel
def _one_into(log_moneyness: Vector, sd: Vector, out_time_value: Vector, out_vega: Vector, i: int) -> None:
    """A function of its own so that LLVM does not flatten the rare case into the loop that tests for it."""
    out_time_value[i], out_vega[i] = _time_value_and_density(log_moneyness[i], sd[i])


@kernel
def _bachelier_moneyness(x: float) -> float:
    """h of Bachelier's price y(h) = density(h) / h - N(-h), from x = log(1 + 1/y) > 0; relative error below 1e-4.

    A rational function fitted to h^2 over 1e-5 < h < 38, with both limits built in: h ~ x / sqrt(2 pi) for small x and
    h^2 ~ x for large.
    """
    top = 1.0 + x * (0.175663664 + x * (0.0228175202 + x * 8.96091863e-05))
    bottom = 1.0 + x * (0.176200242 + x * (0.0293788138 + x * (0.00190697629 + x * 7.13499141e-06)))
    return x * math.sqrt(top / (_TWO_PI * bottom))


@kernel
def _first_guess(a: float, share: float) -> float:
    """The total standard deviation of an option |k| = a away whose time value is `share` of its bound, within 15 %
    (0.1 % below 0.3): what the first step needs."""
    if share > 0.9:
        # 1 - share = N(-d1) + e^a N(d2), and the two are nearly equal here. N^-1: Abramowitz & Stegun 26.2.23.
        r = math.sqrt(-2.0 * log(0.5 * (1.0 - share)))
        z = r - (2.515517 + r * (0.802853 + r * 0.010328)) / (1.0 + r * (1.432788 + r * (0.189269 + r * 0.001308)))
        return z + math.sqrt(z * z + 2.0 * a)
    price = share * exp(-0.5 * a)
    if a < 1e-3 * price:
        s = _SQRT_2PI * (price + 0.5 * a)
        h = a / s
    else:
        # log(1 + a / price), with the quotient kept from overflowing.
        h = _bachelier_moneyness(log(a + price) - log(price))
        s = a / h
    # Lognormal against normal, exact to first order in s^2 at both ends of h.
    return s * (1.0 + 0.125 * s * s * (1.0 - 1.0 / (1.5 + 0.5 * h * h)) / (1.0 + 1.25 * h + h * h))


@kernel
def implied_sd_kernel(k: float, time_value: float, guess_sd: float) -> float:
    """The total standard deviation at which an option has this time value, or -1.0 if there is none.

    k           log-moneyness, |k| <= 700
    time_value  in units of the forward; a standard deviation exists for 0 < time_value < min(1, e^k)
    guess_sd    a value near the answer saves an evaluation; <= 0 for none, and any other value does no harm
    error       4e-16 relative plus what one rounding of `time_value` moves, down to time values of 1e-300
    """
    a = abs(k)
    bound = 1.0 if k >= 0.0 else exp(k)
    if not (1e-303 < time_value < bound):
        return -1.0
    s = guess_sd
    given = s > 0.0
    if not given:
        s = _first_guess(a, time_value / bound)
    # In the upper half of the price range the logarithm of the distance to the bound is the straighter function.
    upper = time_value > 0.5 * bound
    target = bound - time_value if upper else time_value
    low, high = 0.0, 1e3
    last_step = 1e-3 if a <= 10.0 else 2e-4
    for _ in range(60):
        value, density = _time_value_and_density(k, s)
        if value < time_value:
            low = max(low, s)
        else:
            high = min(high, s)
        # Relative to s; far from the root Householder's step may be small by accident, Newton's is not.
        newton = 2.0
        step = 2.0
        mark = bound - value if upper else value
        if mark > 0.0:
            # f = log(mark / target), slope = s f', f2 = s f''/f', f3 = s^2 f'''/f', f4 = s^3 f''''/f'.
            r = (mark - target) / (mark + target)
            if abs(r) < 0.01:
                z = r * r
                f = 2.0 * r * (1.0 + z * (1.0 / 3.0 + z * (0.2 + z * (1.0 / 7.0))))
            else:
                f = log(mark / target)
            slope = s * density / mark
            if upper:
                slope = -slope
            square = (a / s) * (a / s)
            d1 = square - 0.25 * s * s
            d2 = -3.0 * square - 0.25 * s * s
            b3 = d1 * d1 + d2
            b4 = d1 * (d1 * d1 + 3.0 * d2) + 12.0 * square
            f2 = d1 - slope
            f3 = b3 + slope * (2.0 * slope - 3.0 * d1)
            f4 = b4 - slope * (4.0 * b3 + 3.0 * d1 * d1 + slope * (6.0 * slope - 12.0 * d1))
            if abs(f) < 2.0 * abs(slope):
                newton = -f / slope
                top = 1.0 + newton * (f2 + newton * f3 * (1.0 / 6.0))
                bottom = 1.0 + newton * (
                    1.5 * f2 + newton * (0.25 * f2 * f2 + f3 * (1.0 / 3.0) + newton * f4 * (1.0 / 24.0))
                )
                if top > 0.1 and bottom > 0.1:
                    step = newton * top / bottom
        if abs(step) < last_step and abs(newton) < 2.0 * last_step:
            # Fifth order: the error left is 0.03 step^5 as a rule, 7 step^5 at worst (40 step^5 beyond |k| = 10).
            return s + s * step
        if given and max(abs(step), abs(newton)) > 0.25:
            # A guess this far off is worse than ours.
            given = False
            s = _first_guess(a, time_value / bound)
            continue
        proposal = s + s * step
        if abs(step) < 0.9 and low < proposal < high:
            s = proposal
        else:
            s = math.sqrt(low * high) if low > 0.0 else 0.5 * high if high < 1e3 else 2.0 * s
        if high - low <= 1e-16 * high:
            return s
    return s


class NoVolatility(IntEnum):
    """Why a price carries no volatility; the sentence is `.sentence`."""

    FOUND = 0
    BELOW_INTRINSIC = 1
    NO_TIME_VALUE = 2
    ABOVE_BOUND = 3
    ROUNDED_AWAY = 4

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    NoVolatility.FOUND: "The volatility is found.",
    NoVolatility.BELOW_INTRINSIC: "The price is below the intrinsic value: no volatility gives it.",
    NoVolatility.NO_TIME_VALUE: "The price is the intrinsic value, as far as its rounding tells: it carries no "
    "volatility.",
    NoVolatility.ABOVE_BOUND: "The price is not below its upper bound (the forward for a call, the strike for a put).",
    NoVolatility.ROUNDED_AWAY: "The volatility is lost in the rounding of the price: one unit in the price's last "
    "place, or the error stated for it, moves the volatility by more than 1e-6 of itself.",
}


class ImpliedVolatility(NamedTuple):
    """Implied volatilities, with the reason where there is none."""

    volatility: Vector
    """Per sqrt(year), NaN where the price carries none; the shape of the broadcast arguments."""
    reason: NDArray[np.int8]
    """A `NoVolatility` code per volatility; 0 where it was found."""


_EPSILON = 2.220446049250313e-16
_FOUND, _BELOW, _NONE, _ABOVE, _ROUNDED = (int(code) for code in NoVolatility)


@careful
def _time_values(log_moneyness: Vector, sd: Vector, out: Vector) -> None:
    for i in range(out.size):
        out[i] = time_value_kernel(log_moneyness[i], sd[i])


@careful
def _densities(log_moneyness: Vector, sd: Vector, out: Vector) -> None:
    for i in range(out.size):
        out[i] = _time_value_and_density(log_moneyness[i], sd[i])[1]


@careful
def _invert(
    time_value: Vector,
    uncertainty: Vector,
    log_moneyness: Vector,
    expiry: Vector,
    out: Vector,
    out_reason: NDArray[np.int8],
) -> None:
    for i in range(out.size):
        k = log_moneyness[i]
        value = time_value[i]
        bound = min(1.0, math.exp(k))
        out[i] = np.nan
        if value < -uncertainty[i]:
            out_reason[i] = _BELOW
        elif value <= uncertainty[i]:
            out_reason[i] = _NONE
        elif value >= bound:
            out_reason[i] = _ABOVE
        else:
            sd = implied_sd_kernel(k, value, -1.0)
            if sd <= 0.0:
                # Below the least time value that the kernel resolves, or above the bound by its own rounding.
                out_reason[i] = _ABOVE if value > 0.5 * bound else _NONE
                continue
            _, density = _time_value_and_density(k, sd)
            if not uncertainty[i] + _EPSILON * value <= LARGEST_UNCERTAINTY * sd * density:
                out_reason[i] = _ROUNDED
            else:
                out[i] = sd / math.sqrt(expiry[i])
                out_reason[i] = _FOUND


def time_value(log_moneyness: ArrayLike, total_sd: ArrayLike) -> Vector:
    """Undiscounted price of the out-of-the-money option, in units of the forward: a call for k >= 0, else a put.

    log_moneyness  log(strike / forward), any shape
    total_sd       vol * sqrt(expiry) >= 0, broadcast against it
    returns        the broadcast shape; exactly zero for total_sd = 0 and below 1e-304
    error          < 2e-15 relative down to 1e-300 (test_no_strike_or_deviation_admitted_is_beyond_the_stated_error)
    raises         InvalidInput for a number that is not finite, a negative total_sd or |k| > 700
    """
    k, sd = _arguments(log_moneyness=log_moneyness, total_sd=total_sd)
    return _filled(_time_values, k, sd)


def call_price(log_moneyness: ArrayLike, expiry: ArrayLike, vol: ArrayLike) -> Vector:
    """Undiscounted price of a call, in units of the forward.

    log_moneyness  log(strike / forward), any shape
    expiry         years, >= 0
    vol            per sqrt(year), >= 0; with expiry = 1, the total standard deviation
    returns        the broadcast shape
    error          < 2e-15 relative to the time value, and a unit in the last place of the price; the rounding of the
                   total standard deviation sd = vol * sqrt(expiry) adds 4e-16 (h^2 + sd^2 / 4), h = |k| / sd
                   (test_prices_are_as_good_as_the_rounding_of_their_deviation)
    raises         InvalidInput for a number that is not finite or has the wrong sign, or |k| > 700

    Black (1976).
    """
    k, years, sigma = _arguments(log_moneyness=log_moneyness, expiry=expiry, vol=vol)
    return np.asarray(_filled(_time_values, k, _total_sd(years, sigma)) - np.expm1(np.minimum(k, 0.0)))


def put_price(log_moneyness: ArrayLike, expiry: ArrayLike, vol: ArrayLike) -> Vector:
    """Undiscounted price of a put, in units of the forward; arguments, error and exceptions of `call_price`."""
    k, years, sigma = _arguments(log_moneyness=log_moneyness, expiry=expiry, vol=vol)
    return np.asarray(_filled(_time_values, k, _total_sd(years, sigma)) + np.expm1(np.maximum(k, 0.0)))


def vega(log_moneyness: ArrayLike, expiry: ArrayLike, vol: ArrayLike) -> Vector:
    """Derivative of the price (call, put and time value have the same) in the volatility, in units of the forward.

    Arguments and exceptions of `call_price`; error as that of its time value, relative down to 1e-300.
    """
    k, years, sigma = _arguments(log_moneyness=log_moneyness, expiry=expiry, vol=vol)
    return np.asarray(np.sqrt(years) * _filled(_densities, k, _total_sd(years, sigma)))


def implied_volatility(
    price: ArrayLike,
    log_moneyness: ArrayLike,
    expiry: ArrayLike,
    kind: Literal["call", "put"] = "call",
    *,
    price_error: ArrayLike = 0.0,
) -> ImpliedVolatility:
    """The volatility at which Black's formula gives the undiscounted price.

    price          in units of the forward, any shape
    log_moneyness  log(strike / forward), |k| <= 700
    expiry         years, > 0
    kind           of the option the price is of; "call" or "put"
    price_error    absolute error the price may have beyond its rounding: what a pricer states of itself
    returns        the volatility, NaN where the price carries none, and the reason
    error          1e-15 relative plus what one unit in the last place of the price moves (an in-the-money price holds
                   its time value only to the rounding of the whole)
    raises         InvalidInput for a number that is not finite, expiry <= 0, a negative price_error, or another kind

    A volatility that one unit in the last place of the price, plus price_error, moves by more than 1e-6 of itself is
    withheld: NaN with `ROUNDED_AWAY`. For a price of the order of the forward that is a time value of some 1e-11;
    an out-of-the-money price as small as 1e-300 still carries its volatility in full.
    """
    if kind not in ("call", "put"):
        raise InvalidInput(Problem.at(("kind",), f'must be "call" or "put", but is {kind!r}.'))
    p, k, years, error = _arguments(
        to_invert=True, price=price, log_moneyness=log_moneyness, expiry=expiry, price_error=price_error
    )
    intrinsic = np.expm1(k) if kind == "put" else -np.expm1(k)
    in_the_money = intrinsic > 0.0
    value = np.where(in_the_money, p - intrinsic, p)
    # The price and, where one is taken off, the intrinsic value are each rounded.
    uncertainty = error + np.where(in_the_money, _EPSILON * (np.abs(p) + intrinsic), 0.0)
    return _implied(value, uncertainty, k, years)


def implied_volatility_from_time_value(
    time_value: ArrayLike, log_moneyness: ArrayLike, expiry: ArrayLike
) -> ImpliedVolatility:
    """The volatility at which the out-of-the-money option has this price: the inverse of `time_value`.

    time_value     undiscounted price of the call for k >= 0, else of the put, in units of the forward
    log_moneyness  log(strike / forward), |k| <= 700
    expiry         years, > 0
    returns        the volatility, NaN where there is none, and the reason
    error          < 1e-15 relative plus what one unit in the last place of `time_value` moves, over time values from
                   1e-300 to the bound min(1, e^k) (test_time_values_give_their_volatility_back)
    raises         InvalidInput for a number that is not finite, or expiry <= 0
    """
    value, k, years = _arguments(to_invert=True, time_value=time_value, log_moneyness=log_moneyness, expiry=expiry)
    return _implied(value, np.zeros(value.shape), k, years)


def _implied(value: Vector, uncertainty: Vector, k: Vector, years: Vector) -> ImpliedVolatility:
    volatility = np.empty(value.shape)
    reason = np.empty(value.shape, dtype=np.int8)
    value, uncertainty, k, years = (np.ascontiguousarray(x).reshape(-1) for x in (value, uncertainty, k, years))
    _invert(value, uncertainty, k, years, volatility.reshape(-1), reason.reshape(-1))
    return ImpliedVolatility(volatility, reason)


def _total_sd(years: Vector, sigma: Vector) -> Vector:
    # Beyond any number it counts as infinite: the time value is then its bound.
    with np.errstate(over="ignore"):
        sd: Vector = sigma * np.sqrt(years)
    return sd


def _filled(loop: Callable[[Vector, Vector, Vector], None], k: Vector, sd: Vector) -> Vector:
    out = np.empty(k.shape)
    loop(np.ascontiguousarray(k).reshape(-1), np.ascontiguousarray(sd).reshape(-1), out.reshape(-1))
    return out


def _arguments(*, to_invert: bool = False, **given: ArrayLike) -> list[Vector]:
    """The arguments as float64 arrays of one shape, all finite and of the right sign; to invert, expiry not zero."""
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in given.items()}
    problems: list[Problem] = []
    for name, array in arrays.items():
        # A sum is not finite if a term is not, and costs half of asking each.
        if not math.isfinite(np.add.reduce(array, axis=None)) and not np.isfinite(array).all():
            problems += _problems(name, array, np.isfinite(array), "must be a finite number")
        elif name == "log_moneyness":
            if array.size and not max(array.max(), -array.min()) <= 700.0:
                problems += _problems(name, array, np.abs(array) <= 700.0, "must lie within [-700, 700]")
        elif name == "expiry" and to_invert:
            if array.size and not array.min() > 0.0:
                problems += _problems(name, array, array > 0.0, "must be > 0 years")
        elif name not in ("price", "time_value") and array.size and not array.min() >= 0.0:
            problems += _problems(name, array, array >= 0.0, "must be >= 0")
    if problems:
        raise InvalidInput(*problems)
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) == 1:
        return list(arrays.values())
    try:
        shape = np.broadcast_shapes(*shapes)
        # Copies: a view that shares its numbers is not for a kernel to be handed.
        return [array if array.shape == shape else np.array(np.broadcast_to(array, shape)) for array in arrays.values()]
    except ValueError:
        listed = ", ".join(f"`{name}` {array.shape}" for name, array in arrays.items())
        raise InvalidInput(Problem((next(iter(arrays)),), f"Shapes must broadcast, but are {listed}.")) from None


def _problems(name: str, array: Vector, good: BoolVector, needed: str) -> list[Problem]:
    places = np.argwhere(~np.asarray(good))[:100]
    return [Problem.at((name, *map(int, place)), f"{needed}, but is {array[tuple(place)]}.") for place in places]
