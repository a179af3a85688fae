"""Export a training run as a released artefact.

    python -m model_export.to_onnx --run runs/heston-1 --out networks/heston/1

The folder appears only when ONNX Runtime answers as torch does and the finished artefact loads as a service loads it.
"""

import argparse
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch

from calibrant.network import Network
from training.domain import Domain
from training.networks import CnnTransformer
from training.train import load_network

from .manifest import build_manifest, write_manifest
from .verify import verify

FILE = "model.onnx"
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


def release(run: Path, out: Path, metrics: dict[str, Any]) -> Path:
    """Export, verify, write the manifest, load the result as a service would, and only then put it in place.

    raises  ParityError, ArtefactError; FileExistsError if that version is already released
    """
    if out.exists():
        raise FileExistsError(f"{out} is already released: choose the next version")
    network, domain = load_network(run)
    model = to_onnx(network, domain)
    difference = verify(network, model, domain)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".unreleased-") as scratch:
        staged = Path(scratch) / "artefact"
        staged.mkdir()
        (staged / FILE).write_bytes(model)
        manifest = build_manifest(
            name=out.parent.name,
            release=int(out.name),
            file=FILE,
            model=model,
            network=network,
            domain=domain,
            run=json.loads((run / "run.json").read_text()),
            metrics=metrics,
            parity=difference,
        )
        write_manifest(staged, manifest)
        Network.load(staged)
        os.replace(staged, out)
    return out


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of training.train")
    parser.add_argument("--out", type=Path, required=True, help="networks/<model>/<version>")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of training.evaluate")
    parser.add_argument("--replace", action="store_true", help="of a version that nobody has got yet")
    given = parser.parse_args()
    if given.replace and given.out.exists():
        shutil.rmtree(given.out)
    release(given.run, given.out, json.loads(given.metrics.read_text()))
    loaded = Network.load(given.out)
    print(f"{loaded.version} released in {given.out}, {(given.out / FILE).stat().st_size} bytes")


if __name__ == "__main__":
    main()
