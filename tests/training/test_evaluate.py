"""The whole evaluation, small: what it finds is what it writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.network import ArtefactError, Network  # noqa: E402
from tests.shared import ROOT  # noqa: E402
from training.domain import MARKET, PAPER  # noqa: E402
from training.evaluate import EvaluationOptions, evaluate, json_of  # noqa: E402
from training.evaluation.answers import of_artefact, of_run  # noqa: E402
from training.evaluation.report import markdown  # noqa: E402
from training.generate import PanelSet, generate  # noqa: E402
from training.panels import make_panels  # noqa: E402
from training.train import load_network, train  # noqa: E402

from .small import OPTIONS, make_sets  # noqa: E402

SMALL = EvaluationOptions(count=60, noisy=20, passes=4)
FIRST_RELEASE = ROOT / "networks" / "heston" / "1"


def quiet(_: str) -> None:
    """No progress lines in the tests' output."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    train(*make_sets(folder), folder / "run", replace(OPTIONS, epochs=1, cool_down=1), say=quiet)
    return folder / "run"


def test_an_artefact_is_evaluated_before_and_after_refinement() -> None:
    (candidate,) = of_artefact(FIRST_RELEASE)
    assert isinstance(candidate.network, Network)
    assert candidate.domain is PAPER
    found, scatter = evaluate(candidate, SMALL, quiet)
    assert list(found.inputs) == ["clean", "noisy", "masked", "noisy and masked"]
    assert all(accuracy.n_panels == 60 for accuracy in found.inputs.values())
    assert found.inputs["clean"].rmse_bp.median < 10.0
    assert found.refined is not None
    assert found.refined.n_within == 60
    assert found.noisy is not None
    assert found.noisy.n_panels == 20
    assert found.latency is not None
    assert found.latency.n_passes == 4
    assert scatter.truth.shape == scatter.answer.shape == (60, 5)
    # The typical panel is one of the sixty and has the median error.
    place = np.flatnonzero((scatter.truth == found.typical.truth).all(axis=1))
    np.testing.assert_array_equal(scatter.answer[place[0]], found.typical.answer)
    assert found.typical.rmse_bp == pytest.approx(found.inputs["clean"].rmse_bp.median, rel=0.2)
    # Mean absolute errors never exceed root mean squares.
    assert np.mean(np.array(found.residual_bp, np.float64)) < found.inputs["noisy and masked"].rmse_bp.mean


def test_the_report_is_made_of_the_json_alone() -> None:
    (candidate,) = of_artefact(FIRST_RELEASE)
    found, _ = evaluate(candidate, SMALL, quiet)
    text = json_of([found], "python -m training.evaluate", SMALL)
    lines = markdown(json.loads(text))
    assert f"## {candidate.network.version}, domain `paper`" in lines
    assert any(f"{found.inputs['clean'].pearson['rho']:.5f}" in line for line in lines)
    assert any("60 of 60, 100.00 %" in line for line in lines)
    # The first release missed the correlation of rho, and nothing hides it.
    rho = found.inputs["clean"].pearson["rho"]
    assert rho < 0.995
    assert any(f"Pearson of rho is {rho:.4g}, asked at least 0.995" in line for line in lines)
    assert any("Judged: 20." in line for line in lines)


def test_a_run_is_evaluated_as_its_network_answers_and_has_no_latency(run: Path) -> None:
    candidate = of_run(run)
    network, domain = load_network(run)
    iv = make_panels(domain, 5, 0, 30)["iv"]
    with torch.inference_mode():
        expected = network(torch.from_numpy(iv)).double().numpy()
    np.testing.assert_allclose(candidate.network.parameters(iv), expected, rtol=1e-6)
    found, _ = evaluate(candidate, SMALL, quiet)
    assert found.latency is None
    assert found.version == str(run)


def test_a_market_network_is_judged_on_the_nodes_filled_and_on_all(tmp_path: Path) -> None:
    for name, seed in (("data", 1), ("validation", 2)):
        generate(tmp_path / name, PanelSet(domain="market", seed=seed, count=128), say=quiet)
    options = replace(OPTIONS, epochs=1, cool_down=1)
    train(tmp_path / "data", tmp_path / "validation", tmp_path / "run", options, say=quiet)
    found, _ = evaluate(of_run(tmp_path / "run"), SMALL, quiet)
    assert list(found.inputs) == ["as quoted, nodes filled", "as quoted"]
    assert found.inputs["as quoted"].n_panels == 60
    assert found.inputs["as quoted, nodes filled"].rmse_bp != found.inputs["as quoted"].rmse_bp
    assert found.refined is None
    assert found.noisy is None
    assert np.array(found.residual_bp, np.float64).shape == MARKET.shape
    lines = markdown(json.loads(json_of([found], "python -m training.evaluate", SMALL)))
    assert any("Nodes filled: those that the projection" in line for line in lines)


def test_a_run_s_network_knows_its_domain(run: Path) -> None:
    network = of_run(run).network
    low, high = PAPER.sampled_box()
    whole, half = np.ones(PAPER.shape, np.bool_), np.arange(80).reshape(PAPER.shape) < 40
    assert network.in_domain((low + high) / 2.0, whole)
    assert not network.in_domain((low + high) / 2.0, half)
    assert not network.in_domain(1.01 * high, whole)


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="manifest"):
        of_artefact(tmp_path)
