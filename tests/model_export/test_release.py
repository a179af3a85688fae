"""From runs to a release: nothing is released unless ONNX Runtime answers as torch does."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
onnx = pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.models import HESTON  # noqa: E402
from calibrant.network import Network, open_session  # noqa: E402
from calibrant.release import released  # noqa: E402
from model_export.release import release  # noqa: E402
from model_export.verify import PARITY_TOLERANCE, ParityError, largest_difference, parity_inputs, verify  # noqa: E402
from tests.model_export.runs import METRICS, short_run  # noqa: E402
from training.domain import DOMAINS, MARKET, PAPER  # noqa: E402
from training.train import TrainOptions, load_network, train  # noqa: E402

HESTONS = [name for name, domain in DOMAINS.items() if domain.model is HESTON]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A short run of each domain of Heston's."""
    return {name: short_run(tmp_path_factory.mktemp(name), name) for name in HESTONS}


@pytest.fixture(scope="module")
def run(runs: dict[str, Path]) -> Path:
    return runs["paper"]


@pytest.fixture(scope="module")
def folder(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of both."""
    out = tmp_path_factory.mktemp("networks") / "heston" / "1"
    release(list(runs.values()), out)
    return out


@pytest.fixture(scope="module")
def artefact(folder: Path) -> Path:
    return folder / "paper"


@pytest.fixture(scope="module")
def model(artefact: Path) -> bytes:
    return (artefact / "model.onnx").read_bytes()


@pytest.mark.parametrize("name", HESTONS)
def test_onnx_runtime_answers_as_torch_for_every_batch_and_kind_of_panel(
    runs: dict[str, Path], folder: Path, name: str
) -> None:
    network, domain = load_network(runs[name])
    model = (folder / name / "model.onnx").read_bytes()
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
    monkeypatch.setattr("model_export.release.to_onnx", lambda *_: exported.SerializeToString())
    with pytest.raises(ParityError):
        release([run], tmp_path / "heston" / "1")
    assert not (tmp_path / "heston" / "1").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_released_artefact_loads_and_says_where_it_comes_from(run: Path, folder: Path, artefact: Path) -> None:
    manifest = json.loads((artefact / "manifest.json").read_text())
    record = json.loads((run / "run.json").read_text())
    assert manifest["parameters"] == ["kappa", "theta", "xi", "rho", "v0"]
    assert manifest["created"]["options"] == record["options"]
    assert manifest["created"]["data"]["seed"] == 1
    assert manifest["normalisation"]["mean"] == record["normalisation"]["mean"]
    assert manifest["metrics"] == METRICS
    assert manifest["training_domain"]["upper"] == [8.0, 0.5, 1.5, -0.05, 0.4]
    network, domain = load_network(run)
    paper, market = released(folder.parents[1], "heston").networks
    assert paper.version == f"heston-1@sha256:{manifest['sha256'][:12]}"
    np.testing.assert_allclose(paper.grid.log_moneyness, PAPER.log_moneyness)
    assert market.grid.standardised
    np.testing.assert_allclose(market.grid.expiry, MARKET.expiry)
    iv = parity_inputs(domain)[:6]
    np.testing.assert_allclose(paper.parameters(iv), network(torch.from_numpy(iv)).detach().numpy(), atol=1e-5)
    with pytest.raises(FileExistsError, match="already released"):
        release([run], folder)


def test_two_runs_of_one_domain_are_no_release(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of a domain of its own"):
        release([run, run], tmp_path / "heston" / "1")
    assert not (tmp_path / "heston" / "1").exists()


def test_a_network_that_is_kept_answers_as_before_under_the_new_version(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    after = release([run], tmp_path / "heston" / "2", kept=[folder / "market"])
    before = Network.load(folder / "market")
    kept = after.networks[-1]
    assert kept.version == before.version.replace("heston-1", "heston-2")
    np.testing.assert_array_equal(
        kept.parameters(before.manifest.golden_iv), before.parameters(before.manifest.golden_iv)
    )
    assert f"**Kept**: the file of {before.version}" in (tmp_path / "heston" / "2" / "CARD.md").read_text()
    with pytest.raises(ValueError, match="of a domain of its own"):
        release([run], tmp_path / "heston" / "3", kept=[folder / "paper"])


def test_the_card_says_what_the_manifests_say(folder: Path) -> None:
    card = (folder / "CARD.md").read_text()
    for domain in HESTONS:
        manifest = json.loads((folder / domain / "manifest.json").read_text())
        assert manifest["sha256"] in card
        assert f"## {domain}" in card
    assert "| clean | 7 | 1.00 | 2.00 | 4.0 | 0.5000 |" in card
    assert "| rho | -0.98 | 0.98 |" in card


def test_the_card_says_which_run_a_network_went_on_from(run: Path, tmp_path: Path) -> None:
    options = TrainOptions(epochs=1, cool_down=1, batch=32, warm_up=2, threads=1, begun_by=str(run))
    train(run.parent / "data", run.parent / "validation", tmp_path / "on", options, say=lambda _: None)
    (tmp_path / "on" / "evaluation.json").write_text(json.dumps(METRICS))
    release([tmp_path / "on"], tmp_path / "heston" / "1")
    begun_by = json.loads((tmp_path / "heston" / "1" / "paper" / "manifest.json").read_text())["created"]["begun_by"]
    record = json.loads((run / "run.json").read_text())
    assert begun_by["options"] == record["options"]
    assert begun_by["epochs_run"] == 2
    card = (tmp_path / "heston" / "1" / "CARD.md").read_text()
    assert "**Begun by**: another run, 2 epochs of 128 of 128 `exact` panels, seed 1, loss `metric`" in card


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
