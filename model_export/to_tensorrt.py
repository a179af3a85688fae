"""Build a network's TensorRT engines for the GPU at hand, verify them and put them beside it.

    python -m model_export.to_tensorrt --artefact networks/heston/5/market [--precision fp32 fp16]

Takes minutes, once for each kind of machine; the service never builds one. Needs the extra `tensorrt` and `onnx`, no
torch. The float64 features stay a model of their own (see `split`); the rest becomes an engine for each batch size, by
way of ONNX Runtime's TensorRT provider, which wraps it in an ONNX model that holds the engine's bytes. The folder
appears only when the finished engines, loaded as the service loads them, agree with ONNX Runtime on the processor.
"""

import argparse
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from calibrant.arrays import Matrix
from calibrant.gpu.engines import (
    ENGINES,
    PRECISIONS,
    Engine,
    Machine,
    engine_folder,
    read_part,
    this_machine,
    write_engine,
)
from calibrant.network import Manifest, Network
from calibrant.sessions import BATCH_SIZES, TENSORRT_PROVIDER, ArtefactError, Panels, open_session
from training.domain import DOMAINS
from training.panels import make_panels

from .split import at_batch_size, split

TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2}
"""Largest difference from ONNX Runtime on the processor that is let pass, as a share of a parameter's output range.
fp32: float32 sums in another order. fp16: ten bits through forty layers; it is a start for the refinement either way,
and the manifest says what was found."""
PANELS = 1000
_PANELS_SEED = 6
_FEATURES = "features.onnx"
_TIMING = "timing"
"""Folder of the timing cache, beside the engines: it is TensorRT's own affair which machine an entry is for."""


def engine_options(folder: Path, size: int, precision: str, timing: Path) -> dict[str, str]:
    """Of the TensorRT provider, to build an engine and dump the model that holds it into `folder`.

    From Python its switches are "True" and "False": it takes no "1" for them.
    """
    return {
        "device_id": "0",
        "trt_fp16_enable": str(precision == "fp16"),
        # Half precision overflows in the powers and sums of a layer norm.
        "trt_layer_norm_fp32_fallback": "True",
        "trt_builder_optimization_level": "5",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(timing),
        # The dump refuses an absolute path for the cache: it is taken relative to the dumped model.
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "cache",
        "trt_dump_ep_context_model": "True",
        "trt_ep_context_embed_mode": "1",
        "trt_ep_context_file_path": str(folder / body_file(size)),
    }


def body_file(size: int) -> str:
    return f"body_{size}.onnx"


def build(artefact: Path, machine: Machine, precision: str) -> Path:
    """Build, verify and put in place the engines of one network for this machine; their folder.

    artefact  folder of one network of a release
    raises    ArtefactError if anything fails or the engines do not agree with the processor
    """
    reference = Network.load(artefact)
    model = (artefact / reference.manifest.file).read_bytes()
    target = engine_folder(artefact, machine, precision)
    target.parent.mkdir(exist_ok=True)
    timing = target.parent / _TIMING
    timing.mkdir(exist_ok=True)
    parts = split(model)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-") as scratch:
        staged = Path(scratch)
        (staged / _FEATURES).write_bytes(parts.features.SerializeToString())
        for size in BATCH_SIZES:
            body = at_batch_size(parts.body, size).SerializeToString()
            # Shapes are fixed, so the engine is built when the session is.
            open_session(body, TENSORRT_PROVIDER, engine_options(staged, size, precision, timing))
        shutil.rmtree(staged / "cache", ignore_errors=True)
        names = [_FEATURES, *(body_file(size) for size in BATCH_SIZES)]
        engine = Engine(
            machine=machine,
            precision=precision,
            source_sha256=reference.manifest.sha256,
            tolerance=TOLERANCE[precision],
            difference=0.0,
            n_panels=PANELS,
            features=_FEATURES,
            bodies={size: body_file(size) for size in BATCH_SIZES},
            sha256={name: hashlib.sha256(_read(staged / name)).hexdigest() for name in names},
        )
        write_engine(staged, engine)
        for name in names:
            read_part(staged, engine, name)
        # The loader knows only finished places, so the old one makes way until the new one has proved itself.
        kept = target.with_name(f".replaced-{target.name}")
        shutil.rmtree(kept, ignore_errors=True)
        if target.exists():
            os.replace(target, kept)
        shutil.copytree(staged, target)
        try:
            difference = verify(reference, Network.load(artefact, TENSORRT_PROVIDER, precision), TOLERANCE[precision])
        except Exception:
            shutil.rmtree(target)
            if kept.exists():
                os.replace(kept, target)
            raise
        shutil.rmtree(kept, ignore_errors=True)
        write_engine(target, engine._replace(difference=difference))
    return target


def verification_panels(manifest: Manifest, n_panels: int = PANELS) -> Panels:
    """Panels of a network's domain, a third of them with gaps, one without quotes."""
    iv: Panels = make_panels(DOMAINS[manifest.domain], _PANELS_SEED, 0, n_panels)["iv"]
    generator = np.random.default_rng(_PANELS_SEED)
    gaps = generator.random(iv.shape) < 0.2
    gaps[n_panels // 3 :] = False
    gaps[0] = True
    return np.where(gaps, np.float32(np.nan), iv)


def verify(reference: Network, other: Network, tolerance: float) -> float:
    """The largest difference between two runs of a network, as a share of a parameter's output range; panels in batches
    of every size, so that every engine answers.

    raises  ArtefactError if it exceeds the tolerance, or a number is not finite
    """
    iv = verification_panels(reference.manifest)
    expected = reference.parameters(iv)
    answers, first, turn = [], 0, 0
    while first < len(iv):
        size = BATCH_SIZES[turn % len(BATCH_SIZES)]
        answers.append(other.parameters(iv[first : first + size]))
        first, turn = first + size, turn + 1
    difference = largest_difference(reference.manifest, np.concatenate(answers), expected)
    # Inverted, so that a NaN fails.
    if not difference <= tolerance:
        raise ArtefactError(
            f"{other.version} on {other.provider} differs from {reference.provider} by {difference:.3g} of a "
            f"parameter's range over {len(iv)} panels, more than {tolerance:g}: no engine was put in place."
        )
    return difference


def largest_difference(manifest: Manifest, answer: Matrix, expected: Matrix) -> float:
    """Of any parameter, as a share of its output range; NaN where a number is not finite."""
    shares = np.abs(manifest.share_of_output(answer) - manifest.share_of_output(expected))
    return float(shares.max())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"TensorRT's provider wrote no {path.name}: {error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artefact", type=Path, required=True, help="folder of one network of a release")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    given = parser.parse_args()
    # ONNX Runtime has no option for it (its issue 26029); read when the libraries load, hence before anything is run.
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    try:
        from calibrant.gpu.sessions import load_libraries

        load_libraries(tensorrt=True)
        machine = this_machine()
        for precision in given.precision:
            folder = build(given.artefact, machine, precision)
            print(f"{folder.relative_to(given.artefact / ENGINES)}: built and verified on {PANELS} panels", flush=True)
    except ArtefactError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
