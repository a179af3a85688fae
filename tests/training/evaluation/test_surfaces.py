"""The judges of the answers: surfaces at each panel's own strikes."""

import numpy as np
import pytest

from calibrant.models import HESTON
from calibrant.pricing.fourier import otm_values
from tests.exact_vols import exact_vols
from training.domain import MARKET, PAPER
from training.evaluation.surfaces import nodes_of, otm, vols_at
from training.exact import exact_iv_panels
from training.panels import panel_parameters


def test_the_nodes_hold_the_vols_that_training_panels_are_made_of() -> None:
    params = panel_parameters(PAPER, 71, 0, 50)
    np.testing.assert_allclose(nodes_of(PAPER, params).iv, exact_iv_panels(params, PAPER).iv, rtol=0.0, atol=1e-8)


def test_standardised_nodes_lie_a_number_of_the_panel_s_own_deviations_out() -> None:
    params = panel_parameters(MARKET, 71, 0, 5)
    columns, expiry = MARKET.grid()
    nodes = nodes_of(MARKET, params)
    for panel, k, iv in zip(params, nodes.log_moneyness, nodes.iv, strict=True):
        at_the_money = exact_vols(np.zeros(expiry.size), expiry, panel)
        np.testing.assert_allclose(k, np.outer(at_the_money * np.sqrt(expiry), columns), rtol=1e-6)
        np.testing.assert_allclose(iv[:, list(columns).index(0.0)], at_the_money, rtol=1e-6)


def test_values_are_those_of_the_accurate_pricer() -> None:
    params = panel_parameters(MARKET, 72, 0, 8)
    nodes = nodes_of(MARKET, params)
    found = otm(MARKET.model, params, nodes.log_moneyness, nodes.expiry)
    for panel, k, value in zip(params, nodes.log_moneyness, found, strict=True):
        exact = otm_values(HESTON, k.ravel(), np.repeat(nodes.expiry, k.shape[1]), panel)
        np.testing.assert_allclose(value.ravel(), exact, rtol=0.0, atol=2e-12)


def test_an_answer_has_a_vol_at_every_node_however_far_off_it_is() -> None:
    truth = panel_parameters(PAPER, 73, 0, 6)
    low, high = PAPER.output_box()
    answers = np.array([low, high, np.where(np.arange(5) == 4, high, low), np.where(np.arange(5) == 3, -1.0, low)])
    nodes = nodes_of(PAPER, truth[: len(answers)])
    assert np.isfinite(vols_at(nodes, answers)).all()


def test_an_answer_that_is_not_a_number_is_refused() -> None:
    nodes = nodes_of(PAPER, panel_parameters(PAPER, 74, 0, 1))
    with pytest.raises(ValueError, match="finite"):
        vols_at(nodes, np.full((1, 5), np.nan))
