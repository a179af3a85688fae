"""The training loop.

    python -m training.train --data data/train --validation data/validation --out runs/heston-1 --epochs 10
    torchrun --nproc-per-node 2 -m training.train ...

Resumable: the same command goes on after the last finished epoch and ends with the weights of an uninterrupted run.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .augment import AugmentOptions, augment
from .dense import CompactNetwork, ShallowNetwork
from .domain import DOMAINS, Domain
from .generate import load, read_description
from .held_out import validate
from .loss import IN_BASIS_POINTS, LOSSES, LossOptions, Panels, make_loss
from .networks import CnnTransformer, NetworkOptions, Normalisation
from .parallel import Ranks, one_process, started_ranks
from .penalties import PENALTIES, PenaltyOptions, penalty
from .run_folder import Epoch, RunFolder, best_weights, read_record
from .source import source_commit

DENSE = {"shallow": ShallowNetwork, "compact": CompactNetwork}
ARCHITECTURES = ("cnn_transformer", *DENSE)
PRECISIONS = ("float32", "bfloat16", "float16")
_NORMALISATION_PANELS = 100_000


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Everything that decides the weights, given the data and the number of processes."""

    epochs: int = 100
    epoch_panels: int | None = None
    """Panels an epoch, a divisor of the training set; all of them where None. An epoch is what a kill can lose."""
    batch: int = 256
    """Panels a step, of all processes together."""
    learning_rate: float = 1e-3
    """The highest, held between the warm-up and the cool-down."""
    weight_decay: float = 1e-4
    warm_up: int = 500
    """Steps over which the learning rate rises from zero."""
    cool_down: int = 30
    """Last epochs, over which a cosine takes the learning rate to zero."""
    freeze_norm: bool = True
    """Whether batch-norm keeps its running statistics during the cool-down instead of those of each batch."""
    loss: LossOptions = field(default_factory=LossOptions)
    penalty: PenaltyOptions = field(default_factory=PenaltyOptions)
    clip: float = 100.0
    """Largest gradient norm of a loss in basis points; the others are not clipped."""
    patience: int = 10
    """Epochs without a better validation RMSE before stopping."""
    seed: int = 1
    threads: int = 2
    """Of torch in each process: the sums of a matrix product depend on them."""
    precision: str = "float32"
    """Of the network's matrix products, one of `PRECISIONS`; weights, losses and validation are float32 or more."""
    architecture: str = "cnn_transformer"
    """One of `ARCHITECTURES`."""
    begun_by: str | None = None
    """Folder of the run whose best network this one goes on from, scaling of the input included; None begins anew."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """Of the CNN-Transformer."""
    augmentation: AugmentOptions = field(default_factory=AugmentOptions)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("loss", self.loss.name, LOSSES),
            ("penalty", self.penalty.kind, ("none", *PENALTIES)),
            ("precision", self.precision, PRECISIONS),
            ("architecture", self.architecture, ARCHITECTURES),
        ):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, but is {value!r}")


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Weights that fade away slow a processor down a hundredfold; whoever called wants its small numbers back."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@_denormals_flushed()
def train(
    data: Path,
    validation: Path,
    out: Path,
    options: TrainOptions,
    *,
    ranks: Ranks | None = None,
    stop_after: int | None = None,
    say: Callable[[str], None] = print,
) -> CnnTransformer:
    """Train, or go on training, and return the network of the best epoch.

    ranks       the processes that train together and where they keep network and panels; this one on its CPU by default
    stop_after  epochs after which this call ends early, leaving a checkpoint as a kill would
    say         told of progress by the first rank
    raises      ValueError if `out` holds a run with other options, or for options that do not fit the data or the run
                gone on from
    """
    ranks = ranks or one_process()
    torch.set_num_threads(options.threads)
    domain = DOMAINS[read_description(data).domain]
    records = load(data)
    torch.manual_seed(options.seed)
    if options.begun_by is None:
        normalisation = Normalisation.of(records["iv"][:_NORMALISATION_PANELS], domain)
        network = build_network(domain, normalisation, options.architecture, options.network)
    else:
        normalisation, network = _begun(Path(options.begun_by), domain, options)
    network = network.to(ranks.device)
    panels, held_out = to_tensors(records, network), to_tensors(load(validation), network)
    del records
    n_panels = len(panels.iv)
    epoch_panels = options.epoch_panels or n_panels
    if n_panels % epoch_panels:
        raise ValueError(f"`epoch_panels` must divide the {n_panels} training panels, but is {epoch_panels}")
    if options.batch % ranks.size or options.batch > epoch_panels:
        raise ValueError(
            f"`batch` must be a multiple of the {ranks.size} processes and at most the {epoch_panels} panels of an "
            f"epoch, but is {options.batch}"
        )
    steps_per_epoch = epoch_panels // options.batch
    charged = -(-options.penalty.panels // ranks.size)
    loss_of = make_loss(options.loss, domain, network.parameters_of)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    # Without float16, whose small gradients vanish, the scaler does nothing. It begins low, since a loss in basis
    # points begins in the thousands, and torch's 65,536 would overflow for the first ten steps.
    scaler = torch.amp.GradScaler(ranks.device.type, init_scale=16.0, enabled=options.precision == "float16")
    states = {"network": network, "optimiser": optimiser, "scaler": scaler}
    settings = {
        "options": asdict(options),
        "data": asdict(read_description(data)),
        "validation": asdict(read_description(validation)),
    }
    folder = RunFolder(
        out, settings, normalisation, {"device": ranks.device.type, "processes": ranks.size, "commit": source_commit()}
    )
    first = ranks.rank == 0
    if folder.resume(states) and first:
        say(f"resumed after epoch {len(folder.history)}")
    module = ranks.module_of(network)

    history = folder.history
    # As if an interrupted run had never stopped: `seconds` counts the time spent training.
    started = time.monotonic() - (history[-1]["seconds"] if history else 0.0)
    first_epoch, resumed = len(history), time.monotonic()
    last_epoch = options.epochs if stop_after is None else min(options.epochs, stop_after)
    for epoch in range(first_epoch, last_epoch):
        if _should_stop(history, options.patience):
            if first:
                say(f"no better validation RMSE for {options.patience} epochs: stopped")
            break
        # All randomness of an epoch comes from (seed, epoch): a resumed run needs no generator state.
        generator = torch.Generator(ranks.device).manual_seed(options.seed * 1_000_003 + epoch)
        charge_generator = torch.Generator().manual_seed(options.seed * 1_000_003 + 250_000 + epoch)
        order = _order_of(epoch, epoch_panels, n_panels, options.seed).to(ranks.device)
        weight = options.penalty.weight(epoch)
        network.train()
        if options.freeze_norm and epoch >= options.epochs - options.cool_down:
            # Statistics of 256 panels wobble by percents, and a regression to basis points cannot average that out:
            # the last epochs train the very function that will be released.
            for layer in network.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.eval()
        total = torch.zeros((), device=ranks.device)
        for step in range(steps_per_epoch):
            rate = learning_rate_at(epoch * steps_per_epoch + step, steps_per_epoch, options)
            _set_learning_rate(optimiser, rate)
            chosen = order[step * options.batch : (step + 1) * options.batch]
            with ranks.device:  # where the noise is drawn
                iv = augment(panels.iv[chosen], generator, options.augmentation)
            known = panels.at(ranks.part(chosen))
            with torch.autocast(ranks.device.type, _dtype_of(options), enabled=options.precision != "float32"):
                answer = module(ranks.part(iv))
            answer = answer.float()
            loss = loss_of(answer, known)
            if weight > 0.0:
                sample = torch.randperm(len(answer), generator=charge_generator)[:charged].to(ranks.device)
                loss = loss + weight * penalty(
                    network.parameters_of(answer[sample].double()), options.penalty.kind, domain.model
                )
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if options.loss.name in IN_BASIS_POINTS:
                scaler.unscale_(optimiser)
                torch.nn.utils.clip_grad_norm_(network.parameters(), options.clip)
            scaler.step(optimiser)
            scaler.update()
            total += loss.detach()
            if first and (step + 1) % max(1, steps_per_epoch // 10) == 0:
                done = (epoch - first_epoch) * steps_per_epoch + step + 1
                left = (time.monotonic() - resumed) / done * ((last_epoch - first_epoch) * steps_per_epoch - done)
                mean = float(total / (step + 1))
                say(f"epoch {epoch + 1} step {step + 1}/{steps_per_epoch} loss {mean:.4f}, {left:.0f} s left")
        ranks.share_statistics(network)
        mean_loss = float(ranks.mean(total) / steps_per_epoch)
        if first:
            found = validate(network, held_out, domain.model, options.penalty.measured)
            seconds = time.monotonic() - started
            used: Epoch = {"loss": mean_loss, "lambda": weight, "learning_rate": rate}
            history.append(used | found.row() | {"seconds": seconds})
            folder.save(states, network)
            say(
                f"epoch {epoch + 1}/{options.epochs}: loss {mean_loss:.4f}, validation vol RMSE "
                f"median {found.median_bp:.2f} mean {found.mean_bp:.2f} 99 % {found.p99_bp:.1f} bp, "
                f"penalty {found.penalty:.3g}, {seconds:.0f} s"
            )
        history[:] = ranks.from_first(history)
    folder.close()
    folder.load_best(network)
    return network.eval()


def _begun(run: Path, domain: Domain, options: TrainOptions) -> tuple[Normalisation, CnnTransformer]:
    """The scaling and the best network of an earlier run, to go on from."""
    network, of_run = load_network(run)
    record = read_record(run)
    if of_run is not domain or record["options"]["architecture"] != options.architecture:
        found = f"a {record['options']['architecture']!r} for the domain {of_run.name!r}"
        raise ValueError(f"{run} holds {found}, and not a {options.architecture!r} for {domain.name!r} to go on from")
    return _normalisation(record), network.train()


def _normalisation(record: dict[str, Any]) -> Normalisation:
    return Normalisation(**{name: np.array(value) for name, value in record["normalisation"].items()})


def build_network(
    domain: Domain, normalisation: Normalisation, architecture: str, options: NetworkOptions
) -> CnnTransformer:
    """An untrained network of one of `ARCHITECTURES`."""
    if architecture in DENSE:
        return DENSE[architecture](domain, normalisation)
    return CnnTransformer(domain, normalisation, options)


def load_network(run: Path) -> tuple[CnnTransformer, Domain]:
    """The best network of a run, ready to evaluate, and the domain it was trained on."""
    record = read_record(run)
    domain = DOMAINS[record["data"]["domain"]]
    options = record["options"]["network"]
    options["channels"] = tuple(options["channels"])
    options["strides"] = tuple((down, across) for down, across in options["strides"])
    network = build_network(
        domain, _normalisation(record), record["options"]["architecture"], NetworkOptions(**options)
    )
    network.load_state_dict(best_weights(run))
    return network.eval(), domain


def to_tensors(records: NDArray[np.void], network: CnnTransformer) -> Panels:
    """Records of `panel_dtype` where the network is, the parameters on its scale."""
    params, iv, metric = (torch.from_numpy(np.ascontiguousarray(records[name])) for name in ("params", "iv", "metric"))
    device = network.centre.device
    target = network.normalised_of(params.to(device)).float()
    return Panels(iv.to(device), target, metric.to(device))


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


def _dtype_of(options: TrainOptions) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[options.precision]


def _should_stop(history: list[Epoch], patience: int) -> bool:
    means = [past["mean_bp"] for past in history]
    return len(means) > patience and min(means[-patience:]) >= min(means[:-patience])


def command_line() -> argparse.ArgumentParser:
    """Where to read and write, and every option that is studied."""
    default = TrainOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    on_off = argparse.BooleanOptionalAction
    add("--data", type=Path, required=True, help="folder of training.generate")
    add("--validation", type=Path, required=True, help="another, of another seed")
    add("--out", type=Path, required=True, help="checkpoints, events and the record of the run")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--precision", choices=PRECISIONS, default=default.precision, help="of the network's matrix products")
    add("--epochs", type=int, default=default.epochs)
    add("--epoch-panels", type=int, default=default.epoch_panels)
    add("--cool-down", type=int, default=default.cool_down)
    add("--batch", type=int, default=default.batch)
    add("--learning-rate", type=float, default=default.learning_rate)
    add("--warm-up", type=int, default=default.warm_up, help="steps")
    add("--freeze-norm", action=on_off, default=default.freeze_norm)
    add("--loss", choices=LOSSES, default=default.loss.name)
    add("--blend-floor-bp", type=float, default=default.loss.blend_floor_bp)
    add("--blend-plain", type=float, default=default.loss.blend_plain)
    add("--penalty", choices=("none", *PENALTIES), default=default.penalty.kind)
    add("--lambda0", type=float, default=default.penalty.lambda0, help="weight of the penalty in the first epoch")
    add("--penalty-panels", type=int, default=default.penalty.panels, help="of each batch; all of them is the paper's")
    add("--patience", type=int, default=default.patience)
    add("--seed", type=int, default=default.seed)
    add("--threads", type=int, default=default.threads, help="of torch in each process")
    add("--network", choices=ARCHITECTURES, default=default.architecture)
    add("--from", dest="begun_by", metavar="RUN", help="folder of a run whose best network this one goes on from")
    add(
        "--blocks", type=int, choices=range(1, 5), default=4, help="residual blocks, the first ones of the paper's four"
    )
    add("--strides", default="2x2,2x2,2x2,1x1", help="expiry x strike stride of each block")
    add("--positions", action=on_off, default=default.network.positions)
    add("--clean", type=float, default=default.augmentation.clean)
    add("--cropped", type=float, default=default.augmentation.cropped)
    return parser


def options_of(given: argparse.Namespace) -> TrainOptions:
    """The options of a command line."""
    strides = tuple((int(pair.split("x")[0]), int(pair.split("x")[1])) for pair in given.strides.split(","))
    return TrainOptions(
        epochs=given.epochs,
        epoch_panels=given.epoch_panels,
        cool_down=given.cool_down,
        batch=given.batch,
        learning_rate=given.learning_rate,
        warm_up=given.warm_up,
        freeze_norm=given.freeze_norm,
        loss=LossOptions(name=given.loss, blend_floor_bp=given.blend_floor_bp, blend_plain=given.blend_plain),
        penalty=PenaltyOptions(kind=given.penalty, lambda0=given.lambda0, panels=given.penalty_panels),
        patience=given.patience,
        seed=given.seed,
        threads=given.threads,
        precision=given.precision,
        architecture=given.network,
        begun_by=given.begun_by,
        network=NetworkOptions(
            channels=NetworkOptions().channels[: given.blocks],
            strides=strides[: given.blocks],
            positions=given.positions,
        ),
        augmentation=AugmentOptions(clean=given.clean, cropped=given.cropped),
    )


def main() -> None:
    given = command_line().parse_args()
    with started_ranks(given.device) as ranks:
        say = partial(print, flush=True)
        train(given.data, given.validation, given.out, options_of(given), ranks=ranks, say=say)


if __name__ == "__main__":
    main()
