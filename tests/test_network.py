"""The released network: trusted only after its hash and its golden output hold."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.network import ArtefactError, Network, read_manifest

FIRST = Path(__file__).parents[1] / "networks" / "heston" / "1"


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIRST, tmp_path / "heston" / "1"))


def rewrite(artefact: Path, **changes: object) -> None:
    path = artefact / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_released_network_reproduces_its_golden_output() -> None:
    network = Network.load(FIRST)
    manifest = network.manifest
    scale = manifest.output_upper - manifest.output_lower
    answer = network.parameters(manifest.golden_iv)
    assert np.abs((answer - manifest.golden_parameters) / scale).max() < 1e-5
    assert network.provider == "CPUExecutionProvider"
    assert network.version.startswith("heston-")
    assert len(network.version.split("@sha256:")[1]) == 12


def test_a_damaged_file_is_refused(artefact: Path) -> None:
    model = bytearray((artefact / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (artefact / "model.onnx").write_bytes(model)
    with pytest.raises(ArtefactError, match="damaged or belongs to another release"):
        Network.load(artefact)


def test_a_truncated_or_absent_file_is_refused(artefact: Path) -> None:
    model = (artefact / "model.onnx").read_bytes()
    (artefact / "model.onnx").write_bytes(model[:1000])
    with pytest.raises(ArtefactError, match="sha256"):
        Network.load(artefact)
    (artefact / "model.onnx").unlink()
    with pytest.raises(ArtefactError, match="cannot be read"):
        Network.load(artefact)


def test_a_file_that_is_no_network_is_refused_even_with_a_fitting_hash(artefact: Path) -> None:
    import hashlib

    (artefact / "model.onnx").write_bytes(b"not a network")
    rewrite(artefact, sha256=hashlib.sha256(b"not a network").hexdigest())
    with pytest.raises(ArtefactError, match="cannot run the network"):
        Network.load(artefact)


@pytest.mark.parametrize("wrong", ["moved", "missing"])
def test_a_wrong_golden_output_is_refused(artefact: Path, wrong: str) -> None:
    golden = json.loads((artefact / "manifest.json").read_text())["golden"]
    if wrong == "moved":
        golden["parameters"][0][0] += 0.001
    else:
        golden["parameters"] = golden["parameters"][1:]
    rewrite(artefact, golden=golden)
    with pytest.raises(ArtefactError, match="golden output"):
        Network.load(artefact)


def test_a_manifest_without_a_field_is_refused(artefact: Path) -> None:
    manifest = json.loads((artefact / "manifest.json").read_text())
    del manifest["grid"]
    (artefact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=r"manifest.*KeyError 'grid'"):
        Network.load(artefact)


def test_another_provider_is_refused_not_replaced_by_the_cpu(artefact: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the provider that the test needs to be absent")
    for provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
        with pytest.raises(ArtefactError, match=rf"on {provider}: this installation offers .*calibrant\[gpu\]"):
            Network.load(artefact, provider=provider)


def test_missing_quotes_and_any_batch_give_finite_parameters_inside_the_output_bounds() -> None:
    network = Network.load(FIRST)
    shape = (network.grid.expiry.size, network.grid.log_moneyness.size)
    iv = np.random.default_rng(1).uniform(0.05, 0.8, (33, *shape))
    iv[np.random.default_rng(2).random(iv.shape) < 0.3] = np.nan
    iv[7] = np.nan
    params = network.parameters(iv)
    assert params.shape == (33, 5)
    assert (params >= network.manifest.output_lower - 1e-6).all()
    assert (params <= network.manifest.output_upper + 1e-6).all()


def test_the_domain_is_the_box_trained_on_and_a_panel_that_covers_the_grid() -> None:
    network = Network.load(FIRST)
    manifest = read_manifest(FIRST)
    middle = (manifest.domain_lower + manifest.domain_upper) / 2
    assert network.in_domain(middle)
    assert network.in_domain(manifest.domain_lower)
    assert network.in_domain(manifest.domain_upper)
    for i in range(middle.size):
        for edge in (manifest.domain_lower[i] - 1e-3, manifest.domain_upper[i] + 1e-3, np.nan):
            outside = middle.copy()
            outside[i] = edge
            assert not network.in_domain(outside)
    mask = np.ones((network.grid.expiry.size, network.grid.log_moneyness.size), bool)
    assert network.in_domain(middle, mask)
    mask[:2] = False
    assert not network.in_domain(middle, mask)


def test_the_library_imports_neither_torch_nor_onnxruntime_on_its_own() -> None:
    code = "import calibrant.network, sys; assert not {'torch', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_onnxruntime_the_error_names_the_extra(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"calibrant\[cpu\]"):
        Network.load(artefact)
