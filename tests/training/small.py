"""A training set small enough to train on within a test, and the command line that trains on it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.generate import PanelSet, generate
from training.penalties import PenaltyOptions
from training.train import TrainOptions

OPTIONS = TrainOptions(epochs=4, cool_down=2, epoch_panels=128, batch=32, warm_up=2, threads=1)

TWO_RANKS = replace(OPTIONS, epochs=4, cool_down=1, epoch_panels=256, penalty=PenaltyOptions(kind="paper", panels=4))


def make_sets(folder: Path) -> tuple[Path, Path]:
    """Folders of 256 training and 64 validation panels."""
    data, validation = folder / "data", folder / "validation"
    generate(data, PanelSet(domain="paper", seed=1, count=256, shard_size=128), say=lambda _: None)
    generate(validation, PanelSet(domain="paper", seed=2, count=64, shard_size=64), say=lambda _: None)
    return data, validation


def command(sets: tuple[Path, Path], out: Path, options: TrainOptions) -> list[str]:
    """Arguments of `python` for a run with these options, as far as tests set them."""
    words: dict[str, Any] = {
        "data": sets[0],
        "validation": sets[1],
        "out": out,
        "epochs": options.epochs,
        "cool-down": options.cool_down,
        "epoch-panels": options.epoch_panels,
        "batch": options.batch,
        "warm-up": options.warm_up,
        "threads": options.threads,
        "penalty": options.penalty.kind,
        "penalty-panels": options.penalty.panels,
    }
    return ["-m", "training.train", *(str(word) for name, value in words.items() for word in (f"--{name}", value))]


def python(*arguments: str) -> list[str]:
    """A command line of this interpreter in which, as in a test, warnings are errors."""
    return [sys.executable, "-W", "error", *arguments]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of the last epoch."""
    saved: dict[str, torch.Tensor] = torch.load(run / "checkpoint.pt", weights_only=True)["network"]
    return saved


def assert_same_weights(run: Path, expected: Path) -> None:
    """Bit by bit."""
    found, wanted = weights(run), weights(expected)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), name
