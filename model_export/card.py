"""The card of a release: for people, what its networks are, what they were trained on, how good they are, their limits.

Written from the manifests, so that no figure in it is typed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.domain import DOMAINS

from .comparison import Comparison

CARD = "CARD.md"

_ARCHITECTURES = {
    "cnn_transformer": "the paper's CNN-Transformer",
    "shallow": "the paper's shallow baseline, two hidden layers of 512 and 256 ReLU",
    "compact": "three hidden layers of Gelu on the flattened features of the panel, and not the paper's "
    "CNN-Transformer: `docs/results/releases.md` compares the two for Heston",
}


def write_card(
    path: Path, manifests: Mapping[str, Mapping[str, Any]], before: str | None, comparisons: Sequence[Comparison]
) -> None:
    """Write the card of the networks, by domain.

    before       version of the release that this one replaces
    comparisons  with it
    """
    first = next(iter(manifests.values()))
    lines = [
        f"# {first['name']}-{first['version']}",
        "",
        "Start parameters of the model from a panel of implied vols. One network for each training domain; "
        "`calibrant.release` says which one answers a panel.",
    ]
    for domain, manifest in manifests.items():
        lines += ["", f"## {domain}", "", *_of_network(manifest)]
    if comparisons:
        lines += ["", f"## Against {before}", "", *_against(comparisons)]
    path.write_text("\n".join(lines) + "\n")


def _against(comparisons: Sequence[Comparison]) -> list[str]:
    return [
        "Held-out panels as requests bring them (`model_export/comparison.py`): evaluations of all quotes until the "
        "answer, second opinions included, mean; distance of the start's vols from the quotes, median.",
        "",
        "| panels of | number | evaluations, before | now | from the quotes, before, bp | now, bp |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one.domain} | {one.n_panels:,} | {one.before.evaluations:.2f} | {one.after.evaluations:.2f} "
            f"| {one.before.error_bp:.2f} | {one.after.error_bp:.2f} |"
            for one in comparisons
        ),
    ]


def _of_network(manifest: Mapping[str, Any]) -> list[str]:
    domain, grid, created = manifest["training_domain"], manifest["grid"], manifest["created"]
    data, validation, options = created["data"], created["validation"], created["options"]
    strikes = "standard deviations at the money" if grid["standardised"] else "log-moneyness"
    box = [
        f"| {name} | {low:g} | {high:g} |"
        for name, low, high in zip(manifest["parameters"], domain["lower"], domain["upper"], strict=True)
    ]
    return [
        "| parameter | from | to |",
        "|---|---|---|",
        *box,
        "",
        f"- **Grid**: {len(grid['expiry'])} expiries from {grid['expiry'][0]:.3g} to {grid['expiry'][-1]:.3g} years, "
        f"{len(grid['log_moneyness'])} strikes from {grid['log_moneyness'][0]:.3g} to {grid['log_moneyness'][-1]:.3g} "
        f"({strikes}).",
        f"- **Data**: {data['count']:,} synthetic panels, seed {data['seed']}; validation {validation['count']:,}, "
        f"seed {validation['seed']}. No market data.",
        f"- **Network**: {_ARCHITECTURES[options['architecture']]}.",
        f"- **Training**: {created['epochs_run']} epochs of {options['epoch_panels'] or data['count']:,} panels, loss "
        f"`{options['loss']['name']}`, batches of {options['batch']}, {created['training_seconds'] / 60:.0f} minutes; "
        f"torch {created['torch']}, commit {_short(manifest['source_commit'])}.",
        *_beginning(created.get("begun_by")),
        f"- **File**: sha256 {manifest['sha256']}; ONNX Runtime and torch differ by {manifest['parity']:.1g} of a "
        "parameter's range.",
        *_derivation(manifest),
        *([f"- **Kept**: the file of {manifest['kept_from']}, unchanged."] if "kept_from" in manifest else []),
        "",
        *_metrics(manifest["metrics"]),
        "",
        "Limits:",
        "",
        *(f"- {limit}" for limit in DOMAINS[domain["name"]].limits),
    ]


def _short(commit: str) -> str:
    """A commit as people read it, with what it says of changes."""
    name, plus, changed = commit.partition("+")
    return name[:12] + plus + changed


def _beginning(run: Mapping[str, Any] | None) -> list[str]:
    """Of the run that a network's training went on from."""
    if run is None:
        return []
    data, options = run["data"], run["options"]
    return [
        f"- **Begun by**: another run, {run['epochs_run']} epochs of {options['epoch_panels'] or data['count']:,} of "
        f"{data['count']:,} `{data['generator']}` panels, seed {data['seed']}, loss `{options['loss']['name']}`, "
        f"{run['training_seconds'] / 60:.0f} minutes, commit {_short(run['commit'])}."
    ]


def _derivation(manifest: Mapping[str, Any]) -> list[str]:
    """Of a network whose weights are an earlier release's: its manifest says which."""
    derived = manifest.get("derived")
    if derived is None:
        return []
    return [
        f"- **Derived**: the weights are those of {derived['from']}, and the training and the figures here are its "
        f"own. The graph was written anew, {derived['nodes']} nodes for {derived['nodes_before']}, so that a single "
        f"panel is answered sooner. Over {derived['n_panels']:,} panels, clean, noisy, with gaps and unlike any "
        f"market, the answers differ by {derived['difference']:.1g} of a parameter's range at most."
    ]


def _metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The network alone, by kind of input, from the JSON of `training.evaluate --run`."""
    (network,) = metrics["networks"]
    names = list(next(iter(network["inputs"].values()))["pearson"])
    lines = [
        f"Held-out panels, the network alone (`{metrics['command']}`); vol RMSE in basis points, Pearson correlation "
        "with the truth:",
        "",
        f"| input | panels | median | mean | 99 % | {' | '.join(names)} |",
        f"|---|---|---|---|---|{'---|' * len(names)}",
    ]
    for kind, found in network["inputs"].items():
        rmse = found["rmse_bp"]
        pearson = " | ".join(f"{found['pearson'][name]:.4f}" for name in names)
        lines.append(
            f"| {kind} | {found['n_panels']:,} | {rmse['median']:.2f} | {rmse['mean']:.2f} | {rmse['p99']:.1f} "
            f"| {pearson} |"
        )
    return lines
