"""From a panel to everything that is said about it."""

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.black import implied_volatility
from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.network import Network
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel
from calibrant.pipeline import NetworkTooLate, assess, assessment_steps
from calibrant.pricing.fourier import call_prices
from calibrant.release import Release, released
from calibrant.steps import finish
from tests.shared import ROOT

TRUTH = np.array([2.0, 0.06, 0.5, -0.6, 0.05])


@pytest.fixture(scope="module")
def release() -> Release:
    return released(ROOT / "networks", "heston")


def exact_panel(expiry: Vector, params: Vector = TRUTH) -> OptionPanel:
    """Nine strikes an expiry, priced by the accurate pricer."""
    years = np.repeat(expiry, 9)
    k = np.tile(np.linspace(-0.3, 0.25, 9), expiry.size) * np.sqrt(years)
    vol = implied_volatility(call_prices(HESTON, k, years, params), k, years).volatility
    return OptionPanel.from_quotes(expiry=years, log_moneyness=k, iv=vol)


PANEL = exact_panel(np.array([0.1, 0.4, 1.0, 2.0]))


def test_the_network_starts_where_there_is_one(release: Release) -> None:
    assessment = assess(PANEL, HESTON, release)
    assert assessment.calibration.start == "network"
    assert assessment.model_version == release.version
    assert np.max(np.abs(assessment.calibration.parameters / TRUTH - 1.0)) < 1e-4
    assert not assessment.out_of_domain
    assert assessment.quotes.free
    assert assessment.surface.free


def test_the_same_optimum_is_found_without_a_network(release: Release) -> None:
    without = assess(PANEL, HESTON, None)
    assert without.calibration.start == "fallback"
    assert without.model_version is None
    assert not without.out_of_domain
    expected = assess(PANEL, HESTON, release).calibration.parameters
    assert np.max(np.abs(without.calibration.parameters / expected - 1.0)) < 1e-4


def test_the_networks_answer_cannot_be_had_without_a_network() -> None:
    with pytest.raises(InvalidInput, match=r"`refine` must be lm or lbfgs") as refused:
        assess(PANEL, HESTON, None, CalibrationOptions(refine="none"))
    assert refused.value.problems[0].pointer == "/refine"


def test_parameters_beyond_the_training_domain_are_called_so(release: Release) -> None:
    beyond = np.array([4.0, 0.06, 1.0, -0.99, 0.2])
    assessment = assess(exact_panel(np.array([0.1, 0.4, 1.0, 2.0]), beyond), HESTON, release)
    assert assessment.out_of_domain
    assert np.max(np.abs(assessment.calibration.parameters / beyond - 1.0)) < 1e-3


def test_a_panel_that_covers_none_of_the_grid_is_called_out_of_domain(release: Release) -> None:
    assert not assess(exact_panel(np.array([0.02, 0.03])), HESTON, release).out_of_domain
    assert assess(exact_panel(np.array([0.004, 0.005])), HESTON, release).out_of_domain


def test_one_quote_is_no_panel(release: Release) -> None:
    single = OptionPanel.from_quotes(expiry=[0.5], log_moneyness=[0.0], iv=[0.2])
    with pytest.raises(InvalidInput, match="at least 5 usable quotes for 5 free parameters, but holds 1"):
        assess(single, HESTON, release)


def test_an_expiry_of_no_length_is_left_out(release: Release) -> None:
    panel = OptionPanel.from_quotes(
        expiry=[5e-324, *PANEL.expiry], log_moneyness=[0.0, *PANEL.log_moneyness], iv=[0.2, *PANEL.mid]
    )
    assessment = assess(panel, HESTON, release)
    assert [exclusion.index for exclusion in assessment.calibration.excluded] == [0]
    assert assessment.surface.free


def test_two_quotes_tell_two_parameters_without_standard_errors(release: Release) -> None:
    pair = OptionPanel.from_quotes(expiry=[0.5, 1.0], log_moneyness=[0.0, 0.0], iv=[0.2, 0.21])
    held = CalibrationOptions(fixed={"kappa": 2.0, "xi": 0.5, "rho": -0.5})
    calibration = assess(pair, HESTON, release, held).calibration
    assert calibration.rmse_bp < 1e-3
    assert np.isnan(calibration.standard_errors).all()
    assert calibration.message is not None


def test_a_deadline_before_the_network_leaves_nothing_to_answer(release: Release) -> None:
    with pytest.raises(NetworkTooLate):
        finish(assessment_steps(PANEL, HESTON, release), lambda: True)


def test_enough_during_the_refinement_gives_the_best_so_far(release: Release) -> None:
    # The two steps before are the network's.
    looks = iter((False, False))
    options = CalibrationOptions(refine="lbfgs")
    calibration = finish(assessment_steps(PANEL, HESTON, release, options), lambda: next(looks, True)).calibration
    start = assess(PANEL, HESTON, release, CalibrationOptions(refine="none")).calibration
    assert calibration.status == "budget_exhausted"
    assert calibration.objective <= start.objective * (1.0 + 1e-12)
    assert calibration.message is not None


def test_a_number_that_is_not_finite_is_no_answer(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "parameters", lambda *_: np.full((1, 5), np.nan))
    with pytest.raises(ArithmeticError, match="not finite"):
        assess(PANEL, HESTON, release, CalibrationOptions(refine="none"))
