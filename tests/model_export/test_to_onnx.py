"""From a run to an artefact: nothing is released unless ONNX Runtime answers as torch does."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
onnx = pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.network import Network, open_session, released  # noqa: E402
from model_export.to_onnx import release  # noqa: E402
from model_export.verify import PARITY_TOLERANCE, ParityError, largest_difference, parity_inputs, verify  # noqa: E402
from training.domain import PAPER  # noqa: E402
from training.generate import PanelSet, generate  # noqa: E402
from training.train import TrainOptions, load_network, train  # noqa: E402

METRICS = {"clean": {"median_rmse_bp": 1.0}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    for name, seed in (("data", 1), ("validation", 2)):
        generate(folder / name, PanelSet(domain="paper", seed=seed, count=128), say=lambda _: None)
    options = TrainOptions(epochs=2, cool_down=1, batch=32, warm_up=2, threads=1)
    train(folder / "data", folder / "validation", folder / "run", options, say=lambda _: None)
    return folder / "run"


@pytest.fixture(scope="module")
def artefact(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(run, tmp_path_factory.mktemp("networks") / "heston" / "1", METRICS)


@pytest.fixture(scope="module")
def model(artefact: Path) -> bytes:
    return (artefact / "model.onnx").read_bytes()


def test_onnx_runtime_answers_as_torch_for_every_batch_and_kind_of_panel(run: Path, model: bytes) -> None:
    network, domain = load_network(run)
    assert verify(network, model, domain) <= PARITY_TOLERANCE == 1e-5
    iv = parity_inputs(domain)
    assert np.isnan(iv).all((1, 2)).any(), "an empty panel is among the inputs"
    assert largest_difference(network, open_session(model), iv[:5]) <= PARITY_TOLERANCE


def test_a_perturbed_export_is_refused(run: Path, model: bytes) -> None:
    network, domain = load_network(run)
    with torch.no_grad():
        network.output.bias.add_(1e-4)
    with pytest.raises(ParityError, match="nothing was released"):
        verify(network, model, domain)


def test_a_failed_verification_leaves_no_artefact(
    run: Path, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = onnx.load_model_from_string(model)
    (bias,) = (value for value in exported.graph.initializer if value.name == "output.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(1e-3), bias.name))
    # An exporter that goes wrong: all that follows it is the real thing.
    monkeypatch.setattr("model_export.to_onnx.to_onnx", lambda *_: exported.SerializeToString())
    with pytest.raises(ParityError):
        release(run, tmp_path / "heston" / "1", METRICS)
    assert not (tmp_path / "heston" / "1").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_released_artefact_loads_and_says_where_it_comes_from(run: Path, artefact: Path) -> None:
    manifest = json.loads((artefact / "manifest.json").read_text())
    record = json.loads((run / "run.json").read_text())
    assert manifest["parameters"] == ["kappa", "theta", "xi", "rho", "v0"]
    assert manifest["created"]["options"] == record["options"]
    assert manifest["created"]["data"]["seed"] == 1
    assert manifest["normalisation"]["mean"] == record["normalisation"]["mean"]
    assert manifest["metrics"] == METRICS
    assert manifest["training_domain"]["upper"] == [8.0, 0.5, 1.5, -0.05, 0.4]
    network, domain = load_network(run)
    loaded = released(artefact.parents[1], "heston")
    assert loaded.version == f"heston-1@sha256:{manifest['sha256'][:12]}"
    np.testing.assert_allclose(loaded.grid.log_moneyness, PAPER.log_moneyness)
    iv = parity_inputs(domain)[:6]
    np.testing.assert_allclose(loaded.parameters(iv), network(torch.from_numpy(iv)).detach().numpy(), atol=1e-5)
    with pytest.raises(FileExistsError, match="already released"):
        release(run, artefact, METRICS)


def test_the_artefact_names_no_machine_path_and_weighs_about_a_megabyte(model: bytes) -> None:
    assert str(Path.cwd()).encode() not in model
    assert b"site-packages" not in model
    assert len(model) < 1_250_000


def test_the_library_passes_the_session_s_answer_on_unchanged(artefact: Path, model: bytes) -> None:
    iv = parity_inputs(PAPER)[:2]
    (direct,) = open_session(model).run(None, {"iv": iv})
    answer = Network.load(artefact).parameters(iv.astype(np.float64))
    assert answer.dtype == np.float64
    np.testing.assert_array_equal(answer.astype(np.float32), direct)
