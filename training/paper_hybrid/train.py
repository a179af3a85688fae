"""Train the second paper's network in its two stages.

    python -m training.paper_hybrid.train --out runs/paper-hybrid --targets runs/paper-hybrid/targets.jsonl

First on 100,000 exact scenarios of the full parameter space, squared error of the standardised parameters, Adam; then
at a learning rate of 1e-5 on four in five of the calibrations of `targets`, the others telling when to stop. What the
text does not say is in `PaperTraining`: the first stage halves its learning rate where the validation loss stops to
fall, the second ends there, as in its authors' program. Progress is a line an epoch; the first stage is kept, so that
the same command goes on behind it, and without targets it is all that is done. The same data, options and number of
threads give the same weights.
"""

import argparse
import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibrant.arrays import Matrix, Vector
from training.source import source_commit

from . import targets
from .lbfgs import relative_errors
from .network import PaperNetwork, Scaling, scaling_of, targets_of
from .scenarios import REALISTIC, SCENARIOS, call_prices, draw, panels, quotes

WEIGHTS, RECORD, _FIRST = "network.pt", "run.json", "first_stage.pt"
_SCENARIO_SEED, _HELD_OUT_SEED, _MEASURED_SEED = 1, 3, 4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the two."""

    epochs: int
    batch: int
    learning_rate: float
    patience: int
    """Epochs without a better validation loss, after which it ends."""
    slow_down: int
    """The same, after which the learning rate is halved."""


@dataclass(frozen=True, kw_only=True)
class PaperTraining:
    """Of both stages."""

    scenarios: int = 100_000
    first: Stage = Stage(epochs=40, batch=1024, learning_rate=2e-3, patience=15, slow_down=2)
    second: Stage = Stage(epochs=100, batch=32, learning_rate=1e-5, patience=20, slow_down=100)
    measured: int = 500
    """Held-out realistic panels on which price errors are measured."""
    seed: int = 1


def train(
    out: Path,
    targets_file: Path | None,
    options: PaperTraining | None = None,
    say: Callable[[str], None] = print,
) -> PaperNetwork:
    """Both stages, or the first alone; writes the network and the record of the run.

    raises  ValueError if `out` holds a first stage with other options
    """
    options = options or PaperTraining()
    out.mkdir(parents=True, exist_ok=True)
    network, record = _first_stage(out, options, say)
    if targets_file is None:
        return network
    calibrated = targets.load(targets_file)
    last = len(calibrated.iv) * 4 // 5
    kept, checked = (calibrated.iv[:last], calibrated.params[:last]), (calibrated.iv[last:], calibrated.params[last:])
    began = time.monotonic()
    torch.manual_seed(options.seed)
    history = _run(network, kept, checked, options.second, options.seed, say)
    error = price_error(network, options.measured)
    say(f"after the second stage {error:.2f} % of price")
    record["price_error_percent"] |= {"second": error}
    record["history"] |= {"second": history}
    record["seconds"] |= {"second": round(time.monotonic() - began, 1)}
    record |= {"calibrations": len(calibrated.iv), "commit": source_commit()}
    torch.save(network.state_dict(), out / WEIGHTS)
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    return network


def _first_stage(out: Path, options: PaperTraining, say: Callable[[str], None]) -> tuple[PaperNetwork, dict[str, Any]]:
    """The network behind its first stage, and the record so far: as kept, or trained now."""
    asked = json.loads(json.dumps(asdict(options)))
    if (out / _FIRST).exists():
        saved = torch.load(out / _FIRST, weights_only=True)
        record: dict[str, Any] = saved["record"]
        if any(record["options"][name] != asked[name] for name in ("scenarios", "first", "seed")):
            raise ValueError(f"{out} holds a first stage with other options: choose another folder")
        network = _built(record)
        network.load_state_dict(saved["network"])
        return network.eval(), record | {"options": asked}
    torch.manual_seed(options.seed)
    began = time.monotonic()
    params = draw(SCENARIOS, _SCENARIO_SEED, options.scenarios)
    iv = panels(params)
    held_out = draw(SCENARIOS, _HELD_OUT_SEED, max(options.scenarios // 10, 256))
    scaling = scaling_of(iv, params)
    network = PaperNetwork(scaling)
    say(f"{options.scenarios} scenarios, {time.monotonic() - began:.0f} s")
    history = _run(network, (iv, params), (panels(held_out), held_out), options.first, options.seed, say)
    error = price_error(network, options.measured)
    say(f"after the first stage {error:.2f} % of price on realistic panels")
    record = {
        "options": asked,
        "scaling": {name: value.tolist() for name, value in scaling._asdict().items()},
        "price_error_percent": {"first": error},
        "history": {"first": history},
        "seconds": {"first": round(time.monotonic() - began, 1)},
    }
    torch.save({"network": network.state_dict(), "record": record}, out / _FIRST)
    return network, record


def load_network(run: Path) -> tuple[PaperNetwork, dict[str, Any]]:
    """The network of a run, ready to answer, and its record."""
    record: dict[str, Any] = json.loads((run / RECORD).read_text())
    network = _built(record)
    network.load_state_dict(torch.load(run / WEIGHTS, weights_only=True))
    return network.eval(), record


def _built(record: dict[str, Any]) -> PaperNetwork:
    return PaperNetwork(Scaling(**{name: np.array(value) for name, value in record["scaling"].items()}))


def answers(network: PaperNetwork, iv: NDArray[np.float64]) -> Matrix:
    """(n, 13) parameters of vols (n, 3, 5)."""
    network.eval()
    with torch.inference_mode():
        params: Matrix = network(torch.from_numpy(iv).float()).double().numpy()
    return params


def price_error(network: PaperNetwork, n: int) -> float:
    """Mean of the relative price errors of its answers to n exact realistic panels, in percent: the paper's measure."""
    iv = panels(draw(REALISTIC, _MEASURED_SEED, n))
    errors = [_errors_of(call, found) for call, found in zip(call_prices(iv), answers(network, iv), strict=True)]
    return 100.0 * float(np.mean(np.abs(errors)))


