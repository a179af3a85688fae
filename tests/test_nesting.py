import numpy as np
import pytest

from calibrant.arrays import IntVector, Vector
from calibrant.black import implied_volatility_from_time_value
from calibrant.calibration import Calibration, calibrate
from calibrant.fit_problem import fit_problem
from calibrant.models import BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP, HESTON, MODELS, Model
from calibrant.nesting import extended, nested_in
from calibrant.optimisers.objective import FINE, Problem
from calibrant.options import CalibrationOptions, Start
from calibrant.panel import OptionPanel
from calibrant.pricing.fit_kernel import time_values
from calibrant.pricing.fourier import otm_values
from tests import many_factors

LARGER = (BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP)
EXPIRIES = np.array([0.1, 0.5, 1.0, 2.0])
N_STRIKES = 8
T = np.repeat(EXPIRIES, N_STRIKES)
ORDINARY = np.array([2.0, 0.06, 0.5, -0.6, 0.05])
WITH_JUMPS = np.array([2.0, 0.04, 0.5, -0.6, 0.03, 0.5, -0.15, 0.1])


def _panel(model: Model, params: Vector, noise_bp: float = 0.0, seed: int = 0) -> OptionPanel:
    """Vols that the model generated, at strikes within two standard deviations."""
    sd = np.sqrt([model.expected_variance(t, params) for t in EXPIRIES.tolist()])
    k = (np.linspace(-2.0, 1.5, N_STRIKES) * sd[:, np.newaxis]).reshape(-1)
    vols = implied_volatility_from_time_value(otm_values(model, k, T, params), k, T).volatility
    vols = vols + 1e-4 * noise_bp * np.random.default_rng(seed).standard_normal(k.size)
    return OptionPanel.from_quotes(expiry=T, log_moneyness=k, iv=vols)


def _smiles() -> list[OptionPanel]:
    """Smiles of Heston and of Bates, exact and noisy ones."""
    generator = np.random.default_rng(71)
    panels = []
    for i in range(6):
        heston = np.array([generator.uniform(0.5, 6.0), generator.uniform(0.02, 0.2), generator.uniform(0.2, 1.2),
                           generator.uniform(-0.9, 0.0), generator.uniform(0.02, 0.2)])  # fmt: skip
        jumps = np.array([generator.uniform(0.1, 2.0), generator.uniform(-0.3, 0.05), generator.uniform(0.03, 0.2)])
        panels.append(_panel(HESTON, heston, 10.0 * (i % 2), seed=i))
        panels.append(_panel(BATES, np.concatenate((heston, jumps)), 10.0 * (i % 2), seed=i))
    return panels


def _values(model: Model, params: Vector) -> tuple[Vector, float]:
    """Options of one expiry within two standard deviations, by the kernel, and what it says they may be off by."""
    k = np.linspace(-2.0, 1.5, N_STRIKES) * np.sqrt(model.expected_variance(0.5, params))
    values, error = np.empty(k.size), np.empty(1)
    asked = np.array([0.5]), np.array([0, k.size]), k, np.array([1e-11])
    time_values(model.layout, params, *asked, values, np.empty((0, k.size)), np.empty(1, np.int64), error)
    assert error[0] < 1e-10
    return values, float(error[0])


def _problem(panel: OptionPanel, model: Model) -> Problem:
    return fit_problem(panel, model, CalibrationOptions())


def _of(layout: IntVector) -> Model:
    return next(model for model in MODELS.values() if np.array_equal(model.layout, layout))


@pytest.mark.parametrize(
    ("model", "smaller"),
    [(BATES, ["heston"]), (DOUBLE_HESTON, ["heston"]), (DOUBLE_HESTON_JUMP, ["bates", "double_heston"])],
    ids=lambda case: case.name if isinstance(case, Model) else "",
)
def test_a_nested_model_is_a_point_of_the_larger_one_digit_for_digit(model: Model, smaller: list[str]) -> None:
    generator = np.random.default_rng(72)
    problem = _problem(_panel(HESTON, ORDINARY), model)
    found = nested_in(problem)
    assert [_of(nested.problem.layout).name for nested in found] == smaller
    x = np.linspace(0.1, 60.0, 200)
    for nested in found:
        own = _of(nested.problem.layout)
        for _ in range(20):
            params = many_factors.draw(own, generator)
            whole = nested.embedded(params)
            assert np.all((whole >= problem.lower) & (whole <= problem.upper))
            np.testing.assert_array_equal(
                model.log_characteristic(x - 0.5j, 0.5, whole), own.log_characteristic(x - 0.5j, 0.5, params)
            )
            # The kernel takes its step from both tails here, and from the heavier one of Heston there.
            (together, off), (alone, off_alone) = _values(model, whole), _values(own, params)
            assert np.abs(together - alone).max() <= off + off_alone


