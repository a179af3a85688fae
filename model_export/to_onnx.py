"""A trained network as an ONNX model."""

import warnings

import onnx
import torch

from training.domain import Domain
from training.networks import CnnTransformer

OPSET = 20
"""The first with Gelu, so that it stays one node; onnxruntime has run it since 1.17."""


def to_onnx(network: CnnTransformer, domain: Domain) -> bytes:
    """The network in ONNX: `iv` (batch, n_expiries, n_strikes) float32 in, `parameters` (batch, n_params) out."""
    example = torch.full((2, *domain.shape), 0.2)
    with warnings.catch_warnings():
        # torch 2.13 calls a function of its own that it has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["iv"],
            output_names=["parameters"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_sources(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _forget_sources(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about the machine: stack traces with paths, a tenth of the file."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    del model.metadata_props[:]
