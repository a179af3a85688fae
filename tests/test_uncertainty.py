import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibrant.arrays import Matrix, Vector
from calibrant.uncertainty import WORST_CONDITION, quality, uncertainty

N_PARAMS, N_QUOTES = 5, 40


def _linear_problem(seed: int) -> tuple[Vector, Matrix]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal(N_QUOTES), generator.standard_normal((N_PARAMS, N_QUOTES)) * np.array(
        [[1e-3], [1.0], [30.0], [0.1], [5.0]]
    )


NONE = np.zeros(N_PARAMS, np.bool_)


def _which(*places: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(N_PARAMS), places)


def test_errors_are_the_textbook_formula() -> None:
    residual, jacobian = _linear_problem(1)
    found = uncertainty(residual, jacobian, NONE, NONE)
    covariance = residual @ residual / (N_QUOTES - N_PARAMS) * np.linalg.inv(jacobian @ jacobian.T)
    errors = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.standard_errors, errors, rtol=1e-10)
    np.testing.assert_allclose(found.correlation, covariance / np.outer(errors, errors), rtol=1e-9, atol=1e-12)


def test_parameters_held_are_known_and_cost_no_degree_of_freedom() -> None:
    residual, jacobian = _linear_problem(2)
    held = _which(1, 4)
    found = uncertainty(residual, jacobian, held, NONE)
    covariance = residual @ residual / (N_QUOTES - 3) * np.linalg.inv(jacobian[~held] @ jacobian[~held].T)
    np.testing.assert_allclose(found.standard_errors[~held], np.sqrt(np.diag(covariance)), rtol=1e-10)
    assert np.isnan(found.standard_errors[held]).all()


def test_parameters_on_a_bound_have_no_error_and_widen_those_of_the_others() -> None:
    residual, jacobian = _linear_problem(2)
    bounded = _which(1, 4)
    found = uncertainty(residual, jacobian, NONE, bounded)
    free = uncertainty(residual, jacobian, NONE, NONE)
    np.testing.assert_array_equal(found.standard_errors[~bounded], free.standard_errors[~bounded])
    assert np.isnan(found.standard_errors[bounded]).all()
    conditional = uncertainty(residual, jacobian, bounded, NONE)
    assert (conditional.standard_errors[~bounded] < found.standard_errors[~bounded]).all()


@pytest.mark.parametrize("n", [N_QUOTES, 2])
def test_errors_beside_a_prior_are_those_of_the_posterior(n: int) -> None:
    residual, jacobian = _linear_problem(3)
    residual, jacobian = residual[:n], jacobian[:, :n].copy()
    noise, deviations = 0.3, np.array([0.5, 0.02, np.inf, 10.0, np.inf]) if n > 2 else np.full(N_PARAMS, 0.5)
    found = uncertainty(residual, jacobian, NONE, NONE, (noise / deviations) ** 2, noise**2)
    information = jacobian @ jacobian.T / noise**2 + np.diag(1.0 / deviations**2)
    np.testing.assert_allclose(found.standard_errors, np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-9)


def test_a_parameter_that_no_quote_sees_is_left_out() -> None:
    residual, jacobian = _linear_problem(5)
    jacobian[2] = 0.0
    found = uncertainty(residual, jacobian, NONE, NONE)
    seen = ~_which(2)
    covariance = residual @ residual / (N_QUOTES - N_PARAMS) * np.linalg.inv(jacobian[seen] @ jacobian[seen].T)
    np.testing.assert_allclose(found.standard_errors[seen], np.sqrt(np.diag(covariance)), rtol=1e-10)
    assert np.isnan(found.standard_errors[2])


def test_too_few_quotes_give_no_errors() -> None:
    residual, jacobian = _linear_problem(4)
    few = uncertainty(residual[:5], jacobian[:, :5].copy(), NONE, NONE)
    assert np.isnan(few.standard_errors).all()
    held = uncertainty(residual[:5], jacobian[:, :5].copy(), _which(0), NONE)
    assert np.isfinite(held.standard_errors[1:]).all()


@given(st.integers(0, 10_000), st.floats(2.0, 14.0))
def test_errors_are_given_up_to_the_condition_stated(seed: int, decades: float) -> None:
    generator = np.random.default_rng(seed)
    residual = generator.standard_normal(N_QUOTES)
    base = np.linalg.qr(generator.standard_normal((N_QUOTES, N_PARAMS)))[0].T
    jacobian = np.ascontiguousarray(base)
    jacobian[4] = jacobian[0] + 10.0 ** (-0.5 * decades) * base[4]
    scaled = jacobian / np.linalg.norm(jacobian, axis=1)[:, None]
    condition = np.linalg.cond(scaled @ scaled.T)
    assume(abs(np.log10(condition / WORST_CONDITION)) > 0.01)
    found = uncertainty(residual, jacobian, NONE, NONE)
    assert np.isfinite(found.standard_errors).all() == (condition < WORST_CONDITION)


def test_quality_is_of_plain_vol_differences() -> None:
    found = quality(np.array([0.21, 0.18]), np.array([0.2, 0.2]))
    assert found.rmse == pytest.approx(np.sqrt((0.01**2 + 0.02**2) / 2))
    assert found.max_abs == pytest.approx(0.02)
    assert found.mean_relative == pytest.approx(0.075)
