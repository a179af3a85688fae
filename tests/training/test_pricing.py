"""The differentiable pricer against the accurate one, Black's formula and finite differences."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from torch import Tensor  # noqa: E402

from calibrant.black import call_price, implied_volatility_from_time_value, vega  # noqa: E402
from calibrant.models import HESTON  # noqa: E402
from calibrant.pricing.fourier import otm_values  # noqa: E402
from training.domain import PAPER  # noqa: E402
from training.exact import SMALLEST_TIME_VALUE, exact_iv_panels  # noqa: E402
from training.panels import panel_parameters  # noqa: E402
from training.pricing import PRICE_TOLERANCE, Grid, black_calls, call_prices, total_variances  # noqa: E402

PAPER_GRID = Grid(HESTON, *PAPER.grid())
SMALL_GRID = Grid(HESTON, np.array([-0.2, -0.05, 0.0, 0.1]), np.array([0.1, 0.7, 2.0]))
# At T = 0.1 the call at log-moneyness 0.6 is 19 standard deviations away and worth less than 1e-40 of the forward.
WING_GRID = Grid(HESTON, np.array([-0.1, 0.0, 0.6]), np.array([0.1, 1.0]))
VIOLENT = torch.tensor([[0.1, 4.0, 15.0, 0.9999, 4.0]], dtype=torch.float64)
CALM = torch.tensor([[3.0, 0.012, 0.1, -0.5, 0.01]], dtype=torch.float64)


def parameters(seed: int, count: int) -> Tensor:
    params: Tensor = torch.from_numpy(panel_parameters(PAPER, seed, 0, count))
    return params


def otm_value_grid(params: Tensor, grid: Grid) -> np.ndarray:
    """(b, n_expiries, n_strikes) by the accurate pricer."""
    k, t = np.tile(grid.log_moneyness, grid.expiry.size), np.repeat(grid.expiry, grid.log_moneyness.size)
    shape = (len(params), grid.expiry.size, grid.log_moneyness.size)
    return np.array([otm_values(HESTON, k, t, p) for p in params.numpy()]).reshape(shape)


def test_prices_are_those_of_the_accurate_pricer() -> None:
    params = parameters(41, 20)
    intrinsic = np.maximum(-np.expm1(PAPER_GRID.log_moneyness), 0.0)
    expected = otm_value_grid(params, PAPER_GRID) + intrinsic
    assert np.abs(call_prices(params, PAPER_GRID).numpy() - expected).max() < PRICE_TOLERANCE


def test_total_variances_are_those_of_the_accurate_prices() -> None:
    params = parameters(42, 10)
    found = total_variances(params, SMALL_GRID)
    values = otm_value_grid(params, SMALL_GRID)
    assert found.found.numpy().all()
    sd = implied_volatility_from_time_value(values, SMALL_GRID.log_moneyness, 1.0).volatility
    np.testing.assert_allclose(found.w.numpy(), sd**2, rtol=1e-8)


def test_the_gradient_of_prices_passes_gradcheck() -> None:
    params = parameters(43, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: call_prices(p, SMALL_GRID, tolerance=1e-14), params, atol=1e-7, rtol=1e-5)


def test_the_gradient_of_total_variances_passes_gradcheck() -> None:
    params = parameters(44, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: total_variances(p, SMALL_GRID).w, params, atol=1e-7, rtol=1e-5)


def test_the_gradient_of_total_variances_passes_gradcheck_beside_a_wing_without_vol() -> None:
    assert torch.autograd.gradcheck(lambda p: total_variances(p, WING_GRID).w, CALM.clone().requires_grad_(), atol=1e-6)


def test_a_wing_without_vol_is_marked_and_has_no_gradient() -> None:
    params = CALM.clone().requires_grad_()
    surface = total_variances(params, WING_GRID)
    np.testing.assert_array_equal(surface.found[0], otm_value_grid(CALM, WING_GRID)[0] > SMALLEST_TIME_VALUE)
    assert not surface.found[0, 0, 2]
    surface.w[0, 0, 2].backward()  # type: ignore[no-untyped-call]
    assert params.grad is not None
    assert float(params.grad.abs().max()) == 0.0


def test_gradients_are_finite_over_the_whole_output_box_and_its_corners() -> None:
    low, high = PAPER.output_box()
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(5, -1).T
    params = torch.from_numpy(corners).requires_grad_()
    dense = Grid(HESTON, np.log(np.linspace(0.8, 1.2, 20)), np.linspace(0.1, 2.0, 6))
    surface = total_variances(params, dense)
    assert 0.5 < float(surface.found.double().mean()) < 1.0
    (surface.w.sum() + call_prices(params, PAPER_GRID).sum()).backward()  # type: ignore[no-untyped-call]
    assert params.grad is not None
    assert bool(params.grad.isfinite().all())


def test_a_parameter_on_the_end_of_its_range_counts_as_the_model_s_bound() -> None:
    params = CALM.clone()
    params[0, 3] = -1.0
    at_bound = params.clone()
    at_bound[0, 3] = HESTON.lower[3]
    assert torch.equal(call_prices(params, SMALL_GRID), call_prices(at_bound, SMALL_GRID))


def test_float32_parameters_get_a_float32_gradient_of_a_float64_price() -> None:
    params = parameters(45, 2)
    single = params.float().requires_grad_()
    prices = call_prices(single, SMALL_GRID)
    assert prices.dtype == torch.float64
    prices.sum().backward()  # type: ignore[no-untyped-call]
    double = single.detach().double().requires_grad_()
    call_prices(double, SMALL_GRID).sum().backward()  # type: ignore[no-untyped-call]
    assert single.grad is not None
    assert double.grad is not None
    assert torch.equal(single.grad, double.grad.float())


def test_a_second_derivative_is_refused() -> None:
    params = parameters(46, 1).requires_grad_()
    (slope,) = torch.autograd.grad(call_prices(params, SMALL_GRID).square().sum(), params, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_parameters_that_are_not_finite_are_refused() -> None:
    params = CALM.clone()
    params[0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        call_prices(params, SMALL_GRID)


def test_prices_that_do_not_settle_are_refused_and_their_variances_found_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out_of_reach = 1e-150
    with pytest.raises(ArithmeticError, match="did not settle to 1e-150"):
        call_prices(torch.cat([CALM, VIOLENT]), SMALL_GRID, tolerance=out_of_reach)
    params = torch.cat([CALM, VIOLENT]).requires_grad_()
    assert bool(total_variances(params, SMALL_GRID).found.all())
    monkeypatch.setattr("training.pricing._VARIANCE_TOLERANCE", out_of_reach)
    surface = total_variances(params, SMALL_GRID)
    assert [bool(found.any()) for found in surface.found] == [True, False]
    assert bool((surface.w[1] == 1.0).all())
    surface.w.sum().backward()  # type: ignore[no-untyped-call]
    assert params.grad is not None
    assert bool(params.grad[0].all())
    assert not params.grad[1].any()


def test_black_calls_are_the_library_s() -> None:
    iv = exact_iv_panels(panel_parameters(PAPER, 47, 0, 5), PAPER).iv
    found = black_calls(torch.from_numpy(iv), PAPER_GRID)
    k, t = PAPER_GRID.log_moneyness[None, None], PAPER_GRID.expiry[None, :, None]
    np.testing.assert_allclose(found.call.numpy(), call_price(k, t, iv), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.vega.numpy(), vega(k, t, iv), rtol=1e-12, atol=1e-14)


def test_a_missing_vol_has_the_intrinsic_value_and_no_vega() -> None:
    missing = torch.full((1, 3, 4), torch.nan)
    found = black_calls(missing, SMALL_GRID)
    np.testing.assert_allclose(found.call[0, 1], np.maximum(1.0 - np.exp(SMALL_GRID.log_moneyness), 0.0), atol=1e-15)
    assert not found.vega.any()
