"""The metric loss measures vol errors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from training.domain import PAPER, VISIBLE_DEVIATIONS  # noqa: E402
from training.exact import exact_iv_panels  # noqa: E402
from training.loss import metric_loss, plain_loss, unpack_metric, vol_rmse_bp  # noqa: E402
from training.panels import panel_parameters  # noqa: E402


def test_unpacking_is_the_inverse_of_taking_the_lower_triangle() -> None:
    root = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    full = root @ root.transpose(1, 2)
    rows, columns = np.tril_indices(5)
    assert torch.equal(unpack_metric(full[:, rows, columns]), full)


def test_a_small_parameter_error_costs_the_vol_error_that_it_causes() -> None:
    params = panel_parameters(PAPER, 31, 0, 40)
    low, high = PAPER.output_box()
    error = 2e-4 * np.random.default_rng(1).standard_normal(params.shape)
    exact = exact_iv_panels(params, PAPER)
    moved = exact_iv_panels(params + error * (high - low) / 2, PAPER)
    log_moneyness, expiry = PAPER.grid()
    visible = np.abs(log_moneyness) <= VISIBLE_DEVIATIONS * exact.iv * np.sqrt(expiry)[:, None]
    square = np.where(visible, moved.iv - exact.iv, 0.0) ** 2
    expected = 1e4 * np.sqrt(square.sum((1, 2)) / visible.sum((1, 2)))
    found = vol_rmse_bp(torch.from_numpy(error), torch.from_numpy(exact.metric)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_the_metric_loss_is_the_mean_vol_error_above_its_floor() -> None:
    params = panel_parameters(PAPER, 32, 0, 100)
    metric = torch.from_numpy(exact_iv_panels(params, PAPER).metric)
    error = 0.1 * torch.randn(100, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    loss, vol = float(metric_loss(error, metric)), float(vol_rmse_bp(error, metric).mean())
    assert vol < loss < vol * 1.05 + 3.0


def test_losses_vanish_at_the_truth_with_a_finite_gradient() -> None:
    params = panel_parameters(PAPER, 33, 0, 5)
    metric = torch.from_numpy(exact_iv_panels(params, PAPER).metric)
    error = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    loss = metric_loss(error, metric) + plain_loss(error)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) < 0.11
    assert error.grad is not None
    assert float(error.grad.abs().max()) == 0.0
