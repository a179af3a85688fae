"""Release the second paper's network, which is a baseline: it lies beside the versions that are served, as `paper`.

    python -m model_export.paper_hybrid --run runs/paper-hybrid --out networks/double_heston_jump/paper

As with every release, the folder appears only when ONNX Runtime answers as torch does and the finished artefact loads.
`calibrant.network.Network.load` reads it; `calibrant.release` takes numbered versions alone, and never asks it.
"""

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn

from calibrant.network import MANIFEST, Manifest, Network, nan_to_none, open_session, read_manifest
from training.paper_hybrid.network import DENOMINATOR, NUMERATOR, PaperNetwork
from training.paper_hybrid.scenarios import REALISTIC, SCENARIOS, draw, panels
from training.paper_hybrid.train import answers, load_network
from training.source import source_commit

from .card import CARD
from .graph import Graph, Operand
from .manifest import write_manifest
from .verify import PARITY_TOLERANCE, ParityError

FILE = "model.onnx"
_GOLDEN_SEED, _PARITY_SEED, _PARITY_PANELS = 5, 6, 256
_BATCHES = (1, 2, 3, 64)


def to_onnx(network: PaperNetwork) -> bytes:
    """The network in ONNX: `iv` (batch, 3, 5) float32 in, `parameters` (batch, 13) out; its features in double."""
    graph = Graph()
    exact = graph.add("Cast", "iv", to=TensorProto.DOUBLE)
    vol = graph.add("Where", graph.add("IsNaN", "iv"), network.node_vol.numpy(), exact)
    sd = graph.add("Mul", vol, network.root_expiry.numpy())
    d = graph.add("Sub", graph.add("Mul", sd, np.array(0.5)), graph.add("Div", network.log_moneyness.numpy(), sd))
    strike = network.log_moneyness.exp().numpy()
    put_part = graph.add("Mul", _normal(graph, graph.add("Sub", d, sd)), strike)
    call = graph.add("Sub", _normal(graph, d), put_part)
    features = graph.add("MatMul", graph.add("Flatten", call), network.of_calls.numpy())
    value = graph.add("Cast", graph.add("Add", features, network.shift.numpy()), to=TensorProto.FLOAT)
    value = graph.add("Cast", _layers(graph, network.layers, value), to=TensorProto.DOUBLE)
    scaled = graph.add("Add", graph.add("Mul", value, network.target_std.numpy()), network.target_mean.numpy())
    scaled = graph.add("Min", graph.add("Max", scaled, network.lowest.numpy()), network.highest.numpy())
    params = graph.add("Where", network.logs.numpy(), graph.add("Exp", scaled), scaled)
    graph.add("Cast", params, to=TensorProto.FLOAT, name="parameters")
    return graph.model(SCENARIOS)


def _normal(graph: Graph, x: str) -> str:
    """`training.paper_hybrid.network.normal`."""
    a = graph.add("Abs", x)
    density = graph.add("Exp", graph.add("Mul", graph.add("Mul", a, a), np.array(-0.5)))
    tail = graph.add(
        "Div", graph.add("Mul", density, _polynomial(graph, NUMERATOR, a)), _polynomial(graph, DENOMINATOR, a)
    )
    return graph.add("Where", graph.add("Greater", x, np.array(0.0)), graph.add("Sub", np.array(1.0), tail), tail)


def _polynomial(graph: Graph, coefficients: tuple[float, ...], x: str) -> str:
    """By Horner's rule, the highest power first."""
    value: Operand = np.array(coefficients[0])
    for coefficient in coefficients[1:]:
        value = graph.add("Add", graph.add("Mul", value, x), np.array(coefficient))
    assert isinstance(value, str)
    return value


