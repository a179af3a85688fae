"""What the network alone achieves on held-out panels, through the exact pricer.

python -m training.evaluate --run runs/heston-1 --seed 3 --count 10000 --out runs/heston-1/evaluation.json
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibrant.arrays import Matrix, Vector
from calibrant.models import MODELS

from .augment import AugmentOptions, quote
from .domain import VISIBLE_DEVIATIONS, Domain
from .exact import exact_iv_panels
from .networks import CnnTransformer
from .panels import make_panels
from .train import load_network


class Accuracy(NamedTuple):
    """Of the network's parameters on one kind of input, against the exact vols whatever the input was."""

    n_panels: int
    median_rmse_bp: float
    """Of the panels' root mean square vol errors, over the quotes that the network sees in the exact panel."""
    mean_rmse_bp: float
    p90_rmse_bp: float
    p99_rmse_bp: float
    pearson: dict[str, float]
    """Correlation of each parameter with the truth."""


def evaluate(network: CnnTransformer, domain: Domain, *, seed: int, count: int) -> dict[str, Accuracy]:
    """Accuracy on `count` panels of the seed, clean and as the paper's augmentation quotes them.

    seed  one that no training or validation set has
    """
    panels = make_panels(domain, seed, 0, count)
    iv = torch.from_numpy(np.ascontiguousarray(panels["iv"]))
    generator = torch.Generator().manual_seed(seed)
    quoted = quote(iv, generator, AugmentOptions()).mid
    return {
        "clean": accuracy(network, domain, iv, panels),
        "noisy_masked": accuracy(network, domain, quoted, panels),
    }


def accuracy(network: CnnTransformer, domain: Domain, seen: Tensor, panels: NDArray[np.void]) -> Accuracy:
    """Accuracy on the panels (n,) of `panel_dtype` when the network sees the vols `seen` (n, n_expiries, n_strikes)."""
    with torch.inference_mode():
        answers = torch.cat([network(part) for part in torch.split(seen, 2000)]).double().numpy()
    error = iv_rmse_bp(domain, answers, panels["iv"])
    truth = panels["params"]
    return Accuracy(
        n_panels=len(panels),
        median_rmse_bp=float(np.median(error)),
        mean_rmse_bp=float(np.mean(error)),
        p90_rmse_bp=float(np.quantile(error, 0.9)),
        p99_rmse_bp=float(np.quantile(error, 0.99)),
        pearson={
            name: float(np.corrcoef(answers[:, i], truth[:, i])[0, 1]) for i, name in enumerate(domain.parameters)
        },
    )


def iv_rmse_bp(domain: Domain, params: Matrix, iv: NDArray[np.float32]) -> Vector:
    """Root mean square difference of the panels of `params` (n, n_params) from the panels `iv`, (n,) basis points."""
    model = MODELS["heston"]
    # tanh in float32 can round to -1, and rho = -1 is no Heston model.
    model_iv = exact_iv_panels(np.clip(params, model.lower, model.upper), domain).iv
    log_moneyness, expiry = domain.grid()
    visible = np.abs(log_moneyness) <= VISIBLE_DEVIATIONS * iv * np.sqrt(expiry)[:, None]
    # A vol that the answer's own price no longer carries counts as zero, not as perfect.
    square = np.where(visible, np.nan_to_num(model_iv) - np.nan_to_num(iv), 0.0) ** 2
    rmse: Vector = 1e4 * np.sqrt(square.sum((1, 2)) / visible.sum((1, 2)))
    return rmse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of training.train")
    parser.add_argument("--seed", type=int, default=3, help="of the held-out panels")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    given = parser.parse_args()
    network, domain = load_network(given.run)
    found = evaluate(network, domain, seed=given.seed, count=given.count)
    held_out = {"domain": domain.name, "seed": given.seed, "count": given.count}
    text = json.dumps({"held_out": held_out, **{kind: value._asdict() for kind, value in found.items()}}, indent=1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
