"""Run by torchrun in `test_parallel.py`: train in one go, train with a break, and keep what each rank ends with.

python -m tests.training.two_ranks SETS OUT
"""

import sys
from pathlib import Path

import torch

from training.networks import CnnTransformer
from training.parallel import started_ranks
from training.run_folder import RunFolder
from training.train import train

from .small import TWO_RANKS


def keep_last(self: RunFolder, network: CnnTransformer) -> None:
    """In place of `RunFolder.load_best`, which would give every rank the weights of one file."""


def main() -> None:
    sets, out = Path(sys.argv[1]), Path(sys.argv[2])
    RunFolder.load_best = keep_last  # type: ignore[method-assign]
    with started_ranks("cpu") as ranks:
        network = train(sets / "data", sets / "validation", out / "whole", TWO_RANKS, ranks=ranks)
        torch.save(network.state_dict(), out / f"rank-{ranks.rank}.pt")
        for stop_after in (1, None):
            train(sets / "data", sets / "validation", out / "cut", TWO_RANKS, ranks=ranks, stop_after=stop_after)


if __name__ == "__main__":
    main()
