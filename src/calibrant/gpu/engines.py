"""TensorRT engines beside a network: which machine each was built for, and the refusal of any other.

An engine is tied to the model of the GPU and to the version of TensorRT, and its timing to the driver, so each machine
has a folder of its own, `<network>/engines/<machine>-<precision>`, with a manifest. `model_export.to_tensorrt` builds
it; nothing here needs a GPU but `this_machine`.
"""

import ctypes
import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from ..sessions import ArtefactError

ENGINES = "engines"
MANIFEST = "engine.json"
PRECISIONS = ("fp32", "fp16")
BUILD = "python -m model_export.to_tensorrt --artefact"
_LIBRARY = "libnvinfer.so.10"
"""TensorRT's, of the line that onnxruntime-gpu is linked to."""


class Machine(NamedTuple):
    """All that an engine depends on."""

    gpu: str
    """"NVIDIA H200"."""
    compute_capability: str
    """"9.0"."""
    driver: str
    tensorrt: str
    onnxruntime: str
    """Its TensorRT provider writes the model that wraps the engine, and reads it."""

    @property
    def key(self) -> str:
        """The machine as the name of a folder."""
        parts = (self.gpu, self.compute_capability, self.driver, f"trt{self.tensorrt}", f"ort{self.onnxruntime}")
        return "-".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in parts)

    def __str__(self) -> str:
        return (
            f"{self.gpu} (compute capability {self.compute_capability}), driver {self.driver}, "
            f"TensorRT {self.tensorrt}, ONNX Runtime {self.onnxruntime}"
        )


class Engine(NamedTuple):
    """What the manifest of an engine says."""

    machine: Machine
    precision: str
    source_sha256: str
    """Of the network's model.onnx."""
    tolerance: float
    """Largest difference from the processor that was allowed, as a share of a parameter's output range."""
    difference: float
    """The largest found."""
    n_panels: int
    """Panels that it was found on."""
    features: str
    """File of the part that stays float64 and runs on the CUDA provider."""
    bodies: dict[int, str]
    """Files of the engines, by batch size."""
    sha256: dict[str, str]
    """Of each file."""


def engine_folder(network: Path, machine: Machine, precision: str) -> Path:
    return network / ENGINES / f"{machine.key}-{precision}"


def write_engine(folder: Path, engine: Engine) -> None:
    """The manifest, readable by people."""
    fields = {**engine._asdict(), "machine": engine.machine._asdict()}
    (folder / MANIFEST).write_text(json.dumps(fields, indent=1, allow_nan=False) + "\n")


def read_engine(folder: Path) -> Engine:
    """raises  ArtefactError if the manifest is missing or a field is"""
    path = folder / MANIFEST
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        fields["machine"] = Machine(**fields["machine"])
        fields["bodies"] = {int(size): name for size, name in fields["bodies"].items()}
        return Engine(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{path} cannot be read: {type(error).__name__} {error}") from error


def matching_engine(network: Path, source_sha256: str, machine: Machine, precision: str) -> tuple[Engine, Path]:
    """The engine of a network for a machine, with its folder.

    raises  ArtefactError with what to run if there is none, or it was built from another model or on another machine
    """
    command = f"run `{BUILD} {network} --precision {precision}` on this machine"
    folder = engine_folder(network, machine, precision)
    if not folder.is_dir():
        others = sorted({str(read_engine(path.parent).machine) for path in network.glob(f"{ENGINES}/*/{MANIFEST}")})
        built = f"engines are there for {'; '.join(others)}" if others else "there are none"
        raise ArtefactError(f"{network} has no {precision} TensorRT engine for {machine} ({built}): {command}.")
    engine = read_engine(folder)
    if engine.machine != machine or engine.precision != precision:
        raise ArtefactError(
            f"{folder} holds a {engine.precision} engine built for {engine.machine}, but this is {machine}: {command}."
        )
    if engine.source_sha256 != source_sha256:
        raise ArtefactError(f"{folder} was built from another release of the network: {command}.")
    return engine, folder


def read_part(folder: Path, engine: Engine, name: str) -> bytes:
    """A file of an engine, verified.

    raises  ArtefactError if it is missing or not the one that the manifest names
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != engine.sha256.get(name):
        raise ArtefactError(f"{path} is damaged or belongs to another engine: its sha256 is not the manifest's.")
    return content


def gpu_of(line: str) -> tuple[str, str, str]:
    """(name, compute capability, driver) from nvidia-smi's line of these three."""
    fields = [field.strip() for field in line.strip().split(",")]
    if len(fields) != 3 or not all(fields):
        raise ArtefactError(f"nvidia-smi was asked for name, compute capability and driver, but said {line!r}.")
    return fields[0], fields[1], fields[2]


def tensorrt_version(number: int) -> str:
    """ "10.13.3" of 101303, as `getInferLibVersion` gives it since TensorRT 10; before, it counted by thousands."""
    if number < 10_0000:
        return f"{number // 1000}.{number // 100 % 10}.{number % 100}"
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


def this_machine() -> Machine:
    """The machine at hand.

    raises  ArtefactError in a sentence if it has no GPU, driver or TensorRT
    """
    import onnxruntime
    from numba import cuda

    if not cuda.is_available():
        raise ArtefactError("TensorRT needs an NVIDIA GPU with its driver, and this machine has none.")
    query = ["nvidia-smi", f"--id={cuda.get_current_device().uuid}", "--query-gpu=name,compute_cap,driver_version"]
    try:
        line = subprocess.run([*query, "--format=csv,noheader"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ArtefactError(f"nvidia-smi does not answer: {error}") from error
    try:
        number = int(ctypes.CDLL(_LIBRARY).getInferLibVersion())
    except (OSError, AttributeError) as error:
        raise ArtefactError(f"{_LIBRARY} cannot be loaded ({error}): pip install 'calibrant[tensorrt]'.") from error
    return Machine(*gpu_of(line), tensorrt_version(number), onnxruntime.__version__)
