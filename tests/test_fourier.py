import math

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import ComplexMatrix, ComplexVector, Vector
from calibrant.black import implied_volatility_from_time_value, time_value, vega
from calibrant.errors import InvalidInput
from calibrant.models import HESTON, MODELS
from calibrant.models.model import Model
from calibrant.pricing.fourier import Values, call_prices, call_prices_and_gradient, otm_values, value_steps
from calibrant.steps import finish
from tests import many_factors
from tests.exact_prices import exact_otm_value
from tests.lewis import lewis, n_nodes
from tests.shared import needs_shared, published_double_heston_jump, published_values, reference_calls


@needs_shared
def test_every_reference_price_is_met_to_1e_10() -> None:
    rows = reference_calls("heston")
    assert len(rows) == 40
    for row in rows:
        calculated = call_prices(HESTON, np.array([row.log_strike]), np.array([row.expiry]), row.params)[0]
        assert calculated == pytest.approx(row.call, abs=1e-14), row


def _discounted_call(case: dict[str, float], strike: float, expiry: float) -> float:
    params = np.array([case[name] for name in ("kappa", "theta", "sigma", "rho", "v0")])
    forward = case["S"] * math.exp((case["r"] - case["q"]) * expiry)
    price = call_prices(HESTON, np.array([math.log(strike / forward)]), np.array([expiry]), params)[0]
    return float(price * forward * math.exp(-case["r"] * expiry))


@needs_shared
def test_published_prices_of_alan_lewis_are_met() -> None:
    case = published_values()["lewis"]
    for strike, call in zip(case["strikes"], case["calls"], strict=True):
        assert _discounted_call(case, strike, case["T"]) == pytest.approx(call, abs=1e-10 * case["S"])


@needs_shared
def test_kahl_and_jaeckel_s_hard_case_is_met() -> None:
    case = published_values()["kahl_jaeckel"]
    # Printed 4.95212, of which the last digit is off: 4.9521147209 is the true value.
    assert _discounted_call(case, case["K"], case["T"]) == pytest.approx(4.9521147209, abs=5e-11 * 100)


@needs_shared
@pytest.mark.parametrize("expiry", [1.0, 10.0])
def test_fang_and_oosterlee_s_values_are_met(expiry: float) -> None:
    case = published_values()["fang_oosterlee_albrecher"]
    call = case[f"call_T{expiry:.0f}"]
    assert _discounted_call(case, case["K"], expiry) == pytest.approx(call, abs=1e-10 * case["S"])


@needs_shared
def test_quantlib_s_cached_values_are_met() -> None:
    case = published_values()["ql_cached"]
    assert _discounted_call(case, case["K"], 5 / 366 + 86 / 365) == pytest.approx(case["call"], abs=5e-11)
    cos = published_values()["ql_cos"]
    for name, value in cos.items():
        if name.startswith("call"):
            assert _discounted_call(cos, float(name[4:]), cos["T"]) == pytest.approx(value, abs=1e-10 * cos["S"])
        elif name.startswith("put"):
            strike = float(name[3:])
            carried = cos["S"] * math.exp(-cos["q"] * cos["T"]) - strike * math.exp(-cos["r"] * cos["T"])
            assert _discounted_call(cos, strike, cos["T"]) - carried == pytest.approx(value, abs=1e-10 * cos["S"])


def _extreme_options(n: int, seed: int) -> list[tuple[Vector, float, float]]:
    """(params, expiry, log-moneyness) over all that is admissible, often on the bounds themselves: expiries from 1e-30
    to 100 years, most strikes within eight standard deviations."""
    rng = np.random.default_rng(seed)
    drawn = []
    for params in paper_box.admissible_draws(n, seed):
        params[3] = rng.choice([params[3], params[3], 0.9999, -0.9999])
        for i in (0, 1, 2, 4):
            params[i] = rng.choice([params[i], HESTON.lower[i], HESTON.upper[i]], p=[0.86, 0.07, 0.07])
        expiry = float(10.0 ** rng.choice([rng.uniform(-5.0, 2.0), rng.uniform(-30.0, -5.0)], p=[0.85, 0.15]))
        sd = math.sqrt(HESTON.expected_variance(expiry, params))
        k = float(rng.choice([sd * rng.uniform(-8.0, 8.0), rng.uniform(-10.0, 10.0), 0.0], p=[0.75, 0.2, 0.05]))
        drawn.append((params, expiry, min(max(k, -10.0), 10.0)))
    return drawn


