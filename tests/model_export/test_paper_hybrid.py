import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from calibrant.models import DOUBLE_HESTON_JUMP
from calibrant.network import Network, read_manifest
from calibrant.release import FOLDER_VARIABLE, release_in_reach
from model_export.paper_hybrid import parity, release, to_onnx
from model_export.verify import ParityError
from tests.shared import ROOT
from training.paper_hybrid.lbfgs import relative_errors
from training.paper_hybrid.network import PaperNetwork, Scaling, scaling_of
from training.paper_hybrid.scenarios import REALISTIC, SCENARIOS, call_prices, draw, panels, quotes
from training.paper_hybrid.train import RECORD, WEIGHTS, answers

RELEASED = ROOT / "networks" / "double_heston_jump" / "paper"


def _scaling() -> Scaling:
    params = draw(SCENARIOS, 1, 400)
    return scaling_of(panels(params), params)


def _random_network(seed: int) -> PaperNetwork:
    """Untrained, with statistics in its batch-norms as training leaves them."""
    torch.manual_seed(seed)
    network = PaperNetwork(_scaling())
    with torch.no_grad():
        for _ in range(20):
            network.layers(2.0 * torch.randn(64, 10) + 0.3)
        for layer in network.layers:
            if isinstance(layer, torch.nn.BatchNorm1d):
                layer.weight.uniform_(0.5, 2.0)
                layer.bias.normal_()
    return network.eval()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(_random_network(1).state_dict(), folder / WEIGHTS)
    record = {
        "options": {"scenarios": 400},
        "scaling": {name: value.tolist() for name, value in _scaling()._asdict().items()},
        "price_error_percent": {"first": 30.0, "second": 10.0},
        "history": {stage: [{"loss": 1.0, "validation": 0.9}] for stage in ("first", "second")},
        "seconds": {"first": 1.0, "second": 1.0},
        "calibrations": 10,
        "commit": "none",
    }
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def test_a_release_answers_as_torch_does_and_is_put_in_place_once(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "networks" / "double_heston_jump" / "paper"
    network = release(run, out)
    iv = panels(draw(REALISTIC, 2, 20))
    iv[::3, 0, 1] = np.nan
    share = network.manifest.share_of_output
    np.testing.assert_allclose(
        share(network.parameters(iv)), share(answers(_random_network(1), iv)), rtol=0.0, atol=1e-5
    )
    assert network.manifest.parameters == DOUBLE_HESTON_JUMP.parameters
    assert json.loads((out / "manifest.json").read_text())["parity"] <= 1e-5
    assert "30.00 %" in (out / "CARD.md").read_text()
    with pytest.raises(FileExistsError, match="already released"):
        release(run, out)
    assert release(run, out, replace=True).version == network.version
    assert [path.name for path in out.parent.iterdir()] == ["paper"]


def test_a_graph_of_other_weights_is_not_released(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "networks" / "double_heston_jump" / "paper"
    release(run, out)
    with pytest.raises(ParityError, match="nothing released"):
        parity(_random_network(1), to_onnx(_random_network(2)), read_manifest(out))


def test_a_baseline_beside_the_versions_is_no_release(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(run, tmp_path / "networks" / "double_heston_jump" / "paper")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "networks"))
    assert release_in_reach(DOUBLE_HESTON_JUMP) is None
    shutil.copytree(ROOT / "networks" / "heston" / "5", tmp_path / "networks" / "heston" / "5")
    assert release_in_reach(DOUBLE_HESTON_JUMP) is None


def test_the_released_network_prices_realistic_panels_as_its_card_says() -> None:
    network = Network.load(RELEASED)
    stated = json.loads((RELEASED / "manifest.json").read_text())["metrics"]["price_error_percent"]["second"]
    iv = panels(draw(REALISTIC, 21, 100))
    found = network.parameters(iv)
    errors = [relative_errors(*quotes(), call, p) for call, p in zip(call_prices(iv), found, strict=True)]
    assert 100.0 * np.mean(np.abs(errors)) == pytest.approx(stated, rel=0.3)