def _errors_of(call: Vector, params: Vector) -> Vector:
    return relative_errors(*quotes(), call, params)


def _run(
    network: PaperNetwork,
    data: tuple[NDArray[np.float64], Matrix],
    validation: tuple[NDArray[np.float64], Matrix],
    stage: Stage,
    seed: int,
    say: Callable[[str], None],
) -> list[dict[str, float]]:
    """One stage; the network ends with its best weights."""
    inputs, wanted = _tensors(network, *data)
    held_inputs, held_wanted = _tensors(network, *validation)
    optimiser = torch.optim.Adam(network.layers.parameters(), lr=stage.learning_rate)
    slower = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=stage.slow_down, min_lr=1e-6)
    generator = torch.Generator().manual_seed(seed)
    history: list[dict[str, float]] = []
    best, best_weights = np.inf, deepcopy(network.state_dict())
    for epoch in range(stage.epochs):
        network.train()
        total = 0.0
        # Whole batches alone: batch-norm has no statistics of a rest of one.
        order = torch.randperm(len(inputs), generator=generator)[: len(inputs) // stage.batch * stage.batch]
        for chosen in torch.split(order, stage.batch):
            loss = torch.nn.functional.mse_loss(network.layers(inputs[chosen]), wanted[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(loss.detach()) * len(chosen)
        network.eval()
        with torch.inference_mode():
            found = float(torch.nn.functional.mse_loss(network.layers(held_inputs), held_wanted))
        slower.step(found)
        history.append({"loss": total / len(order), "validation": found})
        if found < best:
            best, best_weights = found, deepcopy(network.state_dict())
        say(f"epoch {epoch + 1}/{stage.epochs}: loss {total / len(order):.4f}, validation {found:.4f}")
        if epoch - int(np.argmin([past["validation"] for past in history])) >= stage.patience:
            break
    network.load_state_dict(best_weights)
    network.eval()
    return history


def _tensors(network: PaperNetwork, iv: NDArray[np.float64], params: Matrix) -> tuple[Tensor, Tensor]:
    """Features and standardised targets."""
    return network.features(torch.from_numpy(iv)), network.normalised_of(torch.from_numpy(targets_of(params)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--targets", type=Path, help="file of training.paper_hybrid.targets")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    train(given.out, given.targets)


if __name__ == "__main__":
    main()
