"""The paper's five figures (its section 5), drawn from the results of the stages before.

    python -m benchmarks.figures

Numbers come from docs/results/{evaluation,ablations}.json, and those too many for JSON from the arrays that
`training.evaluate` and `benchmarks.baselines` leave in build/figures. Nothing is computed here but surfaces from
parameters.
"""

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from benchmarks.ablations import FULL, SHALLOW
from calibrant.arrays import Vector
from reporting.machine import RESULTS, ROOT
from training.domain import DOMAINS, PAPER
from training.evaluate import FIGURES
from training.evaluation.surfaces import Surfaces, otm, vols

DOCS = ROOT / "docs" / "figures"

# Okabe & Ito (2008): told apart by every kind of colour vision.
BLACK, BLUE, ORANGE, GREEN, RED, GREY = "#1a1a1a", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#7f7f7f"
SYMBOLS = {"kappa": r"$\kappa$", "theta": r"$\theta$", "xi": r"$\xi$", "rho": r"$\rho$", "v0": r"$v_0$"}
_DPI = 140
_COLOURS = 256
"""In a file: as many as one byte names, a third of the bytes of full colour."""
STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": BLACK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
}

Arrays = Mapping[str, NDArray[np.float64]]


def surface(network: Mapping[str, Any]) -> Figure:
    """Figure 1: the panel with the median error, and what the network makes of it.

    network  an entry of `networks` in evaluation.json, of the paper's domain
    """
    typical = network["typical"]
    strikes, expiry = np.exp(PAPER.grid()[0]), PAPER.grid()[1]
    # The red lines run between the black ones: surfaces a few basis points apart would hide each other.
    fine_strikes, fine_expiry = np.linspace(strikes[0], strikes[-1], 61), np.linspace(expiry[0], expiry[-1], 58)
    figure = Figure(figsize=(8.6, 6.6), dpi=_DPI)
    axes: Any = figure.add_axes((0.0, 0.0, 0.88, 0.98), projection="3d", computed_zorder=False)
    truth = _vols_of(typical["truth"], fine_strikes, fine_expiry)
    answer = _vols_of(typical["answer"], fine_strikes, fine_expiry)
    low, high = float(min(truth.min(), answer.min())), float(max(truth.max(), answer.max()))
    floor = low - 0.5 * (high - low)
    x, y = np.meshgrid(fine_strikes, fine_expiry)
    residual = 1e4 * np.abs(answer - truth)
    plane = axes.contourf(x, y, residual, zdir="z", offset=floor, levels=12, cmap="Greens", alpha=0.9, zorder=1)
    for params, columns, rows, colour in (
        (typical["truth"], strikes, expiry, BLACK),
        (typical["answer"], _middles(strikes), _middles(expiry), RED),
    ):
        along_expiry, along_strike = _vols_of(params, columns, fine_expiry), _vols_of(params, fine_strikes, rows)
        for strike, vol in zip(columns, along_expiry.T, strict=True):
            axes.plot(np.full(vol.size, strike), fine_expiry, vol, color=colour, lw=1.0, zorder=2)
        for years, vol in zip(rows, along_strike, strict=True):
            axes.plot(fine_strikes, np.full(vol.size, years), vol, color=colour, lw=1.0, zorder=2)
    axes.set(xlabel="strike / forward", ylabel="expiry, years", zlabel="implied vol", zlim=(floor, high))
    axes.set_xticks(np.linspace(0.8, 1.2, 5))
    axes.set_yticks([0.1, 0.5, 1.0, 1.5, 2.0])
    axes.xaxis.labelpad = axes.yaxis.labelpad = axes.zaxis.labelpad = 8
    axes.view_init(elev=22, azim=-52)
    axes.set_box_aspect((1.1, 1.1, 0.85), zoom=1.0)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("#fafafa")
        axis.pane.set_edgecolor("#dddddd")
    axes.grid(True)
    bar = figure.colorbar(plane, cax=figure.add_axes((0.885, 0.22, 0.02, 0.42)), ticks=MaxNLocator(5))
    bar.set_label("absolute residual, bp of vol")
    _untouched(bar)
    axes.legend(
        handles=[
            Line2D([], [], color=colour, label=label) for colour, label in ((BLACK, "panel"), (RED, "reconstruction"))
        ],
        loc="upper left",
        bbox_to_anchor=(0.06, 0.86),
    )
    figure.suptitle(
        f"The panel with the median error: {typical['rmse_bp']:.1f} bp RMSE", y=0.95, fontsize=12, weight="bold"
    )
    return figure