def _values(params: Vector, expiry: Vector, k: Vector, with_gradient: bool = False) -> Values:
    return finish(value_steps(HESTON, k, expiry, params, with_gradient=with_gradient))


def test_every_value_is_as_good_as_its_stated_error() -> None:
    judged, relative = 0, []
    for params, expiry, k in _extreme_options(50, seed=31):
        try:
            exact = exact_otm_value(params, expiry, k)
        except ArithmeticError:
            continue
        judged += 1
        found = _values(params, np.array([expiry]), np.array([k]))
        off = abs(found.time_value[0] - exact.value)
        assert off <= found.error[0] + exact.error, (params, expiry, k)
        assert found.error[0] < 5e-12, (params, expiry, k)
        assert off < 1e-14, (params, expiry, k)
        if exact.error < 1e-16 * exact.value:
            relative.append(found.error[0] / exact.value)
    assert judged > 40
    # Small values keep their digits: what is known of them is known relatively.
    assert np.median(relative) < 1e-11
    assert np.mean(np.array(relative) < 1e-9) > 0.9


def test_no_option_s_value_depends_on_the_others_in_the_request() -> None:
    rng = np.random.default_rng(32)
    for params, expiry, k in _extreme_options(120, seed=33):
        sd = math.sqrt(HESTON.expected_variance(expiry, params))
        n = int(rng.integers(1, 9))
        around = np.clip(rng.choice([0.1, 1.0, 10.0, 1000.0], n) * sd * rng.uniform(-8.0, 8.0, n), -10.0, 10.0)
        strikes = np.concatenate(([k], around))
        others = np.minimum(rng.choice([expiry, 1.7 * expiry, 0.5], n), 100.0)
        expiries = np.concatenate(([expiry], others))
        together = _values(params, expiries, strikes, with_gradient=True)
        order = rng.permutation(strikes.size)
        shuffled = _values(params, expiries[order], strikes[order], with_gradient=True)
        q = int(rng.integers(strikes.size))
        alone = _values(params, expiries[q : q + 1], strikes[q : q + 1], with_gradient=True)
        for of_all, of_shuffled, of_one in zip(together, shuffled, alone, strict=True):
            np.testing.assert_array_equal(of_all[..., order], of_shuffled)
            np.testing.assert_array_equal(of_all[..., q : q + 1], of_one)


def test_values_keep_their_bounds_and_everything_is_finite() -> None:
    rng = np.random.default_rng(34)
    for params, expiry, k in _extreme_options(300, seed=35):
        expiries = np.array([expiry, 10.0 ** rng.uniform(-320.0, 2.0), 5e-324])
        strikes = np.array([k, rng.uniform(-10.0, 10.0), rng.choice([0.0, k])])
        found = _values(params, expiries, strikes, with_gradient=True)
        assert np.all(found.time_value >= 0.0)
        assert np.all(found.time_value <= np.minimum(1.0, np.exp(strikes)))
        assert np.all(found.error < 1e-10), (params, expiries, strikes, found.error)
        assert np.all(np.isfinite(found.gradient))


def test_far_options_fall_and_stay_convex_down_to_where_they_vanish() -> None:
    for params in paper_box.draws(10, seed=36):
        k = np.linspace(0.0, 8.0, 161)
        values = otm_values(HESTON, k, np.full(k.size, 0.25), params)
        alive = values > 1e-250
        assert np.count_nonzero(alive) > 20
        assert np.all(np.diff(values)[alive[1:]] < 0.0)
        strike = np.exp(k)
        slope = np.diff(values) / np.diff(strike)
        assert np.all(np.diff(slope)[alive[2:]] > 0.0)


