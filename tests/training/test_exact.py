"""Exact panels against the accurate pricer, and their metric against finite differences."""

import numpy as np
import pytest

from calibrant.black import implied_sd_kernel
from calibrant.models import MODELS
from calibrant.pricing.fourier import otm_values
from training.domain import PAPER, VISIBLE_DEVIATIONS
from training.exact import SMALLEST_TIME_VALUE, exact_iv_panels
from training.panels import panel_parameters

HESTON = MODELS["heston"]


def test_vols_are_those_of_the_accurate_pricer() -> None:
    params = panel_parameters(PAPER, 11, 0, 25)
    iv = exact_iv_panels(params, PAPER).iv
    log_moneyness, expiry = PAPER.grid()
    k = np.tile(log_moneyness, expiry.size)
    t = np.repeat(expiry, log_moneyness.size)
    worst_bp = 0.0
    for panel, given in zip(iv, params, strict=True):
        values = otm_values(HESTON, k, t, given)
        sd = np.array([implied_sd_kernel(x, value, 0.0) for x, value in zip(k, values, strict=True)])
        counted = (values > SMALLEST_TIME_VALUE) & (np.abs(k) <= VISIBLE_DEVIATIONS * sd)
        worst_bp = max(worst_bp, float(np.max(1e4 * np.abs(panel.ravel() - sd / np.sqrt(t))[counted])))
    assert worst_bp < 1e-3, f"worst vol error {worst_bp} bp"


def test_a_vol_is_missing_exactly_where_the_price_carries_none() -> None:
    # A calm start under a strongly negative correlation: the far calls of the first expiry are worth next to nothing.
    params = np.array([[0.5, 0.02, 0.5, -0.95, 0.01]])
    iv = exact_iv_panels(params, PAPER).iv[0]
    log_moneyness, expiry = PAPER.grid()
    values = otm_values(HESTON, np.tile(log_moneyness, 8), np.repeat(expiry, 10), params[0]).reshape(PAPER.shape)
    assert np.isnan(iv).any()
    np.testing.assert_array_equal(np.isnan(iv), values <= SMALLEST_TIME_VALUE)


def test_metric_is_the_gauss_newton_matrix_of_the_vols() -> None:
    params = panel_parameters(PAPER, 12, 0, 4)
    low, high = PAPER.output_box()
    half = 0.5 * (high - low)
    metric = exact_iv_panels(params, PAPER).metric
    step = 1e-5
    slopes = []
    for i in range(PAPER.n_params):
        shift = np.zeros(PAPER.n_params)
        shift[i] = step * half[i]
        up, down = exact_iv_panels(params + shift, PAPER).iv, exact_iv_panels(params - shift, PAPER).iv
        slopes.append((up - down) / (2 * step))
    jacobian = np.stack(slopes, 1)  # (n, n_params, n_expiries, n_strikes)
    log_moneyness, expiry = PAPER.grid()
    iv = exact_iv_panels(params, PAPER).iv
    visible = np.abs(log_moneyness) <= VISIBLE_DEVIATIONS * iv * np.sqrt(expiry)[:, None]
    for p in range(len(params)):
        of_panel = jacobian[p][:, visible[p]]
        expected = (of_panel @ of_panel.T / visible[p].sum())[np.tril_indices(PAPER.n_params)]
        np.testing.assert_allclose(metric[p], expected, rtol=1e-5, atol=1e-9 * expected.max())


def test_a_parameter_that_is_not_finite_is_refused() -> None:
    # The compiled kernels assume finite numbers and would answer with some.
    with pytest.raises(ValueError, match="finite"):
        exact_iv_panels(np.array([[0.5, 0.02, 0.5, -0.5, np.nan]]), PAPER)