def scatter(network: Mapping[str, Any], arrays: Arrays) -> Figure:
    """Figure 2: every held-out panel, the network's parameters against the truth.

    arrays  `<domain>_truth`, `_answer` (n, n_params) and `_level` (n,)
    """
    domain = DOMAINS[network["domain"]]
    truth, answer, level = (arrays[f"{domain.name}_{name}"] for name in ("truth", "answer", "level"))
    correlation = next(iter(network["inputs"].values()))["pearson"]
    figure = Figure(figsize=(9.6, 6.4), dpi=_DPI, layout="constrained")
    panels = figure.subplots(2, 3)
    points = None
    for i, (axes, name) in enumerate(zip(panels.flat, domain.parameters, strict=False)):
        low, high = truth[:, i].min(), truth[:, i].max()
        ends = np.array([low, high])
        points = axes.scatter(truth[:, i], answer[:, i], c=level, s=2.2, cmap="viridis", linewidths=0, rasterized=True)
        axes.fill_between(ends, 0.95 * ends, 1.05 * ends, color=ORANGE, alpha=0.3, lw=0, zorder=3)
        axes.plot(ends, ends, color=BLACK, lw=1.0, ls="--", zorder=4)
        pad = 0.06 * (high - low)
        axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
        axes.set_title(SYMBOLS[name], fontsize=14)
        axes.text(
            0.04, 0.95, f"r = {_correlation(correlation[name])}", transform=axes.transAxes, va="top", weight="bold"
        )
        axes.set_aspect("equal")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if i >= 2:
            axes.set_xlabel("true")
        if i % 3 == 0:
            axes.set_ylabel("network")
    last = panels.flat[-1]
    last.axis("off")
    last.legend(
        handles=[
            Line2D([], [], color=BLACK, ls="--", lw=1.0, label="identity"),
            Line2D([], [], color=ORANGE, alpha=0.4, lw=8, label="within 5 %"),
        ],
        loc="upper left",
        title=f"{len(truth):,} held-out panels",
        alignment="left",
    )
    assert points is not None
    bar = figure.colorbar(points, cax=last.inset_axes((0.06, 0.28, 0.7, 0.07)), orientation="horizontal")
    bar.set_label("mean implied vol of the panel")
    _untouched(bar)
    return figure


def residuals(networks: Sequence[Mapping[str, Any]]) -> Figure:
    """Figure 3: mean absolute vol error at each node of the grid, for each network on its most disturbed input."""
    # One above the other: side by side the numbers would be too small to read in a page.
    figure = Figure(figsize=(8.6, 4.6 * len(networks)), dpi=_DPI, layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(len(networks), 1))
    for axes, network in zip(all_axes, networks, strict=True):
        domain = DOMAINS[network["domain"]]
        columns, expiry = domain.grid()
        values = np.array(network["residual_bp"], np.float64)  # None is NaN
        image = axes.imshow(values, origin="lower", aspect="auto", cmap="YlOrRd", vmin=0.0)
        dark = 0.58 * float(np.nanmax(values))
        for (row, column), value in np.ndenumerate(values):
            colour = "white" if value > dark else BLACK
            text = "" if np.isnan(value) else f"{value:.1f}" if value < 99.5 else f"{value:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8.5)
        axes.set_yticks(range(expiry.size), [f"{years:.2g}" for years in expiry])
        if domain.standardised:
            axes.set_xticks(range(columns.size), [f"{x:g}" for x in columns])
            axes.set_xlabel(r"standardised moneyness, $\log(K/F) \,/\, (\sigma_{ATM} \sqrt{T})$")
        else:
            axes.set_xticks(range(columns.size), [f"{x:.2f}" for x in np.exp(columns)])
            axes.set_xlabel("strike / forward")
        axes.set_ylabel("expiry, years")
        axes.set_title(f"network alone, domain {domain.name}, panels {network['residual_input']}")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
        bar.set_label("mean absolute residual, bp of vol")
        _untouched(bar)
    return figure


