"""Times are summed up in microseconds."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.release import Release
from training.domain import PAPER
from training.evaluation.inputs import quoted_panels
from training.evaluation.latency import Times, latency, time_panels
from training.evaluation.surfaces import nodes_of
from training.panels import panel_parameters

from .released import first_release


def test_medians_and_percentiles_are_in_microseconds() -> None:
    found = latency(Times(np.arange(101.0) * 1e-6, np.arange(101.0) * 1e-5))
    assert found.n_passes == 101
    assert found.network_median_us == pytest.approx(50.0)
    assert found.network_p95_us == pytest.approx(95.0)
    assert found.refined_median_us == pytest.approx(500.0)
    assert found.refined_p95_us == pytest.approx(950.0)


def test_every_panel_is_timed_once() -> None:
    panels = quoted_panels(nodes_of(PAPER, panel_parameters(PAPER, 121, 0, 7)), 122)
    network = first_release()
    found = time_panels(network, Release([network]), panels)
    assert found.network.shape == found.refined.shape == (7,)
    assert (found.network > 0.0).all()
