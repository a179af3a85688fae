from typing import NamedTuple

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import implied_volatility_from_time_value, vega
from calibrant.models import HESTON, MODELS, Model
from calibrant.pricing.bent_contour import bent_values
from calibrant.pricing.composed_block import integrated_variance, log_moment, work_size
from calibrant.pricing.fit_kernel import BENT, alias_length, time_values
from calibrant.pricing.fourier import PricingError, call_prices_and_gradient, otm_values
from calibrant.pricing.heston_block import N_PARTS
from tests import many_factors
from tests.lewis import lewis
from tests.lewis import n_nodes as judge_nodes
from tests.shared import needs_shared, published_double_heston_jump, reference_calls


class Answer(NamedTuple):
    value: Vector
    gradient: Matrix
    n_nodes: int
    error: float


def _one_expiry(params: Vector, expiry: float, k: Vector, tolerance: float, n_params: int = 5) -> Answer:
    out, gradient, n_nodes = np.empty(k.size), np.empty((n_params, k.size)), np.empty(1, np.int64)
    offsets: IntVector = np.array([0, k.size])
    error = np.empty(1)
    time_values(
        HESTON.layout, params, np.array([expiry]), offsets, k, np.array([tolerance]), out, gradient, n_nodes, error
    )
    return Answer(out, gradient, int(n_nodes[0]), float(error[0]))


def _strikes(params: Vector, expiry: float, n: int) -> tuple[Vector, Vector]:
    """Log-moneyness over all of the region whose vega exceeds 1e-3 of the forward, and those vegas."""
    vol = np.sqrt(HESTON.expected_variance(expiry, params) / expiry)
    k = np.linspace(-5.0, 5.0, n) * vol * np.sqrt(expiry)
    size = vega(k, np.full(n, expiry), np.full(n, vol))
    return k[size > 1e-3], size[size > 1e-3]


def test_vols_are_within_a_hundredth_of_a_basis_point_over_the_paper_s_box() -> None:
    params, expiries = paper_box.draws(400, seed=11), paper_box.expiries(400, seed=12)
    switched = 0
    for p, t in zip(params, expiries, strict=True):
        k, size = _strikes(p, t, 30)
        values, _, nodes, _ = _one_expiry(p, t, k, 1e-6 * float(size.min()))
        error = np.abs(values - otm_values(HESTON, k, np.full(k.size, t), p)) / size
        assert error.max() < 1e-6, (p, t, nodes)
        switched += nodes > BENT
    assert switched < 4


def test_tolerance_holds_or_the_kernel_says_so_over_the_admissible_bounds() -> None:
    params, expiries = paper_box.admissible_draws(120, seed=13), paper_box.expiries(120, seed=14)
    for p, t in zip(params, expiries, strict=True):
        k, size = _strikes(p, t, 12)
        if k.size == 0:
            continue
        values, _, nodes, _ = _one_expiry(p, t, k, 1e-6 * float(size.min()))
        error = np.abs(values - otm_values(HESTON, k, np.full(k.size, t), p)) / size
        assert nodes > 0, (p, t)
        assert error.max() < 1e-5, (p, t, nodes)


def test_values_are_as_good_as_the_kernel_says_all_over_the_admissible_box() -> None:
    # Bounds of every parameter, a day to ten years, strikes to twelve standard deviations, any tolerance. The accurate
    # pricer is itself good to 1e-13.
    random = np.random.default_rng(23)
    n_judged = 0
    p = HESTON.lower.copy()
    logarithmic = [0, 1, 2, 4]
    for _ in range(1500):
        low, high = HESTON.lower[logarithmic], HESTON.upper[logarithmic]
        p[logarithmic] = low * (high / low) ** random.random(4)
        p[3] = random.choice([-0.9999, 0.9999, random.uniform(-0.9999, 0.9999)])
        t = float(np.exp(random.uniform(np.log(1.0 / 365.0), np.log(10.0))))
        reach = min(10.0, random.uniform(0.5, 12.0) * np.sqrt(HESTON.expected_variance(t, p)))
        k = np.sort(random.uniform(-reach, reach, random.integers(1, 7)))
        tolerance = 10.0 ** random.uniform(-15.0, -5.0)
        values, _, nodes, error = _one_expiry(p, t, k, tolerance, n_params=0)
        try:
            wrong = np.abs(values - otm_values(HESTON, k, np.full(k.size, t), p)).max()
        except (PricingError, RuntimeWarning):  # the far strikes of some draws are beyond it
            continue
        n_judged += 1
        assert wrong <= error + 1e-13, (p, t, k, tolerance, nodes)
    assert n_judged > 1400


