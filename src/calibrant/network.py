"""A calibration network: an artefact folder in, start parameters out.

An artefact is `model.onnx` beside `manifest.json` (written by `model_export`), and is trusted only after its bytes
match the manifest's hash and its session reproduces the manifest's golden output.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import BoolVector, Matrix, Vector
from .grid import Grid

MANIFEST = "manifest.json"
CPU_PROVIDER = "CPUExecutionProvider"
GOLDEN_TOLERANCE = 1e-5
"""Largest difference from the golden output, as a share of a parameter's output range."""
_LEAST_COVERAGE = 0.8
"""Of the first release, whose manifest does not say it."""


class ArtefactError(RuntimeError):
    """An artefact that must not serve: missing, damaged, or not what its manifest says."""


class Manifest(NamedTuple):
    """What the library needs of a manifest; the file holds more, for people."""

    name: str
    """Of the model, "heston"."""
    version: int
    """Released versions count up from 1."""
    file: str
    """Name of the ONNX file in the same folder."""
    sha256: str
    """Of that file."""
    parameters: tuple[str, ...]
    """In the order of the output."""
    output_lower: Vector
    """(n_params,) what the output layer can reach at least."""
    output_upper: Vector
    """(n_params,) and at most."""
    log_scaled: BoolVector
    """(n_params,) True where the output layer scales the logarithm."""
    domain: str
    """Name of the training domain."""
    domain_lower: Vector
    """(n_params,) smallest parameters trained on."""
    domain_upper: Vector
    """(n_params,) largest parameters trained on."""
    least_coverage: float
    """Share of the grid's nodes that a panel of the domain fills at least."""
    grid: Grid
    """The nodes that the input's vols belong to."""
    golden_iv: Matrix
    """(n, n_expiries, n_strikes), NaN where missing."""
    golden_parameters: Matrix
    """(n, n_params)."""

    def share_of_output(self, params: Matrix) -> Matrix:
        """Parameters (n, n_params) as shares of the output range, 0 its lower end and 1 its upper."""
        logs = self.log_scaled
        share = (params - self.output_lower) / (self.output_upper - self.output_lower)
        share[:, logs] = np.log(params[:, logs] / self.output_lower[logs]) / np.log(
            self.output_upper[logs] / self.output_lower[logs]
        )
        return share


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact folder.

    raises  ArtefactError if there is none or a field is missing
    """
    path = folder / MANIFEST
    try:
        text = json.loads(path.read_text())
        domain, grid = text["training_domain"], text["grid"]
        return Manifest(
            name=text["name"],
            version=text["version"],
            file=text["file"],
            sha256=text["sha256"],
            parameters=tuple(text["parameters"]),
            output_lower=np.array(text["output_bounds"]["lower"], np.float64),
            output_upper=np.array(text["output_bounds"]["upper"], np.float64),
            log_scaled=np.array(text["output_bounds"].get("log_scaled", [False] * len(text["parameters"]))),
            domain=domain["name"],
            domain_lower=np.array(domain["lower"], np.float64),
            domain_upper=np.array(domain["upper"], np.float64),
            least_coverage=domain.get("least_coverage", _LEAST_COVERAGE),
            grid=Grid(
                log_moneyness=np.array(grid["log_moneyness"], np.float64),
                expiry=np.array(grid["expiry"], np.float64),
                standardised=grid.get("standardised", False),
            ),
            golden_iv=np.array(text["golden"]["iv"], np.float64),
            golden_parameters=np.array(text["golden"]["parameters"], np.float64),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{path} cannot be read as a manifest: {type(error).__name__} {error}") from error


class Network:
    """A verified session. Not for two threads at once: it has one owner."""

    def __init__(self, manifest: Manifest, session: Any) -> None:
        self.manifest = manifest
        self.grid = manifest.grid
        self.provider: str = session.get_providers()[0]
        self._session = session

    @classmethod
    def load(cls, folder: Path | str, provider: str = CPU_PROVIDER) -> "Network":
        """Load and verify an artefact.

        folder    holds model.onnx and manifest.json
        provider  of ONNX Runtime
        raises    ArtefactError if the file's hash or its golden output differs, or the provider is not the one asked
                  for; ImportError naming the extra if ONNX Runtime is not installed
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        try:
            model = (folder / manifest.file).read_bytes()
        except OSError as error:
            raise ArtefactError(f"{folder / manifest.file} cannot be read: {error}") from error
        found = hashlib.sha256(model).hexdigest()
        if found != manifest.sha256:
            raise ArtefactError(
                f"{folder / manifest.file} has sha256 {found[:12]}…, but its manifest says {manifest.sha256[:12]}…: "
                "the file is damaged or belongs to another release."
            )
        network = cls(manifest, open_session(model, provider))
        if network.provider != provider:
            raise ArtefactError(f"ONNX Runtime runs the network on {network.provider}, not on {provider} as asked.")
        network._verify_golden()
        return network

    @property
    def version(self) -> str:
        """`heston-1@sha256:` and twelve hexadecimal digits."""
        return f"{self.manifest.name}-{self.manifest.version}@sha256:{self.manifest.sha256[:12]}"

    @property
    def misfit_domain(self) -> Matrix | None:
        """(n_params, 2), its training domain if that held quotes which no model fits; None if it was all but exact."""
        # Standardised grids are trained on noisy quotes, fixed ones on panels of the model itself.
        return (
            np.column_stack((self.manifest.domain_lower, self.manifest.domain_upper))
            if self.grid.standardised
            else None
        )

    def parameters(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        """Start parameters of panels on the network's grid.

        iv       (b, n_expiries, n_strikes), decimals, NaN where missing
        returns  (b, n_params), inside the output bounds
        """
        (params,) = self._session.run(None, {"iv": np.ascontiguousarray(iv, np.float32)})
        return np.asarray(params, np.float64)

    def in_domain(self, params: Vector, mask: BoolVector | None = None) -> bool:
        """Whether an answer, and the panel it came from, are of the kind the network was trained on.

        params  (n_params,)
        mask    (n_expiries, n_strikes), True at the nodes that the panel's quotes could fill: enough of them
        """
        inside = bool(np.all((params >= self.manifest.domain_lower) & (params <= self.manifest.domain_upper)))
        return inside and (mask is None or float(np.mean(mask)) >= self.manifest.least_coverage)

    def _verify_golden(self) -> None:
        manifest = self.manifest
        answer = self.parameters(manifest.golden_iv)
        # Inverted, so that a NaN fails.
        if answer.shape != manifest.golden_parameters.shape or not (
            np.max(np.abs(manifest.share_of_output(answer) - manifest.share_of_output(manifest.golden_parameters)))
            <= GOLDEN_TOLERANCE
        ):
            raise ArtefactError(
                f"{self.version} does not reproduce the golden output of its manifest on {self.provider}: "
                f"expected {manifest.golden_parameters.tolist()}, calculated {answer.tolist()}."
            )


def open_session(model: bytes, provider: str = CPU_PROVIDER) -> Any:
    """An ONNX Runtime session made for latency: one thread, no spinning, no silent fallback to the CPU.

    raises  ImportError naming the extra if ONNX Runtime is not installed
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "The network needs ONNX Runtime: pip install 'calibrant[cpu]' (or calibrant[gpu])."
        ) from error
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
    try:
        return onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # onnxruntime raises its own undocumented types
        raise ArtefactError(f"ONNX Runtime cannot run the network on {provider}: {error}") from error


def nan_to_none(values: Matrix) -> list[Any]:
    """Nested lists for JSON, which has no NaN; `read_manifest` turns null back into NaN."""
    return [
        nan_to_none(part) if isinstance(part, np.ndarray) else None if math.isnan(part) else part for part in values
    ]
