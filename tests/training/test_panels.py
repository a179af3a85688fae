"""A panel is a function of (seed, index)."""

import numpy as np
import pytest

from training.domain import MARKET, PAPER, Domain
from training.panels import make_panels, panel_parameters


@pytest.mark.parametrize("domain", [PAPER, MARKET], ids=lambda domain: domain.name)
def test_any_range_can_be_made_anywhere(domain: Domain) -> None:
    whole = make_panels(domain, 1, 0, 60)
    for start, stop in ((0, 1), (17, 23), (59, 60), (30, 30)):
        assert make_panels(domain, 1, start, stop).tobytes() == whole[start:stop].tobytes()


def test_parameters_fill_the_sampled_box_uniformly() -> None:
    params = panel_parameters(PAPER, 1, 0, 20_000)
    low, high = PAPER.sampled_box()
    unit = (params - low) / (high - low)
    assert unit.min() >= 0.0
    assert unit.max() < 1.0
    # Standard error of a mean of uniforms: 0.2887 / sqrt(20,000) = 0.002; of a correlation: 0.007.
    np.testing.assert_allclose(unit.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(unit.var(0), 1 / 12, atol=0.003)
    assert np.abs(np.corrcoef(unit.T) - np.eye(5)).max() < 0.03


def test_seeds_share_no_panel() -> None:
    first, second = panel_parameters(PAPER, 1, 0, 1000), panel_parameters(PAPER, 2, 0, 1000)
    assert not set(first[:, 0]) & set(second[:, 0])


def test_output_ranges_hold_the_sampled_box_with_room_for_tanh() -> None:
    low, high = PAPER.output_box()
    sampled_low, sampled_high = PAPER.sampled_box()
    unit_low = 2 * (sampled_low - low) / (high - low) - 1
    unit_high = 2 * (sampled_high - low) / (high - low) - 1
    assert unit_low.min() > -0.99
    assert unit_high.max() < 0.99


def test_panels_of_a_seed_are_those_that_released_networks_were_trained_on() -> None:
    first = [2.1722092050839437, 0.0358469991208039, 0.7915526686949339, -0.15251983283671178, 0.21278754552133147]
    second = [3.5543781746340053, 0.16374007168492255, 0.6498484302943655, 0.07265492314320432, 0.024386807342974437]
    for domain, params in ((PAPER, first), (MARKET, second)):
        np.testing.assert_allclose(panel_parameters(domain, 1, 1000, 1001)[0], params, rtol=1e-12)
