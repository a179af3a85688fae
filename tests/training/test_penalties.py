"""The penalties: equal to the library's, differentiable, and what each of them sees."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from calibrant.arbitrage.paper_penalties import paper_penalties  # noqa: E402
from calibrant.arrays import Matrix  # noqa: E402
from training.domain import PAPER  # noqa: E402
from training.panels import panel_parameters  # noqa: E402
from training.penalties import (  # noqa: E402
    DENSE_GRID,
    PENALTIES,
    PenaltyOptions,
    arbitrage_penalty,
    paper_penalty,
    penalty,
)
from training.pricing import Grid, TotalVariances, total_variances  # noqa: E402

STRIKE = np.linspace(0.8, 1.2, 41)
EXPIRY = np.linspace(0.1, 2.0, 11)
# Little correlation and much vol of vol: a smile, which rises above the spot.
SMILE = torch.tensor([[2.0, 0.09, 0.9, -0.1, 0.09]], dtype=torch.float64)


def surface_of(w: Matrix) -> TotalVariances:
    return TotalVariances(torch.from_numpy(w)[None], torch.ones(1, *w.shape, dtype=torch.bool))


def test_the_dense_grid_is_the_paper_s() -> None:
    strike = np.exp(DENSE_GRID.log_moneyness)
    assert (strike.size, DENSE_GRID.expiry.size) == (200, 50)
    assert (strike[0], strike[-1]) == (pytest.approx(0.8), pytest.approx(1.2))
    assert (DENSE_GRID.expiry[0], DENSE_GRID.expiry[-1]) == (0.1, 2.0)


def test_the_paper_s_penalty_is_the_library_s_on_surfaces_that_break_each_of_its_terms() -> None:
    random = np.random.default_rng(1)
    for strike in (STRIKE, np.sort(random.uniform(0.8, 1.2, 41))):
        w = EXPIRY[:, None] * 0.04 * np.exp(0.3 * random.standard_normal((11, 41)))
        expected = paper_penalties(np.sqrt(w / EXPIRY[:, None]), strike, EXPIRY)
        assert min(expected.p1.max(), expected.p2.max(), expected.p3.max()) > 0.0
        assert float(paper_penalty(surface_of(w), strike, EXPIRY)) == pytest.approx(expected.total, rel=1e-12)


def test_the_paper_s_penalty_of_parameters_is_the_library_s_of_their_vols() -> None:
    params = torch.cat([SMILE, torch.from_numpy(panel_parameters(PAPER, 51, 0, 3))])
    w, found = total_variances(params, DENSE_GRID)
    assert bool(found.all())
    vols = (w / torch.from_numpy(DENSE_GRID.expiry)[:, None]).sqrt().numpy()
    totals = [paper_penalties(vol, np.exp(DENSE_GRID.log_moneyness), DENSE_GRID.expiry).total for vol in vols]
    assert totals[0] > 1.0
    assert float(penalty(params, "paper")) == pytest.approx(np.mean(totals), rel=1e-6)


def test_an_exact_heston_surface_breaks_the_paper_s_conditions_but_not_those_of_arbitrage() -> None:
    params = torch.cat([SMILE, torch.from_numpy(panel_parameters(PAPER, 52, 0, 7))])
    assert float(penalty(params, "paper")) > 1.0
    assert float(penalty(params, "arbitrage")) == 0.0


def test_a_planted_calendar_arbitrage_is_charged_by_its_slope() -> None:
    w = np.repeat((0.3 - 0.05 * EXPIRY)[:, None], 41, axis=1)
    for charge in PENALTIES.values():
        assert float(charge(surface_of(w), STRIKE, EXPIRY)) == pytest.approx(0.05 * 410, rel=1e-6)


def test_a_planted_butterfly_is_charged_by_durrleman_s_g() -> None:
    # A straight line in log-moneyness, so steep that g = (1 - k b / 2w)^2 - b^2/4 (1/w + 1/4) < 0 around the money.
    k, slope = np.log(STRIKE), 1.0
    level = 0.23 + np.linspace(0.0, 0.01, EXPIRY.size)
    w = level[:, None] + slope * k
    inner_k, inner_w = k[1:-1], w[:, 1:-1]
    g = (1.0 - 0.5 * inner_k * slope / inner_w) ** 2 - 0.25 * slope**2 * (1.0 / inner_w + 0.25)
    expected = np.maximum(-g, 0.0).sum()
    assert expected > 1.0
    assert float(arbitrage_penalty(surface_of(w), STRIKE, EXPIRY)) == pytest.approx(expected, rel=1e-9)


def test_nodes_without_vol_take_no_part() -> None:
    random = np.random.default_rng(2)
    w = EXPIRY[:, None] * 0.04 * np.exp(0.3 * random.standard_normal((11, 41)))
    whole = surface_of(w)
    found = whole.found.clone()
    found[:, :, :10] = False
    holed = whole.w.clone()
    holed[:, :, :10] = 1.0
    for charge in PENALTIES.values():
        cut = float(charge(surface_of(w[:, 10:]), STRIKE[10:], EXPIRY))
        assert float(charge(TotalVariances(holed, found), STRIKE, EXPIRY)) == pytest.approx(cut, rel=1e-12)


@pytest.mark.parametrize("charge", list(PENALTIES.values()), ids=list(PENALTIES))
def test_the_gradient_of_a_penalty_passes_gradcheck(charge: object) -> None:
    assert callable(charge)
    random = np.random.default_rng(3)
    strike, expiry = STRIKE[::8], EXPIRY[::4]
    w = expiry[:, None] * 0.04 * np.exp(0.3 * random.standard_normal((expiry.size, strike.size)))
    found = torch.ones(1, *w.shape, dtype=torch.bool)
    found[0, 1, 2] = False
    given = torch.from_numpy(w)[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: charge(TotalVariances(x, found), strike, expiry), given, atol=1e-4)


def test_the_gradient_of_the_paper_s_penalty_by_parameters_passes_gradcheck() -> None:
    grid = Grid(DENSE_GRID.model, DENSE_GRID.log_moneyness[::20], DENSE_GRID.expiry[::10])
    strike = np.exp(grid.log_moneyness)
    given = SMILE.clone().requires_grad_()
    assert float(paper_penalty(total_variances(SMILE, grid), strike, grid.expiry)) > 0.01
    assert torch.autograd.gradcheck(
        lambda p: paper_penalty(total_variances(p, grid), strike, grid.expiry), given, atol=1e-4, rtol=1e-3
    )


def test_the_weight_is_the_paper_s_annealing_and_zero_without_a_penalty() -> None:
    options = PenaltyOptions(kind="paper")
    assert [options.weight(epoch) for epoch in (0, 1, 99)] == pytest.approx([1000.0, 960.0, 1000.0 * 0.96**99])
    assert PenaltyOptions().weight(0) == 0.0
