"""The training loop.

    python -m training.train --data data/train --validation data/validation --out runs/heston-1 --epochs 10

Resumable: the same command goes on after the last finished epoch and ends with the weights of an uninterrupted run.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .augment import AugmentOptions, augment
from .domain import DOMAINS, Domain
from .generate import load, read_description
from .loss import LOSSES, blend_loss, metric_loss, plain_loss, vol_rmse_bp
from .networks import CnnTransformer, NetworkOptions, Normalisation

_CHECKPOINT = "checkpoint.pt"
_BEST = "best.pt"
_RECORD = "run.json"
_NORMALISATION_PANELS = 100_000


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Everything that decides the weights, given the data."""

    epochs: int = 100
    epoch_panels: int | None = None
    """Panels an epoch, a divisor of the training set; all of them where None. An epoch is what a kill can lose."""
    batch: int = 256
    learning_rate: float = 1e-3
    """The highest, held between the warm-up and the cool-down."""
    weight_decay: float = 1e-4
    warm_up: int = 500
    """Steps over which the learning rate rises from zero."""
    cool_down: int = 30
    """Last epochs, over which a cosine takes the learning rate to zero."""
    freeze_norm: bool = True
    """Whether batch-norm keeps its running statistics during the cool-down instead of those of each batch."""
    loss: str = "metric"
    """`metric` (vol error to first order) or `plain` (parameters)."""
    clip: float = 100.0
    """Largest gradient norm of the metric loss, in its basis points."""
    patience: int = 10
    """Epochs without a better validation RMSE before stopping."""
    seed: int = 1
    threads: int = 2
    """Of torch: the sums of a matrix product depend on them."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    augmentation: AugmentOptions = field(default_factory=AugmentOptions)


class Panels(NamedTuple):
    """Panels as the loop reads them."""

    iv: Tensor
    """(n, n_expiries, n_strikes), exact, NaN where the price carries no vol."""
    target: Tensor
    """(n, n_params) on the network's scale."""
    metric: Tensor
    """(n, n_params (n_params + 1) / 2)."""


class Validation(NamedTuple):
    """Vol error of clean panels to first order, basis points."""

    median_bp: float
    mean_bp: float
    p99_bp: float