def test_gradient_on_the_bent_contour_is_as_good_as_on_the_real_line() -> None:
    # Short expiries of the admissible box, where real nodes would be too many.
    random = np.random.default_rng(24)
    n_bent = 0
    for p in paper_box.admissible_draws(150, seed=25):
        t = float(np.exp(random.uniform(np.log(1.0 / 365.0), np.log(1.0))))
        k, size = _strikes(p, t, 20)
        if k.size == 0:
            continue
        _, gradient, nodes, _ = _one_expiry(p, t, k, 2e-10 * float(size.min()))
        if nodes > BENT:
            n_bent += 1
            exact = call_prices_and_gradient(HESTON, k, np.full(k.size, t), p)[1]
            error = np.abs(gradient - exact).max(axis=1) / np.abs(exact).max(axis=1)
            assert error.max() < 1e-7, (p, t, error)
    assert n_bent > 20


def test_a_strike_is_worth_the_same_whatever_its_neighbours() -> None:
    # Whether strikes share a contour, and which, must not show beyond the error stated.
    for p in paper_box.admissible_draws(40, seed=26):
        t = 0.03
        k = np.linspace(-9.0, 9.0, 31) * np.sqrt(HESTON.expected_variance(t, p))
        together = _one_expiry(p, t, k, 1e-12, n_params=0)
        for q in (0, 7, 15, 22, 30):
            alone = _one_expiry(p, t, k[q : q + 1], 1e-12, n_params=0)
            assert abs(alone.value[0] - together.value[q]) <= alone.error + together.error, (p, k[q])


def test_rounding_does_not_grow_as_xi_vanishes() -> None:
    # kappa theta / xi^2 is 2.4e8: its factor must vanish with the digits that it has.
    p = np.array([60.0, 4.0, 0.001, -0.9, 4.0])
    for t in (0.1, 2.0, 10.0):
        k = np.linspace(-9.5, 9.5, 41)
        values, _, _, error = _one_expiry(p, t, k, 1e-13)
        assert error < 1e-11
        assert np.abs(values - otm_values(HESTON, k, np.full(k.size, t), p)).max() < error


def test_a_tighter_tolerance_gives_more_digits() -> None:
    for p in paper_box.draws(40, seed=15):
        k, size = _strikes(p, 0.5, 20)
        exact = otm_values(HESTON, k, np.full(k.size, 0.5), p)
        values, _, _, _ = _one_expiry(p, 0.5, k, 2e-10 * float(size.min()))
        assert np.max(np.abs(values - exact) / size) < 2e-10


def test_gradient_is_good_to_1e_8_of_each_parameter_s_largest_entry() -> None:
    offsets = np.arange(0, 81, 10)
    k, t = paper_box.LOG_MONEYNESS, paper_box.EXPIRY
    tolerance = np.full(8, 1e-11)
    for p in paper_box.draws(60, seed=16):
        out, gradient, n_nodes = np.empty(80), np.empty((5, 80)), np.empty(8, np.int64)
        time_values(HESTON.layout, p, paper_box.EXPIRIES, offsets, k, tolerance, out, gradient, n_nodes, np.empty(8))
        exact = call_prices_and_gradient(HESTON, k, t, p)[1]
        error = np.abs(gradient - exact).max(axis=1) / np.abs(exact).max(axis=1)
        assert error.max() < 1e-8, (p, error)


def test_prices_alone_equal_prices_with_gradient() -> None:
    for p in paper_box.draws(20, seed=17):
        k, size = _strikes(p, 0.3, 15)
        alone = _one_expiry(p, 0.3, k, 1e-9 * float(size.min()), n_params=0)
        both = _one_expiry(p, 0.3, k, 1e-9 * float(size.min()))
        np.testing.assert_allclose(alone.value, both.value, rtol=0.0, atol=1e-15)


