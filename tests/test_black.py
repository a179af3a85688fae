import re
from functools import cache
from typing import Any, Literal

import mpmath
import numpy as np
import pytest
from numba import njit

from calibrant import black
from calibrant.arrays import Vector
from calibrant.black import (
    ImpliedVolatility,
    NoVolatility,
    call_price,
    implied_sd_kernel,
    implied_volatility,
    implied_volatility_from_time_value,
    otm_and_vega,
    put_price,
    time_value,
    time_value_kernel,
    vega,
)
from calibrant.compiled import FLAGS
from calibrant.errors import InvalidInput
from tests.shared import needs_shared, reference_calls

EPSILON = 2.220446049250313e-16


def _digits(sd: float | mpmath.mpf) -> int:
    """Enough that the subtraction in Black's formula leaves 40 digits."""
    return 60 if sd > 1e-8 else 400


def _exact_time_value(k: float, sd: float | mpmath.mpf) -> mpmath.mpf:
    """Black's formula as it stands in the books."""
    with mpmath.workdps(_digits(sd)):
        x, s = mpmath.mpf(k), mpmath.mpf(sd)
        sign = 1 if k >= 0 else -1
        d1 = -x / s + s / 2
        return sign * (mpmath.ncdf(sign * d1) - mpmath.exp(x) * mpmath.ncdf(sign * (d1 - s)))


def _exact_vega(k: float, sd: float | mpmath.mpf) -> mpmath.mpf:
    with mpmath.workdps(60):
        return mpmath.npdf(-mpmath.mpf(k) / mpmath.mpf(sd) + mpmath.mpf(sd) / 2)


@cache
def _wide_grid(n: int, seed: int) -> list[tuple[float, float]]:
    """(log-moneyness, total standard deviation) with time values from 1e-300 to the bound."""
    rng = np.random.default_rng(seed)
    points: list[tuple[float, float]] = []
    while len(points) < n:
        sd = float(10.0 ** (rng.uniform(-8.0, 1.0) if rng.random() < 0.9 else rng.uniform(-100.0, -8.0)))
        away = float(rng.choice([0.0, 10.0 ** rng.uniform(-6.0, 1.5), rng.uniform(0.0, 37.0)]))
        k = float(rng.choice([-1.0, 1.0])) * away * sd
        if abs(k) <= 10.0 and _exact_time_value(k, sd) > 1e-300:
            points.append((k, sd))
    return points


@cache
def _widest_grid(n: int, seed: int) -> list[tuple[float, float]]:
    """(log-moneyness, total standard deviation) over all that is admitted: |k| <= 700 and deviations from nothing to a
    thousand, half of them where strikes far from the forward still have time value."""
    rng = np.random.default_rng(seed)
    points: list[tuple[float, float]] = []
    while len(points) < n:
        sd = float(10.0 ** (rng.uniform(-300.0, 3.0) if rng.random() < 0.3 else rng.uniform(-3.0, 2.0)))
        near = rng.uniform(-38.0, 38.0) * sd + rng.choice([-0.5, 0.0, 0.5]) * sd * sd
        k = float(rng.choice([near, rng.uniform(-700.0, 700.0), 0.0], p=[0.7, 0.25, 0.05]))
        if abs(k) <= 700.0 and (abs(k) < 200.0 * sd or abs(k) < 1.0):
            points.append((k, sd))
    return points


def test_no_strike_or_deviation_admitted_is_beyond_the_stated_error() -> None:
    points = _widest_grid(1500, seed=11)
    k, sd = np.array(points).T
    for values, exact in ((time_value(k, sd), _exact_time_value), (vega(k, 1.0, sd), _exact_vega)):
        for value, point in zip(values, points, strict=True):
            expected = exact(*point)
            if expected > 1e-300:
                assert abs(float(value / expected - 1)) < 2e-15, point
            else:
                assert 0.0 <= value < 1e-299, point


