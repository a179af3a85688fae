import math

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.errors import InvalidInput
from calibrant.layout import VARIANCE
from calibrant.models import BATES, HESTON, MODELS, Model
from calibrant.pricing.cos import CosOptions, cos_range, cos_values, cumulants
from calibrant.pricing.fourier import Values, value_steps
from calibrant.steps import finish
from tests.shared import needs_shared, published_double_heston_jump, published_values, reference_calls

MODEL_LIST = list(MODELS.values())


def _drawn(model: Model, rng: np.random.Generator) -> Vector:
    """Parameters over orders of magnitude, beyond what markets show."""
    parts: list[float] = []
    for factor in model.factors:
        if factor.kind == VARIANCE:
            low, high = np.log([0.05, 0.001, 0.02, 0.001]), np.log([40.0, 1.0, 8.0, 1.0])
            kappa, theta, xi, v0 = np.exp(rng.uniform(low, high)).tolist()
            parts += [kappa, theta, xi, rng.uniform(-0.98, 0.98), v0]
        else:
            lam, sigma_j = np.exp(rng.uniform(np.log([0.01, 0.005]), np.log([10.0, 0.6]))).tolist()
            parts += [lam, rng.uniform(-0.7, 0.5), sigma_j]
    return np.array(parts)


def _accurate(model: Model, k: Vector, t: Vector, params: Vector) -> Values:
    return finish(value_steps(model, k, t, params, with_gradient=True))


@pytest.mark.parametrize("model", MODEL_LIST, ids=lambda model: model.name)
def test_the_stated_error_is_a_bound_for_every_model(model: Model) -> None:
    rng = np.random.default_rng(301)
    sharp = []
    for _ in range(40):
        params = _drawn(model, rng)
        expiry = float(10.0 ** rng.uniform(np.log10(1.0 / 365.0), 1.0))
        sd = math.sqrt(model.expected_variance(expiry, params))
        k = np.clip(sd * rng.uniform(-8.0, 8.0, 7), -6.0, 6.0)
        options = CosOptions(
            n_terms=int(rng.choice([32, 64, 128, 256, 1024])),
            width=float(rng.choice([0.3, 4.0, 7.0, 10.0, 16.0, 24.0])),
            cumulants=2 if rng.uniform() < 0.5 else 4,
        )
        found = cos_values(model, k, np.full(7, expiry), params, options)
        exact = _accurate(model, k, np.full(7, expiry), params)
        off = np.abs(found.time_value - exact.time_value).max()
        assert off <= found.error[0] + exact.error.max(), (params, expiry, k, options)
        sharp.append(found.error[0] < 1e4 * max(off, 1e-14))
    # A bound that says nothing would hold too.
    assert np.mean(sharp) > 0.8


@pytest.mark.parametrize("model", MODEL_LIST, ids=lambda model: model.name)
def test_the_gradient_is_the_accurate_pricer_s(model: Model) -> None:
    rng = np.random.default_rng(302)
    judged = 0
    while judged < 8:
        params = _drawn(model, rng)
        t = np.repeat([0.1, 1.0], 6)
        sd = np.array([math.sqrt(model.expected_variance(years, params)) for years in t.tolist()])
        k = sd * np.tile(np.linspace(-2.5, 2.5, 6), 2)
        found = cos_values(model, k, t, params, CosOptions(n_terms=2000, width=14.0), with_gradient=True)
        if found.error.max() > 1e-11:
            continue
        exact = _accurate(model, k, t, params)
        level = np.abs(exact.gradient).max(axis=1, keepdims=True)
        np.testing.assert_allclose(found.gradient / level, exact.gradient / level, rtol=0.0, atol=1e-5)
        np.testing.assert_allclose(found.time_value, exact.time_value, rtol=0.0, atol=2e-11)
        judged += 1


@needs_shared
@pytest.mark.parametrize("model", MODEL_LIST, ids=lambda model: model.name)
def test_reference_prices_are_met_within_the_stated_error(model: Model) -> None:
    rows = reference_calls(model.name)
    sharp = []
    for row in rows:
        k, t = np.array([row.log_strike]), np.array([row.expiry])
        found = cos_values(model, k, t, row.params, CosOptions(n_terms=4096, width=16.0))
        call = found.time_value[0] + max(-math.expm1(row.log_strike), 0.0)
        assert abs(call - row.call) <= found.error[0] + 1e-14, row
        sharp.append(found.error[0] < 1e-9)
    assert not rows or np.mean(sharp) > 0.8


@needs_shared
def test_fang_and_oosterlee_s_calls_are_met_with_their_160_terms() -> None:
    case = published_values()["fang_oosterlee_albrecher"]
    params = np.array([case[name] for name in ("kappa", "theta", "sigma", "rho", "v0")])
    for expiry in (1.0, 10.0):
        forward = case["S"] * math.exp((case["r"] - case["q"]) * expiry)
        k = np.array([math.log(case["K"] / forward)])
        found = cos_values(HESTON, k, np.array([expiry]), params, CosOptions(n_terms=160))
        call = (found.time_value[0] + max(-math.expm1(k[0]), 0.0)) * forward * math.exp(-case["r"] * expiry)
        assert call == pytest.approx(case[f"call_T{expiry:.0f}"], abs=1e-5 * case["S"])
        assert found.error[0] < 1e-4


