"""An ONNX graph written node by node."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.domain import Domain

OPSET = 20
"""The first with Gelu, so that it stays one node; onnxruntime has run it since 1.17."""
IR_VERSION = 10
"""Of the file format: the newest that every runtime with this opset reads."""

Operand = str | NDArray[Any]
"""Of a node: the name of a value, or a constant."""


class Graph:
    """Nodes in the order of their calculation, and the constants they read."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A constant under a name of its own; its name."""
        if name in self._constants:
            raise ValueError(f"The graph holds a constant {name} already.")
        self._constants[name] = numpy_helper.from_array(np.require(values, requirements="C"), name)
        return name

    def add(self, operator: str, *operands: Operand, name: str | None = None, **attributes: Any) -> str:
        """A node with one output; the output's name."""
        output = name or f"{operator.lower()}_{len(self._nodes)}"
        inputs = [
            operand if isinstance(operand, str) else self.constant(f"{output}.{i}", operand)
            for i, operand in enumerate(operands)
        ]
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def shaped(self, value: str, *shape: int) -> str:
        """The value in another shape; -1 is the dimension that follows from the others."""
        return self.add("Reshape", value, np.array(shape))

    def model(self, domain: Domain) -> bytes:
        """The file: `iv` (batch, n_expiries, n_strikes) in, `parameters` (batch, n_params) out, float32 both."""
        iv = helper.make_tensor_value_info("iv", TensorProto.FLOAT, ["batch", *domain.shape])
        parameters = helper.make_tensor_value_info("parameters", TensorProto.FLOAT, ["batch", domain.n_params])
        graph = helper.make_graph(self._nodes, "network", [iv], [parameters], list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())