def train(
    data: Path,
    validation: Path,
    out: Path,
    options: TrainOptions,
    *,
    stop_after: int | None = None,
    say: Callable[[str], None] = print,
) -> CnnTransformer:
    """Train, or go on training, and return the network of the best epoch.

    stop_after  epochs after which this call ends early, leaving a checkpoint as a kill would
    raises      ValueError if `out` holds a run with other options
    """
    if options.loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {LOSSES}, but is {options.loss!r}")
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    domain = DOMAINS[read_description(data).domain]
    records = load(data)
    normalisation = Normalisation.of(records["iv"][:_NORMALISATION_PANELS], domain)
    torch.manual_seed(options.seed)
    network = CnnTransformer(domain, normalisation, options.network)
    panels, held_out = to_tensors(records, network), to_tensors(load(validation), network)
    del records

    n_panels = len(panels.iv)
    epoch_panels = options.epoch_panels or n_panels
    if n_panels % epoch_panels:
        raise ValueError(f"`epoch_panels` must divide the {n_panels} training panels, but is {epoch_panels}")
    steps_per_epoch = epoch_panels // options.batch
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
    )

    settings: dict[str, object] = {
        "options": asdict(options),
        "data": asdict(read_description(data)),
        "validation": asdict(read_description(validation)),
    }
    history: list[dict[str, float]] = []
    checkpoint = out / _CHECKPOINT
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if not _may_continue(saved["settings"], json.loads(json.dumps(settings)), len(saved["history"])):
            raise ValueError(f"{out} holds a run with other settings: choose another folder")
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        history = saved["history"]
        say(f"resumed after epoch {len(history)}")

    # As if an interrupted run had never stopped: `seconds` counts the time spent training.
    started = time.monotonic() - (history[-1]["seconds"] if history else 0.0)
    first_epoch, resumed = len(history), time.monotonic()
    last_epoch = options.epochs if stop_after is None else min(options.epochs, stop_after)
    for epoch in range(first_epoch, last_epoch):
        if _should_stop(history, options.patience):
            say(f"no better validation RMSE for {options.patience} epochs: stopped")
            break
        # All randomness of an epoch comes from (seed, epoch): a resumed run needs no generator state.
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + epoch)
        order = _order_of(epoch, epoch_panels, n_panels, options.seed)
        network.train()
        if options.freeze_norm and epoch >= options.epochs - options.cool_down:
            # Statistics of 256 panels wobble by percents, and a regression to basis points cannot average that out:
            # the last epochs train the very function that will be released.
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
        total = torch.zeros(())
        for step in range(steps_per_epoch):
            _set_learning_rate(optimiser, learning_rate_at(epoch * steps_per_epoch + step, steps_per_epoch, options))
            chosen = order[step * options.batch : (step + 1) * options.batch]
            iv = augment(panels.iv[chosen], generator, options.augmentation)
            error = network.normalised(iv) - panels.target[chosen]
            if options.loss == "plain":
                loss = plain_loss(error)
            elif options.loss == "metric":
                loss = metric_loss(error, panels.metric[chosen])
            else:
                loss = blend_loss(error, panels.metric[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if options.loss != "plain":
                torch.nn.utils.clip_grad_norm_(network.parameters(), options.clip)
            optimiser.step()
            total += loss.detach()
            if step % 100 == 99:
                done = (epoch - first_epoch) * steps_per_epoch + step + 1
                left = (time.monotonic() - resumed) / done * ((last_epoch - first_epoch) * steps_per_epoch - done)
                mean = float(total / (step + 1))
                say(f"epoch {epoch + 1} step {step + 1}/{steps_per_epoch} loss {mean:.4f}, {left:.0f} s left")
        found = validate(network, held_out)
        seconds = time.monotonic() - started
        history.append({"loss": float(total / steps_per_epoch), **found._asdict(), "seconds": seconds})
        say(
            f"epoch {epoch + 1}/{options.epochs}: loss {history[-1]['loss']:.4f}, validation vol RMSE "
            f"median {found.median_bp:.2f} mean {found.mean_bp:.2f} 99 % {found.p99_bp:.1f} bp, {seconds:.0f} s"
        )
        if found.mean_bp == min(past["mean_bp"] for past in history):
            _save(out / _BEST, {"network": network.state_dict(), "epoch": epoch + 1})
        # Last, so that a kill before it repeats the epoch and one after it goes on.
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "history": history}
        _save(checkpoint, {**state, "settings": json.loads(json.dumps(settings))})
        _write_record(out / _RECORD, settings, history, normalisation)
    network.load_state_dict(torch.load(out / _BEST, weights_only=True)["network"])
    return network.eval()


def load_network(run: Path) -> tuple[CnnTransformer, Domain]:
    """The best network of a run, ready to evaluate, and the domain it was trained on."""
    record = json.loads((run / _RECORD).read_text())
    domain = DOMAINS[record["data"]["domain"]]
    options = record["options"]["network"]
    options["channels"] = tuple(options["channels"])
    options["strides"] = tuple((down, across) for down, across in options["strides"])
    normalisation = Normalisation(**{name: np.array(value) for name, value in record["normalisation"].items()})
    network = CnnTransformer(domain, normalisation, NetworkOptions(**options))
    network.load_state_dict(torch.load(run / _BEST, weights_only=True)["network"])
    return network.eval(), domain


def to_tensors(records: NDArray[np.void], network: CnnTransformer) -> Panels:
    """Records of `panel_dtype` as tensors, the parameters on the network's scale."""
    params = torch.from_numpy(np.ascontiguousarray(records["params"]))
    target = network.normalised_of(params).float()
    return Panels(
        torch.from_numpy(np.ascontiguousarray(records["iv"])),
        target,
        torch.from_numpy(np.ascontiguousarray(records["metric"])),
    )


def validate(network: CnnTransformer, panels: Panels) -> Validation:
    """Vol RMSE of each clean panel to first order; the exact pricer has the last word in `training.evaluate`."""
    network.eval()
    with torch.inference_mode():
        errors = [
            vol_rmse_bp(network.normalised(iv) - target, metric)
            for iv, target, metric in zip(*(torch.split(part, 2000) for part in panels), strict=True)
        ]
    error = torch.cat(errors)
    return Validation(float(error.median()), float(error.mean()), float(error.quantile(0.99)))


def learning_rate_at(step: int, steps_per_epoch: int, options: TrainOptions) -> float:
    """Linear warm-up, a plateau, and half a cosine to zero over the last epochs.

    Unlike a cosine over the whole run, the plateau does not depend on the number of epochs: a run can be given more or
    fewer of them until its cool-down begins, and ends with the weights it would have had from the start.
    """
    rise = min(1.0, (step + 1) / max(1, options.warm_up))
    into = step / steps_per_epoch - (options.epochs - options.cool_down)
    fall = 1.0 if into <= 0.0 else 0.5 * (1.0 + float(np.cos(np.pi * into / options.cool_down)))
    return options.learning_rate * rise * fall


def _set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = value


def _order_of(epoch: int, epoch_panels: int, n_panels: int, seed: int) -> Tensor:
    """Indices of an epoch: the next part of a permutation of all panels, and of a new one once it is used up."""
    sweep, offset = divmod(epoch * epoch_panels, n_panels)
    order = torch.randperm(n_panels, generator=torch.Generator().manual_seed(seed * 1_000_003 + 500_000 + sweep))
    return order[offset : offset + epoch_panels]


def _may_continue(old: dict[str, Any], new: dict[str, Any], n_done: int) -> bool:
    """Whether a run with the new settings would have come to the same state: the same but for its length."""
    free = ("epochs", "cool_down", "patience", "freeze_norm")
    cooling = [n_done > run["options"]["epochs"] - run["options"]["cool_down"] for run in (old, new)]
    fixed = [{**run, "options": {k: v for k, v in run["options"].items() if k not in free}} for run in (old, new)]
    return fixed[0] == fixed[1] and (old == new or not any(cooling))


def _should_stop(history: list[dict[str, float]], patience: int) -> bool:
    means = [past["mean_bp"] for past in history]
    return len(means) > patience and min(means[-patience:]) >= min(means[:-patience])


def _save(path: Path, state: dict[str, object]) -> None:
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def _write_record(
    path: Path, settings: dict[str, object], history: list[dict[str, float]], normalisation: Normalisation
) -> None:
    record = {
        **settings,
        "normalisation": {name: value.tolist() for name, value in vars(normalisation).items()},
        "history": history,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(unfinished, path)


def main() -> None:
    default = TrainOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of training.generate")
    parser.add_argument("--validation", type=Path, required=True, help="another, of another seed")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and the record of the run")
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--epoch-panels", type=int, default=default.epoch_panels)
    parser.add_argument("--cool-down", type=int, default=default.cool_down)
    parser.add_argument("--batch", type=int, default=default.batch)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--freeze-norm", action=argparse.BooleanOptionalAction, default=default.freeze_norm)
    parser.add_argument("--loss", choices=LOSSES, default=default.loss)
    parser.add_argument("--patience", type=int, default=default.patience)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--threads", type=int, default=default.threads)
    parser.add_argument("--strides", default="2x2,2x2,2x2,1x1", help="expiry x strike stride of each block")
    parser.add_argument("--clean", type=float, default=default.augmentation.clean)
    parser.add_argument("--cropped", type=float, default=default.augmentation.cropped)
    given = parser.parse_args()
    strides = tuple((int(pair.split("x")[0]), int(pair.split("x")[1])) for pair in given.strides.split(","))
    options = TrainOptions(
        epochs=given.epochs,
        epoch_panels=given.epoch_panels,
        cool_down=given.cool_down,
        batch=given.batch,
        learning_rate=given.learning_rate,
        freeze_norm=given.freeze_norm,
        loss=given.loss,
        patience=given.patience,
        seed=given.seed,
        threads=given.threads,
        network=NetworkOptions(strides=strides),
        augmentation=AugmentOptions(clean=given.clean, cropped=given.cropped),
    )
    train(given.data, given.validation, given.out, options, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
