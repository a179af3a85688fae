"""Panels done together say to the last digit what each says by itself."""

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.calibration import Calibration, begin, calibrate
from calibrant.errors import InvalidInput
from calibrant.fits import SLICE
from calibrant.grid import Grid, project, project_all
from calibrant.group import PanelGroup
from calibrant.models import HESTON
from calibrant.optimisers.objective import OUT_OF_ITERATIONS
from calibrant.options import CalibrationOptions, Effort, Prior, Start
from calibrant.panel import LEAST_VEGA, OptionPanel, identifiable
from calibrant.quotes_csv import read_csv
from tests.exact_vols import noisy_panel, starts_nearby
from tests.shared import SHARED, needs_shared

TRUTHS = paper_box.draws(6, seed=151)
NEAR = starts_nearby(TRUTHS, seed=152)
FAR = np.array([50.0, 3.0, 0.01, 0.9, 1e-3])
NODES = Grid(expiry=np.array([0.1, 0.5, 1.0, 2.0]), log_moneyness=np.linspace(-0.3, 0.3, 7))
RELATIVE = Grid(expiry=NODES.expiry, log_moneyness=np.linspace(-2.0, 2.0, 7), standardised=True)


def panels() -> list[OptionPanel]:
    """Of several sizes, one with quotes that say nothing, one of a single quote and one on the nodes of a grid."""
    noisy = [noisy_panel(truth, 160 + i, 5.0) for i, truth in enumerate(TRUTHS)]
    t, k = np.meshgrid(NODES.expiry, NODES.log_moneyness, indexing="ij")
    return [
        *noisy,
        OptionPanel.from_quotes(
            expiry=np.full(9, 0.02),
            log_moneyness=np.linspace(-0.14, 0.14, 9),
            iv=0.2 + 0.05 * np.linspace(-1, 1, 9) ** 2,
        ),
        OptionPanel.from_quotes(expiry=[1.1], log_moneyness=[0.0], iv=[0.2]),
        OptionPanel.from_quotes(expiry=t.ravel(), log_moneyness=k.ravel(), iv=0.2 - 0.1 * k.ravel()),
    ]


def same(one: Calibration, other: Calibration) -> None:
    for name, value in one._asdict().items():
        if name in ("cautions", "excluded"):
            assert value == getattr(other, name)
        elif name != "panel":
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def test_the_scales_of_a_group_are_those_of_its_panels() -> None:
    together, alone = panels(), panels()
    PanelGroup(together)
    for one, other in zip(together, alone, strict=True):
        for name, value in one.scales._asdict().items():
            np.testing.assert_array_equal(value, getattr(other.scales, name), err_msg=name)


@pytest.mark.parametrize("grid", [NODES, RELATIVE])
def test_each_panel_is_projected_as_by_itself(grid: Grid) -> None:
    asked = panels()
    found = project_all(PanelGroup(asked), grid)
    for i, panel in enumerate(asked):
        alone = project(panel, grid)
        np.testing.assert_array_equal(found.iv[i], alone.iv)
        assert (found.n_filled[i], found.on_grid[i]) == (alone.n_filled, alone.on_grid)
        assert found.n_filled[i] == np.count_nonzero(alone.mask)
    assert found.on_grid.tolist() == [False] * 8 + [not grid.standardised]
    copied = project_all(PanelGroup(asked), grid, only_on_nodes=True)
    assert copied.on_grid.tolist() == found.on_grid.tolist()
    assert copied.n_filled.tolist() == np.where(found.on_grid, found.n_filled, 0).tolist()


def test_what_is_begun_together_ends_as_by_itself() -> None:
    asked = [panel for panel in panels() if panel.n_quotes > 1]
    # One that a slice does not bring home, and one from outside the bounds.
    starts = [FAR, 100.0 * FAR, *NEAR[2:], *NEAR[:2]]
    options = CalibrationOptions()
    begun = begin(PanelGroup(asked), HESTON, starts, [options] * len(asked))
    for i, (panel, start, fit) in enumerate(zip(asked, starts, begun, strict=True)):
        assert fit is not None
        alone = [Start("network", start)]
        effort = Effort(second_opinion=i % 2 == 0)
        same(calibrate(panel, HESTON, alone, begun=fit, effort=effort), calibrate(panel, HESTON, alone, effort=effort))
    assert begun[0] is not None
    assert (begun[0].outcome, begun[0].evaluations) == (OUT_OF_ITERATIONS, SLICE)
    assert identifiable(asked[6]).n_quotes < asked[6].n_quotes
    assert begun[6] is not None
    assert begun[6].model_vol.size == identifiable(asked[6]).n_quotes


@needs_shared
@pytest.mark.parametrize("name", ["dax_20020705_quantlib", "spx_20110124_cboe", "sx5e_20100301_andreasenhuge"])
def test_market_panels_too(name: str) -> None:
    asked = [panel for _, panel in read_csv(SHARED / "market" / f"{name}.csv")]
    starts, options = [Start("network", NEAR[0])], CalibrationOptions()
    begun = begin(PanelGroup(asked), HESTON, [NEAR[0]] * len(asked), [options] * len(asked))
    for panel, fit in zip(asked, begun, strict=True):
        same(calibrate(panel, HESTON, starts, options, fit), calibrate(panel, HESTON, starts, options))


def test_what_is_out_of_the_ordinary_is_left_to_calibrate() -> None:
    panel = noisy_panel(TRUTHS[0], 170, 5.0)
    prior = Prior(parameters=NEAR[0], standard_deviations=np.ones(5))
    odd = (
        CalibrationOptions(refine="lbfgs"),
        CalibrationOptions(refine="none"),
        CalibrationOptions(bounds=np.column_stack((HESTON.lower, HESTON.upper))),
        CalibrationOptions(fixed={"rho": -0.5}),
        CalibrationOptions(prior=prior),
        CalibrationOptions(loss="huber"),
    )
    wings = OptionPanel.from_quotes(expiry=[0.01, 0.01], log_moneyness=[-2.0, 2.0], iv=[0.2, 0.2])
    assert wings.scales.lowest_vega < LEAST_VEGA
    with pytest.raises(InvalidInput):
        identifiable(wings)
    group = PanelGroup([panel] * (len(odd) + 1) + [wings])
    starts = [*[NEAR[0]] * len(odd), None, NEAR[0]]
    assert begin(group, HESTON, starts, [*odd, *[CalibrationOptions()] * 2]) == [None] * len(starts)
    assert begin(PanelGroup([]), HESTON, [], []) == []
