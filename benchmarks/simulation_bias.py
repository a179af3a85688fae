"""Bias of the simulated panels: their vols against the exact ones of the same parameters.

    python -m benchmarks.simulation_bias

Every simulated vol carries a standard error, from independent scrambles of its paths; what is left of the difference
beyond it is the bias of weekly steps. A subset is simulated once more with half the step. Batches are kept under
build/benchmarks, so that the command goes on where it was stopped.
"""

import argparse
import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import training.simulated
from calibrant.arrays import BoolVector, Vector
from calibrant.black import vega
from reporting.machine import CACHE, RESULTS, describe_machine, table, write_report
from training.domain import PAPER
from training.exact import exact_iv_panels
from training.panels import panel_parameters
from training.simulated import WEEK, SimulationOptions, simulate_iv_panels, time_steps

SEED = 21
"""Of no other panels here."""
BATCH = 20
SMALLEST_VEGA = 1e-3
"""Of the forward, of a quote that is judged; and ..."""
FEWEST_PATHS = 1000
"""... the paths that must reach its strike."""
WEEKLY, HALF = SimulationOptions(), SimulationOptions(largest_step=WEEK / 2.0)
VIOLENT = np.array([[8.0, 0.02, 1.5, -0.7, 0.02], [0.5, 0.02, 1.5, -0.3, 0.01], [0.5, 0.02, 1.5, -0.95, 0.02]])
"""Corners of the paper's box where Feller is violated most, Feller ratios 0.14, 0.01 and 0.01."""
MANY = 128
"""Scrambles of these, eight times the usual paths, since the bias is to be seen and not the noise."""
FELLER_EDGES = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, math.inf)
REACH_EDGES = (1, 10, 100, 1000, 10_000, math.inf)


class Study(NamedTuple):
    """Quotes of simulated panels, (n_panels, n_expiries, n_strikes) each but the last two."""

    error_bp: NDArray[np.float64]
    """Simulated less exact vol, NaN where either is missing."""
    standard_error_bp: NDArray[np.float64]
    n_reached: NDArray[np.int64]
    visible: NDArray[np.bool_]
    """Vega above `SMALLEST_VEGA`."""
    feller: Vector
    """(n_panels,) 2 kappa theta / xi^2."""
    seconds: float
    """Of one core, for all panels."""

    @property
    def judged(self) -> NDArray[np.bool_]:
        return self.visible & (self.n_reached >= FEWEST_PATHS) & np.isfinite(self.error_bp)

    def first(self, n_panels: int) -> "Study":
        """The same without the later panels; `seconds` are still those of all."""
        return self._replace(
            error_bp=self.error_bp[:n_panels],
            standard_error_bp=self.standard_error_bp[:n_panels],
            n_reached=self.n_reached[:n_panels],
            visible=self.visible[:n_panels],
            feller=self.feller[:n_panels],
        )


class Cell(NamedTuple):
    """One line: quotes that belong together."""

    n_quotes: int
    mean_z: float
    spread_z: float
    bias: float
    """bp."""
    bias_error: float
    """Standard error of `bias`, panels being independent and quotes of one panel not."""
    rms_bias: float
    """Root of the mean squared error less the mean squared standard error: the bias without its sign, bp."""
    noise: float
    """Root mean square of the standard errors, bp."""

    @classmethod
    def of(cls, study: Study, chosen: NDArray[np.bool_]) -> "Cell":
        error, noise = study.error_bp[chosen], study.standard_error_bp[chosen]
        if error.size == 0:
            return cls(0, *[math.nan] * 6)
        z = error / noise
        bias = float(error.mean())
        of_panel = np.where(chosen, study.error_bp - bias, 0.0).sum(axis=(1, 2))
        squared = float(np.mean(error**2) - np.mean(noise**2))
        return cls(
            error.size,
            float(z.mean()),
            float(z.std()),
            bias,
            float(np.sqrt(np.sum(of_panel**2)) / error.size),
            math.copysign(math.sqrt(abs(squared)), squared),
            float(np.sqrt(np.mean(noise**2))),
        )

    def row(self, label: str) -> list[str]:
        if self.n_quotes == 0:
            return [label, "0", *["-"] * 5]
        return [
            label,
            str(self.n_quotes),
            f"{self.mean_z:+.2f}",
            f"{self.spread_z:.2f}",
            f"{self.bias:+.2f} ± {self.bias_error:.2f}",
            f"{self.rms_bias:.1f}" if self.rms_bias >= 0.0 else "below noise",
            f"{self.noise:.1f}",
        ]


COLUMNS = ("quotes", "number", "mean z", "standard deviation of z", "bias, bp", "rms bias, bp", "rms error bar, bp")


