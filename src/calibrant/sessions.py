"""ONNX Runtime sessions: what a network runs on, for the providers `cpu`, `cuda` and `tensorrt`.

On the processor a session takes any batch as it comes. On a GPU everything is fixed before the first request: the batch
sizes of `BATCH_SIZES`, for each its buffers on both sides, and the CUDA graph that replays its kernels; a batch is
filled up to the next size with panels without quotes, and its rows do not feel each other. `calibrant.gpu.sessions`
holds what needs a GPU, this module all that does not.
"""

import os
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .arrays import Matrix

# Since 1.29 ONNX Runtime keeps an identifier of the machine in the user's cache and reports to its maker, unless it is
# told not to before it is first imported. A desk's service tells nobody what it runs.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
PROVIDERS = {"cpu": CPU_PROVIDER, "cuda": CUDA_PROVIDER, "tensorrt": TENSORRT_PROVIDER}
"""ONNX Runtime's names of the providers, by ours."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)

Panels = NDArray[np.float32]
"""In the network's own precision: (b, n_expiries, n_strikes), NaN where missing; or (b, n_params)."""


class ArtefactError(RuntimeError):
    """An artefact that must not serve: missing, damaged, or not what its manifest says."""


class Session(Protocol):
    """A network's arithmetic, on whatever it runs."""

    provider: str
    """Of ONNX Runtime, the one that runs."""
    tolerance: float
    """By how much its answers may differ from the processor's, as a share of a parameter's output range."""

    def run(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        """Parameters (b, n_params) of vols (b, n_expiries, n_strikes), which are rounded to the network's precision."""


class PlainSession:
    """A session that takes any batch, as the processor's does, on any thread.

    A single panel, what most requests bring, goes through memory bound once for each thread: ONNX Runtime's Python
    otherwise takes an eighth of the time for the passing of arrays.
    """

    tolerance = 0.0

    def __init__(self, session: Any) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        (vols,), (params,) = session.get_inputs(), session.get_outputs()
        self._single = (*vols.shape[1:],), params.shape[-1]
        self._bound = threading.local()

    def run(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        if len(iv) != 1:
            (params,) = self._session.run(None, {"iv": np.ascontiguousarray(iv, np.float32)})
            return np.asarray(params, np.float64)
        try:
            step: HostStep = self._bound.step
        except AttributeError:
            step = self._bound.step = HostStep(self._session, 1, *self._single)
        step.inputs[...] = iv
        step.run()
        return step.outputs.astype(np.float64)


class Step(Protocol):
    """One batch size, with all that a run at that size needs laid out once."""

    inputs: Panels
    """(size, n_expiries, n_strikes), to be filled by the caller."""
    outputs: Panels
    """(size, n_params), filled by `run`."""

    def run(self) -> None: ...


class FixedShapes:
    """Batches of any size by steps of a few sizes. For the one thread that made it: CUDA graphs belong to theirs."""

    def __init__(self, steps: Mapping[int, Step], provider: str, tolerance: float) -> None:
        """`steps` by their batch sizes; all of them are run here, so that no request captures a graph."""
        if not steps:
            raise ValueError("`steps` must hold at least one batch size.")
        self.provider = provider
        self.tolerance = tolerance
        self.sizes = tuple(sorted(steps))
        self._steps = steps
        self._owner = threading.get_ident()
        for size in self.sizes:
            step = steps[size]
            step.inputs[:] = np.nan
            # ONNX Runtime captures a graph after one or two plain runs of its shape; the last of these replays it.
            for _ in range(4):
                step.run()

    def run(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        """Parameters of any number of panels, in batches of the largest size and a last one filled up.

        raises  RuntimeError on another thread than the one that made this
        """
        if threading.get_ident() != self._owner:
            raise RuntimeError("A session with CUDA graphs must be run by the thread that made it.")
        n_params = self._steps[self.sizes[0]].outputs.shape[1]
        params = np.empty((len(iv), n_params))
        for first in range(0, len(iv), self.sizes[-1]):
            part = iv[first : first + self.sizes[-1]]
            n = len(part)
            step = self._steps[next(size for size in self.sizes if size >= n)]
            step.inputs[:n] = part
            step.inputs[n:] = np.nan
            step.run()
            params[first : first + n] = step.outputs[:n]
        return params


class HostStep:
    """A step on the processor, whose buffers are bound once as a GPU's are."""

    def __init__(self, session: Any, size: int, panel: tuple[int, ...], n_params: int) -> None:
        self.inputs: Panels = np.empty((size, *panel), np.float32)
        self.outputs: Panels = np.empty((size, n_params), np.float32)
        self._session = session
        self._binding = session.io_binding()
        bind(self._binding, "iv", self.inputs.shape, self.inputs.ctypes.data, "cpu")
        bind(self._binding, "parameters", self.outputs.shape, self.outputs.ctypes.data, "cpu", output=True)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


def bind(binding: Any, name: str, shape: tuple[int, ...], pointer: int, device: str, *, output: bool = False) -> None:
    """Tie a float32 tensor of the model to memory that stays where it is."""
    tie = binding.bind_output if output else binding.bind_input
    tie(name, device, 0, np.float32, shape, pointer)


def open_session(model: bytes, provider: str = CPU_PROVIDER, provider_options: Mapping[str, str] | None = None) -> Any:
    """An ONNX Runtime session made for latency: one thread, no spinning, no silent fallback to the CPU.

    raises  ImportError naming the extra if ONNX Runtime is not installed; ArtefactError if the provider is not to be
            had, or does not run every node of the model
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "The network needs ONNX Runtime: pip install 'calibrant[cpu]' (or calibrant[gpu])."
        ) from error
    offered = onnxruntime.get_available_providers()
    if provider not in offered:
        raise ArtefactError(
            f"ONNX Runtime cannot run the network on {provider}: this installation offers {', '.join(offered)}. "
            "For a GPU uninstall onnxruntime, then pip install 'calibrant[gpu]'."
        )
    options = onnxruntime.SessionOptions()
    # A small network is slower on two threads, and spinning threads take the core from the refinement.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    if provider != CPU_PROVIDER:
        # Otherwise ONNX Runtime answers on the CPU with a warning. With the CPU asked for, the option refuses to start.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.use_deterministic_compute = True
    try:
        # `enable_fallback` is Python's own second way to the CPU: it builds the session again where the first failed.
        session = onnxruntime.InferenceSession(
            model, options, providers=[(provider, dict(provider_options or {}))], enable_fallback=0
        )
    except Exception as error:  # onnxruntime raises its own undocumented types
        raise ArtefactError(f"ONNX Runtime cannot run the network on {provider}: {error}") from error
    if session.get_providers()[0] != provider:
        raise ArtefactError(f"ONNX Runtime runs the network on {session.get_providers()[0]}, not on {provider}.")
    if provider != CPU_PROVIDER:
        require_all_on(provider, session)
    return session


def require_all_on(provider: str, session: Any) -> None:
    """Check where the nodes went: the list of providers says only which were registered.

    raises  ArtefactError if any node runs elsewhere
    """
    elsewhere = {part.ep_name for part in session.get_provider_graph_assignment_info()} - {provider}
    if elsewhere:
        raise ArtefactError(
            f"ONNX Runtime runs nodes of the network on {', '.join(sorted(elsewhere))}, not {provider}."
        )
