"""Release an earlier version's weights again, in the graph that `to_onnx` writes today.

    python -m model_export.derive --from networks/heston/2 --out networks/heston/3

Needs no training run: the weights are read from the released files, which torch's exporter wrote up to version 2 under
the names of the layers (what `to_onnx` writes is multiplied out and cannot be read back). The manifests keep what they
say of the training and its figures, and the golden answers of the network as it was trained; they state what the
release was derived from and by how much the two differ. The folder appears only when they agree.
"""

import argparse
import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from calibrant.network import MANIFEST, Network, open_session
from calibrant.release import CONTENTS, Release
from training.domain import DOMAINS, Domain
from training.networks import CnnTransformer, NetworkOptions, Normalisation
from training.source import source_commit

from .manifest import write_manifest
from .release import FILE, put_in_place
from .to_onnx import to_onnx
from .verify import PARITY_TOLERANCE, ParityError, furthest_apart, largest_difference, parity_inputs, verify

PANELS = 2000
"""Of each kind to compare on."""
_PANELS_SEED = 7


def derive(source: Path, out: Path) -> Release:
    """The networks of a release in today's graph.

    source  folder of a release whose files torch's exporter wrote
    out     networks/<model>/<version>
    raises  ParityError if the networks differ; ValueError if a file does not hold the layers by name; ArtefactError;
            FileExistsError if that version is already released
    """
    Release.load(source)
    domains = json.loads((source / CONTENTS).read_text())["networks"]

    def stage(artefact: Path, staged: Path) -> dict[str, Any]:
        return _stage(artefact, staged, int(out.name))

    return put_in_place(out, [source / domain for domain in domains], stage)


def read_network(artefact: Path) -> tuple[CnnTransformer, Domain]:
    """The network of an artefact that torch's exporter wrote, in torch again, and its domain.

    Batch-norms stay folded into the convolutions: they do nothing but add the bias.
    """
    manifest = json.loads((artefact / MANIFEST).read_text())
    domain = DOMAINS[manifest["training_domain"]["name"]]
    given = manifest["created"]["options"]["network"]
    sizes = {
        "channels": tuple(given["channels"]),
        "strides": tuple((down, across) for down, across in given["strides"]),
    }
    scales = ("mean", "std", "smile_mean", "smile_std")
    normalisation = Normalisation(**{name: np.array(manifest["normalisation"][name]) for name in scales})
    network = CnnTransformer(domain, normalisation, NetworkOptions(**{**given, **sizes}))
    found = _layers(onnx.load_model_from_string((artefact / manifest["file"]).read_bytes()))
    state = network.state_dict()
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        folded = layer.startswith("blocks.") and layer.endswith("_norm")
        if kind == "num_batches_tracked" or (folded and kind == "running_mean"):
            continue
        if folded and kind == "running_var":
            # Its root is one once the norm has added its epsilon.
            state[name] = value - torch.nn.BatchNorm2d(1).eps
        elif folded and kind == "bias":
            state[name] = _tensor(found, f"{layer.removesuffix('_norm')}.weight_bias", value)
        elif not folded:
            state[name] = _tensor(found, name, value)
    network.load_state_dict(state)
    return network.eval(), domain


def _layers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Constants by name; the weights of linear layers, which the exporter transposes and renames, by their biases'."""
    values: dict[str, NDArray[Any]] = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        product, bias = (makers.get(node.input[0]), node.input[1]) if node.op_type == "Add" else (None, "")
        if product is not None and product.op_type == "MatMul" and bias.endswith(".bias") and bias in values:
            values[bias.removesuffix("bias") + "weight"] = values[product.input[1]].T
    return values


def _tensor(found: dict[str, NDArray[Any]], name: str, like: torch.Tensor) -> torch.Tensor:
    value = found.get(name)
    if value is None or value.shape != tuple(like.shape):
        raise ValueError(f"The file holds no {name} of shape {tuple(like.shape)}: torch's exporter did not write it.")
    return torch.tensor(value, dtype=like.dtype)


def comparison_panels(domain: Domain, n_panels: int = PANELS) -> NDArray[np.float32]:
    """Those of `parity_inputs`, and panels of independent vols, a third of them missing; (n, n_expiries, n_strikes)."""
    generator = np.random.default_rng(_PANELS_SEED)
    shape = (n_panels, *domain.shape)
    wild = generator.uniform(0.03, 1.5, shape).astype(np.float32)
    wild[generator.random(shape) < 1.0 / 3.0] = np.nan
    return np.concatenate([parity_inputs(domain, n_panels), wild])


def _stage(artefact: Path, staged: Path, release: int) -> dict[str, Any]:
    """Write one network into a folder named after its domain; its manifest."""
    network, domain = read_network(artefact)
    before = Network.load(artefact)
    traced = (artefact / before.manifest.file).read_bytes()
    session = open_session(traced)
    misread = largest_difference(network, session, parity_inputs(domain))
    if misread > PARITY_TOLERANCE:
        raise ParityError(f"the weights read from {before.version} answer otherwise than it does, by {misread:.3g}")
    model = to_onnx(network, domain)
    parity = verify(network, model, domain)
    iv = comparison_panels(domain)
    (answers,), (expected,) = (run.run(None, {"iv": iv}) for run in (open_session(model), session))
    difference = furthest_apart(network, answers, expected)
    # Inverted, so that a NaN fails.
    if not difference <= PARITY_TOLERANCE:
        raise ParityError(f"the graphs differ by {difference:.3g} of a parameter's range over {len(iv)} panels")
    folder = staged / domain.name
    folder.mkdir()
    (folder / FILE).write_bytes(model)
    manifest: dict[str, Any] = json.loads((artefact / MANIFEST).read_text())
    manifest |= {
        "version": release,
        "file": FILE,
        "sha256": hashlib.sha256(model).hexdigest(),
        "parity": parity,
        "export_commit": source_commit(),
        "derived": {
            "from": before.version,
            "sha256": before.manifest.sha256,
            "n_panels": len(iv),
            "difference": difference,
            "nodes_before": len(onnx.load_model_from_string(traced).graph.node),
            "nodes": len(onnx.load_model_from_string(model).graph.node),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            **{package: version(package) for package in ("torch", "onnx", "onnxruntime", "numpy")},
        },
    }
    write_manifest(folder, manifest)
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="networks/<model>/<version>, as it is")
    parser.add_argument("--out", type=Path, required=True, help="networks/<model>/<version>, the new one")
    given = parser.parse_args()
    loaded = derive(given.source, given.out)
    print(f"{loaded.version} released in {given.out}, derived from {given.source}")


if __name__ == "__main__":
    main()
