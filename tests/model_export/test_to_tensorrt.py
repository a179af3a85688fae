"""What building TensorRT engines consists of, as far as the processor goes: the verification and the options."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import cuda

pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.network import Network
from calibrant.sessions import BATCH_SIZES, CPU_PROVIDER, ArtefactError, FixedShapes, HostStep, open_session
from model_export.to_tensorrt import (
    TOLERANCE,
    body_file,
    engine_options,
    largest_difference,
    verification_panels,
    verify,
)
from tests.shared import ROOT

ARTEFACT = ROOT / "networks" / "heston" / "3" / "paper"


@pytest.fixture(scope="module")
def reference() -> Network:
    return Network.load(ARTEFACT)


def in_fixed_shapes(reference: Network, model: bytes) -> Network:
    """The network as the service runs it on a GPU, on the processor."""
    session = open_session(model)
    shape = (reference.grid.expiry.size, reference.grid.log_moneyness.size)
    steps = {size: HostStep(session, size, shape, 5) for size in BATCH_SIZES}
    return Network(reference.manifest, FixedShapes(steps, CPU_PROVIDER, 0.0))


def test_a_thousand_panels_with_gaps_and_without_quotes_are_compared(reference: Network) -> None:
    iv = verification_panels(reference.manifest)
    gaps = np.isnan(iv)
    assert iv.shape == (1000, 8, 10)
    assert gaps[0].all()
    # Nodes too far out to be quoted are missing everywhere; the first third has gaps beside them.
    assert gaps[1:333].mean() - gaps[333:].mean() > 0.1


def test_a_sound_network_in_batches_of_every_size_verifies(reference: Network) -> None:
    assert verify(reference, in_fixed_shapes(reference, (ARTEFACT / "model.onnx").read_bytes()), 1e-5) <= 1e-5


def test_a_network_whose_answers_moved_by_more_than_the_tolerance_is_refused(reference: Network) -> None:
    import onnx

    moved = onnx.load(ARTEFACT / "model.onnx")
    (bias,) = (value for value in moved.graph.initializer if value.name == "output.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(2e-3), bias.name))
    with pytest.raises(ArtefactError, match="no engine was put in place"):
        verify(reference, in_fixed_shapes(reference, moved.SerializeToString()), TOLERANCE["fp32"])


def test_a_number_that_is_not_finite_is_never_within_tolerance(reference: Network) -> None:
    params = reference.manifest.golden_parameters
    assert largest_difference(reference.manifest, params, params) == 0.0
    spoilt = params.copy()
    spoilt[0, 0] = np.nan
    assert not largest_difference(reference.manifest, spoilt, params) <= 1e9


def test_building_engines_needs_no_torch() -> None:
    code = "import model_export.to_tensorrt, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.skipif(cuda.is_available(), reason="this machine has the GPU that the test needs to be absent")
def test_without_a_gpu_it_says_what_is_missing_and_leaves_nothing_behind() -> None:
    command = [sys.executable, "-m", "model_export.to_tensorrt", "--artefact", str(ARTEFACT)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "this installation offers" in run.stderr
    assert not (ARTEFACT / "engines").exists()


def test_options_are_strings_and_the_dump_embeds_an_engine_of_the_precision_asked_for() -> None:
    for precision, half in (("fp32", "False"), ("fp16", "True")):
        options = engine_options(Path("/somewhere"), 8, precision, Path("/timing"))
        assert all(type(value) is str for value in options.values())
        assert options["trt_fp16_enable"] == half
        assert (options["trt_dump_ep_context_model"], options["trt_ep_context_embed_mode"]) == ("True", "1")
        assert options["trt_ep_context_file_path"] == f"/somewhere/{body_file(8)}"
        assert not Path(options["trt_engine_cache_path"]).is_absolute()
