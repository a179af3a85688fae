"""Starts sharpened in a batch: the answers stay, the processor's work shrinks. By the kernel's twin."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from benchmarks import paper_box
from calibrant.arrays import Matrix
from calibrant.calibration import Calibration, calibrate
from calibrant.gpu.sharpen import sharpen
from calibrant.models import BATES, HESTON
from calibrant.options import CalibrationOptions, Start
from calibrant.panel import OptionPanel
from calibrant.release import Proposal, Release, released
from tests.exact_vols import noisy_panel
from tests.shared import ROOT


@pytest.fixture(scope="module")
def release() -> Release:
    return released(ROOT / "networks", "heston")


@pytest.fixture(scope="module")
def panels() -> list[OptionPanel]:
    return [noisy_panel(params, i, 1.0) for i, params in enumerate(paper_box.draws(12, seed=51))]


@pytest.fixture(scope="module")
def proposals(release: Release, panels: list[OptionPanel]) -> list[list[Proposal]]:
    return [release.propose(panel) for panel in panels]


def fits(panels: list[OptionPanel], proposals: list[list[Proposal]]) -> list[Calibration]:
    return [
        calibrate(panel, HESTON, [Start("network", proposal.params) for proposal in of_panel])
        for panel, of_panel in zip(panels, proposals, strict=True)
    ]


def parameters(found: list[Calibration]) -> Matrix:
    return np.array([fit.parameters for fit in found])


def test_answers_are_those_of_the_networks_starts_and_cost_fewer_evaluations(
    panels: list[OptionPanel], proposals: list[list[Proposal]]
) -> None:
    before = fits(panels, proposals)
    after = fits(panels, sharpen(HESTON, panels, proposals, [CalibrationOptions()] * len(panels)))
    assert [fit.status for fit in after] == [fit.status for fit in before] == ["converged"] * len(panels)
    np.testing.assert_allclose(parameters(after), parameters(before), rtol=1e-6)
    for one, other in zip(after, before, strict=True):
        np.testing.assert_allclose(one.model_iv, other.model_iv, rtol=0.0, atol=1e-9)
        assert one.n_starts == other.n_starts
    assert sum(fit.iterations for fit in after) < 0.7 * sum(fit.iterations for fit in before)


def test_what_is_not_to_be_refined_or_cannot_be_is_left_as_it_came(
    panels: list[OptionPanel], proposals: list[list[Proposal]]
) -> None:
    worthless = OptionPanel.from_quotes(expiry=[0.1, 0.1], log_moneyness=[2.0, 2.5], iv=[0.1, 0.1])
    contradicted = CalibrationOptions(fixed={"kappa": 1e6})
    asked = [panels[0], worthless, panels[1], panels[2], panels[3]]
    given = [proposals[0], proposals[0], [], proposals[2], proposals[3]]
    options = [
        CalibrationOptions(refine="none"),
        CalibrationOptions(),
        CalibrationOptions(),
        contradicted,
        CalibrationOptions(refine="lbfgs"),
    ]
    found = sharpen(HESTON, asked, given, options)
    for one, other in zip(found, given, strict=True):
        assert len(one) == len(other)
        assert all(a is b for a, b in zip(one, other, strict=True))
    assert sharpen(HESTON, [], [], []) == []


def test_proposals_of_another_model_are_refused_with_a_sentence(
    panels: list[OptionPanel], proposals: list[list[Proposal]]
) -> None:
    bates = [[p._replace(params=np.concatenate((p.params, [0.1, -0.1, 0.1]))) for p in proposals[0]]]
    with pytest.raises(ValueError, match="The GPU refines Heston only: other models"):
        sharpen(BATES, panels[:1], bates, [CalibrationOptions()])
