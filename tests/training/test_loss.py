"""Losses against the errors that they stand for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from torch import Tensor  # noqa: E402

from training.domain import MARKET, PAPER, VISIBLE_DEVIATIONS  # noqa: E402
from training.exact import exact_iv_panels  # noqa: E402
from training.loss import (  # noqa: E402
    LOSSES,
    LossOptions,
    Panels,
    blend_loss,
    make_loss,
    metric_loss,
    plain_loss,
    price_loss,
    unpack_metric,
    vega_loss,
    vol_rmse_bp,
)
from training.networks import CnnTransformer, NetworkOptions, Normalisation  # noqa: E402
from training.panels import panel_parameters  # noqa: E402
from training.pricing import Grid, black_calls, call_prices  # noqa: E402

GRID = Grid(PAPER.model, *PAPER.grid())


def small_errors(count: int) -> Tensor:
    error: Tensor = torch.from_numpy(2e-4 * np.random.default_rng(1).standard_normal((count, PAPER.n_params)))
    return error


def vol_errors_bp(params: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Root mean square vol error of each panel through the exact pricer, over the quotes that the network sees."""
    exact, other = exact_iv_panels(params, PAPER).iv, exact_iv_panels(moved, PAPER).iv
    log_moneyness, expiry = PAPER.grid()
    visible = np.abs(log_moneyness) <= VISIBLE_DEVIATIONS * exact * np.sqrt(expiry)[:, None]
    square = np.where(visible, other - exact, 0.0) ** 2
    rmse: np.ndarray = 1e4 * np.sqrt(square.sum((1, 2)) / visible.sum((1, 2)))
    return rmse


def test_unpacking_is_the_inverse_of_taking_the_lower_triangle() -> None:
    root = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    full = root @ root.transpose(1, 2)
    rows, columns = np.tril_indices(5)
    assert torch.equal(unpack_metric(full[:, rows, columns]), full)


def test_a_small_parameter_error_costs_the_vol_error_that_it_causes() -> None:
    params = panel_parameters(PAPER, 31, 0, 40)
    error = small_errors(40)
    moved = params + error.numpy() * PAPER.output_slope(params)
    metric = torch.from_numpy(exact_iv_panels(params, PAPER).metric)
    np.testing.assert_allclose(vol_rmse_bp(error, metric).numpy(), vol_errors_bp(params, moved), rtol=0.02)