def _black_log_characteristic(u: ComplexVector, expiry: float, params: Vector) -> ComplexVector:
    result: ComplexVector = -0.5 * params[0] ** 2 * expiry * u * (u + 1j)
    return result


def _no_gradient(u: ComplexVector, expiry: float, params: Vector) -> tuple[ComplexVector, ComplexMatrix]:
    raise AssertionError("prices alone need no gradient")


def _model(name: str, n_params: int, log_characteristic: object, expected_variance: object) -> Model:
    return Model(
        name=name,
        parameters=tuple(f"p{i}" for i in range(n_params)),
        lower=np.full(n_params, -100.0),
        upper=np.full(n_params, 100.0),
        log_characteristic=log_characteristic,  # type: ignore[arg-type]
        log_characteristic_gradient=_no_gradient,
        expected_variance=expected_variance,  # type: ignore[arg-type]
        feller_ratio=lambda params: math.inf,
    )


def test_black_s_model_gives_black_s_values_to_the_last_digits() -> None:
    model = _model("black", 1, _black_log_characteristic, lambda expiry, params: float(params[0] ** 2 * expiry))
    k = np.linspace(-10.0, 10.0, 81)
    for sd in np.geomspace(1e-3, 8.0, 15):
        expected = time_value(k, sd)
        found = finish(value_steps(model, k, np.ones(k.size), np.array([sd])))
        tiny = expected < 1e-300
        assert np.all(np.abs(found.time_value - expected) <= found.error + np.where(tiny, 1e-300, 1e-14 * expected))
        assert np.all(found.error[~tiny] < 1e-9 * expected[~tiny])


@needs_shared
@pytest.mark.parametrize("name", ["bates", "double_heston_jump"])
def test_every_reference_price_of_models_with_jumps_is_met_to_1e_13(name: str) -> None:
    rows = reference_calls(name)
    assert len(rows) == 40
    for row in rows:
        found = call_prices(MODELS[name], np.array([row.log_strike]), np.array([row.expiry]), row.params)[0]
        assert found == pytest.approx(row.call, abs=1e-13), row


@needs_shared
def test_published_prices_of_double_heston_with_jumps_are_met_to_1e_12() -> None:
    rows = published_double_heston_jump()
    assert len(rows) == 24
    for row in rows:
        found = call_prices(
            MODELS["double_heston_jump"], np.array([row.log_strike]), np.array([row.expiry]), row.params
        )[0]
        assert found == pytest.approx(row.call, abs=1e-12), row


LARGER = [model for model in MODELS.values() if model is not HESTON]


@pytest.mark.parametrize("model", LARGER, ids=lambda model: model.name)
def test_values_of_models_of_several_factors_are_as_good_as_stated_and_known_where_they_have_a_vega(
    model: Model,
) -> None:
    generator = np.random.default_rng(48)
    n_judged = 0
    for _ in range(12):
        params = many_factors.draw(model, generator)
        for expiry in many_factors.EXPIRIES.tolist():
            k = many_factors.strikes(model, params, expiry)
            if n_nodes(model, k, expiry, params) > 60_000:
                continue
            judge = lewis(model, k, expiry, params).value
            found = finish(value_steps(model, k, np.full(k.size, expiry), params))
            # The judge's own rounding grows with e^{k/2}.
            unsure = 1e-14 * np.exp(np.maximum(0.5 * k, 0.0))
            assert np.all(np.abs(found.time_value - judge) <= found.error + unsure), (params, expiry)
            vols = implied_volatility_from_time_value(np.maximum(judge, 1e-300), k, np.full(k.size, expiry)).volatility
            size = np.where(np.isfinite(vols), vega(k, np.full(k.size, expiry), np.nan_to_num(vols, nan=1.0)), 0.0)
            assert np.all(found.error[size > 1e-6] <= 1e-10), (params, expiry)
            n_judged += 1
    assert n_judged > 70


