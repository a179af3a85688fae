"""The baselines solve what they are given, and their table says what they found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")
pytest.importorskip("cma", reason="the bench extra is not installed")

from benchmarks.baselines import (
    CLEAN,
    Method,
    cma_from_the_middle,
    in_the_box,
    lbfgs_from_the_middle,
    markdown,
    methods,
    row_of,
    run_method,
    trained_network,
)
from calibrant.release import Release
from tests.shared import ROOT
from tests.training.small import OPTIONS, make_sets
from training.domain import PAPER
from training.evaluation.answers import RunNetwork
from training.evaluation.inputs import quoted_panels
from training.evaluation.report import plain
from training.evaluation.surfaces import nodes_of
from training.panels import panel_parameters
from training.train import train

TRUTH = panel_parameters(PAPER, 131, 0, 3)
NODES = nodes_of(PAPER, TRUTH)
PANELS = quoted_panels(NODES, 1, CLEAN)


@pytest.mark.parametrize("method", [lbfgs_from_the_middle, cma_from_the_middle])
def test_an_optimiser_finds_the_truth_of_a_clean_panel_from_the_middle_of_the_box(method: Method) -> None:
    np.testing.assert_allclose(method(PANELS[0]), TRUTH[0], rtol=1e-4)


def test_the_optimisers_stay_in_the_box_and_start_in_its_middle() -> None:
    problem, start = in_the_box(PANELS[0])
    low, high = PAPER.sampled_box()
    np.testing.assert_array_equal(problem.lower, low)
    np.testing.assert_array_equal(problem.upper, high)
    np.testing.assert_allclose(start, (low + high) / 2.0)


def test_the_network_s_answers_are_refined_to_the_truth() -> None:
    release = Release.load(ROOT / "networks" / "heston" / "1")
    named = dict(methods(release, None))
    assert list(named) == ["network", "network + refinement", "L-BFGS-B", "CMA-ES"]
    answers, seconds = run_method(named["network + refinement"], PANELS)
    np.testing.assert_allclose(answers, TRUTH, rtol=1e-6)
    assert (seconds > 0.0).all()
    alone, _ = run_method(named["network"], PANELS)
    np.testing.assert_array_equal(alone, [release.networks[0].parameters(NODES.iv[i : i + 1])[0] for i in range(3)])


def test_a_trained_network_answers_here_as_it_does_in_torch(tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=1, cool_down=1, architecture="shallow")
    train(*make_sets(tmp_path), tmp_path / "run", options, say=lambda _: None)
    answers, _ = run_method(trained_network(tmp_path / "run"), PANELS)
    np.testing.assert_allclose(answers, RunNetwork(tmp_path / "run").parameters(NODES.iv), rtol=1e-4, atol=1e-5)


def test_a_row_reports_the_error_of_the_surfaces_and_the_times_in_milliseconds() -> None:
    found = row_of("truth", TRUTH, np.array([0.001, 0.002, 0.003]), NODES, TRUTH)
    assert found.rmse_bp.p99 == 0.0
    assert found.within_1_bp == 1.0
    assert found.median_ms == pytest.approx(2.0)
    assert found.p95_ms == pytest.approx(2.9)
    assert row_of("worse", 1.2 * TRUTH, np.ones(3), NODES, TRUTH).within_1_bp == 0.0


def test_the_table_has_a_line_for_each_method_and_kind(tmp_path: Path) -> None:
    row = plain(row_of("truth", TRUTH, np.array([0.001, 0.002, 0.003]), NODES, TRUTH))
    result = {
        "command": "python -m benchmarks.baselines",
        "machine": "Machine: this.",
        "network": "heston-1",
        "shallow": None,
        "panels": 3,
        "seconds": 1.0,
        "kinds": {"clean": [row], "noisy": [row, row]},
    }
    lines = markdown(result)
    assert lines.count("## Clean panels") == lines.count("## Noisy panels") == 1
    assert sum(line.startswith("| truth |") for line in lines) == 3