def test_the_metric_loss_is_the_mean_vol_error_above_its_floor() -> None:
    params = panel_parameters(PAPER, 32, 0, 100)
    metric = torch.from_numpy(exact_iv_panels(params, PAPER).metric)
    error = 0.1 * torch.randn(100, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    loss, vol = float(metric_loss(error, metric)), float(vol_rmse_bp(error, metric).mean())
    assert vol < loss < vol * 1.05 + 3.0


def test_the_valley_is_the_vega_loss_and_the_weighted_squared_error() -> None:
    params = panel_parameters(PAPER, 35, 0, 10)
    found = exact_iv_panels(params, PAPER)
    network = CnnTransformer(PAPER, Normalisation.of(found.iv.astype(np.float32), PAPER), NetworkOptions())
    target = network.normalised_of(torch.from_numpy(params))
    panels = Panels(torch.from_numpy(found.iv), target, torch.from_numpy(found.metric))
    answer = target + 0.05 * torch.randn(10, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    vega, valley = (
        float(make_loss(LossOptions(name=name, blend_plain=300.0), PAPER, network.parameters_of)(answer, panels))
        for name in ("vega", "valley")
    )
    assert valley - vega == pytest.approx(300.0 * float((answer - target).square().sum(1).mean()), rel=1e-9)


def test_the_blend_is_the_metric_loss_with_its_floor_and_the_weighted_squared_error() -> None:
    params = panel_parameters(PAPER, 34, 0, 20)
    metric = torch.from_numpy(exact_iv_panels(params, PAPER).metric)
    error = 0.1 * torch.randn(20, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    by_hand = [
        np.sqrt(1e8 * float(e @ m @ e) + 60.0**2 * float(e @ e) + 0.01) + 500.0 * float(e @ e)
        for e, m in zip(error, unpack_metric(metric), strict=True)
    ]
    assert float(blend_loss(error, metric, 60.0, 500.0)) == pytest.approx(np.mean(by_hand), rel=1e-12)


def test_the_price_loss_is_the_squared_error_of_the_calls_in_percent_of_the_forward() -> None:
    params = panel_parameters(PAPER, 35, 0, 10)
    # A calm start under a strongly negative correlation: far calls are worth nothing, and their missing vols no harm.
    params[0] = [0.5, 0.02, 0.5, -0.95, 0.01]
    iv = torch.from_numpy(exact_iv_panels(params, PAPER).iv)
    assert bool(iv[0].isnan().any())
    moved = torch.from_numpy(params * 1.1)
    moved[:, 3] = -0.5
    error = 100.0 * (call_prices(moved, GRID) - call_prices(torch.from_numpy(params), GRID))
    expected = float((error**2).sum()) / len(params)
    # A price of less than 1e-9 counts as zero.
    assert float(price_loss(moved, iv, GRID)) == pytest.approx(expected, rel=1e-5)


def test_the_vega_loss_is_nearly_the_vol_error_and_no_larger() -> None:
    params = panel_parameters(PAPER, 36, 0, 40)
    moved = params + small_errors(40).numpy() * PAPER.output_slope(params)
    iv = torch.from_numpy(exact_iv_panels(params, PAPER).iv)
    found = np.array([float(vega_loss(torch.from_numpy(moved[i : i + 1]), iv[i : i + 1], GRID)) for i in range(40)])
    expected = vol_errors_bp(params, moved)
    assert (found < 1.05 * expected + 0.1).all()
    # Where no quote is so far out that its vega is floored, it is the vol error.
    near = (black_calls(iv, GRID).vega.flatten(1).min(1).values > 0.01).numpy()
    assert near.sum() >= 10
    np.testing.assert_allclose(found[near], np.hypot(expected[near], 0.1), rtol=0.02)


def loss_at(name: str, answer: Tensor, seed: int) -> Tensor:
    """The registered loss of panels of a seed at an answer on the network's scale, added to the truth."""
    params = panel_parameters(PAPER, seed, 0, len(answer))
    iv, metric = (torch.from_numpy(x) for x in exact_iv_panels(params, PAPER))
    network = CnnTransformer(PAPER, Normalisation.of(iv.float().numpy(), PAPER), NetworkOptions())
    known = Panels(iv.float(), network.normalised_of(torch.from_numpy(params)), metric)
    loss = make_loss(LossOptions(name=name), PAPER, network.parameters_of)(known.target + answer, known)
    assert isinstance(loss, Tensor)
    return loss


@pytest.mark.parametrize("name", LOSSES)
def test_losses_vanish_at_the_truth_with_a_finite_gradient(name: str) -> None:
    error = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    loss = loss_at(name, error, 33)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) < 0.11
    assert error.grad is not None
    # Vols are float32, which is 1e-3 bp, and prices are exact to 1e-10.
    assert float(error.grad.abs().max()) < (1.0 if name in ("vega", "valley") else 1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_a_loss_passes_gradcheck(name: str) -> None:
    error = 0.02 * torch.randn(3, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda e: loss_at(name, e, 37), error.requires_grad_(), eps=1e-5, atol=1e-2, rtol=1e-3
    )


def test_plain_is_the_mean_square_over_parameters_and_panels() -> None:
    assert float(plain_loss(torch.tensor([[1.0, 3.0], [0.0, 2.0]]))) == 3.5


@pytest.mark.parametrize("name", ["price", "vega"])
def test_a_loss_of_prices_is_refused_for_irregular_panels(name: str) -> None:
    with pytest.raises(ValueError, match="panels of 'market' are irregular"):
        make_loss(LossOptions(name=name), MARKET, lambda answer: answer)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="`loss` must be one of"):
        make_loss(LossOptions(name="vols"), PAPER, lambda answer: answer)
