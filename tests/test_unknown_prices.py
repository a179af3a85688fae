"""Quotes whose price is lost in the kernel's own error, and corners where rounding grows: neither may steer a fit."""

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import IntVector, Vector
from calibrant.black import implied_volatility_from_time_value
from calibrant.calibration import Calibration, calibrate
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions, Refine, Start
from calibrant.panel import OptionPanel, identifiable
from calibrant.pricing.fourier import PricingError, otm_values
from tests.exact_vols import exact_vols

PRICER_ERROR = 1e-13


def _with_absurd_wings(seed: int) -> tuple[OptionPanel, IntVector]:
    """A panel of short expiries, one to three of whose far wings are quoted at 100 to 450 %; and which these are."""
    generator = np.random.default_rng([181, seed])
    params = paper_box.draws(1, seed=1000 + seed)[0]
    expiries = np.sort(generator.choice([5, 9, 16, 30, 60, 120], 3, replace=False)) / 365.0
    level = np.sqrt(params[4])
    k = np.concatenate([level * np.sqrt(years) * np.linspace(-1.8, 1.5, 9) for years in expiries])
    t = np.repeat(expiries, 9)
    vols = exact_vols(k, t, params)
    n = int(generator.integers(1, 4))
    far_t = generator.choice(expiries, n)
    far_k = level * np.sqrt(far_t) * generator.uniform(5.0, 25.0, n) * generator.choice([-1.0, 1.0], n)
    panel = OptionPanel.from_quotes(
        expiry=np.append(t, far_t),
        log_moneyness=np.append(k, far_k),
        iv=np.append(vols, generator.uniform(1.0, 4.5, n)),
    )
    return panel, np.arange(27, 27 + n)


def _error(fit: Calibration) -> float:
    """Largest of the vols of an answer, where the accurate pricer knows better."""
    panel = fit.panel
    values = otm_values(HESTON, panel.log_moneyness, panel.expiry, fit.parameters)
    exact = implied_volatility_from_time_value(values, panel.log_moneyness, panel.expiry).volatility
    # A price within its stated error tells no vol.
    known = np.isfinite(exact) & (values > PRICER_ERROR)
    return float(np.abs(fit.model_iv - exact)[known].max())


def test_the_vols_of_an_answer_are_the_accurate_pricer_s_however_absurd_the_wings() -> None:
    n_absurd, away = 0, []
    for seed in range(120):
        panel, absurd = _with_absurd_wings(seed)
        fit = calibrate(panel, HESTON, [])
        n_absurd += np.isin(absurd, fit.panel.index).sum()
        assert np.isfinite(fit.model_iv).all()
        away.append(_error(fit))
    assert n_absurd > 60
    assert max(away) < 1e-6


def _corner(seed: int) -> tuple[OptionPanel, Vector]:
    """A panel of a corner of the admissible parameters: xi, kappa or theta at a bound or near it."""
    generator = np.random.default_rng([182, seed])
    params = np.array(
        [
            generator.choice([0.001, 0.1, 5.0, 60.0]),
            generator.choice([1e-4, 0.04, 4.0]),
            generator.choice([0.001, 0.002, 0.05]),
            generator.uniform(-0.95, 0.95),
            generator.choice([1e-4, 0.04, 4.0]),
        ]
    )
    expiries = np.sort(generator.choice([7, 30, 91, 365, 1825], 2, replace=False)) / 365.0
    level = np.sqrt([HESTON.expected_variance(float(years), params) / years for years in expiries])
    k = np.concatenate([sd * np.linspace(-1.5, 1.5, 7) for sd in level * np.sqrt(expiries)])
    t = np.repeat(expiries, 7)
    vols = exact_vols(k, t, params)
    sound = np.isfinite(vols) & (vols < 5.0) & (np.abs(k) < 10.0)
    return OptionPanel.from_quotes(expiry=t[sound], log_moneyness=k[sound], iv=vols[sound]), params


@pytest.mark.parametrize("refine", ["lm", "lbfgs"])
def test_corners_of_the_parameters_end_with_a_status_and_without_nan(refine: Refine) -> None:
    unpriced = 0
    for seed in range(60):
        panel, params = _corner(seed)
        if identifiable(panel).n_quotes < 5:
            continue
        starts = [Start("given", params)]
        for given in (starts, []):
            fit = calibrate(panel, HESTON, given, CalibrationOptions(refine=refine))
            assert fit.status in ("converged", "not_converged")
            assert np.isfinite([*fit.parameters, fit.objective, fit.rmse_bp, *fit.model_iv]).all()
            assert (fit.parameters >= HESTON.lower).all()
            assert (fit.parameters <= HESTON.upper).all()
            try:
                assert _error(fit) < 1e-6, (seed, fit.parameters)
            except PricingError:
                unpriced += 1
    # The accurate pricer gives no price rather than a wrong one.
    assert unpriced < 10