@pytest.mark.parametrize("model", LARGER, ids=lambda model: model.name)
def test_starts_from_a_nested_optimum_are_inside_the_bounds_finite_and_not_all_alike(model: Model) -> None:
    generator = np.random.default_rng(73)
    for panel in _smiles()[:6]:
        problem = _problem(panel, model)
        for smaller in nested_in(problem):
            starts = extended(smaller, problem, many_factors.draw(_of(smaller.problem.layout), generator))
            assert np.isfinite(starts).all()
            assert np.all((starts >= problem.lower) & (starts <= problem.upper))
            assert np.unique(starts, axis=0).shape[0] > len(starts) // 2


def _fits(panel: OptionPanel) -> dict[str, Calibration]:
    return {name: calibrate(panel, model, []) for name, model in MODELS.items()}


def test_no_fit_is_worse_than_that_of_a_model_nested_in_it_and_factors_are_in_order() -> None:
    for i, panel in enumerate(_smiles()):
        fits = _fits(panel)
        # Of exact smiles nothing but the kernel's own error is left.
        least = panel.n_quotes * (10.0 * FINE) ** 2
        for larger, smaller in (
            ("bates", "heston"),
            ("double_heston", "heston"),
            ("double_heston_jump", "bates"),
            ("double_heston_jump", "double_heston"),
        ):
            assert fits[larger].objective <= fits[smaller].objective * (1.0 + 1e-6) + least, (i, larger, smaller)
        for name in ("double_heston", "double_heston_jump"):
            found = dict(zip(fits[name].model.parameters, fits[name].parameters.tolist(), strict=True))
            assert found["kappa1"] >= found["kappa2"], (i, name)


def test_factors_swapped_in_a_start_give_the_same_answer_with_its_errors_and_correlation_in_order() -> None:
    truth = np.array([6.0, 0.03, 0.6, -0.7, 0.05, 0.5, 0.08, 0.3, -0.4, 0.03])
    panel = _panel(DOUBLE_HESTON, truth, 1.0, seed=4)
    swapped = np.concatenate((truth[5:], truth[:5]))
    options = CalibrationOptions()
    fits = [calibrate(panel, DOUBLE_HESTON, [Start("given", start)], options) for start in (truth, swapped)]
    for fit in fits:
        assert fit.parameters[0] > fit.parameters[5]
    np.testing.assert_allclose(fits[1].parameters, fits[0].parameters, rtol=1e-5)
    np.testing.assert_allclose(fits[1].standard_errors, fits[0].standard_errors, rtol=1e-4)
    np.testing.assert_allclose(fits[1].correlation, fits[0].correlation, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("model", [BATES, DOUBLE_HESTON], ids=lambda model: model.name)
def test_a_factor_that_nobody_sees_is_named(model: Model) -> None:
    for params in (ORDINARY, np.array([1.0, 0.1, 0.7, -0.3, 0.08])):
        fit = calibrate(_panel(HESTON, params), model, [])
        assert fit.rmse_bp < 0.01
        assert fit.message is not None
        noun = "jumps" if model is BATES else "variance factor"
        unseen = [
            i
            for i, factor in enumerate(model.factors)
            if f"Without the {factor.noun} ({', '.join(model.names_of(i))}) no vol would change" in fit.message
        ]
        assert len(unseen) == 1, fit.message
        assert model.factors[unseen[0]].noun == noun
        assert set(model.sizes_of(unseen[0])) <= set(fit.at_bounds), fit.at_bounds


def test_a_panel_of_both_factors_names_none() -> None:
    fit = calibrate(_panel(BATES, WITH_JUMPS), BATES, [])
    assert fit.rmse_bp < 0.01
    assert fit.message is None or "Without the" not in fit.message