def simulate(n_panels: int, options: SimulationOptions, cache: Path) -> Study:
    """Simulate panels of the paper's domain, batch by batch, each batch once."""
    params = panel_parameters(PAPER, SEED, 0, n_panels)
    # Results of older code are not those of this one.
    code = hashlib.sha256(Path(training.simulated.__file__).read_bytes()).hexdigest()[:8]
    parts = []
    for first in range(0, n_panels, BATCH):
        path = cache / f"{code}-{SEED}-{options.largest_step:.6f}-{first:05d}.npz"
        if not path.exists():
            began = process_time()
            found = simulate_iv_panels(params[first : first + BATCH], PAPER, SEED, first, options=options)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part.npz")
            np.savez(unfinished, **found._asdict(), seconds=process_time() - began)
            unfinished.replace(path)
            print(f"steps of {365 * options.largest_step:g} days: {first + BATCH}/{n_panels}", flush=True)
        with np.load(path) as file:
            parts.append({name: file[name][: n_panels - first] for name in ("iv", "standard_error", "n_reached")})
            parts[-1]["seconds"] = np.atleast_1d(file["seconds"])
    simulated = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    exact = exact_iv_panels(params, PAPER).iv
    log_moneyness, expiry = PAPER.grid()
    sizes = vega(log_moneyness, expiry[:, None], np.nan_to_num(exact, nan=1.0))
    kappa, theta, xi = params[:, :3].T
    return Study(
        error_bp=1e4 * (simulated["iv"] - exact),
        standard_error_bp=1e4 * simulated["standard_error"],
        n_reached=simulated["n_reached"],
        visible=np.isfinite(exact) & (sizes > SMALLEST_VEGA),
        feller=2.0 * kappa * theta / xi**2,
        seconds=float(simulated["seconds"].sum()),
    )


def bands(edges: tuple[float, ...], values: NDArray[np.float64]) -> Iterator[tuple[str, BoolVector]]:
    """Label and members of every band between two edges."""
    for low, high in pairwise(edges):
        label = f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}"
        yield label, (values >= low) & (values < high)


def by_feller(study: Study, chosen: NDArray[np.bool_]) -> list[list[str]]:
    """A line for every band of the Feller ratio."""
    return [
        Cell.of(study, chosen & members[:, None, None]).row(f"{label} ({members.sum()} panels)")
        for label, members in bands(FELLER_EDGES, study.feller)
    ]


def weekly_section(study: Study) -> list[str]:
    log_moneyness, expiry = PAPER.grid()
    judged = study.judged
    lowest = study.feller < FELLER_EDGES[1]
    grid = [
        [f"{t:.2f}"]
        + [
            f"{cell.bias:+.1f} ± {cell.bias_error:.1f}" if cell.n_quotes else "-"
            for j in range(log_moneyness.size)
            for cell in [Cell.of(study, judged & lowest[:, None, None] & at_node(judged.shape, e, j))]
        ]
        for e, t in enumerate(expiry)
    ]
    strikes = [f"{strike:.3f}" for strike in np.exp(log_moneyness)]
    counted = study.visible & np.isfinite(study.error_bp)
    unreached = int((study.visible & (study.n_reached == 0)).sum())
    return [
        "## Weekly steps",
        "",
        *table(COLUMNS, [Cell.of(study, judged).row("all")]),
        "",
        "By expiry (years):",
        "",
        *table(
            COLUMNS,
            [Cell.of(study, judged & at_node(judged.shape, e, None)).row(f"{t:.2f}") for e, t in enumerate(expiry)],
        ),
        "",
        "By strike (of the forward):",
        "",
        *table(
            COLUMNS, [Cell.of(study, judged & at_node(judged.shape, None, j)).row(k) for j, k in enumerate(strikes)]
        ),
        "",
        "By Feller ratio, 2 kappa theta / xi^2:",
        "",
        *table(COLUMNS, by_feller(study, judged)),
        "",
        f"Bias in bp by expiry and strike where the Feller ratio is below {FELLER_EDGES[1]:g} ({lowest.sum()} panels):",
        "",
        *table(("expiry", *strikes), grid),
        "",
        "By the number of paths that reach the strike, whether judged above or not (vega as above):",
        "",
        *table(
            COLUMNS,
            [
                Cell.of(study, counted & members).row(label)
                for label, members in bands(REACH_EDGES, study.n_reached.astype(np.float64))
            ],
        ),
        "",
        f"{unreached} more quotes with that vega are reached by no path at all and are missing from the panels.",
        "",
    ]


def at_node(shape: tuple[int, ...], expiry: int | None, strike: int | None) -> NDArray[np.bool_]:
    """True at one expiry, one strike, or where they meet."""
    out = np.zeros(shape, np.bool_)
    out[:, slice(None) if expiry is None else expiry, ..., slice(None) if strike is None else strike] = True
    return out


def half_section(weekly: Study, half: Study) -> list[str]:
    """The same quotes of the same panels at both steps."""
    _, expiry = PAPER.grid()
    judged = weekly.judged & half.judged
    rows = []
    for label, chosen in [
        ("all", judged),
        *(
            (f"Feller {label}", judged & members[:, None, None])
            for label, members in bands(FELLER_EDGES, weekly.feller)
        ),
        *((f"expiry {t:.2f}", judged & at_node(judged.shape, e, None)) for e, t in enumerate(expiry)),
    ]:
        one, two = Cell.of(weekly, chosen), Cell.of(half, chosen)
        if one.n_quotes:
            rows.append(
                [label, str(one.n_quotes)]
                + [f"{cell.mean_z:+.2f}" for cell in (one, two)]
                + [f"{cell.bias:+.2f} ± {cell.bias_error:.2f}" for cell in (one, two)]
                + [cell.row("")[5] for cell in (one, two)]
            )
    columns = ("quotes", "number", "mean z, weekly", "half", "bias bp, weekly", "half", "rms bias bp, weekly", "half")
    return [
        "## Half the step",
        "",
        f"The first {len(weekly.feller)} panels, quotes judged at both steps.",
        "",
        *table(columns, rows),
        "",
    ]


