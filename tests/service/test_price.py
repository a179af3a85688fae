"""Prices as the engine gives them, without the network: `Engine({})` has none."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import ComplexVector, Vector
from calibrant.black import call_price
from calibrant.errors import InvalidInput
from calibrant.models import HESTON, MODELS
from calibrant.steps import finish
from service.engine import Engine, PriceJob
from tests.service.client import Client
from tests.shared import needs_shared, published_double_heston_jump, reference_calls

ENGINE = Engine({})


def _job(params: Vector, expiry: Vector, log_moneyness: Vector, gradient: bool = True) -> PriceJob:
    return PriceJob(model=HESTON, params=params, expiry=expiry, log_moneyness=log_moneyness, gradient=gradient)


def test_whatever_is_admissible_has_a_price_and_a_finite_gradient() -> None:
    rng = np.random.default_rng(41)
    for params in paper_box.admissible_draws(150, seed=42):
        expiry = 10.0 ** rng.choice(
            [rng.uniform(-3.0, 2.0, 6), rng.uniform(-33.0, -3.0, 6), rng.uniform(-323.0, 2.0, 6)]
        )
        sd = math.sqrt(HESTON.expected_variance(float(expiry[0]), params))
        k = np.clip(sd * rng.uniform(-8.0, 8.0, 6) * rng.choice([0.0, 1.0, 30.0], 6), -10.0, 10.0)
        prices = ENGINE.price(_job(params, expiry, k))
        assert prices.gradient is not None
        assert np.all(np.isfinite(list(prices.gradient.values())))
        rise = np.expm1(k)
        assert np.all((prices.call >= np.maximum(-rise, 0.0)) & (prices.call <= 1.0))
        assert np.all((prices.put >= np.maximum(rise, 0.0)) & (prices.put <= np.exp(k) * (1.0 + 1e-15)))


def test_a_vol_is_given_as_far_out_as_the_price_knows_it() -> None:
    # Far below what an absolute error of 1e-13 would leave of them.
    params = np.array([2.0, 0.04, 0.3, -0.6, 0.05])
    k = np.linspace(-2.0, 2.0, 41)
    prices = ENGINE.price(_job(params, np.full(k.size, 0.1), k))
    assert np.all(np.isfinite(prices.implied_vol))
    assert prices.call[-1] < 1e-40
    assert np.all(np.abs(np.diff(prices.implied_vol, 2)) < 0.02)
    far = k > 0.5
    np.testing.assert_allclose(call_price(k[far], 0.1, prices.implied_vol[far]), prices.call[far], rtol=1e-9)


def test_a_price_driven_in_steps_is_the_price() -> None:
    job = _job(paper_box.draws(1, seed=43)[0], paper_box.EXPIRY, paper_box.LOG_MONEYNESS)
    for of_steps, at_once in zip(finish(ENGINE.price_steps(job)), ENGINE.price(job), strict=True):
        np.testing.assert_equal(of_steps, at_once)


def test_an_option_without_a_settled_price_is_named() -> None:
    rng = np.random.default_rng(44)

    def noisy(u: ComplexVector, expiry: float, params: Vector) -> ComplexVector:
        # Real on the imaginary axis, as moments are, so that only the integral can tell.
        noise = 1e-3 * rng.standard_normal(u.size) * (u.real != 0.0)
        result: ComplexVector = HESTON.log_characteristic(u, expiry, params) + noise
        return result

    job = _job(paper_box.draws(1, seed=45)[0], np.array([1.0, 1e-300]), np.zeros(2), gradient=False)
    with pytest.raises(InvalidInput, match=r"`log_moneyness\[0\]` cannot be priced") as caught:
        ENGINE.price(replace(job, model=replace(HESTON, log_characteristic=noisy)))
    assert [problem.pointer for problem in caught.value.problems] == ["/log_moneyness/0"]


@needs_shared
@pytest.mark.parametrize("name", ["bates", "double_heston_jump"])
def test_reference_and_published_prices_are_met_over_http_to_1e_10(client: Client, name: str) -> None:
    rows = reference_calls(name) + (published_double_heston_jump() if name == "double_heston_jump" else [])
    for row in rows:
        body = {
            "model": name,
            "parameters": dict(zip(MODELS[name].parameters, row.params.tolist(), strict=True)),
            "expiry": [row.expiry],
            "log_moneyness": [row.log_strike],
        }
        response = client.post("/v1/price", body)
        assert response.status_code == 200, response.text
        assert response.json()["call"] == pytest.approx([row.call], abs=1e-10), row


def test_a_model_without_compiled_factors_prices() -> None:
    params = paper_box.draws(1, seed=46)[0]
    job = _job(params, paper_box.EXPIRY, paper_box.LOG_MONEYNESS, gradient=False)
    found = ENGINE.price(replace(job, model=replace(HESTON, name="uncompiled", factors=())))
    np.testing.assert_array_equal(found.call, ENGINE.price(job).call)
