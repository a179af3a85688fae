"""Simulated panels: limits, laws of a step, the martingale, exact vols within the error bars, and (seed, index)."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from calibrant.arrays import Matrix
from training import simulated
from training.domain import MARKET, PAPER, Domain
from training.exact import exact_iv_panels
from training.panels import make_panels, panel_parameters
from training.simulated import WEEK, SimulationOptions, simulate_iv_panels, simulate_panels, time_steps

SHORT = replace(PAPER, expiry=(0.1, 0.3))
"""Two expiries are a seventh of the work of eight."""
SMALL = SimulationOptions(log2_points=9)
MILD = np.array([[3.0, 0.06, 0.3, -0.6, 0.05]])
VIOLENT = np.array([[0.5, 0.02, 1.5, -0.7, 0.04]])
"""Feller ratio 0.01."""


def same(one: Iterable[Any], two: Iterable[Any]) -> bool:
    """Whether all arrays are, to the last bit."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    "expiry", [PAPER.expiry, (0.1,), (1 / 365, 8 / 365, 1.0), (WEEK, 3 * WEEK, 3.5 * WEEK), (0.02, 0.0201, 5.0)]
)
def test_steps_divide_every_interval_and_are_at_most_a_week(expiry: tuple[float, ...]) -> None:
    gaps = np.diff(np.array(expiry), prepend=0.0)
    n = time_steps(np.array(expiry), WEEK)
    assert (gaps / n <= WEEK * (1 + 1e-9)).all()
    # As few as that allows: with one step less, some would be longer.
    assert (gaps[n > 1] / (n[n > 1] - 1) > WEEK * (1 + 1e-9)).all()


@pytest.mark.parametrize("v", [1e-3, 0.02, 0.2])
@pytest.mark.parametrize("argument", [-3.0, 0.5])
def test_a_step_has_the_mean_and_variance_of_the_square_root_process(v: float, argument: float) -> None:
    kappa, theta, xi, step = (torch.tensor(x, dtype=torch.float64) for x in (1.5, 0.05, 1.0, WEEK))
    law = simulated._VarianceStep.of(kappa, theta, xi, WEEK, torch.tensor(argument, dtype=torch.float64))
    levels = (torch.arange(2**18, dtype=torch.float64) + 0.5) / 2**18
    found, log_moment = law(torch.full_like(levels, v), torch.special.ndtri(levels))
    decay = torch.exp(-kappa * step)
    mean = theta + (v - theta) * decay
    spread = xi**2 * (1 - decay) / kappa
    variance = v * spread * decay + theta * spread * (1 - decay) / 2
    assert (variance / mean**2 > 1.5) == (v == 1e-3), "both forms are tested"
    np.testing.assert_allclose(found.mean(), mean, rtol=1e-4)
    np.testing.assert_allclose(found.var(correction=0), variance, rtol=1e-3)
    np.testing.assert_allclose(log_moment[0], torch.exp(argument * found).mean().log(), rtol=1e-4)
    assert float(found.min()) >= 0.0


def test_orthogonal_matrices_give_brownian_motions() -> None:
    plan = simulated._plan(PAPER, SMALL, "cpu")
    _, expiry = PAPER.grid()
    for matrix in (plan.components, *plan.cosines):
        np.testing.assert_allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-12)
    # The first component moves all expiries the same way, the first cosine all steps of an interval.
    motion = np.cumsum(plan.components[:, 0].numpy() * np.sqrt(np.diff(expiry, prepend=0.0)))
    assert (motion > 0).all() or (motion < 0).all()
    assert all((cosines[:, 0] > 0).all() for cosines in plan.cosines)


def test_vols_tend_to_black_with_the_deterministic_variance_as_xi_vanishes() -> None:
    kappa, theta, v0 = 2.0, 0.09, 0.04
    expiry = np.array(PAPER.expiry)
    variance = theta + (v0 - theta) * -np.expm1(-kappa * expiry) / (kappa * expiry)
    found = simulate_iv_panels(np.array([[kappa, theta, 1e-5, -0.7, v0]]), PAPER, 1, 0, options=SMALL)
    z = (found.iv[0] - np.sqrt(variance)[:, None]) / found.standard_error[0]
    assert np.nanmax(np.abs(z)) < 4.5
    assert np.nanmax(found.standard_error[0, :, 3:7]) < 10e-4


@pytest.mark.parametrize("rho", [-0.95, 0.0, 0.6])
def test_the_spot_is_a_martingale_however_long_the_steps(rho: float) -> None:
    params = np.array([[1.0, 0.09, 1.2, rho, 0.2]])
    options = SimulationOptions(largest_step=0.25, log2_points=10)
    found = simulate_iv_panels(params, replace(PAPER, expiry=(0.5, 1.0, 2.0)), 3, 0, options=options)
    assert (np.abs(found.forward - 1.0) < 4.5 * found.forward_error).all()
    assert (found.forward_error < [1.5e-3, 2e-3, 4e-3]).all()


def test_vols_agree_with_the_exact_ones_where_the_steps_are_fine() -> None:
    params = np.repeat(MILD, 4, axis=0)
    found = simulate_iv_panels(params, SHORT, 4, 0, options=SimulationOptions(log2_points=11, largest_step=WEEK / 2))
    exact = exact_iv_panels(params, SHORT).iv
    judged = found.n_reached >= 1000
    z = ((found.iv - exact) / found.standard_error)[judged]
    assert judged.mean() > 0.6
    assert np.abs(z).max() < 5.0
    assert np.sqrt(np.mean(z**2)) < 1.5
    assert np.max(found.standard_error[judged]) < 15e-4


