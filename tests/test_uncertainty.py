import numpy as np
import pytest

from calibrant.arrays import Matrix, Vector
from calibrant.uncertainty import quality, uncertainty

N_PARAMS, N_QUOTES = 5, 40


def _linear_problem(seed: int) -> tuple[Vector, Matrix]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal(N_QUOTES), generator.standard_normal((N_PARAMS, N_QUOTES)) * np.array(
        [[1e-3], [1.0], [30.0], [0.1], [5.0]]
    )


def test_errors_are_the_textbook_formula() -> None:
    residual, jacobian = _linear_problem(1)
    found = uncertainty(residual, jacobian, np.ones(N_PARAMS, np.bool_), np.zeros(N_PARAMS))
    covariance = residual @ residual / (N_QUOTES - N_PARAMS) * np.linalg.inv(jacobian @ jacobian.T)
    errors = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.standard_errors, errors, rtol=1e-10)
    np.testing.assert_allclose(found.correlation, covariance / np.outer(errors, errors), rtol=1e-9, atol=1e-12)


def test_parameters_that_are_not_free_have_no_error_and_free_ones_do() -> None:
    residual, jacobian = _linear_problem(2)
    free = np.array([True, False, True, True, False])
    found = uncertainty(residual, jacobian, free, np.zeros(N_PARAMS))
    covariance = residual @ residual / (N_QUOTES - N_PARAMS) * np.linalg.inv(jacobian[free] @ jacobian[free].T)
    np.testing.assert_allclose(found.standard_errors[free], np.sqrt(np.diag(covariance)), rtol=1e-10)
    assert np.isnan(found.standard_errors[~free]).all()


def test_a_sharp_prior_takes_over_its_parameter() -> None:
    residual, jacobian = _linear_problem(3)
    precision = np.array([0.0, 1e12, 0.0, 0.0, 0.0])
    found = uncertainty(residual, jacobian, np.ones(N_PARAMS, np.bool_), precision)
    assert found.standard_errors[1] == pytest.approx(1e-6, rel=1e-6)


def test_singular_information_and_too_few_quotes_give_no_errors() -> None:
    residual, jacobian = _linear_problem(4)
    everything = np.ones(N_PARAMS, np.bool_)
    jacobian[3] = 2.0 * jacobian[0] - jacobian[1]
    assert np.isnan(uncertainty(residual, jacobian, everything, np.zeros(N_PARAMS)).standard_errors).all()
    few = uncertainty(residual[:5], jacobian[:, :5].copy(), everything, np.zeros(N_PARAMS))
    assert np.isnan(few.standard_errors).all()


def test_quality_is_of_plain_vol_differences() -> None:
    found = quality(np.array([0.21, 0.18]), np.array([0.2, 0.2]))
    assert found.rmse == pytest.approx(np.sqrt((0.01**2 + 0.02**2) / 2))
    assert found.max_abs == pytest.approx(0.02)
    assert found.mean_relative == pytest.approx(0.075)