def convergence(ablations: Mapping[str, Any]) -> Figure:
    """Figure 4: validation error by epoch with its spread over the seeds, and the paper's penalty."""
    variants = ablations["variants"]
    figure = Figure(figsize=(8.6, 5.0), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    right = axes.twinx()
    for name, colour, dash in ((FULL, BLUE, "-"), (SHALLOW, RED, ":")):
        _corridor(axes, variants[name]["history"]["mean_bp"], colour, dash, 2.2)
    active, idle = "price, lambda 1000", "price, lambda 0"
    for name, colour, dash in ((active, GREEN, "-"), (idle, GREY, "--")):
        penalty = np.mean(variants[name]["history"]["penalty"], axis=0)
        right.plot(np.arange(1, penalty.size + 1), penalty, color=colour, ls=dash, lw=1.4)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="epoch", ylabel="validation vol RMSE, bp (mean over panels)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(1, ablations["epochs"])
    axes.grid(True, which="major", axis="y")
    right.axhline(ablations["penalty_of_truth"], color=GREY, lw=0.9, ls=(0, (1, 3)))
    right.set_ylabel("penalty P1 + P2 + P3 of the answers")
    # A penalty of zero is drawn above the frame, not on it.
    right.set_ylim(bottom=-0.03 * right.get_ylim()[1])
    right.spines["right"].set_visible(True)
    figure.legend(
        handles=[
            Line2D([], [], color=BLUE, lw=2.2, label="RMSE, CNN-Transformer"),
            Line2D([], [], color=RED, lw=2.2, ls=":", label="RMSE, shallow 512-256"),
            Line2D([], [], color=GREEN, lw=1.4, label=r"penalty, price loss, $\lambda_0 = 1000$"),
            Line2D([], [], color=GREY, lw=1.4, ls="--", label=r"penalty, price loss, $\lambda_0 = 0$"),
            Line2D([], [], color=GREY, lw=0.9, ls=(0, (1, 3)), label="penalty of the exact surfaces"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    axes.set_title(
        f"{ablations['panels']:,} training panels, {len(ablations['seeds'])} seeds: means, and one standard deviation"
    )
    return figure


def times(arrays: Arrays) -> Figure:
    """Figure 5: how the time of a panel is distributed, and where its 95th percentile lies.

    arrays  seconds (n,) by `noisy/<method>`
    """
    figure = Figure(figsize=(8.6, 4.8), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    styles = {
        "network": (BLUE, ":"),
        "network + refinement": (BLUE, "-"),
        "L-BFGS-B": (ORANGE, "-"),
        "CMA-ES": (GREEN, "-"),
    }
    n = 0
    for method, (colour, dash) in styles.items():
        ms = np.sort(1e3 * arrays[f"noisy/{method}"])
        n = ms.size
        p50, p95 = np.quantile(ms, (0.5, 0.95))
        label = f"{method}: median {_three(p50)} ms, 95 % {_three(p95)} ms"
        axes.step(ms, np.arange(1, n + 1) / n, where="post", color=colour, ls=dash, lw=2.0, label=label)
        axes.axvline(p95, color=colour, ls=(0, (4, 3)), lw=1.0)
    axes.axhline(0.95, color="#bbbbbb", lw=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlabel="milliseconds a panel, one thread (dashed: 95th percentiles)", ylabel="share of panels")
    axes.set_ylim(0.0, 1.02)
    axes.grid(True)
    axes.set_title(f"Calibration time of {n} noisy panels")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def save(figure: Figure, path: Path) -> None:
    """A PNG file of few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    image = Image.open(buffer).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def _vols_of(params: Sequence[float], strikes: Vector, expiry: Vector) -> Surfaces:
    """(n_expiries, n_strikes)."""
    k = np.broadcast_to(np.log(strikes), (1, expiry.size, strikes.size))
    found: Surfaces = vols(otm(PAPER.model, np.array([params]), k, expiry), k, expiry)[0]
    return found


def _middles(values: Vector) -> Vector:
    middles: Vector = 0.5 * (values[1:] + values[:-1])
    return middles


def _corridor(axes: Any, histories: ArrayLike, colour: str, dash: str, width: float) -> None:
    """Mean over seeds (n_seeds, n_epochs) as a line, one standard deviation to either side as a band."""
    values = np.asarray(histories, np.float64)
    epoch = np.arange(1, values.shape[1] + 1)
    mean, sd = values.mean(0), values.std(0, ddof=min(1, len(values) - 1))
    axes.fill_between(epoch, np.maximum(mean - sd, 0.05 * mean), mean + sd, color=colour, alpha=0.18, lw=0)
    axes.plot(epoch, mean, color=colour, ls=dash, lw=width)


def _untouched(bar: Any) -> None:
    bar.outline.set_visible(False)


def _three(value: float) -> str:
    """Three digits, no exponent."""
    return f"{value:.2f}" if value < 10.0 else f"{value:.1f}" if value < 100.0 else f"{value:,.0f}"


def _correlation(value: float) -> str:
    """Enough digits not to round to one."""
    return f"{value:.4f}" if value < 0.99995 else f"{value:.5f}" if value < 0.999995 else f"{value:.7f}"


def draw(results: Path, arrays: Path, out: Path) -> list[Path]:
    """All five.

    results  folder of evaluation.json, ablations.json
    arrays   folder of evaluation.npz, baselines.npz
    raises   ValueError if the arrays are not of the network in evaluation.json
    """
    evaluation, ablations = (json.loads((results / f"{name}.json").read_text()) for name in ("evaluation", "ablations"))
    networks = evaluation["networks"]
    of_paper = next(network for network in networks if network["domain"] == PAPER.name)
    scattered, timed = (dict(np.load(arrays / f"{name}.npz")) for name in ("evaluation", "baselines"))
    if str(scattered[f"{PAPER.name}_version"]) != of_paper["version"]:
        raise ValueError(
            f"{arrays} holds the points of {scattered[f'{PAPER.name}_version']}, not of {of_paper['version']}: "
            "run training.evaluate again"
        )
    written = []
    with mpl.rc_context(STYLE):
        for name, figure in (
            ("1_surface", surface(of_paper)),
            ("2_parameters", scatter(of_paper, scattered)),
            ("3_residuals", residuals(networks)),
            ("4_convergence", convergence(ablations)),
            ("5_times", times(timed)),
        ):
            written.append(out / f"{name}.png")
            save(figure, written[-1])
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--arrays", type=Path, default=FIGURES, help="folder of the arrays beside them")
    parser.add_argument("--out", type=Path, default=DOCS)
    given = parser.parse_args()
    for path in draw(given.results, given.arrays, given.out):
        print(f"wrote {path}, {path.stat().st_size / 1024:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
