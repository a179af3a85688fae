"""The paper's ablations: blocks, positions, the penalty's weight, the loss, the shallow network; three seeds each.

    python -m benchmarks.ablations --part 0/2 & python -m benchmarks.ablations --part 1/2

Small runs of the training loop on one core, all on the same panels with the same number of steps: they rank choices,
and none of them is a release. A finished run is not run again, so a killed driver goes on where it was; whichever part
ends last writes the JSON and its table.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reporting.machine import RESULTS, ROOT, describe_machine, table, write_report
from training.generate import PanelSet, generate, load
from training.held_out import PENALTY_PANELS
from training.loss import LossOptions
from training.networks import NetworkOptions
from training.penalties import PenaltyOptions, penalty
from training.run_folder import read_record
from training.train import TrainOptions, train

VALIDATION_PANELS = 4000
FULL = "full architecture"
SHALLOW = "shallow 512-256"
_LAMBDAS = (1.0, 10.0, 100.0, 1000.0)


def common(epochs: int, penalty_panels: int) -> TrainOptions:
    """What all variants share: the released recipe but for its length."""
    return TrainOptions(
        epochs=epochs,
        cool_down=max(1, epochs // 3),
        warm_up=100,
        patience=epochs,
        threads=1,
        loss=LossOptions(name="blend"),
        penalty=PenaltyOptions(kind="none", panels=penalty_panels),
    )


def variants(base: TrainOptions) -> dict[str, TrainOptions]:
    """By name, each but for the seed. Only what the name says differs from `FULL`."""
    whole = base.network
    one = NetworkOptions(channels=whole.channels[:1], strides=whole.strides[:1])
    price = replace(base, loss=LossOptions(name="price"))
    return {
        FULL: base,
        "one block": replace(base, network=one),
        "no positions": replace(base, network=replace(whole, positions=False)),
        SHALLOW: replace(base, architecture="shallow"),
        **{f"loss {name}": replace(base, loss=LossOptions(name=name)) for name in ("metric", "plain", "vega")},
        "price, lambda 0": price,
        **{
            f"price, lambda {weight:g}": replace(price, penalty=replace(base.penalty, kind="paper", lambda0=weight))
            for weight in _LAMBDAS
        },
    }


def runs(named: Mapping[str, TrainOptions], seeds: Sequence[int]) -> list[tuple[str, TrainOptions]]:
    """Folder name and options of every run, seed by seed so that an early stop leaves whole rounds."""
    return [
        (f"{name.replace(', ', '-').replace(' ', '-')}-{seed}", replace(options, seed=seed))
        for seed in seeds
        for name, options in named.items()
    ]


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One variant from the records of its seeds: figures of the best epoch of each, and all epochs for the figure."""
    best = [min(record["history"], key=lambda epoch: epoch["mean_bp"]) for record in records]
    lowest = [min(value for name, value in epoch.items() if name.startswith("pearson_")) for epoch in best]
    figures = {
        "median_bp": [epoch["median_bp"] for epoch in best],
        "mean_bp": [epoch["mean_bp"] for epoch in best],
        "lowest_pearson": lowest,
        "penalty": [epoch["penalty"] for epoch in best],
        "seconds": [record["history"][-1]["seconds"] for record in records],
    }
    return {
        **{
            name: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=min(1, len(values) - 1)))}
            for name, values in figures.items()
        },
        "history": {
            name: [[epoch[name] for epoch in record["history"]] for record in records]
            for name in ("mean_bp", "penalty")
        },
    }


def penalty_of_truth(validation: Path) -> float:
    """The paper's penalty of the exact surfaces of the panels on which validation measures that of the answers."""
    truth = np.ascontiguousarray(load(validation, PENALTY_PANELS)["params"])
    return float(penalty(torch.from_numpy(truth), "paper"))


