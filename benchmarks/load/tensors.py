"""Requests of the Open Inference Protocol with binary tensors."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def inference(tensors: Mapping[str, NDArray[Any]], **header: Any) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request of the Open Inference Protocol with binary tensors."""
    names = {np.dtype(np.float64): "FP64", np.dtype(np.float32): "FP32"}
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": names[array.dtype],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in tensors.items()
    ]
    head = json.dumps({"inputs": inputs, **header}).encode()
    body = head + b"".join(array.tobytes() for array in tensors.values())
    return body, {"inference-header-content-length": str(len(head))}
