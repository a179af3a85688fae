"""The third paper's figures (Hakala 2019, its 1 to 13), on the cases of ../shared/reference/slv and a market file.

    python -m benchmarks.slv_figures [--out FOLDER]

EUR/USD and EUR/BRL are the reference's closed forms. USD/JPY is the panel of 30 December 2019 from 1 week to 5 years,
at rates stated here (-0.1 and 1.7 %), since the file has none. Heston is fitted with kappa 3 at six months (the
reference's), 1 at 3 years and 0.7 at 5.
"""

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtri

from calibrant.arrays import Vector
from calibrant.slv.barriers import Barrier, at_the_money_vol, black_scholes
from calibrant.slv.estimators import ESTIMATORS, Estimator, KernelRegression, RadialBasis, conditional_variance
from calibrant.slv.estimators.kernels import KERNELS
from calibrant.slv.heston_fit import fit_heston, pillars_up_to
from calibrant.slv.local_vol import LocalVolatility
from calibrant.slv.particles import Heston, ParticleOptions, leverage_steps
from calibrant.slv.paths import Dynamics, PathOptions
from calibrant.slv.pricing import local, stochastic, touch_steps
from calibrant.slv.requests import MIXING
from calibrant.slv.surface import Surface, implied_vol
from calibrant.slv.surfaces_by_name import surface_named
from calibrant.steps import finish
from reporting.machine import ROOT

from .figures import BLUE, DOCS, GREEN, GREY, ORANGE, RED, STYLE, save
from .slv_cases import fitted, published

USDJPY = ROOT.parent / "shared" / "market" / "usdjpy_ore_20191230.csv"
RATES = {"domestic_rate": -0.001, "foreign_rate": 0.017}
PAPERS_PARTICLES = 2048
COLOURS = (BLUE, ORANGE, GREEN, RED, "#cc79a7")
ROWS = ("atm", "rr25", "bf25", "rr10", "bf10")
LEAVE_ONE_OUT = "leave_one_out"


class Slice(NamedTuple):
    """Particles at the end of a calibration."""

    title: str
    log_spot: Vector
    variance: Vector
    forward: float
    digital: float
    """ln S above which the surface sees a probability of 0.1 %, about."""


def usdjpy() -> tuple[Surface, Heston]:
    """To five years, as `surface_named` makes it of the file."""
    with USDJPY.open() as lines:
        quoted = [row for row in csv.DictReader(lines) if 0.015 < float(row["expiry_years"]) < 5.1]
    expiry = sorted({float(row["expiry_years"]) for row in quoted})
    columns: dict[str, list[float | None]] = {name: [None] * len(expiry) for name in ROWS}
    for row in quoted:
        name = row["option_type"] + ("" if row["option_type"] == "atm" else str(round(100 * float(row["delta"]))))
        if name in columns:
            columns[name][expiry.index(float(row["expiry_years"]))] = float(row["mid_iv"])
    request: dict[str, Any] = {"kind": "fx_pillars", "pair": "USDJPY", "spot": float(quoted[0]["spot"]), **RATES}
    surface = surface_named({**request, "expiry": expiry, **columns}).surface
    return surface, fit_heston(surface, pillars_up_to(expiry[-1]), 0.7).heston


def particles(title: str, surface: Surface, heston: Heston, maturity: float) -> Slice:
    """Those that the paper's number of particles ends with, by its own estimator."""
    options = ParticleOptions(n_particles=PAPERS_PARTICLES, estimator=ESTIMATORS["purbf"], seed=1)
    found = finish(leverage_steps(LocalVolatility(surface=surface), heston.mixed(MIXING), maturity, options))
    vol = at_the_money_vol(surface, maturity)
    forward = float(surface.market.log_forward(maturity))
    digital = forward + vol * np.sqrt(maturity) * float(ndtri(0.999))
    return Slice(title, found.log_spot, found.variance, forward, digital)