def markdown(result: Mapping[str, Any]) -> list[str]:
    """The report from the JSON's contents."""
    rows = [
        [
            name,
            *(f"{found[key]['mean']:.{digits}f} ± {found[key]['sd']:.{digits}f}" for key, digits in _DIGITS.items()),
            f"{found['seconds']['mean']:.0f}",
        ]
        for name, found in result["variants"].items()
    ]
    return [
        "# Ablations",
        "",
        f"`{result['command']}`, {result['training_minutes']:.0f} minutes of training, all runs added up.",
        "",
        result["machine"],
        "",
        f"Small runs, to rank choices: {result['panels']:,} training panels of the paper's box (seed 1), half of them "
        f"disturbed anew in each epoch as in every training, {result['epochs']} epochs of batches of "
        f"{result['batch']}, the last third cooling down; {result['validation_panels']:,} clean validation panels "
        f"(seed 2), whose vol errors are first-order. Seeds {', '.join(map(str, result['seeds']))}: mean ± one "
        f"standard deviation of the best epoch (by mean RMSE). `{FULL}` has four blocks, positions and the loss "
        "`blend`, without penalty; each other row differs from it in what it says. The rows `price, lambda` are the "
        "paper's eq. 12 with lambda_t = lambda 0.96^(t-1) on P1..P3 over the 200 x 50 grid, evaluated on "
        f"{result['penalty_panels']} panels of each batch. Penalty: the paper's, of the answers to {PENALTY_PANELS} "
        "validation panels, whatever a run was trained with. The exact surfaces of those panels, which are free of "
        f"arbitrage, have {result['penalty_of_truth']:.3f}: a smaller penalty is further from the truth, not nearer.",
        "",
        *table(
            ["variant", "vol RMSE bp, median", "vol RMSE bp, mean", "lowest Pearson", "penalty", "seconds a run"], rows
        ),
    ]


_DIGITS = {"median_bp": 1, "mean_bp": 1, "lowest_pearson": 3, "penalty": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=20_480, help="of the training set, a multiple of 256")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--penalty-panels", type=int, default=8, help="of each batch")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th run from the I-th on")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "ablations", help="folder of the runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "ablations.json", help="JSON; the Markdown lies beside")
    given = parser.parse_args()
    part, n_parts = map(int, given.part.split("/"))
    # A copy for each part, since two processes may not write one folder; the panels are the same.
    data, validation = given.runs / f"training-{part}", given.runs / f"validation-{part}"
    generate(data, PanelSet(domain="paper", seed=1, count=given.panels), say=lambda _: None)
    generate(validation, PanelSet(domain="paper", seed=2, count=VALIDATION_PANELS), say=lambda _: None)
    base = common(given.epochs, given.penalty_panels)
    named = variants(base)
    wanted = runs(named, given.seeds)
    for name, options in wanted[part::n_parts]:
        train(data, validation, given.runs / name, options, say=lambda _: None)
        last = read_record(given.runs / name)["history"][-1]
        seconds = f"{last['seconds']:.0f} s"
        print(f"{name}: mean {last['mean_bp']:.1f} bp, penalty {last['penalty']:.3g}, {seconds}", flush=True)
    if not all(_finished(given.runs / name, given.epochs) for name, _ in wanted):
        print("the other parts are still running: the last to end writes the table", flush=True)
        return
    records = [read_record(given.runs / name) for name, _ in wanted]
    by_variant = {name: summary(records[i :: len(named)]) for i, name in enumerate(named)}
    result = {
        "command": f"python -m benchmarks.ablations --panels {given.panels} --epochs {given.epochs} "
        f"--seeds {' '.join(map(str, given.seeds))} --penalty-panels {given.penalty_panels}",
        "machine": describe_machine("torch", use="one thread a run"),
        "panels": given.panels,
        "epochs": given.epochs,
        "batch": base.batch,
        "validation_panels": VALIDATION_PANELS,
        "penalty_of_truth": penalty_of_truth(validation),
        "seeds": given.seeds,
        "penalty_panels": given.penalty_panels,
        "training_minutes": sum(record["history"][-1]["seconds"] for record in records) / 60.0,
        "variants": by_variant,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_report(given.out.with_suffix(".md"), markdown(result))


def _finished(run: Path, epochs: int) -> bool:
    try:
        return len(read_record(run)["history"]) == epochs
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
