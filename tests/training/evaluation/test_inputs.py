"""What the network is shown."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from training.augment import AugmentOptions
from training.domain import MARKET, PAPER
from training.evaluation.inputs import MARKET as AS_QUOTED
from training.evaluation.inputs import inputs, quoted_panels
from training.evaluation.surfaces import nodes_of
from training.panels import make_panels, panel_parameters

NODES = nodes_of(PAPER, panel_parameters(PAPER, 95, 0, 200))


def test_noise_and_gaps_come_apart_and_together_with_the_stated_sizes() -> None:
    shown = inputs(PAPER, NODES.iv, 95)
    assert list(shown) == ["clean", "noisy", "masked", "noisy and masked"]
    there = np.isfinite(NODES.iv)
    np.testing.assert_array_equal(shown["clean"], NODES.iv)
    noise = 1e4 * (shown["noisy"] - NODES.iv)[there]
    assert noise.std() == pytest.approx(0.5, abs=0.02)
    gaps = np.isnan(shown["masked"])
    assert gaps[there].mean() == pytest.approx(0.05, abs=0.01)
    np.testing.assert_array_equal(shown["masked"][~gaps], NODES.iv[~gaps])
    np.testing.assert_array_equal(shown["noisy and masked"], np.where(gaps, np.nan, shown["noisy"]))


def test_a_standardised_domain_is_shown_as_its_panels_are_made() -> None:
    nodes = nodes_of(MARKET, panel_parameters(MARKET, 3, 0, 5))
    shown = inputs(MARKET, nodes.iv, 3)
    assert list(shown) == [AS_QUOTED]
    np.testing.assert_array_equal(shown[AS_QUOTED], make_panels(MARKET, 3, 0, 5)["iv"])


def test_a_quoted_panel_has_equal_weights_and_a_spread_around_its_noisy_mid() -> None:
    panels = quoted_panels(NODES, 7)
    assert len(panels) == 200
    for panel in panels[:20]:
        assert (panel.weight == 1.0).all()
        half = 1e4 * (panel.ask - panel.bid) / 2.0
        assert half.min() >= 0.0
        assert half.max() <= 15.0
        np.testing.assert_allclose((panel.bid + panel.ask) / 2.0, panel.mid, rtol=0.0, atol=1e-15)


def test_without_noise_and_gaps_the_quotes_are_the_exact_vols() -> None:
    panel = quoted_panels(NODES, 7, AugmentOptions(noise_bp=0.0, masked=0.0, half_spread_bp=0.0))[3]
    np.testing.assert_array_equal(panel.mid, NODES.iv[3].ravel()[panel.index])