def fits(axes: Axes, at: Slice, estimators: Mapping[str, Estimator]) -> None:
    """Estimated variance over the spot, with the particles behind."""
    axes.scatter(np.exp(at.log_spot), at.variance, s=3, color=GREY, alpha=0.35, linewidths=0.0, rasterized=True)
    for (name, estimator), colour in zip(estimators.items(), COLOURS, strict=False):
        curve = conditional_variance(estimator, at.log_spot, at.variance, n_nodes=201)
        axes.plot(np.exp(curve.log_spot), curve.value, color=colour, linewidth=1.5, label=name)
    for place, label in ((at.forward, "forward"), (at.digital, "0.1 % digital")):
        axes.axvline(float(np.exp(place)), color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate(
            label, (float(np.exp(place)), 0.97), xycoords=("data", "axes fraction"), fontsize=8, rotation=90, va="top"
        )
    axes.set_ylim(0.0, float(np.quantile(at.variance, 0.995)))
    axes.set_xlabel("spot")
    axes.set_ylabel("variance")
    axes.set_title(at.title)
    axes.legend(fontsize=8)


def kernels(*, local_linear: bool, bandwidth: Any) -> dict[str, Estimator]:
    return {name: KernelRegression(kernel=name, local_linear=local_linear, bandwidth=bandwidth) for name in KERNELS}


def panels(*drawn: tuple[Slice, Mapping[str, Estimator]]) -> Figure:
    figure = Figure(figsize=(5.2 * len(drawn), 4.2), dpi=120, layout="constrained")
    for axes, (at, estimators) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        fits(axes, at, estimators)
    return figure


def vols(title: str, surface: Surface, maturity: float, *, of_the_market: bool) -> Figure:
    """Implied or local vols by log-moneyness, a line an expiry."""
    figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    dates = [t for t in (1 / 12, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0) if t <= maturity + 0.02]
    for t, shade in zip(dates, np.linspace(0.85, 0.15, len(dates)), strict=True):
        k = 2.5 * at_the_money_vol(surface, t) * np.sqrt(t) * np.linspace(-1.0, 1.0, 121)
        curve = implied_vol(surface, k, t) if of_the_market else LocalVolatility(surface=surface).at(k, t).vol
        axes.plot(k, 100.0 * curve, color=mpl.colormaps["viridis"](shade), label=f"{t:.2f} years")
    axes.set_xlabel("log-moneyness")
    axes.set_ylabel("implied vol, %" if of_the_market else "local vol, %")
    axes.set_title(title)
    axes.legend(fontsize=8)
    return figure


def touches(title: str, name: str) -> Figure:
    """One-touch price less TV against TV, upwards and downwards."""
    case = published(name)
    t = case.maturity
    vol = at_the_money_vol(case.surface, t) * np.sqrt(t)
    found = case.calibrated(ParticleOptions(n_particles=PAPERS_PARTICLES, seed=1))
    options = PathOptions(n_paths=2**17)
    figure = Figure(figsize=(9.6, 4.2), dpi=120, layout="constrained")
    pair = figure.subplots(1, 2, sharey=True)
    for axes, direction, sign in zip(pair, ("up", "down"), (1.0, -1.0), strict=True):
        spots = case.surface.market.spot * np.exp(sign * vol * np.linspace(0.08, 2.6, 24))
        barriers = tuple(Barrier(expiry=t, level=float(spot), direction=direction) for spot in spots)  # type: ignore[arg-type]
        tv = np.array([black_scholes(barrier, case.surface) for barrier in barriers])
        for label, dynamics, colour in (
            ("LV", local(case.local_vol, options.dates(np.array([t]))), BLUE),
            ("HES", stochastic(case.heston), ORANGE),
            ("LSV", Dynamics(heston=case.mixed, leverage=found.leverage), GREEN),
        ):
            prices = finish(touch_steps(dynamics, case.surface, barriers, options))
            above = np.array([price.price for price in prices]) - tv
            error = np.array([price.se for price in prices])
            axes.errorbar(100 * tv, 100 * above, 100 * error, color=colour, label=label, linewidth=1.2, elinewidth=0.8)
        axes.axhline(0.0, color=GREY, linewidth=0.8)
        axes.set_xlabel("TV, % of the payout")
        axes.set_title(f"{title}, {direction}side" if direction == "up" else f"{title}, downside")
        axes.legend(fontsize=8)
    pair[0].set_ylabel("price less TV, % of the payout")
    return figure


def draw(out: Path) -> list[Path]:
    """Write all figures."""
    six, five, three = published("EURUSD_SYN18_6M"), fitted("EURUSD_SYN18", 5, 0.7), fitted("EURBRL_SYN18", 3, 1.0)
    yen, yens_heston = usdjpy()
    at_six = particles("EUR/USD 6M", six.surface, six.heston, six.maturity)
    nadaraya, lines = (
        kernels(local_linear=False, bandwidth="silverman"),
        kernels(local_linear=True, bandwidth="silverman"),
    )
    units: dict[str, Estimator] = {
        "global width": RadialBasis(n_neighbours=None, pruning=0.0, ridge=0.0),
        "5 neighbours": RadialBasis(pruning=0.0, ridge=0.0),
        "pruned, 5 neighbours": RadialBasis(ridge=0.0),
        "pruned, global width": RadialBasis(n_neighbours=None, ridge=0.0),
        "pruned, 5 neighbours, ridge 0.2": RadialBasis(),
    }

    def three_ways(at: Slice) -> Figure:
        return panels(
            (at, nadaraya), (at, lines), (at, {"purbf": RadialBasis(), "default": ESTIMATORS["binned_local_linear"]})
        )

    written = []
    with mpl.rc_context(STYLE):
        for name, figure in (
            ("01_eurusd_implied", vols("EUR/USD, implied", six.surface, 5.0, of_the_market=True)),
            ("02_eurusd_local", vols("EUR/USD, local", six.surface, 5.0, of_the_market=False)),
            ("03_eurusd_6m_kernels", panels((at_six, nadaraya))),
            (
                "04_eurusd_6m_cross_validated",
                panels((at_six, nadaraya), (at_six, kernels(local_linear=False, bandwidth=LEAVE_ONE_OUT))),
            ),
            (
                "05_eurusd_6m_local_linear",
                panels((at_six, lines), (at_six, kernels(local_linear=True, bandwidth=LEAVE_ONE_OUT))),
            ),
            ("06_eurusd_6m_purbf", panels((at_six, units))),
            ("07_eurusd_5y", three_ways(particles("EUR/USD 5Y", five.surface, five.heston, 5.0))),
            ("08_usdjpy_local", vols("USD/JPY, local", yen, yen.last_expiry, of_the_market=False)),
            ("09_usdjpy_5y", three_ways(particles("USD/JPY 5Y", yen, yens_heston, min(5.0, yen.last_expiry)))),
            ("10_eurbrl_local", vols("EUR/BRL, local", three.surface, 3.0, of_the_market=False)),
            ("11_eurbrl_3y", three_ways(particles("EUR/BRL 3Y", three.surface, three.heston, 3.0))),
            ("12_eurusd_6m_touches", touches("EUR/USD 6M", "EURUSD_SYN18_6M")),
            ("13_eurbrl_6m_touches", touches("EUR/BRL 6M", "EURBRL_SYN18_6M")),
        ):
            written.append(out / f"{name}.png")
            save(figure, written[-1])
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS / "slv")
    for path in draw(parser.parse_args().out):
        print(f"wrote {path}, {path.stat().st_size / 1024:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
