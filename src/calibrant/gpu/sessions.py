"""Sessions on an NVIDIA GPU: the CUDA provider runs the whole network, or TensorRT all of it but its first stage.

That stage, the features, is float64 for a reason (see `training/networks.py`: in float32 the order of ten additions
moves kappa by 1e-4). The CUDA provider has every operator of it in float64. TensorRT has no float64, and ONNX Runtime's
TensorRT provider casts such nodes to float32 without a word. So for TensorRT the network is cut after the features:
they run on the CUDA provider, float64 as ever, and hand their float32 channels on in the GPU's memory to the engine.
The features are then as accurate as on the processor; what is left is the rounding of the float32 part, whose sums are
taken in another order (TF32 is off), or, in an `fp16` engine, that of half precision. Both are starts of a refinement
that ends at the same optimum.

Copy in, features, body and copy out are queued on one stream, with one wait at the end. Pinned memory, so that the
copies are asynchronous; CUDA graphs, so that a run is one launch. The CUDA provider keeps a graph for each
`gpu_graph_id`; the TensorRT provider keeps one a session, so each batch size has its own engine and session.
"""

import contextlib
import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import cuda

from ..sessions import (
    BATCH_SIZES,
    CUDA_PROVIDER,
    TENSORRT_PROVIDER,
    ArtefactError,
    FixedShapes,
    Panels,
    Session,
    bind,
    open_session,
)
from .engines import PRECISIONS, matching_engine, read_part, this_machine

FLOAT32_TOLERANCE = 1e-4
"""Of a parameter's output range, from float32 sums in another order; `benchmarks.gpu` measures it."""
CHANNELS = 4
"""Channels of the features."""


class DeviceStep:
    """One batch size on the GPU: pinned buffers, device buffers, and the sessions that lead from one to the other."""

    def __init__(self, stream: Any, size: int, panel: tuple[int, int], n_params: int) -> None:
        self.inputs: Panels = cuda.pinned_array((size, *panel), np.float32)
        self.outputs: Panels = cuda.pinned_array((size, n_params), np.float32)
        self._stream = stream
        self._first = cuda.device_array(self.inputs.shape, np.float32, stream=stream)
        self._last = cuda.device_array(self.outputs.shape, np.float32, stream=stream)
        self._between: list[Any] = []
        """Device buffers between sessions: held, since bindings know addresses alone."""
        self._runs: list[tuple[Any, Any, Any]] = []
        self._size = size

    def run_whole(self, session: Any) -> "DeviceStep":
        """With the whole network in one session."""
        self._add(session, "iv", self._first, "parameters", self._last)
        return self

    def run_in_two(self, features: Any, body: Any) -> "DeviceStep":
        """With the features in one session and the body in another."""
        shape = (self._size, CHANNELS, *self.inputs.shape[1:])
        between = cuda.device_array(shape, np.float32, stream=self._stream)
        self._between.append(between)
        self._add(features, "iv", self._first, "features", between)
        self._add(body, "features", between, "parameters", self._last)
        return self

    def _add(self, session: Any, name_in: str, array_in: Any, name_out: str, array_out: Any) -> None:
        import onnxruntime

        binding = session.io_binding()
        bind(binding, name_in, array_in.shape, _address(array_in), "cuda")
        bind(binding, name_out, array_out.shape, _address(array_out), "cuda", output=True)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(self._size))
        # The stream orders all of it; `run` waits once.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._runs.append((session, binding, options))

    def run(self) -> None:
        self._first.copy_to_device(self.inputs, stream=self._stream)
        for session, binding, options in self._runs:
            session.run_with_iobinding(binding, options)
        self._last.copy_to_host(self.outputs, stream=self._stream)
        self._stream.synchronize()


def open_on_gpu(
    folder: Path, model: bytes, panel: tuple[int, int], n_params: int, provider: str, precision: str
) -> Session:
    """A network on the GPU, every batch size warm, for the calling thread.

    folder  of the network, where its engines are
    panel   (n_expiries, n_strikes)
    raises  ArtefactError with what is missing
    """
    if provider not in (CUDA_PROVIDER, TENSORRT_PROVIDER):
        raise ArtefactError(f"`provider` must be the CPU's, {CUDA_PROVIDER} or {TENSORRT_PROVIDER}, but is {provider}.")
    if precision not in PRECISIONS:
        raise ArtefactError(f"`precision` must be one of {', '.join(PRECISIONS)}, but is {precision}.")
    load_libraries(tensorrt=provider == TENSORRT_PROVIDER)
    if not cuda.is_available():
        raise ArtefactError(f"ONNX Runtime cannot run the network on {provider}: there is no NVIDIA GPU or no driver.")
    stream = cuda.stream()
    if provider == CUDA_PROVIDER:
        session = open_session(model, CUDA_PROVIDER, cuda_options(stream))
        whole = {size: DeviceStep(stream, size, panel, n_params).run_whole(session) for size in BATCH_SIZES}
        return FixedShapes(whole, provider, FLOAT32_TOLERANCE)
    engine, parts = matching_engine(folder, hashlib.sha256(model).hexdigest(), this_machine(), precision)
    features = open_session(read_part(parts, engine, engine.features), CUDA_PROVIDER, cuda_options(stream))
    steps = {}
    for size, name in engine.bodies.items():
        body = open_session(read_part(parts, engine, name), TENSORRT_PROVIDER, tensorrt_options(stream))
        steps[size] = DeviceStep(stream, size, panel, n_params).run_in_two(features, body)
    return FixedShapes(steps, provider, engine.tolerance)


def cuda_options(stream: Any) -> dict[str, str]:
    """Of the CUDA provider. TF32 keeps ten bits of a float32's twenty-three, and is on by default."""
    return {
        "device_id": "0",
        "user_compute_stream": str(int(stream)),
        "enable_cuda_graph": "1",
        "use_tf32": "0",
        # An exhaustive search may choose another algorithm at each start, and so other last digits.
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def tensorrt_options(stream: Any) -> dict[str, str]:
    """Of the TensorRT provider, for a model that holds a finished engine."""
    return {"device_id": "0", "user_compute_stream": str(int(stream)), "trt_cuda_graph_enable": "True"}


def load_libraries(*, tensorrt: bool) -> None:
    """Load the CUDA and TensorRT libraries that came as packages, where ONNX Runtime will look for them."""
    import onnxruntime

    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        offered = ", ".join(onnxruntime.get_available_providers())
        raise ArtefactError(
            f"ONNX Runtime cannot run the network on {TENSORRT_PROVIDER if tensorrt else CUDA_PROVIDER}: this "
            f"installation offers {offered}. Uninstall onnxruntime, then pip install 'calibrant[gpu]'."
        )
    onnxruntime.preload_dlls()
    if tensorrt:
        # Its import loads libnvinfer from beside it. Without the package TensorRT must be installed for the system;
        # `this_machine` says so if it is not.
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt")


def _address(array: Any) -> int:
    address: int = array.__cuda_array_interface__["data"][0]
    return address
