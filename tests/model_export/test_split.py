"""A network cut in two for TensorRT: nothing is lost, and nothing of the second part is float64."""

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the train extra is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.sessions import BATCH_SIZES  # noqa: E402
from model_export.split import Parts, at_batch_size, split  # noqa: E402
from tests.shared import ROOT  # noqa: E402

RELEASED = [f"{version}/{domain}" for version in ("3", "4") for domain in ("paper", "market")]
"""Convolutional and dense networks."""


@pytest.fixture(scope="module", params=RELEASED)
def network(request: pytest.FixtureRequest) -> tuple[bytes, Parts]:
    model = (ROOT / "networks" / "heston" / request.param / "model.onnx").read_bytes()
    return model, split(model)


def panels(model: bytes, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    shape = [d.dim_value for d in onnx.load_model_from_string(model).graph.input[0].type.tensor_type.shape.dim[1:]]
    iv = np.random.default_rng(3).uniform(0.05, 0.9, (n, *shape)).astype(np.float32)
    iv[::3, ::2] = np.nan
    return iv


def as_written(model: bytes) -> Any:
    """Without the optimisations, which fuse other nodes where a graph is cut and so round otherwise (3e-6)."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("n", BATCH_SIZES)
def test_the_two_parts_one_after_the_other_are_the_network_to_the_last_bit(
    network: tuple[bytes, Parts], n: int
) -> None:
    model, parts = network
    iv = panels(model, n)
    (whole,) = as_written(model).run(None, {"iv": iv})
    (features,) = as_written(parts.features.SerializeToString()).run(None, {"iv": iv})
    body = at_batch_size(parts.body, n).SerializeToString()
    (answer,) = as_written(body).run(None, {"features": features})
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(answer, whole)


def test_the_body_is_float32_throughout_and_its_shapes_are_fixed(network: tuple[bytes, Parts]) -> None:
    _, parts = network
    body = at_batch_size(parts.body, 8)
    values = [*body.graph.value_info, *body.graph.input, *body.graph.output]
    assert len(values) > 8
    kinds = {value.type.tensor_type.elem_type for value in values} | {w.data_type for w in body.graph.initializer}
    assert onnx.TensorProto.DOUBLE not in kinds
    for value in values:
        assert all(d.HasField("dim_value") and d.dim_value > 0 for d in value.type.tensor_type.shape.dim), value.name


def test_the_features_hold_all_the_float64(network: tuple[bytes, Parts]) -> None:
    model, parts = network
    inferred = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    doubles = sum(v.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE for v in inferred.graph.value_info)
    features = onnx.shape_inference.infer_shapes(parts.features)
    kept = sum(v.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE for v in features.graph.value_info)
    assert kept == doubles > 15


def test_a_network_that_never_leaves_float64_in_one_place_is_refused(network: tuple[bytes, Parts]) -> None:
    _, parts = network
    with pytest.raises(ValueError, match="in one place, but does in 0"):
        split(parts.body.SerializeToString())
