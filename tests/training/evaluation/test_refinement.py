"""Noiseless panels, refined."""

import pytest

pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from training.domain import PAPER
from training.evaluation.refinement import TARGET_BP, refine_clean
from training.evaluation.surfaces import nodes_of
from training.panels import panel_parameters

from .released import first_release

TRUTH = panel_parameters(PAPER, 111, 0, 30)
NODES = nodes_of(PAPER, TRUTH)


def test_exact_panels_come_back_to_the_last_digits() -> None:
    network = first_release()
    found = refine_clean(network, NODES, TRUTH, network.parameters(NODES.iv))
    assert found.n_within == found.n_panels == 30
    assert found.largest_bp < 1e-4
    assert found.parameter_error.p99 < 1e-5
    assert found.failures == []


def test_a_panel_that_no_surface_fits_is_counted_and_named() -> None:
    network = first_release()
    starts = network.parameters(NODES.iv)
    bent = NODES.iv.copy()
    bent[4, 3, 5] += 10e-4
    found = refine_clean(network, NODES._replace(iv=bent), TRUTH, starts)
    assert found.n_within == 29
    assert [failure["panel"] for failure in found.failures] == [4]
    assert TARGET_BP < found.largest_bp < 10.0
