"""The evaluation as JSON can hold it, and as Markdown tables made of that JSON alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from reporting.machine import table
from training.domain import PAPER

from .inputs import FILLED
from .noisy import LARGEST_BOUND
from .refinement import TARGET_BP

MEDIAN_BP, MEAN_BP, PEARSON = 5.0, 10.0, 0.995
"""What is asked of the network alone on clean panels of the paper's box."""


def plain(value: Any) -> Any:
    """Named tuples as dictionaries, all the way down."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return value


def markdown(result: Mapping[str, Any]) -> list[str]:
    """The whole report from the JSON's contents."""
    options = result["options"]
    seconds = sum(network["seconds"] for network in result["networks"])
    lines = [
        "# Evaluation",
        "",
        f"`{result['command']}`, {seconds:.0f} s.",
        "",
        result["machine"],
        "",
        f"Held-out panels have the seed {options['seed']} (training 1, validation 2). Vol errors are those of the "
        "exact surface of the answer against the exact surface of the truth, whatever the input was, over every node "
        "of the grid whose option is worth more than 1e-9 of the forward. Chi-squared: distance of the answer's "
        "density from the exact one on strike bins of 1 % of the forward from 80 to 120 % and the two tails, sum (p "
        "- q)^2 / max(q, 1e-6), mean over the expiries of a panel (`training/evaluation/density.py`).",
    ]
    for network in result["networks"]:
        lines += ["", *_of_network(network, options)]
    return lines


def _of_network(network: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    inputs = network["inputs"]
    lines = [
        f"## {network['version']}, domain `{network['domain']}`",
        "",
        "### The network alone",
        "",
        "Errors: median / mean / 90 % / 99 % of the panels."
        + (" Nodes filled: those that the projection of a panel's quotes fills." if FILLED in inputs else ""),
        "",
        *table(
            ["", *inputs],
            [
                ["panels", *(f"{found['n_panels']:,}" for found in inputs.values())],
                _spread_row("vol RMSE, bp", [found["rmse_bp"] for found in inputs.values()], ".2f"),
                _spread_row("vol MAPE, %", [found["mape_pct"] for found in inputs.values()], ".3f"),
                _spread_row("chi-squared", [found["chi_squared"] for found in inputs.values()], ".1e"),
                *(
                    [f"Pearson, {name}", *(f"{found['pearson'][name]:.5f}" for found in inputs.values())]
                    for name in next(iter(inputs.values()))["pearson"]
                ),
            ],
        ),
    ]
    if network["domain"] == PAPER.name:
        lines += ["", _verdict(inputs["clean"])]
    if network["refined"]:
        lines += ["", *_of_refined(network["refined"])]
    if network["noisy"]:
        lines += ["", *_of_noisy(network["noisy"], options)]
    if network["latency"]:
        lines += ["", *_of_latency(network["latency"])]
    return lines


def _verdict(clean: Mapping[str, Any]) -> str:
    """The clean panels against what is asked of them."""
    found = [
        ("median", clean["rmse_bp"]["median"], clean["rmse_bp"]["median"] <= MEDIAN_BP, f"at most {MEDIAN_BP:g} bp"),
        ("mean", clean["rmse_bp"]["mean"], clean["rmse_bp"]["mean"] <= MEAN_BP, f"at most {MEAN_BP:g} bp"),
        *(
            (f"Pearson of {name}", value, value >= PEARSON, f"at least {PEARSON:g}")
            for name, value in clean["pearson"].items()
        ),
    ]
    missed = [f"{name} is {value:.4g}, asked {asked}" for name, value, met, asked in found if not met]
    return (
        f"Asked of clean panels: vol RMSE at most {MEDIAN_BP:g} bp in the median and {MEAN_BP:g} in the mean (the "
        f"paper: 28), Pearson at least {PEARSON:g} for every parameter (the paper: 0.98). "
        + (f"Not met: {'; '.join(missed)}." if missed else "Met.")
    )


def _spread_row(what: str, spreads: Sequence[Mapping[str, float]], digits: str) -> list[str]:
    return [what, *(" / ".join(format(value, digits) for value in spread.values()) for spread in spreads)]


def _of_refined(found: Mapping[str, Any]) -> list[str]:
    return [
        f"### Clean panels after refinement, {found['n_panels']:,} panels",
        "",
        *table(
            ["", "median", "mean", "90 %", "99 %"],
            [
                [what, *(format(value, digits) for value in found[key].values())]
                for what, key, digits in (
                    ("largest vol error of a panel, bp", "worst_bp", ".1e"),
                    ("largest relative parameter error", "parameter_error", ".1e"),
                    ("evaluations", "evaluations", ".1f"),
                )
            ],
        ),
        "",
        f"Converged with every vol within {TARGET_BP} bp: {found['n_within']:,} of {found['n_panels']:,}, "
        f"{100.0 * found['n_within'] / found['n_panels']:.2f} % (asked: 99.9 %). Largest vol error of all: "
        f"{found['largest_bp']:.1e} bp. Quotes with a vega below 1e-3 of the forward are left out, as "
        "everywhere.",
        *(
            f"- panel {panel['panel']}, {', '.join(f'{x:.4g}' for x in panel['truth'])}: {panel['status']}, "
            f"{panel['worst_bp']:.2g} bp"
            for panel in found["failures"]
        ),
    ]


def _of_noisy(found: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    judged = found["judged"]
    lines = [
        f"### Noisy panels against the Cramer-Rao bound, {found['n_panels']:,} panels",
        "",
        f"Seed {options['noisy_seed']}, noise seed {options['noise_seed']}: Gaussian noise of 0.5 bp on every mid, 5 "
        "% of the quotes missing, a half-width U[0, 15] bp setting bid and ask around the noisy mid, equal weights. "
        "Root mean square of error over the least-squares bound of that panel's quotes, derivatives by the accurate "
        f"pricer at the truth. Judged: {judged['n_panels']}. Counted apart: {found['on_bound']['n_panels']} ended on "
        f"a bound, {found['loose']['n_panels']} have a bound above {100 * LARGEST_BOUND:g} % of a parameter. Not "
        f"converged: {found['n_unconverged']}.",
        "",
    ]
    columns = ["parameter", "network alone", "refined (0.95 to 1.05)", "mean of error / bound, refined"]
    apart = [(name, found[key]) for name, key in (("on a bound", "on_bound"), ("wide bound", "loose"))]
    apart = [(name, group) for name, group in apart if group["n_panels"]]
    columns += [f"refined, {name}" for name, _ in apart]
    rows = [
        [
            parameter,
            f"{judged['before'][parameter]:.1f}",
            f"{judged['after'][parameter]:.3f}",
            f"{judged['mean_after'][parameter]:+.3f}",
            *(f"{group['after'][parameter]:.3f}" for _, group in apart),
        ]
        for parameter in judged["after"]
    ]
    return [*lines, *table(columns, rows)]


def _of_latency(found: Mapping[str, Any]) -> list[str]:
    return [
        f"### Latency, {found['n_passes']} passes on noisy panels of the paper's grid",
        "",
        *table(
            ["", "median, us", "95 %, us"],
            [
                [
                    "network alone (ONNX Runtime, one thread)",
                    f"{found['network_median_us']:.0f}",
                    f"{found['network_p95_us']:.0f}",
                ],
                [
                    "projection, network, refinement, standard errors",
                    f"{found['refined_median_us']:.0f}",
                    f"{found['refined_p95_us']:.0f}",
                ],
            ],
        ),
    ]