def test_prices_are_as_good_as_the_rounding_of_their_deviation() -> None:
    rng = np.random.default_rng(12)
    points = [point for point in _widest_grid(600, seed=13) if point[1] > 1e-100]
    for k, sd in points:
        expiry = float(10.0 ** rng.uniform(-6.0, 2.0))
        vol = sd / float(np.sqrt(expiry))
        with mpmath.workdps(60):
            exact_sd = mpmath.mpf(vol) * mpmath.sqrt(expiry)
        expected, slope = _exact_time_value(k, exact_sd), _exact_vega(k, exact_sd) * mpmath.sqrt(expiry)
        allowed = 2e-15 + 4e-16 * ((k / sd) ** 2 + 0.25 * sd * sd)
        price = float(call_price(k, expiry, vol) if k >= 0.0 else put_price(k, expiry, vol))
        for value, exact in ((price, expected), (float(vega(k, expiry, vol)), slope)):
            if exact > 1e-300:
                assert abs(float(value / exact - 1)) < allowed, (k, expiry, vol)
        in_the_money = put_price(k, expiry, vol) if k >= 0.0 else call_price(k, expiry, vol)
        with mpmath.workdps(60):
            exact = expected + abs(mpmath.expm1(k))
        if exact > 1e-300:
            assert abs(float(in_the_money / exact - 1)) < 3e-16 + allowed * float(expected / exact), (k, expiry, vol)


def test_time_value_is_accurate_to_the_last_digits() -> None:
    points = _wide_grid(600, seed=1)
    values = time_value(*np.array(points).T)
    errors = [abs(float(v / _exact_time_value(k, sd) - 1)) for v, (k, sd) in zip(values, points, strict=True)]
    assert max(errors) < 2e-15


def test_vega_is_the_derivative_of_the_price() -> None:
    for k, sd in _wide_grid(100, seed=2):
        if sd < 1e-8:
            continue
        with mpmath.workdps(60):
            slope = mpmath.diff(lambda s, k=k: _exact_time_value(k, s), mpmath.mpf(sd), h=mpmath.mpf(sd) * 1e-20)
        expected = float(slope) * 2.0
        assert float(vega(k, 4.0, sd / 2.0)) == pytest.approx(expected, rel=1e-13)


def test_vega_is_accurate_to_the_last_digits() -> None:
    points = _wide_grid(300, seed=3)
    k, sd = np.array(points).T
    errors = [abs(float(v / _exact_vega(*p) - 1)) for v, p in zip(vega(k, 1.0, sd), points, strict=True)]
    assert max(errors) < 2e-15


def test_without_deviation_there_is_no_time_value() -> None:
    k = np.array([-0.4, -1e-9, 0.0, 1e-9, 0.4])
    np.testing.assert_array_equal(time_value(k, 0.0), 0.0)
    np.testing.assert_array_equal(call_price(k, 1.0, 0.0), -np.expm1(np.minimum(k, 0.0)))
    np.testing.assert_array_equal(vega(k, 1.0, 0.0) > 0.0, k == 0.0)
    assert time_value(1.0, 0.02) == 0.0


def test_time_value_approaches_its_bound_as_the_deviation_grows() -> None:
    k = np.array([-3.0, -0.1, 0.0, 0.1, 3.0])
    np.testing.assert_allclose(time_value(k, 200.0), np.minimum(1.0, np.exp(k)), rtol=4e-16)


def test_at_the_money_the_series_for_small_deviations_holds() -> None:
    sd = 10.0 ** np.arange(-300.0, -1.0, 7.0)
    np.testing.assert_allclose(time_value(0.0, sd), sd / np.sqrt(2.0 * np.pi) * (1.0 - sd * sd / 24.0), rtol=1e-15)


def test_put_call_symmetry() -> None:
    k, sd = np.array(_wide_grid(500, seed=4)).T
    np.testing.assert_allclose(np.exp(-k) * time_value(k, sd), time_value(-k, sd), rtol=5e-15)


def test_put_call_parity() -> None:
    k = np.linspace(-2.0, 2.0, 41)
    for expiry, vol in ((0.01, 0.1), (1.0, 0.2), (10.0, 0.8)):
        np.testing.assert_allclose(
            call_price(k, expiry, vol) - put_price(k, expiry, vol), 1.0 - np.exp(k), rtol=0.0, atol=2e-15
        )


