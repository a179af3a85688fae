"""The five figures, from small data; a warning of the drawing library would fail the test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("matplotlib", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from PIL import Image

from benchmarks.ablations import FULL, SHALLOW
from benchmarks.figures import convergence, draw, residuals, scatter, surface, times
from tests.shared import ROOT
from training.domain import MARKET, PAPER
from training.evaluate import EvaluationOptions, evaluate
from training.evaluation.answers import of_artefact
from training.evaluation.report import plain

SECONDS = np.random.default_rng(1).lognormal(-7.0, 0.5, 200)
METHODS = {"network": 1.0, "network + refinement": 3.0, "L-BFGS-B": 30.0, "CMA-ES": 1000.0}
TIMES = {f"noisy/{method}": factor * SECONDS for method, factor in METHODS.items()}
HISTORY = {"mean_bp": [[80.0, 40.0, 20.0], [100.0, 60.0, 30.0]], "penalty": [[0.0, 0.5, 0.6], [0.1, 0.4, 0.8]]}
ABLATIONS = {
    "panels": 1024,
    "epochs": 3,
    "seeds": [1, 2],
    "penalty_of_truth": 1.2,
    "variants": {name: {"history": HISTORY} for name in (FULL, SHALLOW, "price, lambda 0", "price, lambda 1000")},
}


@pytest.fixture(scope="module")
def evaluated() -> tuple[dict[str, Any], dict[str, Any]]:
    """An entry of evaluation.json and the arrays beside it."""
    (candidate,) = of_artefact(ROOT / "networks" / "heston" / "1")
    found, points = evaluate(candidate, EvaluationOptions(count=200, noisy=5, passes=2), lambda _: None)
    arrays = {f"paper_{name}": values for name, values in points._asdict().items()}
    arrays["paper_version"] = np.array(found.version)
    return json.loads(json.dumps(plain(found))), arrays


def of_market(evaluated: dict[str, Any]) -> dict[str, Any]:
    """The same as if of the other domain, one node without a figure."""
    size = MARKET.shape[0] * MARKET.shape[1]
    values: list[list[Any]] = np.linspace(1.0, 120.0, size).reshape(MARKET.shape).tolist()
    values[0][0] = None
    return {**evaluated, "domain": MARKET.name, "residual_bp": values, "residual_input": "as quoted"}


def write_stages(folder: Path, network: dict[str, Any], arrays: dict[str, Any]) -> None:
    """The files that the stages leave."""
    (folder / "evaluation.json").write_text(json.dumps({"networks": [network, of_market(network)]}))
    (folder / "ablations.json").write_text(json.dumps(ABLATIONS))
    np.savez_compressed(folder / "evaluation.npz", allow_pickle=False, **arrays)
    np.savez_compressed(folder / "baselines.npz", allow_pickle=False, **TIMES)


def test_arrays_of_another_network_are_refused(
    evaluated: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    network, arrays = evaluated
    write_stages(tmp_path, {**network, "version": "heston-9"}, arrays)
    with pytest.raises(ValueError, match=r"not of heston-9: run training\.evaluate"):
        draw(tmp_path, tmp_path, tmp_path / "figures")


def test_all_five_are_drawn_from_the_files_of_the_stages(
    evaluated: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    write_stages(tmp_path, *evaluated)
    written = draw(tmp_path, tmp_path, tmp_path / "figures")
    assert [path.name[0] for path in written] == ["1", "2", "3", "4", "5"]
    for path in written:
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width >= 1000
            assert len(image.convert("RGB").getcolors(1_000_000) or []) > 20, "more than an empty canvas"


def test_the_surface_names_its_error(evaluated: tuple[dict[str, Any], dict[str, Any]]) -> None:
    network, _ = evaluated
    figure = surface(network)
    assert f"{network['typical']['rmse_bp']:.1f} bp" in figure.get_suptitle()


def test_the_scatter_shows_every_panel_with_its_correlation(
    evaluated: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    network, arrays = evaluated
    for i, axes in enumerate(scatter(network, arrays).axes[:5]):
        points = np.asarray(axes.collections[0].get_offsets())
        np.testing.assert_array_equal(points[:, 0], arrays["paper_truth"][:, i])
        np.testing.assert_array_equal(points[:, 1], arrays["paper_answer"][:, i])
        r = np.corrcoef(points.T)[0, 1]
        assert float(axes.texts[0].get_text().removeprefix("r = ")) == pytest.approx(r, abs=1e-4)


def test_every_node_of_the_heat_map_says_its_residual(evaluated: tuple[dict[str, Any], dict[str, Any]]) -> None:
    network, _ = evaluated
    axes = residuals([network]).axes[0]
    found = np.array([float(text.get_text()) for text in axes.texts]).reshape(PAPER.shape)
    np.testing.assert_allclose(found, network["residual_bp"], atol=0.051)


def test_a_node_that_no_panel_fills_stays_empty(evaluated: tuple[dict[str, Any], dict[str, Any]]) -> None:
    axes = residuals([of_market(evaluated[0])]).axes[0]
    assert [i for i, text in enumerate(axes.texts) if not text.get_text()] == [0]


def test_the_corridor_is_one_standard_deviation_to_either_side_of_the_mean() -> None:
    left, right = convergence(ABLATIONS).axes[:2]
    np.testing.assert_allclose(np.asarray(left.lines[0].get_ydata()), [90.0, 50.0, 25.0])
    (path,) = left.collections[0].get_paths()
    sd = np.std([20.0, 30.0], ddof=1)
    at_last_epoch = np.asarray(path.vertices)[np.asarray(path.vertices)[:, 0] == 3.0, 1]
    assert at_last_epoch.min() == pytest.approx(25.0 - sd)
    assert at_last_epoch.max() == pytest.approx(25.0 + sd)
    assert 1.2 in np.asarray(right.lines[-1].get_ydata())


def test_the_distribution_reaches_one_and_marks_its_95th_percentile() -> None:
    axes = times(TIMES).axes[0]
    curves, marks = axes.lines[0:8:2], axes.lines[1:8:2]
    for curve, mark, factor in zip(curves, marks, METHODS.values(), strict=True):
        assert np.asarray(curve.get_ydata())[-1] == 1.0
        expected = 1e3 * factor * np.quantile(SECONDS, 0.95)
        assert np.asarray(mark.get_xdata())[0] == pytest.approx(expected)