def test_a_panel_is_its_expiries_put_side_by_side() -> None:
    p = paper_box.draws(1, seed=18)[0]
    k = np.sort(np.random.default_rng(19).uniform(-0.3, 0.3, 23))
    expiries, offsets = np.array([0.1, 0.7, 1.9]), np.array([0, 5, 6, 23])
    k[0:5].sort()
    k[6:23].sort()
    out, gradient, n_nodes = np.empty(23), np.empty((5, 23)), np.empty(3, np.int64)
    time_values(HESTON.layout, p, expiries, offsets, k, np.full(3, 1e-9), out, gradient, n_nodes, np.empty(3))
    for e in range(3):
        quotes = slice(offsets[e], offsets[e + 1])
        alone = _one_expiry(p, float(expiries[e]), k[quotes].copy(), 1e-9)
        np.testing.assert_array_equal(out[quotes], alone.value)
        np.testing.assert_array_equal(gradient[:, quotes], alone.gradient)


def test_both_contours_give_the_same_sums() -> None:
    for p in paper_box.draws(20, seed=20):
        k, size = _strikes(p, 0.6, 12)
        values, gradient, nodes, _ = _one_expiry(p, 0.6, k, 1e-10 * float(size.min()))
        if nodes > BENT:
            continue
        variance = integrated_variance(HESTON.layout, 0.6, p)
        base, sums, work = np.empty(k.size), np.empty((k.size, N_PARTS)), np.empty(work_size(HESTON.layout))
        nodes, error = bent_values(HESTON.layout, 0.6, p, variance, k, 1e-14, work, base, sums)
        assert nodes > 0
        assert np.abs(base - np.exp(0.5 * k) / np.pi * sums[:, 0] - values).max() < error + 1e-10 * size.min()
        by_v0 = -np.exp(0.5 * k) / np.pi * sums[:, 1]
        np.testing.assert_allclose(gradient[4], by_v0, rtol=0.0, atol=1e-9 * np.abs(by_v0).max())


def test_log_moment_continues_the_characteristic_function_to_real_powers() -> None:
    for p in paper_box.draws(30, seed=21):
        for power in (-2.0, -0.5, 0.5, 1.5):
            moment = log_moment(HESTON.layout, power, 0.3, p)
            expected = HESTON.log_characteristic(np.array([-1j * power]), 0.3, p)[0]
            if moment < 1e300:
                assert moment == pytest.approx(expected.real, rel=1e-9, abs=1e-12)


def test_moments_explode_where_andersen_and_piterbarg_say() -> None:
    # kappa 1, xi 1, rho 0, power 2: d^2 = 1 - 2 < 0, explosion at T = 2 (pi - atan(1)) = 3 pi / 2.
    p = np.array([1.0, 0.04, 1.0, 0.0, 0.04])
    assert log_moment(HESTON.layout, 2.0, 1.5 * np.pi * 0.999, p) < 1e300
    assert log_moment(HESTON.layout, 2.0, 1.5 * np.pi * 1.001, p) >= 1e300


def test_aliasing_period_grows_with_the_digits_asked_for() -> None:
    p = paper_box.draws(1, seed=22)[0]
    sd = float(np.sqrt(HESTON.expected_variance(0.5, p)))
    periods = [alias_length(HESTON.layout, 0.5, p, sd, -3 * sd, 3 * sd, 10.0**-n) for n in range(6, 14)]
    assert np.all(np.diff(periods) > 0.0)


LARGER = [model for model in MODELS.values() if model is not HESTON]


def _smile(model: Model, params: Vector, expiry: float, tolerance: float, with_gradient: bool) -> tuple[Vector, Answer]:
    """Strikes, and what the kernel says of them."""
    k = many_factors.strikes(model, params, expiry)
    out, gradient = np.empty(k.size), np.empty((model.n_params if with_gradient else 0, k.size))
    n_nodes, error = np.empty(1, np.int64), np.empty(1)
    asked = np.array([expiry]), np.array([0, k.size]), k, np.array([tolerance])
    time_values(model.layout, params, *asked, out, gradient, n_nodes, error)
    return k, Answer(out, gradient, int(n_nodes[0]), float(error[0]))


def _vegas(values: Vector, k: Vector, expiry: float) -> Vector:
    """At the vols of the values, zero where there is none."""
    t = np.full(k.size, expiry)
    vols = implied_volatility_from_time_value(np.maximum(values, 1e-300), k, t).volatility
    return np.where(np.isfinite(vols), vega(k, t, np.nan_to_num(vols, nan=1.0)), 0.0)