def test_prices_rise_with_the_deviation_and_calls_fall_with_the_strike() -> None:
    sd = np.geomspace(1e-4, 10.0, 400)
    k = np.linspace(-3.0, 3.0, 61)
    values = time_value(k[:, np.newaxis], sd)
    assert (np.diff(values, axis=1) >= 0.0).all()
    alive = (values[:, 1:] > 0.0) & (values[:, 1:] < np.minimum(1.0, np.exp(k))[:, np.newaxis] * (1.0 - 1e-9))
    assert (np.diff(values, axis=1)[alive] > 0.0).all()
    calls = call_price(k[:, np.newaxis], 1.0, np.geomspace(0.3, 3.0, 20))
    assert (np.diff(calls, axis=0) < 0.0).all()


def test_the_vectorised_loop_agrees_with_the_scalar_kernel() -> None:
    rng = np.random.default_rng(5)
    sd = 10.0 ** rng.uniform(-3.0, 1.2, 3000)
    h = rng.uniform(-30.0, 30.0, sd.size)
    k = np.clip(h * sd, -10.0, 10.0)
    values, densities = np.empty(sd.size), np.empty(sd.size)
    otm_and_vega(k, sd, values, densities)
    rounding = 3e-15 + EPSILON * (k / sd) ** 2
    assert (np.abs(values - time_value(k, sd)) <= rounding * values).all()
    assert (np.abs(densities - vega(k, 1.0, sd)) <= rounding * densities).all()


def test_the_loop_over_options_is_compiled_for_several_lanes() -> None:
    # Compiled afresh: code that comes from numba's cache cannot be looked at.
    loop = njit(error_model="numpy", fastmath=FLAGS)(otm_and_vega.py_func)
    loop(np.zeros(4), np.ones(4), np.empty(4), np.empty(4))
    (code,) = loop.inspect_llvm().values()
    assert re.search(r"fdiv [a-z ]*<\d+ x double>", code)


def _rounding_in_vol(value: float, k: float, sd: float) -> float:
    """How far one unit in the last place of the time value, or of its bound, moves the deviation, relatively."""
    bound = min(1.0, float(np.exp(k)))
    unit = EPSILON * (value if value < 0.5 * bound else bound)
    return unit / float(_exact_vega(k, sd) * sd)


def test_time_values_give_their_volatility_back() -> None:
    checked = 0
    for k, sd in _wide_grid(600, seed=6) + _widest_grid(600, seed=14):
        value = float(_exact_time_value(k, sd))
        if value < 1e-300 or _exact_vega(k, sd) < 1e-300:
            continue
        if value >= min(1.0, np.exp(k)) or _rounding_in_vol(value, k, sd) > 1e-13:
            continue
        found = implied_volatility_from_time_value(value, k, 0.25)
        assert found.reason == NoVolatility.FOUND
        assert abs(float(found.volatility) / (2.0 * sd) - 1.0) < 1e-15 + _rounding_in_vol(value, k, sd), (k, sd)
        checked += 1
    assert checked > 800


def test_one_deviation_for_many_strikes_reaches_the_kernel_as_numbers_of_its_own() -> None:
    # A broadcast view has a stride of zero, and numpy warns of writing to it.
    k = np.array([0.1])
    np.testing.assert_array_equal(time_value(k, 0.2), time_value(k, np.array([0.2])))
    assert time_value(0.1, np.full((2, 1), 1e300)).tolist() == [[1.0], [1.0]]
    assert call_price(0.1, 1e300, 1e300) == 1.0


@pytest.mark.parametrize("factor", [0.0, 1e-8, 0.05, 0.6, 0.99, 1.0, 1.001, 1.5, 30.0, 1e8])
def test_no_guess_is_bad_enough_to_miss_the_deviation(factor: float) -> None:
    for k, sd in _wide_grid(150, seed=7):
        if sd < 1e-8:
            continue
        value = time_value_kernel(k, sd)
        rounding = _rounding_in_vol(value, k, sd)
        if value < min(1.0, np.exp(k)) and rounding < 1e-10:
            assert abs(implied_sd_kernel(k, value, factor * sd) / sd - 1.0) < 1e-14 + 20.0 * rounding, (k, sd)


