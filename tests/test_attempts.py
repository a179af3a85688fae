"""Which answers of several factors want a second opinion, and what it is."""

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.black import implied_volatility_from_time_value
from calibrant.calibration import calibrate
from calibrant.fit_problem import fit_problem
from calibrant.models import BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP, Model
from calibrant.nesting import neighbours
from calibrant.options import CalibrationOptions, Start
from calibrant.panel import OptionPanel
from calibrant.pricing.fourier import otm_values
from calibrant.search import distinct_optima

SEVERAL = (BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP)
TRUTH = {
    "bates": np.array([2.0, 0.05, 0.6, -0.6, 0.04, 0.5, -0.1, 0.1]),
    "double_heston": np.array([6.0, 0.02, 0.5, -0.4, 0.03, 0.5, 0.04, 0.3, -0.8, 0.02]),
    "double_heston_jump": np.array([6.0, 0.02, 0.5, -0.4, 0.03, 0.5, 0.04, 0.3, -0.8, 0.02, 0.4, -0.12, 0.1]),
}
K, T = (axis.reshape(-1) for axis in np.meshgrid(np.log(np.linspace(0.8, 1.2, 10)), np.linspace(0.1, 2.0, 8)))


def _vols(model: Model) -> Vector:
    values = otm_values(model, K, T, TRUTH[model.name])
    return implied_volatility_from_time_value(values, K, T).volatility


def _panel(iv: Vector) -> OptionPanel:
    return OptionPanel.from_quotes(expiry=T, log_moneyness=K, iv=iv)


@pytest.mark.parametrize("noise_bp", [0.0, 2.0, 10.0, 18.0])
@pytest.mark.parametrize("model", SEVERAL, ids=lambda model: model.name)
def test_noise_puts_no_answer_of_several_factors_in_doubt(model: Model, noise_bp: float) -> None:
    generator = np.random.default_rng(81)
    n_alone = 0
    for _ in range(10):
        panel = _panel(_vols(model) + 1e-4 * noise_bp * generator.standard_normal(T.size))
        fit = calibrate(panel, model, [Start("network", 1.05 * TRUTH[model.name])])
        n_alone += fit.n_starts == 1
        assert fit.rmse_bp <= 1.1 * noise_bp + 0.1
    assert n_alone >= 8


@pytest.mark.parametrize("model", SEVERAL, ids=lambda model: model.name)
def test_a_misfit_that_goes_on_from_strike_to_strike_is_in_doubt(model: Model) -> None:
    # No variance factor has a smile that waves.
    wave = 12e-4 * np.sin(2.0 * np.pi * (K - K.min()) / (K.max() - K.min()) * 1.5)
    fit = calibrate(_panel(_vols(model) + wave), model, [Start("network", TRUTH[model.name])])
    assert 1.0 < fit.rmse_bp < 30.0
    assert fit.n_starts > 1


@pytest.mark.parametrize("model", SEVERAL, ids=lambda model: model.name)
def test_neighbours_are_inside_the_bounds_and_on_every_side(model: Model) -> None:
    problem = fit_problem(_panel(_vols(model)), model, CalibrationOptions())
    truth = TRUTH[model.name]
    near = neighbours(problem, truth, 32)
    assert ((model.lower <= near) & (near <= model.upper)).all()
    assert ((near > truth).mean(axis=0) > 0.25).all()
    assert ((near < truth).mean(axis=0) > 0.25).all()
    np.testing.assert_array_equal(near, neighbours(problem, truth, 32))


def test_an_exact_surface_ends_the_search_and_a_cancelled_one_says_what_it_has() -> None:
    model = DOUBLE_HESTON
    problem = fit_problem(_panel(_vols(model)), model, CalibrationOptions())
    start = TRUTH[model.name][np.newaxis]
    near = neighbours(problem, start[0], 30)
    pieces = list(distinct_optima(problem, start, [near]))
    assert len(pieces) == 2  # a look at all of them, and one descent
    cut_short = distinct_optima(problem, 1.1 * start, [near])
    next(cut_short)
    next(cut_short)
    with pytest.raises(StopIteration) as cancelled:
        cut_short.send(True)
    assert len(cancelled.value.value) == 1