@needs_shared
def test_kahl_and_jaeckel_s_hard_case_needs_a_wide_range() -> None:
    case = published_values()["kahl_jaeckel"]
    params = np.array([case[name] for name in ("kappa", "theta", "sigma", "rho", "v0")])
    k, t = np.array([math.log(case["K"] / case["S"]) - (case["r"] - case["q"]) * case["T"]]), np.array([case["T"]])
    exact = _accurate(HESTON, k, t, params).time_value[0]
    narrow, wide = (cos_values(HESTON, k, t, params, CosOptions(n_terms=3000, width=width)) for width in (4.0, 12.0))
    assert abs(wide.time_value[0] - exact) <= wide.error[0] < 1e-8
    assert 1e-6 < abs(narrow.time_value[0] - exact) <= narrow.error[0]
    # Few terms on a wide range are no better.
    few = cos_values(HESTON, k, t, params, CosOptions(n_terms=128, width=12.0))
    assert 1e-4 < abs(few.time_value[0] - exact) <= few.error[0]


@needs_shared
def test_crisis_jumps_at_short_expiries_need_the_fourth_cumulant() -> None:
    rows = [row for row in published_double_heston_jump() if row.expiry < 0.02]
    model = MODELS["double_heston_jump"]
    errors = {}
    for order in (2, 4):
        off = []
        for row in rows:
            k, t = np.array([row.log_strike]), np.array([1.0 / 365.0])
            options = CosOptions(n_terms=2048, cumulants=4 if order == 4 else 2)
            found = cos_values(model, k, t, row.params, options).time_value[0]
            off.append(abs(found - _accurate(model, k, t, row.params).time_value[0]))
        errors[order] = max(off)
    assert errors[2] > 1e-4
    assert errors[4] < 1e-6


def test_strikes_outside_the_range_are_answered_by_their_bounds() -> None:
    params = np.array([2.0, 0.04, 0.5, -0.7, 0.05])
    options = CosOptions(width=3.0)
    low, high = cos_range(HESTON, 0.25, params, options)
    k = np.array([2.0 * low, low - 1e-9, 0.0, high + 1e-9, 2.0 * high])
    found = cos_values(HESTON, k, np.full(5, 0.25), params, options, with_gradient=True)
    np.testing.assert_array_equal(found.outside, [True, True, False, True, True])
    np.testing.assert_array_equal(found.time_value[found.outside], 0.0)
    np.testing.assert_array_equal(found.gradient[:, found.outside], 0.0)
    exact = _accurate(HESTON, k, np.full(5, 0.25), params).time_value
    assert np.all(np.abs(found.time_value - exact) <= found.error[0])
    # The time value just outside is what the bound is wrong by, and no more than a few times that is stated.
    alone = cos_values(HESTON, k[1:2], np.full(1, 0.25), params, options)
    assert exact[1] <= alone.error[0] < 30.0 * exact[1]


def test_the_cumulants_are_those_of_merton_s_jumps_and_a_steady_variance() -> None:
    lam, mean, sd, variance, expiry = 0.7, -0.15, 0.12, 0.04, 0.3
    params = np.array([1.0, variance, 0.001, 0.0, variance, lam, mean, sd])
    c1, c2, c4 = cumulants(BATES, expiry, params)
    drift = lam * (math.exp(mean + 0.5 * sd * sd) - 1.0 - mean)
    assert c1 == pytest.approx(-expiry * (0.5 * variance + drift), rel=1e-6)
    assert c2 == pytest.approx(expiry * (variance + lam * (mean**2 + sd**2)), rel=1e-6)
    assert c4 == pytest.approx(expiry * lam * (mean**4 + 6.0 * mean**2 * sd**2 + 3.0 * sd**4), rel=1e-4)


def test_quotes_keep_their_place_whatever_their_order() -> None:
    params = np.array([2.0, 0.04, 0.5, -0.7, 0.05])
    k, t = np.tile([-0.2, 0.0, 0.1], 2), np.repeat([1.0, 0.2], 3)
    order = np.array([4, 0, 5, 2, 1, 3])
    sorted_, shuffled = (cos_values(HESTON, k[o], t[o], params, with_gradient=True) for o in (np.arange(6), order))
    np.testing.assert_allclose(shuffled.time_value, sorted_.time_value[order], rtol=0.0, atol=1e-15)
    np.testing.assert_allclose(shuffled.gradient, sorted_.gradient[:, order], rtol=0.0, atol=1e-13)
    np.testing.assert_array_equal(sorted_.expiries, [0.2, 1.0])


@pytest.mark.parametrize(("name", "value"), [("n_terms", 1), ("width", 0.0), ("width", math.nan), ("cumulants", 3)])
def test_options_that_make_no_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"`?{name}"):
        CosOptions(**{name: value})  # type: ignore[arg-type]
