"""Panels of the paper's box on its grid, priced by the accurate pricer: the sample of the timings and of the peers."""

from typing import NamedTuple

import numpy as np

from benchmarks import paper_box
from calibrant.arrays import Vector
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.objective import Problem
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel, identifiable
from training.exact_panels import model_vols

NOISE_BP = 0.5
MASKED = 0.05


class Sample(NamedTuple):
    """A panel and where it comes from."""

    truth: Vector
    """(5,) parameters that priced it."""
    panel: OptionPanel
    """As a user would send it: quotes of little vega included, masked ones left out."""
    problem: Problem
    """Its quotes with a vega of 1e-3 of the forward or more, as the compiled optimisers want them."""


def clean_panels(n: int, seed: int) -> list[Sample]:
    """Panels without noise: vols with all their digits."""
    return [_sample(params, _vols(params)) for params in paper_box.draws(n, seed)]


def noisy_panels(n: int, seed: int) -> list[Sample]:
    """Panels with the paper's noise: mids off by N(0, 0.5 bp), 5 % of them missing."""
    random = np.random.default_rng((seed, 1))
    samples = []
    for params in paper_box.draws(n, seed):
        vol = _vols(params)
        vol += NOISE_BP * 1e-4 * random.standard_normal(vol.size)
        vol[random.random(vol.size) < MASKED] = np.nan
        samples.append(_sample(params, vol))
    return samples


def _vols(params: Vector) -> Vector:
    return model_vols(HESTON, paper_box.LOG_MONEYNESS, paper_box.EXPIRY, params)


def _sample(params: Vector, vol: Vector) -> Sample:
    panel = OptionPanel.from_quotes(expiry=paper_box.EXPIRY, log_moneyness=paper_box.LOG_MONEYNESS, iv=vol)
    return Sample(params, panel, fit_problem(identifiable(panel), HESTON, CalibrationOptions()))
