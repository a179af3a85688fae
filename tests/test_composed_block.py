"""Models of several factors on a block of nodes, against the loop that a model of one variance factor has to itself and
against the readable characteristic functions."""

import numpy as np
import pytest

from calibrant.arrays import ComplexVector, Vector
from calibrant.models import BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP, HESTON, MODELS, Model
from calibrant.pricing.composed_block import (
    add_up,
    fill_bent,
    fill_even,
    fold,
    has_own_loop,
    integrated_variance,
    log_moment,
    work_size,
)
from calibrant.pricing.heston_block import heston_parts
from calibrant.pricing.nodes import turn_bent, turn_evenly
from tests import many_factors

N = 64
STEP = 0.4
EXPIRY = 0.4
STRIKES = (-0.5, 0.0, 0.3)
# A hyperbola that bends down a little, and the outermost strikes on it.
BENT_STEP, CENTRE, WIDTH, BEND, LOW, HIGH = 0.04, 0.1, 0.8, -0.2, -0.5, 0.3
LARGER = (BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP)


def _absent(model: Model) -> Vector:
    """Parameters of the factors after the first, with which they add nothing."""
    params = [[1.3, 0.0, 0.7, -0.4, 0.0] if factor.noun == "variance factor" else [0.0, -0.1, 0.2]
              for factor in model.factors[1:]]  # fmt: skip
    return np.concatenate(params)


def _sums(model: Model, params: Vector, k: float, *, bent: bool) -> tuple[Vector, Vector]:
    """Of a strike the sums of the parts, and what is made of them: its derivatives by the parameters."""
    work, sums = np.empty(work_size(model.layout)), np.empty((1, 1 + model.n_params))
    if bent:
        fill_bent(model.layout, 0, N, BENT_STEP, CENTRE, WIDTH, BEND, LOW, HIGH, EXPIRY, params, True, work)
        turn_bent(k, LOW, HIGH, N, work)
    else:
        variance = integrated_variance(model.layout, EXPIRY, params)
        if has_own_loop(model.layout, params, True):
            heston_parts(0, N, STEP, EXPIRY, params, variance, work)
        else:
            fill_even(model.layout, 0, N, STEP, 0.0, EXPIRY, params, variance, True, work)
        turn_evenly(k, STEP, 0.0, N, work)
    add_up(model.layout, N, work, sums, 0)
    gradient = np.empty((model.n_params, 1))
    fold(model.layout, 1.0, sums, params, gradient, 0)
    return sums[0], gradient[:, 0]


@pytest.mark.parametrize("bent", [False, True], ids=["straight", "bent"])
@pytest.mark.parametrize("model", LARGER, ids=lambda model: model.name)
def test_a_model_whose_other_factors_vanish_sums_up_to_what_the_fused_loop_of_heston_does(
    model: Model, bent: bool
) -> None:
    generator = np.random.default_rng(61)
    for _ in range(40):
        own = many_factors.draw(HESTON, generator)
        whole = np.concatenate((own, _absent(model)))
        for k in STRIKES:
            fused, fused_gradient = _sums(HESTON, own, k, bent=bent)
            composed, gradient = _sums(model, whole, k, bent=bent)
            # To rounding: sums are taken on several lanes, and multiply-adds are fused, in an order of their own.
            np.testing.assert_allclose(composed[:6], fused, rtol=1e-12, atol=1e-13 * np.abs(fused).max())
            size = np.abs(fused_gradient).max()
            np.testing.assert_allclose(gradient[:5], fused_gradient, rtol=1e-11, atol=1e-13 * size)


def _lewis_sum(model: Model, params: Vector, k: float, x: ComplexVector, weight: ComplexVector) -> tuple[float, Vector]:
    """sum Re[e^{-ixk} phi weight] and its derivatives, by the readable characteristic function."""
    log_phi, by_parameter = model.log_characteristic_gradient(x - 0.5j, EXPIRY, params)
    terms = np.exp(-1j * x * k + log_phi) * weight
    return float(terms.real.sum()), (by_parameter * terms).real.sum(axis=1)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_sums_of_a_block_are_those_of_the_readable_characteristic_function(model: Model) -> None:
    generator = np.random.default_rng(62)
    half = np.arange(N) + 0.5
    straight = (half * STEP).astype(np.complex128)
    t = half * BENT_STEP + 1j * BEND
    bent = 1j * CENTRE + WIDTH * np.sinh(t)
    slope = BENT_STEP * WIDTH * np.cosh(t)
    for _ in range(40):
        params = many_factors.draw(model, generator)
        black = np.exp(-0.5 * model.expected_variance(EXPIRY, params) * (straight * straight + 0.25))
        for k in STRIKES:
            for x, weight, is_bent in ((straight, STEP, False), (bent, slope, True)):
                weights: ComplexVector = np.asarray(weight / (x * x + 0.25), np.complex128)
                value, expected = _lewis_sum(model, params, k, x, weights)
                if not is_bent:
                    value -= float((np.exp(-1j * x * k) * black * weights).real.sum())
                sums, gradient = _sums(model, params, k, bent=is_bent)
                size = float(np.abs(weights).sum())
                assert sums[0] == pytest.approx(value, rel=1e-11, abs=1e-13 * size)
                largest = np.abs(expected).max()
                # By kappa a slow and calm factor loses digits to cancellation, of a derivative that is itself small.
                np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-10 * largest)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_variance_and_moments_are_the_model_s_own(model: Model) -> None:
    generator = np.random.default_rng(63)
    for _ in range(50):
        params = many_factors.draw(model, generator)
        expected = model.expected_variance(EXPIRY, params)
        assert integrated_variance(model.layout, EXPIRY, params) == pytest.approx(expected, rel=1e-13)
        for power in (-2.0, -0.5, 0.5, 1.5):
            moment = log_moment(model.layout, power, EXPIRY, params)
            if moment < 1e300:
                readable = model.log_characteristic(np.array([-1j * power]), EXPIRY, params)[0]
                assert moment == pytest.approx(readable.real, rel=1e-9, abs=1e-12)