@pytest.mark.parametrize(
    ("k", "value"), [(0.1, 0.0), (0.1, -1.0), (0.1, 1.0), (-0.1, 0.9049), (0.0, 1.5), (0.2, 1e-306)]
)
def test_the_kernel_says_minus_one_where_no_deviation_gives_the_price(k: float, value: float) -> None:
    assert implied_sd_kernel(k, value, 0.2) == -1.0


@pytest.mark.parametrize("kind", ["call", "put"])
def test_prices_give_their_volatility_back_as_far_as_their_rounding_allows(kind: Literal["call", "put"]) -> None:
    vol = np.geomspace(0.02, 3.0, 30)[:, np.newaxis, np.newaxis]
    k = np.linspace(-1.0, 1.0, 41)[:, np.newaxis]
    expiry = np.array([0.01, 0.5, 5.0])
    price = call_price(k, expiry, vol) if kind == "call" else put_price(k, expiry, vol)
    found = implied_volatility(price, k, expiry, kind)
    given = found.reason == NoVolatility.FOUND
    np.testing.assert_array_equal(given, np.isfinite(found.volatility))
    in_the_money = (k < 0.0) if kind == "call" else (k > 0.0)
    unit = EPSILON * np.where(in_the_money, 2.0 * np.maximum(1.0, np.exp(k)), price)
    with np.errstate(divide="ignore", invalid="ignore"):
        allowed = unit / vega(k, expiry, vol) / vol
        error = np.abs(found.volatility / vol - 1.0)
    assert (error[given] < 2e-15 + 2.0 * allowed[given]).all()
    assert (error[given] < black.LARGEST_UNCERTAINTY).all()
    # Nothing is withheld that the price tells to seven digits.
    assert given[(allowed < 1e-7) & (price > 1e-300)].all()
    assert 0.4 < given.mean() < 1.0


def test_out_of_the_money_prices_keep_their_volatility_where_in_the_money_ones_lose_it() -> None:
    value = float(time_value(-0.5, 0.07))
    assert value < 1e-13
    put = implied_volatility(value, -0.5, 1.0, "put")
    assert float(put.volatility) == pytest.approx(0.07, rel=1e-14)
    call = implied_volatility(float(call_price(-0.5, 1.0, 0.07)), -0.5, 1.0, "call")
    assert np.isnan(call.volatility)


def _reason(found: ImpliedVolatility) -> NoVolatility:
    assert np.isnan(found.volatility) == (found.reason != NoVolatility.FOUND)
    return NoVolatility(int(found.reason))


@pytest.mark.parametrize(
    ("price", "k", "kind", "reason"),
    [
        (0.09, -0.1, "call", NoVolatility.BELOW_INTRINSIC),
        (-1e-9, 0.1, "call", NoVolatility.BELOW_INTRINSIC),
        (0.10, 0.1, "put", NoVolatility.BELOW_INTRINSIC),
        (0.0, 0.1, "call", NoVolatility.NO_TIME_VALUE),
        (-np.expm1(-0.1), -0.1, "call", NoVolatility.NO_TIME_VALUE),
        (np.expm1(0.1), 0.1, "put", NoVolatility.NO_TIME_VALUE),
        (1.0, 0.1, "call", NoVolatility.ABOVE_BOUND),
        (7.0, -0.1, "call", NoVolatility.ABOVE_BOUND),
        (1.2, 0.1, "put", NoVolatility.ABOVE_BOUND),
        (-np.expm1(-0.3) + 1e-14, -0.3, "call", NoVolatility.ROUNDED_AWAY),
        (1.0 - 1e-12, 0.1, "call", NoVolatility.ROUNDED_AWAY),
        (1e-250, 0.1, "call", NoVolatility.FOUND),
    ],
)
def test_every_price_without_a_volatility_has_its_reason(
    price: float, k: float, kind: Literal["call", "put"], reason: NoVolatility
) -> None:
    found = _reason(implied_volatility(price, k, 1.0, kind))
    assert found is reason
    assert found.sentence.endswith(".")