def test_bias_where_feller_is_violated_shrinks_with_the_step() -> None:
    # 2^19 paths: the error bars are then below the bias of a step of half a month.
    log_moneyness, expiry = np.log(np.array([0.9, 1.0, 1.1])), 0.1
    domain = replace(PAPER, log_moneyness=tuple(log_moneyness), expiry=(expiry,))
    exact = exact_iv_panels(VIOLENT, domain).iv
    bias, noise = [], []
    for n_steps in (2, 12):
        options = SimulationOptions(n_scrambles=32, log2_points=14, largest_step=expiry / n_steps)
        found = simulate_iv_panels(VIOLENT, domain, 5, 0, options=options)
        bias.append(1e4 * np.abs(found.iv - exact)[0, 0])
        noise.append(1e4 * found.standard_error[0, 0])
    assert bias[0].max() > 20.0 > 10 * noise[0].max(), (bias, noise)
    assert bias[1].max() < bias[0].max() / 4, (bias, noise)


def test_a_panel_is_a_function_of_seed_and_index() -> None:
    params = panel_parameters(SHORT, 1, 0, 5)
    together = simulate_iv_panels(params, SHORT, 1, 0, options=SMALL)
    for start, stop in ((0, 1), (1, 4), (4, 5), (2, 2)):
        alone = simulate_iv_panels(params[start:stop], SHORT, 1, start, options=SMALL)
        assert same(alone, [field[start:stop] for field in together])
    again = simulate_iv_panels(np.repeat(params[:1], 3, axis=0), SHORT, 1, 0, options=SMALL)
    other_seed = simulate_iv_panels(params[:1], SHORT, 2, 0, options=SMALL)
    vols = {again.iv[0].tobytes(), again.iv[1].tobytes(), again.iv[2].tobytes(), other_seed.iv[0].tobytes()}
    assert len(vols) == 4, "every index and seed has paths of its own"


@pytest.mark.parametrize("shape", [(1, 2), (3, 16), (8, 5)])
def test_panels_may_be_walked_together(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]) -> None:
    # As on a GPU; there and here a panel's last digits depend on its neighbours, and nothing else does.
    params = panel_parameters(SHORT, 1, 0, 5)
    usual = simulate_iv_panels(params, SHORT, 1, 0, options=SMALL)
    monkeypatch.setattr(simulated, "_batch_shape", lambda *_: shape)
    together = simulate_iv_panels(params, SHORT, 1, 0, options=SMALL)
    np.testing.assert_array_equal(together.n_reached, usual.n_reached)
    for one, two in zip(together, usual, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9)


def test_the_number_of_threads_does_not_matter() -> None:
    params = panel_parameters(SHORT, 1, 0, 1)
    options = SimulationOptions(n_scrambles=4)  # what is walked together by default
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = simulate_iv_panels(params, SHORT, 1, 0, options=options)
        torch.set_num_threads(2)
        two = simulate_iv_panels(params, SHORT, 1, 0, options=options)
    finally:
        torch.set_num_threads(before)
    assert same(one, two)


@pytest.mark.parametrize("params", [MILD, VIOLENT])
def test_standard_errors_are_those_of_the_spread_over_panels(params: Matrix) -> None:
    # Sixty panels of the same parameters, apart only by their digital shifts; the nets are the same for all.
    found = simulate_iv_panels(np.repeat(params, 60, axis=0), SHORT, 6, 0, options=SMALL)
    judged = (found.n_reached >= 200).all(axis=0)
    spread = found.iv.std(axis=0, ddof=1)[judged]
    stated = np.sqrt(np.mean(found.standard_error**2, axis=0))[judged]
    assert judged.sum() >= 10
    # A spread of sixty is known within 9 % (one standard deviation); the quotes of a panel share their paths.
    assert 0.75 < np.sqrt(np.mean(spread**2) / np.mean(stated**2)) < 1.3
    assert ((spread / stated > 0.6) & (spread / stated < 1.6)).all(), spread / stated


def test_a_strike_that_no_path_reaches_has_no_vol() -> None:
    found = simulate_iv_panels(np.array([[0.5, 0.02, 1.5, -0.95, 0.01]]), SHORT, 1, 0, options=SMALL)
    assert (found.n_reached[0, 0, -3:] == 0).all()
    assert np.isnan(found.iv[0, 0, -3:]).all()
    assert np.isnan(found.standard_error[0, 0, -3:]).all()
    assert np.isfinite(found.iv[found.n_reached >= 100]).all()
    # Further out, fewer paths: puts to the left of the forward, calls to the right.
    assert (np.diff(found.n_reached[..., :5]) >= 0).all()
    assert (np.diff(found.n_reached[..., 5:]) <= 0).all()


def test_records_are_those_of_the_exact_generator_but_for_the_vols() -> None:
    exact, found = make_panels(PAPER, 9, 3, 5), simulate_panels(PAPER, 9, 3, 5)
    assert found.dtype == exact.dtype
    np.testing.assert_array_equal(found["params"], exact["params"])
    np.testing.assert_array_equal(found["metric"], exact["metric"])
    away = np.abs(found["iv"] - exact["iv"])
    assert 0.0 < np.nanmedian(away) < 20e-4


@pytest.mark.parametrize(
    ("params", "domain", "message"),
    [
        (MILD, MARKET, "no fixed strikes"),
        (np.array([[1.0, 0.04, np.nan, -0.5, 0.04]]), SHORT, "finite"),
        (np.array([[3.0, 0.06, 0.3, -0.6, 0.05], [50.0, 0.04, 150.0, 0.99, 0.04]]), SHORT, "panel 1, .* shorter steps"),
    ],
)
def test_what_cannot_be_simulated_is_refused(params: Matrix, domain: Domain, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_iv_panels(params, domain, 1, 0, options=SMALL)
