"""A calibration network: an artefact folder in, start parameters out.

An artefact is `model.onnx` beside `manifest.json` (written by `model_export`), and is trusted only after its bytes
match the manifest's hash and its session reproduces the manifest's golden output.
"""

import hashlib
import json
import math
from operator import le
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import BoolVector, Matrix, Vector
from .grid import Grid
from .sessions import CPU_PROVIDER, ArtefactError, PlainSession, Session, open_session

__all__ = ["CPU_PROVIDER", "MANIFEST", "ArtefactError", "Manifest", "Network", "nan_to_none", "open_session"]

MANIFEST = "manifest.json"
GOLDEN_TOLERANCE = 1e-5
"""Largest difference from the golden output, as a share of a parameter's output range."""
_LEAST_COVERAGE = 0.8
"""Of the first release, whose manifest does not say it."""


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

    def __init__(self, manifest: Manifest, session: Session) -> None:
        self.manifest = manifest
        self.grid = manifest.grid
        self.provider = session.provider
        self.tolerance = session.tolerance
        """By how much its answers may differ from the processor's, as a share of a parameter's output range."""
        self._session = session
        self.least_filled = manifest.least_coverage * self.grid.expiry.size * self.grid.log_moneyness.size
        """Nodes that a panel of the domain fills at least."""
        self._lower, self._upper = manifest.domain_lower.tolist(), manifest.domain_upper.tolist()

    @classmethod
    def load(cls, folder: Path | str, provider: str = CPU_PROVIDER, precision: str = "fp32") -> "Network":
        """Load and verify an artefact. On a GPU the thread that loads is the one that may ask.

        folder     holds model.onnx and manifest.json
        provider   of ONNX Runtime
        precision  of a TensorRT engine, `fp32` or `fp16`
        raises     ArtefactError if the file's hash or its golden output differs, or the provider is not the one asked
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
        network = cls(manifest, _session(folder, manifest, model, provider, precision))
        network._verify_golden()
        return network

    @property
    def version(self) -> str:
        """`heston-1@sha256:` and twelve hexadecimal digits."""
        return f"{self.manifest.name}-{self.manifest.version}@sha256:{self.manifest.sha256[:12]}"

    def parameters(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        """Start parameters of panels on the network's grid.

        iv       (b, n_expiries, n_strikes), decimals, NaN where missing
        returns  (b, n_params), inside the output bounds
        """
        return self._session.run(iv)

    def in_domain(self, params: Vector, mask: BoolVector | None = None) -> bool:
        """Whether an answer, and the panel it came from, are of the kind the network was trained on.

        params  (n_params,)
        mask    (n_expiries, n_strikes), True at the nodes that the panel's quotes could fill: enough of them
        """
        # Plain floats: numpy takes ten times as long over five numbers.
        values = params.tolist()
        inside = all(map(le, self._lower, values)) and all(map(le, values, self._upper))
        return inside and (mask is None or int(np.count_nonzero(mask)) >= self.least_filled)

    def _verify_golden(self) -> None:
        manifest = self.manifest
        answer = self.parameters(manifest.golden_iv)
        # Inverted, so that a NaN fails.
        if answer.shape != manifest.golden_parameters.shape or not (
            np.max(np.abs(manifest.share_of_output(answer) - manifest.share_of_output(manifest.golden_parameters)))
            <= max(GOLDEN_TOLERANCE, self.tolerance)
        ):
            raise ArtefactError(
                f"{self.version} does not reproduce the golden output of its manifest on {self.provider}: "
                f"expected {manifest.golden_parameters.tolist()}, calculated {answer.tolist()}."
            )


def _session(folder: Path, manifest: Manifest, model: bytes, provider: str, precision: str) -> Session:
    if provider == CPU_PROVIDER:
        return PlainSession(open_session(model))
    # Imported here: it needs what only the extra `gpu` installs.
    from .gpu import sessions

    shape = (manifest.grid.expiry.size, manifest.grid.log_moneyness.size)
    return sessions.open_on_gpu(folder, model, shape, len(manifest.parameters), provider, precision)


def nan_to_none(values: Matrix) -> list[Any]:
    """Nested lists for JSON, which has no NaN; `read_manifest` turns null back into NaN."""
    return [
        nan_to_none(part) if isinstance(part, np.ndarray) else None if math.isnan(part) else part for part in values
    ]