@pytest.mark.parametrize(
    ("expiry", "k", "params"),
    [
        # Bent to the left |E[e^{sX}]| rises and turns: the path met a trough at each of the points it looked at.
        (2.0, -0.86, [0.0815, 0.1601, 0.5353, -0.5295, 0.0071, 0.9158, -0.3279, 0.0163]),
        # So sharp that no path may bend: it goes straight on for long.
        (5.0, -2.6, [0.0616, 0.2179, 0.87, 0.5627, 0.0121, 2.9281, -0.5704, 0.0074]),
        # A day: the moments rise like a wall, where a slope across it makes the saddle seem narrow.
        (1.0 / 365.0, 0.00219, [5.5835, 0.1001, 0.5694, -0.9133, 0.0361, 1.4138, -0.6124, 0.0317]),
    ],
)
def test_jumps_of_nearly_one_size_are_priced_to_the_last_digits(expiry: float, k: float, params: list[float]) -> None:
    one = np.array([k])
    found = finish(value_steps(MODELS["bates"], one, np.array([expiry]), np.array(params)))
    judge = lewis(MODELS["bates"], one, expiry, np.array(params)).value
    assert found.error[0] < 1e-13
    assert abs(found.time_value[0] - judge[0]) <= found.error[0] + 1e-14


def test_a_price_comes_in_steps_that_count_options() -> None:
    params = paper_box.draws(1, seed=37)[0]
    steps = value_steps(HESTON, paper_box.LOG_MONEYNESS, paper_box.EXPIRY, params)
    progress = []
    try:
        while True:
            progress.append(next(steps))
    except StopIteration as ended:
        values = ended.value
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert progress[-1].done == progress[-1].total == paper_box.EXPIRY.size
    # Several steps an expiry, so that none takes long.
    assert len(progress) >= 3 * paper_box.EXPIRIES.size
    expected = otm_values(HESTON, paper_box.LOG_MONEYNESS, paper_box.EXPIRY, params)
    np.testing.assert_array_equal(values.time_value, expected)


def test_prices_fall_and_are_convex_in_strike() -> None:
    strike = np.linspace(0.5, 2.0, 61)
    for params in paper_box.draws(20, seed=7):
        call = call_prices(HESTON, np.log(strike), np.full(strike.size, 0.3), params)
        assert np.all(np.diff(call) < 1e-15)
        assert np.all(np.diff(call, 2) > -1e-14)


def test_gradient_is_the_derivative_of_the_price() -> None:
    k, t = paper_box.LOG_MONEYNESS, paper_box.EXPIRY
    for params in paper_box.draws(4, seed=8):
        gradient = call_prices_and_gradient(HESTON, k, t, params)[1]
        for i in range(5):
            step = 1e-4 * abs(params[i])
            up, down = params.copy(), params.copy()
            up[i] += step
            down[i] -= step
            slope = (call_prices(HESTON, k, t, up) - call_prices(HESTON, k, t, down)) / (2.0 * step)
            np.testing.assert_allclose(gradient[i], slope, atol=1e-6 * np.abs(gradient[i]).max())


@pytest.mark.parametrize(
    ("k", "t", "params", "name"),
    [
        ([0.0, np.nan], [1.0, 1.0], [1.0, 0.04, 0.5, -0.5, 0.04], "log_moneyness[1]"),
        ([0.0], [-1.0], [1.0, 0.04, 0.5, -0.5, 0.04], "expiry[0]"),
        ([0.0], [1.0, 2.0], [1.0, 0.04, 0.5, -0.5, 0.04], "expiry"),
        ([0.0], [1.0], [1.0, 0.04, 0.5, -0.5], "parameters"),
    ],
)
def test_bad_input_is_named(k: list[float], t: list[float], params: list[float], name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        call_prices(HESTON, np.array(k), np.array(t), np.array(params))
    assert caught.value.problems[0].name == name