def _layers(graph: Graph, layers: nn.Sequential, value: str) -> str:
    """The layers, each batch-norm multiplied into the linear one behind it."""
    slope, shift = np.ones(1), np.zeros(1)
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            weight, bias = (part.detach().double().numpy() for part in (layer.weight, layer.bias))
            matrix = graph.constant(f"layers.{i}.weight", (weight * slope).T.astype(np.float32))
            added = graph.constant(f"layers.{i}.bias", (bias + (weight * shift).sum(axis=1)).astype(np.float32))
            value = graph.add("Gemm", value, matrix, added)
            slope, shift = np.ones(1), np.zeros(1)
        elif isinstance(layer, nn.ReLU):
            value = graph.add("Relu", value)
        elif isinstance(layer, nn.BatchNorm1d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            slope = (layer.weight.detach().double() / (layer.running_var.double() + layer.eps).sqrt()).numpy()
            shift = layer.bias.detach().double().numpy() - layer.running_mean.double().numpy() * slope
    return value


def parity(network: PaperNetwork, model: bytes, manifest: Manifest) -> float:
    """Largest difference of any parameter between torch and ONNX Runtime, as a share of its output range, over panels
    with and without missing quotes and several batch sizes.

    raises  ParityError if it exceeds `PARITY_TOLERANCE`, or an answer is not finite
    """
    iv = _panels(_PARITY_SEED, _PARITY_PANELS)
    expected, session = answers(network, iv), open_session(model)
    differences = []
    for batch in (*_BATCHES, len(iv)):
        found = session.run(None, {"iv": iv[:batch].astype(np.float32)})[0].astype(np.float64)
        differences.append(np.abs(manifest.share_of_output(found) - manifest.share_of_output(expected[:batch])).max())
    largest = float(np.max(differences))
    # Inverted, so that a NaN fails.
    if not largest <= PARITY_TOLERANCE:
        raise ParityError(f"ONNX Runtime differs from torch by {largest:.3g} of a parameter's range: nothing released")
    return largest


def _panels(seed: int, n: int) -> NDArray[np.float64]:
    """Scenarios and realistic panels, every fourth with missing quotes."""
    iv = np.concatenate((panels(draw(SCENARIOS, seed, n)), panels(draw(REALISTIC, seed, n))))
    iv[::4, ::2, ::3] = np.nan
    return iv


def manifest_of(network: PaperNetwork, record: dict[str, Any], model: bytes, name: str) -> dict[str, Any]:
    """Everything `manifest.json` holds, but for the parity."""
    low, high = SCENARIOS.output_box()
    domain_low, domain_high = SCENARIOS.sampled_box()
    golden = _panels(_GOLDEN_SEED, 2)
    return {
        "name": name,
        "version": 1,
        "file": FILE,
        "sha256": hashlib.sha256(model).hexdigest(),
        "parameters": list(SCENARIOS.parameters),
        "output_bounds": {"lower": low.tolist(), "upper": high.tolist(), "log_scaled": list(SCENARIOS.log_scaled)},
        "training_domain": {
            "name": SCENARIOS.name,
            "lower": domain_low.tolist(),
            "upper": domain_high.tolist(),
            "least_coverage": SCENARIOS.least_coverage,
        },
        "grid": {
            "expiry": list(SCENARIOS.expiry),
            "log_moneyness": list(SCENARIOS.log_moneyness),
            "standardised": False,
        },
        "input": {"iv": "float32 (batch, expiry, strike): decimal implied vols, NaN where missing"},
        "output": {"parameters": "float32 (batch, parameter)"},
        "normalisation": {"where": "inside the graph", **record["scaling"]},
        "metrics": {
            "price_error_percent": record["price_error_percent"],
            "best_validation": {
                stage: min(epoch["validation"] for epoch in history) for stage, history in record["history"].items()
            },
        },
        "golden": {"iv": nan_to_none(golden), "parameters": answers(network, golden).tolist()},
        "source_commit": record["commit"],
        "export_commit": source_commit(),
        "created": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": torch.__version__,
            **{package: version(package) for package in ("onnx", "onnxruntime", "numpy")},
            "options": record["options"],
            "calibrations": record["calibrations"],
            "epochs_run": {stage: len(history) for stage, history in record["history"].items()},
            "training_seconds": record["seconds"],
        },
    }


def card_of(manifest: dict[str, Any]) -> str:
    """For people: what it is, how good it is, its limits; no figure typed."""
    metrics, created = manifest["metrics"], manifest["created"]
    errors, best = metrics["price_error_percent"], metrics["best_validation"]
    return "\n".join(
        [
            f"# The second paper's network of {manifest['name']}",
            "",
            "Ten features of 15 quotes through four dense layers to 13 parameters, as the paper describes it "
            "(`training/paper_hybrid`). A baseline, held against the released networks in `docs/the_papers.md`.",
            "",
            "| | first stage | second stage |",
            "|---|---:|---:|",
            f"| trained on | {created['options']['scenarios']:,} scenarios | {created['calibrations']} calibrations |",
            f"| epochs | {created['epochs_run']['first']} | {created['epochs_run']['second']} |",
            f"| squared error of a standardised parameter, held out | {best['first']:.3f} | {best['second']:.3f} |",
            f"| relative price error on realistic panels | {errors['first']:.2f} % | {errors['second']:.2f} % |",
            "",
            f"ONNX Runtime and torch differ by {manifest['parity']:.1e} of a parameter's range.",
            "",
            *(f"- {limit}" for limit in SCENARIOS.limits),
            "",
        ]
    )


def release(run: Path, out: Path, *, replace: bool = False) -> Network:
    """Export, verify, load, and only then put in place.

    raises  ParityError, ArtefactError; FileExistsError if `out` is there and not to be replaced
    """
    if out.exists() and not replace:
        raise FileExistsError(f"{out} is already released: `--replace` takes its place")
    network, record = load_network(run)
    model = to_onnx(network)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".unreleased-") as scratch:
        staged = Path(scratch) / "release"
        staged.mkdir()
        (staged / FILE).write_bytes(model)
        manifest = manifest_of(network, record, model, out.parent.name)
        write_manifest(staged, manifest)
        manifest["parity"] = parity(network, model, read_manifest(staged))
        write_manifest(staged, manifest)
        (staged / CARD).write_text(card_of(manifest))
        Network.load(staged)
        if out.exists():
            shutil.rmtree(out)
        os.replace(staged, out)
    return Network.load(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of training.paper_hybrid.train")
    parser.add_argument("--out", type=Path, required=True, help="networks/double_heston_jump/paper")
    parser.add_argument("--replace", action="store_true", help="take the place of an earlier one")
    given = parser.parse_args()
    network = release(given.run, given.out, replace=given.replace)
    parity_found = json.loads((given.out / MANIFEST).read_text())["parity"]
    print(f"{network.version} released in {given.out}; torch and ONNX Runtime differ by {parity_found:.1e}")


if __name__ == "__main__":
    main()
