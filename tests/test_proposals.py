"""Asking the networks about many panels at once: what they say to each is what they say to it alone."""

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.group import PanelGroup
from calibrant.panel import OptionPanel
from calibrant.release import Release, released
from tests.shared import ROOT


@pytest.fixture(scope="module")
def release() -> Release:
    return released(ROOT / "networks", "heston")


def panels() -> list[OptionPanel]:
    """On the network's grid and off it, with gaps, near the domain and far from it."""
    rng = np.random.default_rng(4)
    t, k = paper_box.EXPIRY, paper_box.LOG_MONEYNESS
    smile = 0.2 + 0.1 * k**2 - 0.05 * k
    level = [OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=smile * scale) for scale in (0.5, 1.0, 2.0, 4.0)]
    gaps = np.where(rng.random(t.size) < 0.1, np.nan, smile)
    few = rng.choice(t.size, 7, replace=False)
    return [
        *level,
        OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=gaps),
        OptionPanel.from_quotes(expiry=1.07 * t, log_moneyness=0.9 * k, iv=smile),
        OptionPanel.from_quotes(expiry=t[few], log_moneyness=k[few], iv=smile[few]),
        OptionPanel.from_quotes(expiry=t[few] / 50.0, log_moneyness=k[few] / 10.0, iv=smile[few]),
    ]


def test_each_panel_gets_the_proposals_that_it_gets_alone(release: Release) -> None:
    asked = panels()
    for panel, together in zip(asked, release.propose_all(PanelGroup(asked)), strict=True):
        alone = release.propose(panel)
        assert [proposal.network for proposal in together] == [proposal.network for proposal in alone]
        for one, other in zip(together, alone, strict=True):
            # Single precision, in sums of another order.
            assert one.params == pytest.approx(other.params, rel=1e-4)
            assert one.covered == other.covered
            assert one.in_domain(one.params) == other.in_domain(other.params)


def test_no_panels_get_no_proposals(release: Release) -> None:
    assert release.propose_all(PanelGroup([])) == []
