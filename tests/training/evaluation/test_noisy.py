"""Errors over the Cramer-Rao bound."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.models import HESTON
from training.domain import PAPER
from training.evaluation.noisy import Noisy, criterion, efficiency, least_errors, study
from training.evaluation.surfaces import nodes_of
from training.exact_panels import grid_quotes, vols_and_gradient
from training.panels import panel_parameters

from .released import first_release


def ratios(after: list[float], relative_bound: list[float], on_bound: list[bool]) -> Noisy:
    """Panels with the same figure in every parameter."""
    column = np.ones(5)
    errors = np.outer(after, column)
    return Noisy(
        model=HESTON,
        before=10.0 * errors,
        after=errors,
        z=errors,
        relative_bound=np.outer(relative_bound, column),
        on_bound=np.array(on_bound),
        converged=np.array([True, True, True, False]),
    )


def test_an_efficient_estimator_has_a_ratio_of_one() -> None:
    expiry, log_moneyness = grid_quotes(PAPER)
    truth = panel_parameters(PAPER, 101, 0, 1)[0]
    by_params = vols_and_gradient(HESTON, log_moneyness, expiry, truth).by_params
    noise = 5e-5 * np.random.default_rng(1).standard_normal((4000, expiry.size))
    # The linear estimator: what least squares is where the vols are linear in the parameters.
    error = np.linalg.solve(by_params @ by_params.T, by_params @ noise.T).T
    ratio = error / least_errors(HESTON, log_moneyness, expiry, truth, 5e-5)
    np.testing.assert_allclose(np.sqrt(np.mean(ratio**2, axis=0)), 1.0, atol=0.04)


def test_fewer_quotes_allow_less() -> None:
    expiry, log_moneyness = grid_quotes(PAPER)
    truth = panel_parameters(PAPER, 102, 0, 1)[0]
    everything = least_errors(HESTON, log_moneyness, expiry, truth, 5e-5)
    assert (least_errors(HESTON, log_moneyness[::2], expiry[::2], truth, 5e-5) > everything).all()


def test_refinement_brings_the_network_s_answers_near_the_bound() -> None:
    truth = panel_parameters(PAPER, 103, 0, 60)
    found = criterion(study(first_release(), nodes_of(PAPER, truth), truth, 104, lambda _: None))
    assert found.judged.n_panels + found.on_bound.n_panels + found.loose.n_panels == found.n_panels == 60
    assert found.n_unconverged == 0
    for name in PAPER.parameters:
        # The root mean square of 60 standard normal numbers is within 0.27 of one in 99.7 % of cases.
        assert found.judged.after[name] == pytest.approx(1.0, abs=0.27)
        assert found.judged.before[name] > 3.0


def test_panels_on_a_bound_and_panels_with_a_wide_bound_are_counted_apart() -> None:
    found = criterion(ratios([1.0, 9.0, 5.0, 3.0], [0.1, 0.1, 0.4, 0.2], [False, True, False, False]))
    assert (found.judged.n_panels, found.on_bound.n_panels, found.loose.n_panels) == (2, 1, 1)
    assert found.judged.after["rho"] == pytest.approx(np.sqrt(5.0))
    assert found.judged.before["rho"] == pytest.approx(10.0 * np.sqrt(5.0))
    assert found.judged.mean_after["rho"] == pytest.approx(2.0)
    assert found.on_bound.after["rho"] == pytest.approx(9.0)
    assert found.loose.after["rho"] == pytest.approx(5.0)
    assert found.n_unconverged == 1


def test_a_panel_on_a_bound_is_not_counted_again_for_its_wide_bound() -> None:
    noisy = ratios([1.0, 1.0, 1.0, 1.0], [0.4, 0.1, 0.1, 0.1], [True, False, False, False])
    assert not noisy.loose.any()
    assert noisy.judged.sum() == 3


def test_no_panels_have_no_figures() -> None:
    noisy = ratios([1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1], [False, False, False, False])
    assert efficiency(noisy, noisy.on_bound).after == {}
