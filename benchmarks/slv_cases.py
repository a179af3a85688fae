"""The surfaces and cases of stochastic local vol that the tables and figures are made on.

The surfaces' closed forms and the Heston parameters of three cases are those of `../shared/reference/slv`; the longer
cases are fitted here with kappa held, 1 a year to three years and 0.7 to five.
"""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calibrant.arrays import Vector
from calibrant.market import Market
from calibrant.slv.heston_fit import Quotes, delta_quotes, fit_heston, pillars_up_to
from calibrant.slv.leverage import Leverage
from calibrant.slv.local_vol import LocalVolatility
from calibrant.slv.particles import Heston, ParticleLeverage, ParticleOptions, leverage_steps
from calibrant.slv.paths import Dynamics, PathOptions
from calibrant.slv.pricing import Repriced, vanilla_steps
from calibrant.slv.requests import MIXING
from calibrant.slv.surface import ClosedForm
from calibrant.steps import finish
from reporting.machine import ROOT

FOLDER = ROOT.parent / "shared" / "reference" / "slv"


class Case(NamedTuple):
    """A surface to a maturity, with the Heston parameters under its leverage."""

    name: str
    surface: ClosedForm
    heston: Heston
    """Before mixing."""
    maturity: float
    """Years."""

    @property
    def local_vol(self) -> LocalVolatility:
        return LocalVolatility(surface=self.surface)

    @property
    def mixed(self) -> Heston:
        return self.heston.mixed(MIXING)

    def calibrated(self, options: ParticleOptions, mixing: float = MIXING) -> ParticleLeverage:
        return finish(leverage_steps(self.local_vol, self.heston.mixed(mixing), self.maturity, options))


def surface_of(name: str, folder: Path = FOLDER) -> ClosedForm:
    entry = json.loads((folder / "surfaces.json").read_text())[name]
    return ClosedForm(market=Market.flat(entry["S0"], entry["rd"], entry["rf"]), **entry["params"])


def published(name: str, folder: Path = FOLDER) -> Case:
    """A case of `cases.json`."""
    entry = json.loads((folder / "cases.json").read_text())[name]
    xi = entry["heston"].pop("sigma")
    return Case(name, surface_of(entry["surface"], folder), Heston(xi=xi, **entry["heston"]), entry["days"] / 365.0)


@cache
def fitted(surface_name: str, years: int, kappa: float) -> Case:
    """A longer case."""
    surface = surface_of(surface_name)
    fit = fit_heston(surface, pillars_up_to(float(years)), kappa)
    return Case(f"{surface_name}_{years}Y", surface, fit.heston, float(years))


def rows_of(file: str, case: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The lines of a reference table that are about a case."""
    with (folder / file).open() as lines:
        return [row for row in csv.DictReader(lines) if row["case"] == case]


class Repricer:
    """Vanilla errors of many leverages of one case, each with a standard error far below a path simulation's own.

    A reference leverage, the mean of several of a quarter of a million particles each, is priced once by very many
    paths. Any other is priced by few, the same ones as the reference again: what the two differ by is known well.
    """

    SEEDS, PATHS = 4, 2**12

    def __init__(self, case: Case, n_particles: int = 250_000, n_runs: int = 4, n_paths: int = 2**20) -> None:
        self.case = case
        self.quotes: Quotes = delta_quotes(case.surface, pillars_up_to(case.maturity))
        runs = [
            case.calibrated(ParticleOptions(n_particles=n_particles, step_days=2.5, seed=10_000 + seed)).leverage
            for seed in range(n_runs)
        ]
        first = runs[0]
        value = np.mean(
            [
                [run.row(float(date), row) for date, row in zip(first.expiry, first.log_spot, strict=True)]
                for run in runs
            ],
            axis=0,
        )
        self.reference = Leverage(expiry=first.expiry, start=first.start, step=first.step, value=value)
        exact = self._priced(self.reference, PathOptions(n_paths=n_paths, seed=77))
        self.reference_bp, self.reference_se_bp = exact.error_bp, exact.se_bp
        self._same = [self._few(self.reference, seed) for seed in range(self.SEEDS)]

    def errors_bp(self, leverage: Leverage) -> tuple[Vector, Vector]:
        """Of every quote, and their standard errors."""
        difference = [self._few(leverage, seed) - same for seed, same in enumerate(self._same)]
        se = np.std(difference, axis=0, ddof=1) / np.sqrt(self.SEEDS)
        return np.mean(difference, axis=0) + self.reference_bp, np.hypot(se, self.reference_se_bp)

    def _few(self, leverage: Leverage, seed: int) -> Vector:
        return self._priced(leverage, PathOptions(n_paths=self.PATHS, n_replicates=2, seed=seed)).error_bp

    def _priced(self, leverage: Leverage, options: PathOptions) -> Repriced:
        dynamics = Dynamics(heston=self.case.mixed, leverage=leverage)
        quotes = self.quotes
        repriced, _ = finish(vanilla_steps(dynamics, self.case.surface, quotes.expiry, quotes.log_moneyness, options))
        return repriced


def rms(values: Vector) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