def test_the_error_of_a_pricer_decides_how_small_a_time_value_may_be() -> None:
    value = float(time_value(0.3, 0.06))
    assert 1e-9 < value < 1e-8
    assert _reason(implied_volatility(value, 0.3, 1.0)) is NoVolatility.FOUND
    assert _reason(implied_volatility(value, 0.3, 1.0, price_error=1e-15)) is NoVolatility.FOUND
    assert _reason(implied_volatility(value, 0.3, 1.0, price_error=1e-12)) is NoVolatility.ROUNDED_AWAY
    assert _reason(implied_volatility(value, 0.3, 1.0, price_error=1e-7)) is NoVolatility.NO_TIME_VALUE


@needs_shared
@pytest.mark.parametrize("model", ["heston", "bates", "double_heston_jump"])
def test_reference_prices_have_their_published_implied_vols(model: str) -> None:
    rows = [row for row in reference_calls(model) if row.implied_vol is not None]
    assert len(rows) > 10
    for row in rows:
        vol = row.implied_vol or 0.0
        found = implied_volatility(row.call, row.log_strike, row.expiry)
        # The price is good to about 1e-15, the printed vol to 12 digits.
        allowed = 1e-11 + 3e-15 / (float(vega(row.log_strike, row.expiry, vol)) * vol)
        if found.reason == NoVolatility.FOUND:
            assert abs(float(found.volatility) / vol - 1.0) < allowed
        else:
            assert allowed > 1e-7


def test_arguments_broadcast_and_scalars_stay_scalars() -> None:
    assert time_value(0.0, 0.2).shape == ()
    assert call_price(np.zeros((3, 1)), np.ones(4), 0.2).shape == (3, 4)
    found = implied_volatility(np.full((2, 1), 0.1), np.zeros(3), 1.0)
    assert found.volatility.shape == found.reason.shape == (2, 3)
    strided: Vector = np.linspace(0.0, 1.0, 10)[::2]
    np.testing.assert_array_equal(time_value(strided, 0.2), time_value(strided.copy(), 0.2))


def _arguments(**changed: Any) -> dict[str, Any]:
    return {"price": [0.05, 0.06], "log_moneyness": [0.0, 0.1], "expiry": 1.0, "kind": "call"} | changed


@pytest.mark.parametrize(
    ("changed", "pointer", "detail"),
    [
        ({"price": [0.05, np.nan]}, "/price/1", "`price[1]` must be a finite number, but is nan."),
        (
            {"log_moneyness": [np.inf, 0.0]},
            "/log_moneyness/0",
            "`log_moneyness[0]` must be a finite number, but is inf.",
        ),
        ({"log_moneyness": [800.0, 0.0]}, "/log_moneyness/0", "`log_moneyness[0]` must lie within [-700, 700]"),
        ({"expiry": 0.0}, "/expiry", "must be > 0 years, but is 0.0."),
        ({"expiry": [1.0, -0.5]}, "/expiry/1", "`expiry[1]` must be > 0 years, but is -0.5."),
        ({"price_error": -1.0}, "/price_error", "`price_error` must be >= 0, but is -1.0."),
        ({"kind": "straddle"}, "/kind", '`kind` must be "call" or "put", but is \'straddle\'.'),
        ({"expiry": [1.0, 1.0, 1.0]}, "/price", "Shapes must broadcast, but are `price` (2,)"),
    ],
)
def test_bad_input_is_refused_with_its_place(changed: dict[str, Any], pointer: str, detail: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        implied_volatility(**_arguments(**changed))
    assert caught.value.problems[0].pointer == pointer
    assert detail in caught.value.problems[0].detail


@pytest.mark.parametrize("name", ["log_moneyness", "expiry", "vol"])
def test_prices_of_what_is_no_number_are_refused(name: str) -> None:
    given = {"log_moneyness": 0.1, "expiry": 1.0, "vol": 0.2} | {name: np.nan}
    for price in (call_price, put_price, vega):
        with pytest.raises(InvalidInput, match=f"`{name}` must be a finite number"):
            price(**given)
    with pytest.raises(InvalidInput, match="`total_sd` must be >= 0"):
        time_value(0.1, -0.2)