@pytest.mark.parametrize("model", LARGER, ids=lambda model: model.name)
def test_vols_of_models_of_several_factors_are_within_a_hundredth_of_a_basis_point(model: Model) -> None:
    generator = np.random.default_rng(28)
    n_judged = 0
    for _ in range(15):
        params = many_factors.draw(model, generator)
        for expiry in many_factors.EXPIRIES.tolist():
            k = many_factors.strikes(model, params, expiry)
            if judge_nodes(model, k, expiry, params) > 60_000:
                continue
            judge = lewis(model, k, expiry, params).value
            size = _vegas(judge, k, expiry)
            least = max(float(size.min()), 1e-3)
            _, found = _smile(model, params, expiry, 1e-6 * least, with_gradient=False)
            away = np.abs(found.value - judge)
            assert np.all(away <= found.error + 1e-14 * np.exp(np.maximum(0.5 * k, 0.0))), (params, expiry, found)
            seen = size > 1e-3
            assert np.all(away[seen] <= 1e-6 * size[seen]), (params, expiry, found)
            n_judged += 1
    assert n_judged > 80


@pytest.mark.parametrize("model", LARGER, ids=lambda model: model.name)
def test_gradients_of_models_of_several_factors_are_good_to_1e_8_of_each_parameter_s_largest_entry(
    model: Model,
) -> None:
    generator = np.random.default_rng(29)
    n_judged = 0
    for _ in range(8):
        params = many_factors.draw(model, generator)
        ours, judge = [], []
        for expiry in many_factors.EXPIRIES.tolist():
            k = many_factors.strikes(model, params, expiry)
            if judge_nodes(model, k, expiry, params) > 40_000:
                continue
            exact = lewis(model, k, expiry, params, with_gradient=True)
            least = max(float(_vegas(exact.value, k, expiry).min()), 1e-3)
            ours.append(_smile(model, params, expiry, 2e-11 * least, with_gradient=True)[1].gradient)
            judge.append(exact.gradient)
        if ours:
            panel, exact_panel = np.concatenate(ours, axis=1), np.concatenate(judge, axis=1)
            away = np.abs(panel - exact_panel).max(axis=1) / np.abs(exact_panel).max(axis=1)
            assert away.max() < 1e-8, (params, away)
            n_judged += 1
    assert n_judged > 6


@needs_shared
@pytest.mark.parametrize("name", ["bates", "double_heston_jump"])
def test_the_kernel_meets_reference_prices_to_1e_10(name: str) -> None:
    rows = reference_calls(name) + (published_double_heston_jump() if name == "double_heston_jump" else [])
    for row in rows:
        k, out, n_nodes, error = np.array([row.log_strike]), np.empty(1), np.empty(1, np.int64), np.empty(1)
        asked = np.array([row.expiry]), np.array([0, 1]), k, np.array([1e-11])
        time_values(MODELS[name].layout, row.params, *asked, out, np.empty((0, 1)), n_nodes, error)
        assert error[0] < 1e-10, row
        call = out[0] + max(-np.expm1(row.log_strike), 0.0)
        assert call == pytest.approx(row.call, abs=1e-10), row


@pytest.mark.parametrize(
    ("expiry", "params"),
    [
        (2.0, [0.09176954, 0.01527969, 2.68183874, -0.30590964, 0.06170376, 0.07296694, -0.74120757, 0.04130713]),
        (5.0, [0.04595714, 0.34433558, 0.76623854, 0.93006575, 0.30755758, 0.30212978, 0.147803, 0.00506767]),
        (7.0 / 365.0, [9.9647996, 0.03852522, 1.92816396, 0.68512337, 0.01191339, 0.68386366, -0.62537904, 0.0081146]),
    ],
)
def test_no_contour_bends_to_where_a_jump_explodes_between_two_troughs(expiry: float, params: list[float]) -> None:
    p = np.array(params)
    k, found = _smile(MODELS["bates"], p, expiry, 1e-8, with_gradient=False)
    assert found.error < 2e-8
    assert np.abs(found.value - lewis(MODELS["bates"], k, expiry, p).value).max() < found.error
