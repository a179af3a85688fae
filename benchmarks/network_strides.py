"""Strides of the network's residual blocks: accuracy after a short training run against latency.

    python -m benchmarks.network_strides --data data/train --validation data/validation --out docs/network_strides.md

The paper's eightfold pooling leaves a 10 x 8 panel one or two tokens. Each candidate is trained alike, on the same
panels in the same order, exported, and timed in ONNX Runtime on one thread, one panel a call.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from calibrant.network import open_session
from model_export.to_onnx import to_onnx
from training.domain import DOMAINS
from training.generate import read_description
from training.networks import NetworkOptions, token_grid
from training.panels import make_panels
from training.train import TrainOptions, train

CANDIDATES: dict[str, tuple[tuple[int, int], ...]] = {
    "2x2 2x2 2x2 1x1": ((2, 2), (2, 2), (2, 2), (1, 1)),
    "2x2 2x2 1x1 1x1": ((2, 2), (2, 2), (1, 1), (1, 1)),
    "1x1 2x2 2x2 1x1": ((1, 1), (2, 2), (2, 2), (1, 1)),
    "1x1 2x2 1x1 1x1": ((1, 1), (2, 2), (1, 1), (1, 1)),
    "1x1 1x1 2x2 2x2": ((1, 1), (1, 1), (2, 2), (2, 2)),
}


class Row(NamedTuple):
    """One candidate."""

    strides: str
    tokens: int
    median_bp: float
    mean_bp: float
    training_seconds: float
    p50_us: float
    best_us: float


def measure(
    name: str, strides: tuple[tuple[int, int], ...], data: Path, validation: Path, epochs: int, n_calls: int
) -> Row:
    """Train a candidate, export it and time it."""
    options = TrainOptions(
        epochs=epochs, cool_down=max(1, epochs // 2), epoch_panels=50_000, network=NetworkOptions(strides=strides)
    )
    domain = DOMAINS[read_description(data).domain]
    with tempfile.TemporaryDirectory() as scratch:
        began = perf_counter()
        lines: list[str] = []
        network = train(data, validation, Path(scratch), options, say=lines.append)
        seconds = perf_counter() - began
    # "epoch 4/4: loss ..., validation vol RMSE median M mean N ..."
    words = lines[-1].split()
    session = open_session(to_onnx(network, domain))
    panels = make_panels(domain, 5, 0, 100)["iv"]
    times = []
    for call in range(n_calls):
        one = panels[call % 100 : call % 100 + 1]
        began = perf_counter()
        session.run(None, {"iv": one})
        times.append(1e6 * (perf_counter() - began))
    n_rows, n_columns = token_grid(domain.shape, strides)
    return Row(
        strides=name,
        tokens=n_rows * n_columns,
        median_bp=float(words[words.index("median") + 1]),
        mean_bp=float(words[words.index("mean") + 1]),
        training_seconds=seconds,
        p50_us=float(np.median(times)),
        best_us=float(np.min(times)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6, help="of 50,000 panels, the second half of them cooling down")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--out", type=Path, required=True, help="Markdown to write")
    given = parser.parse_args()
    lines = [
        "# Strides of the network",
        "",
        f"`python -m benchmarks.network_strides`, {given.epochs} epochs of 50,000 panels each, seed 1, torch on two "
        f"threads; latency of one panel in ONNX Runtime on one thread, {given.calls} calls. Vol RMSE of clean "
        "validation panels to first order, basis points.",
        "",
        "| strides (expiry x strike) | tokens | median bp | mean bp | training s | p50 us | best us |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, strides in CANDIDATES.items():
        row = measure(name, strides, given.data, given.validation, given.epochs, given.calls)
        lines.append(
            f"| {row.strides} | {row.tokens} | {row.median_bp:.1f} | {row.mean_bp:.1f} | {row.training_seconds:.0f} "
            f"| {row.p50_us:.0f} | {row.best_us:.0f} |"
        )
        print(lines[-1], flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
