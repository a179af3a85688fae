"""Errors of known size are measured at that size."""

import numpy as np
import pytest

from tests.exact_vols import exact_vols
from training.domain import MARKET, PAPER, Domain
from training.evaluation.accuracy import HeldOut, Spread, accuracy, pearson, rmse_bp
from training.panels import panel_parameters


@pytest.mark.parametrize("domain", [PAPER, MARKET])
def test_the_true_parameters_have_no_error(domain: Domain) -> None:
    truth = panel_parameters(domain, 81, 0, 20)
    found = accuracy(domain, truth, HeldOut.of(domain, truth))
    assert found.n_panels == 20
    assert max(*found.rmse_bp, *found.mape_pct, *found.chi_squared) < 1e-9
    assert min(found.pearson.values()) > 1.0 - 1e-12


def test_a_shift_of_the_vols_has_its_own_size() -> None:
    truth = panel_parameters(PAPER, 82, 0, 20)
    held_out = HeldOut.of(PAPER, truth)
    shifted = held_out._replace(nodes=held_out.nodes._replace(iv=held_out.nodes.iv + 0.001))
    found = accuracy(PAPER, truth, shifted)
    np.testing.assert_allclose(found.rmse_bp, 10.0, rtol=1e-9)
    relative = np.nanmean(0.1 / shifted.nodes.iv, axis=(1, 2))
    assert found.mape_pct == pytest.approx(Spread.of(relative))


def test_an_answer_s_error_is_that_of_its_accurate_surface() -> None:
    truth, answers = np.split(panel_parameters(PAPER, 83, 0, 6), 2)
    k, expiry = (grid.ravel() for grid in np.meshgrid(*PAPER.grid()))
    expected = [
        1e4 * np.sqrt(np.nanmean((exact_vols(k, expiry, answer) - exact_vols(k, expiry, true)) ** 2))
        for true, answer in zip(truth, answers, strict=True)
    ]
    found = accuracy(PAPER, answers, HeldOut.of(PAPER, truth))
    assert found.rmse_bp == pytest.approx(Spread.of(np.array(expected)), rel=1e-6)


def test_only_the_nodes_asked_for_count_and_panels_without_any_are_left_out() -> None:
    truth = panel_parameters(PAPER, 84, 0, 3)
    held_out = HeldOut.of(PAPER, truth)
    iv = held_out.nodes.iv.copy()
    iv[:, 0, 0] += 0.01
    spoiled = held_out._replace(nodes=held_out.nodes._replace(iv=iv))
    where = np.ones(iv.shape, np.bool_)
    where[:, 0, 0] = False
    where[2] = False
    found = accuracy(PAPER, truth, spoiled, where)
    assert found.n_panels == 2
    assert found.rmse_bp.p99 < 1e-9
    assert accuracy(PAPER, truth, spoiled).rmse_bp.median == pytest.approx(100.0 / np.sqrt(80.0))


def test_a_node_without_a_quote_counts_for_nothing() -> None:
    error = np.array([[[0.001, np.nan], [0.001, 0.001]]])
    np.testing.assert_allclose(rmse_bp(error), 10.0)


def test_the_spread_is_over_the_panels() -> None:
    assert Spread.of(np.arange(101.0)) == Spread(50.0, 50.0, 90.0, 99.0)


def test_the_correlation_of_half_signal_and_half_noise_is_known() -> None:
    generator = np.random.default_rng(1)
    truth, noise = generator.standard_normal((2, 20_000, 2))
    found = pearson(("exact", "noisy"), np.stack((3.0 * truth[:, 0] + 1.0, truth[:, 1] + noise[:, 1]), 1), truth)
    assert found["exact"] == pytest.approx(1.0)
    assert found["noisy"] == pytest.approx(np.sqrt(0.5), abs=0.01)
