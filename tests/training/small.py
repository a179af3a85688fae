"""A training set small enough to train on within a test."""

from pathlib import Path

from training.generate import PanelSet, generate
from training.train import TrainOptions

OPTIONS = TrainOptions(epochs=4, cool_down=2, epoch_panels=128, batch=32, warm_up=2, threads=1)


def make_sets(folder: Path) -> tuple[Path, Path]:
    """Folders of 256 training and 64 validation panels."""
    data, validation = folder / "data", folder / "validation"
    generate(data, PanelSet(domain="paper", seed=1, count=256, shard_size=128), say=lambda _: None)
    generate(validation, PanelSet(domain="paper", seed=2, count=64, shard_size=64), say=lambda _: None)
    return data, validation
