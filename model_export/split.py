"""A network cut in two: the float64 features, and all that follows them in float32.

TensorRT has no float64, and ONNX Runtime's TensorRT provider casts float64 nodes to float32 in silence; the model that
wraps a finished engine must be TensorRT's from end to end besides. `calibrant.gpu.sessions` says what follows from it.
"""

from typing import NamedTuple

import onnx
from onnx.tools import update_model_dims
from onnx.utils import Extractor

FEATURES = "features"
"""Name of the tensor between the two."""


class Parts(NamedTuple):
    features: onnx.ModelProto
    """`iv` (batch, n_expiries, n_strikes) in, `features` (batch, channels, n_expiries, n_strikes) out; both float32."""
    body: onnx.ModelProto
    """`features` in, `parameters` (batch, n_params) out."""


def split(model: bytes) -> Parts:
    """Cut a released network where its float64 part ends.

    raises  ValueError if float64 ends nowhere, or in several places
    """
    whole = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    types = {value.name: value.type.tensor_type.elem_type for value in (*whole.graph.value_info, *whole.graph.input)}
    ends = [
        node.output[0]
        for node in whole.graph.node
        if node.op_type == "Cast"
        and types.get(node.input[0]) == onnx.TensorProto.DOUBLE
        and types.get(node.output[0]) == onnx.TensorProto.FLOAT
    ]
    if len(ends) != 1:
        raise ValueError(f"The network must go from float64 to float32 in one place, but does in {len(ends)}: {ends}.")
    for node in whole.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == ends[0]:
                    names[i] = FEATURES
    for value in whole.graph.value_info:
        if value.name == ends[0]:
            value.name = FEATURES
    extractor = Extractor(whole)
    parts = Parts(extractor.extract_model(["iv"], [FEATURES]), extractor.extract_model([FEATURES], ["parameters"]))
    for part in parts:
        onnx.checker.check_model(part)
    return parts


def at_batch_size(body: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """The body for batches of one size: an engine of fixed shapes needs no profiles and is tuned for its size."""
    (given,), (made,) = body.graph.input, body.graph.output
    fixed = onnx.ModelProto()
    fixed.CopyFrom(body)
    # What was inferred for any batch contradicts a fixed one.
    del fixed.graph.value_info[:]
    fixed = update_model_dims.update_inputs_outputs_dims(
        fixed, {given.name: [size, *_dims(given)]}, {made.name: [size, *_dims(made)]}
    )
    return onnx.shape_inference.infer_shapes(fixed, strict_mode=True)


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """All dimensions but the batch."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:]]