def violent_section() -> list[str]:
    """Corners of the box at the first expiry, by many paths."""
    strikes = np.array([0.8, 0.9, 1.0, 1.1, 1.2])
    domain = replace(PAPER, log_moneyness=tuple(np.log(strikes)), expiry=PAPER.expiry[:1])
    exact = exact_iv_panels(VIOLENT, domain).iv[:, 0]
    rows = []
    found = {
        name: simulate_iv_panels(VIOLENT, domain, SEED, 0, options=replace(options, n_scrambles=MANY))
        for name, options in (("weekly", WEEKLY), ("half", HALF))
    }
    for i, params in enumerate(VIOLENT):
        for name, panels in found.items():
            bias, error = 1e4 * (panels.iv[i, 0] - exact[i]), 1e4 * panels.standard_error[i, 0]
            cells = [f"{b:+.1f} ± {e:.1f}" if np.isfinite(b) else "missing" for b, e in zip(bias, error, strict=True)]
            rows.append([f"{', '.join(f'{x:g}' for x in params)}: {name}", *cells])
        share = found["weekly"].n_reached[i, 0] * WEEKLY.n_scrambles / MANY
        vols = [f"{100 * vol:.1f}" if np.isfinite(vol) else "none" for vol in exact[i]]
        rows.append(["exact vol, %; paths that reach the strike, of 2^16"])
        rows[-1] += [f"{vol}; {n:.0f}" for vol, n in zip(vols, share, strict=True)]
    return [
        "## Where Feller is violated most",
        "",
        f"Corners of the box (kappa, theta, xi, rho, v0) at {PAPER.expiry[0]:g} years, {MANY << WEEKLY.log2_points} "
        "paths each: bias in bp ± its error bar, by strike. Where few paths reach a strike, most of a panel's error is "
        "noise, and skewed, since a vol is taken of the noisy price: hence the count of paths that is asked above.",
        "",
        *table(("panel", *(f"{strike:g}" for strike in strikes)), rows),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=1000)
    parser.add_argument("--subset", type=int, default=300, help="panels simulated with half the step too")
    parser.add_argument("--cache", type=Path, default=CACHE / "simulation")
    parser.add_argument("--out", type=Path, default=RESULTS / "simulation.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    weekly = simulate(given.panels, WEEKLY, given.cache)
    half = simulate(given.subset, HALF, given.cache)
    _, expiry = PAPER.grid()
    n_paths = WEEKLY.n_scrambles << WEEKLY.log2_points
    n_steps = [time_steps(expiry, options.largest_step) for options in (WEEKLY, HALF)]
    longest = [365.0 * float(np.max(np.diff(expiry, prepend=0.0) / n)) for n in n_steps]
    judged = weekly.judged
    lines = [
        "# Bias of the simulated panels",
        "",
        f"`python -m benchmarks.simulation_bias --panels {given.panels} --subset {given.subset}`, seed {SEED}; "
        f"{weekly.seconds / given.panels:.2f} s of one core a panel, {half.seconds / given.subset:.2f} s with half the "
        "step.",
        "",
        describe_machine("torch"),
        "",
        f"{given.panels} panels of the domain `{PAPER.name}` ({PAPER.shape[0]} expiries x {PAPER.shape[1]} strikes), "
        f"{n_paths} paths each in {WEEKLY.n_scrambles} scrambles (`training/simulated.py`), against the exact vols at "
        f"their parameters (`training/exact.py`, 1e-4 bp). Weekly: {n_steps[0].sum()} steps to {expiry[-1]:g} years, "
        f"none longer than {longest[0]:.2f} days, every expiry at the end of a step; half: {n_steps[1].sum()}, "
        f"{longest[1]:.2f} days.",
        "",
        f"Judged: quotes with vega above {SMALLEST_VEGA:g} of the forward that at least {FEWEST_PATHS} paths reach, "
        f"{judged.sum()} of {judged.size}. z: simulated less exact vol over its standard error, from the scrambles "
        f"(Student's t with {WEEKLY.n_scrambles - 1} degrees of freedom: standard deviation "
        f"{math.sqrt((WEEKLY.n_scrambles - 1) / (WEEKLY.n_scrambles - 3)):.2f} without bias). Bias: the mean "
        "difference, ± its standard error over panels. rms bias: the root mean square difference after that of "
        "the error bars is taken off, so that biases of both signs count.",
        "",
        *weekly_section(weekly),
        *half_section(weekly.first(given.subset), half),
        *violent_section(),
    ]
    write_report(given.out, lines)


if __name__ == "__main__":
    main()
