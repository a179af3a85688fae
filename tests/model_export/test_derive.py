"""The weights of a released network once more, in today's graph."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
onnx = pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.network import Network, open_session  # noqa: E402
from calibrant.release import CONTENTS, Release  # noqa: E402
from model_export.derive import comparison_panels, derive, read_network  # noqa: E402
from model_export.to_onnx import to_onnx  # noqa: E402
from model_export.verify import PARITY_TOLERANCE, ParityError, furthest_apart, largest_difference  # noqa: E402
from tests.shared import ROOT  # noqa: E402
from training.domain import Domain  # noqa: E402
from training.networks import CnnTransformer  # noqa: E402

RELEASES = ROOT / "networks" / "heston"
TRACED = RELEASES / "2"
"""The last that torch's exporter wrote."""


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    """A copy of the paper's network alone, as a release."""
    folder = tmp_path / "2"
    shutil.copytree(TRACED / "paper", folder / "paper")
    digest = json.loads((TRACED / CONTENTS).read_text())["networks"]["paper"]
    (folder / CONTENTS).write_text(json.dumps({"networks": {"paper": digest}}))
    return folder


@pytest.mark.parametrize("domain", ["paper", "market"])
def test_the_weights_read_from_a_release_answer_as_it_does(domain: str) -> None:
    network, found = read_network(TRACED / domain)
    assert found.name == domain
    session = open_session((TRACED / domain / "model.onnx").read_bytes())
    assert largest_difference(network, session, comparison_panels(found, 50)) <= PARITY_TOLERANCE


@pytest.mark.parametrize("domain", ["paper", "market"])
def test_the_third_release_is_the_second_in_another_graph(domain: str) -> None:
    before, after = (Network.load(RELEASES / release / domain) for release in ("2", "3"))
    network, found = read_network(TRACED / domain)
    iv = comparison_panels(found, 200)
    assert furthest_apart(network, before.parameters(iv), after.parameters(iv)) <= PARITY_TOLERANCE
    old, new = (json.loads((RELEASES / release / domain / "manifest.json").read_text()) for release in ("2", "3"))
    changed = {name for name in new if new[name] != old.get(name)}
    assert changed == {"version", "sha256", "parity", "export_commit", "derived"}
    assert new["derived"]["from"] == before.version
    assert new["derived"]["sha256"] == old["sha256"] != new["sha256"]
    assert new["derived"]["difference"] <= PARITY_TOLERANCE
    assert before.version in (RELEASES / "3" / "CARD.md").read_text()


def test_a_release_is_derived_whole_and_loads(traced: Path, tmp_path: Path) -> None:
    derived = derive(traced, tmp_path / "heston" / "3")
    (network,) = derived.networks
    assert network.version.startswith("heston-3@")
    iv = network.manifest.golden_iv
    np.testing.assert_allclose(
        network.manifest.share_of_output(network.parameters(iv)),
        network.manifest.share_of_output(Release.load(traced).networks[0].parameters(iv)),
        atol=PARITY_TOLERANCE,
    )
    with pytest.raises(FileExistsError, match="already released"):
        derive(traced, tmp_path / "heston" / "3")


def test_a_graph_that_answers_otherwise_is_not_released(
    traced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def biased(network: CnnTransformer, domain: Domain) -> bytes:
        with torch.no_grad():
            network.output.bias.add_(1e-3)
        return to_onnx(network, domain)

    monkeypatch.setattr("model_export.derive.to_onnx", biased)
    with pytest.raises(ParityError, match="the graphs differ"):
        derive(traced, tmp_path / "heston" / "3")
    assert not (tmp_path / "heston" / "3").exists()


def test_what_torch_s_exporter_did_not_write_is_not_read() -> None:
    with pytest.raises(ValueError, match="torch's exporter did not write it"):
        read_network(RELEASES / "3" / "paper")
