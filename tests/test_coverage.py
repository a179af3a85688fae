"""What the standard errors claim: over many panels the truth is within two of them 93 to 97 times in a hundred.

Each claim is 2,000 panels, each with a truth and a noise of its own. The vols are the fit kernel's own, good to 2e-6 bp
(`test_heston_fit`): what is judged here is statistics, and the accurate pricer would take minutes.

A parameter that ends on a bound has no error: what is counted is every error that is given, in all fits alike.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest

from calibrant.arrays import Matrix, Vector
from calibrant.calibrate import CalibrationOptions, Prior, Start, calibrate, fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.objective import FINE, evaluate
from calibrant.panel import OptionPanel
from tests import paper_box

N_TRIALS = 2000
LOW, HIGH = 0.93, 0.97
BINOMIAL = np.sqrt(0.95 * 0.05 / N_TRIALS)
"""Standard deviation of the share of a single parameter."""
NAMES = HESTON.parameters


class Grid(NamedTuple):
    """Where a panel is quoted, (n_quotes,) each."""

    log_moneyness: Vector
    expiry: Vector

    @classmethod
    def of(cls, expiries: Vector, sd: Vector, level: float = 0.3) -> "Grid":
        """Strikes at so many standard deviations of the log forward at each expiry."""
        k = np.concatenate([level * np.sqrt(years) * sd for years in expiries])
        return cls(k, np.repeat(expiries, sd.size))

    def vols(self, params: Vector) -> Vector:
        """Heston vols, (n_quotes,)."""
        flat = OptionPanel.from_quotes(
            expiry=self.expiry, log_moneyness=self.log_moneyness, iv=np.full(self.expiry.size, 0.3)
        )
        problem = fit_problem(flat, HESTON, CalibrationOptions())
        n = self.expiry.size
        vols = problem.vol.copy()
        evaluate(params, problem, FINE, vols, np.empty(n), np.empty((0, n)))
        order = np.empty(n, np.int64)
        order[:] = flat.index
        back = np.empty(n)
        back[order] = vols
        return back

    def panel(self, iv: Vector, weight: Vector | None = None) -> OptionPanel:
        return OptionPanel.from_quotes(
            expiry=self.expiry, log_moneyness=self.log_moneyness, iv=iv, weight=weight
        )


PAPER = Grid(paper_box.LOG_MONEYNESS, paper_box.EXPIRY)


class Trial(NamedTuple):
    panel: OptionPanel
    truth: Vector
    options: CalibrationOptions


class Coverage(NamedTuple):
    pooled: float
    each: Vector
    """(n_params,), NaN where no error was ever given."""
    given: float
    """Share of the parameters for which there was an error."""


def coverage(trials: Iterator[Trial]) -> Coverage:
    """Share of the errors given that reach the truth when doubled."""
    within = []
    for panel, truth, options in trials:
        fit = calibrate(panel, HESTON, [Start("network", truth)], options)
        assert fit.status == "converged"
        away = np.abs(fit.parameters - truth)
        within.append(np.where(np.isfinite(fit.standard_errors), away <= 2.0 * fit.standard_errors, np.nan))
    table = np.array(within)
    counted = np.isfinite(table)
    each = np.full(table.shape[1], np.nan)
    seen = counted.any(axis=0)
    each[seen] = np.nanmean(table[:, seen], axis=0)
    return Coverage(float(np.nanmean(table)), each, float(counted.mean()))
