"""Scenarios of the second paper: its 15 quotes, and where its parameters come from.

The paper states neither quotes nor ranges. The quotes, and the ranges of the second stage, are those of its authors'
public program; there the rate is 3 %, here it is zero, so that strikes are multiples of the forward. All scenarios keep
the Feller condition, which the paper imposes: xi is drawn as a share of the largest that it admits.
"""

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix
from calibrant.black import call_price, implied_volatility_from_time_value, time_value
from calibrant.models import DOUBLE_HESTON_JUMP
from training.domain import Domain, Range
from training.exact import exact_iv_panels
from training.samplers import Box, fastest_first

STRIKES = (0.9, 0.95, 1.0, 1.05, 1.1)
"""In units of the forward."""
EXPIRIES = (0.25, 0.5, 1.0)
"""Years."""
PRICE_NOISE = 0.02
"""Of the quotes of the second stage, relative, as in the authors' program; there of the call, which then may fall below
its intrinsic value, here of the out-of-the-money option."""
_FACTORS = (0, 5)
"""Where the parameters of the two variance factors begin."""


def _within_feller(box: Box, unit: Matrix) -> Matrix:
    """Uniform in the box, xi up to the Feller limit; of two factors the faster is the first."""
    params = box.at(unit)
    for first in _FACTORS:
        limit = np.sqrt(2.0 * params[:, first] * params[:, first + 1])
        low, high = box.low[first + 2], np.minimum(box.high[first + 2], limit)
        params[:, first + 2] = low + (high - low) * unit[:, first + 2]
    return fastest_first(params, _FACTORS)


def _domain(name: str, *sampled: tuple[float, float]) -> Domain:
    positive = (True, True, True, False, True) * 2 + (True, False, True)
    return Domain(
        name=name,
        model=DOUBLE_HESTON_JUMP,
        sampler=_within_feller,
        sampled=tuple(Range(low, high) for low, high in sampled),
        # The paper's own boxes are half-lines and rho within 0.99: these are wide enough for either and finite.
        output=(Range(0.01, 60.0), Range(1e-4, 2.0), Range(0.01, 8.0), Range(-0.99, 0.99), Range(1e-4, 2.0)) * 2
        + (Range(1e-3, 20.0), Range(-0.9, 0.9), Range(0.002, 0.9)),
        log_scaled=positive,
        log_moneyness=tuple(float(k) for k in np.log(STRIKES)),
        expiry=EXPIRIES,
        standardised=False,
        # Its features need every quote: a missing one counts as the mean of its node.
        least_coverage=1.0,
        limits=(
            "A baseline: no service asks it. It reads ten numbers, and 13 parameters do not follow from ten numbers.",
            "A missing quote counts as the mean of the training panels there.",
        ),
    )


SCENARIOS = _domain(
    "paper",
    (1.0, 8.0),
    (0.005, 0.15),
    (0.05, 1.5),
    (-0.95, 0.2),
    (0.005, 0.15),
    (0.1, 1.5),
    (0.005, 0.15),
    (0.02, 0.6),
    (-0.95, 0.2),
    (0.005, 0.15),
    (0.02, 1.0),
    (-0.2, 0.05),
    (0.02, 0.25),
)
"""The full parameter space of the first stage."""
REALISTIC = _domain(
    "realistic",
    (1.5, 4.5),
    (0.025, 0.065),
    (0.2, 0.5),
    (-0.85, -0.4),
    (0.025, 0.08),
    (0.3, 1.2),
    (0.025, 0.07),
    (0.1, 0.35),
    (-0.7, -0.2),
    (0.02, 0.07),
    (0.05, 0.25),
    (-0.08, -0.01),
    (0.03, 0.12),
)
"""Equity indices as the authors' program has them: the panels that are calibrated for the second stage."""


def draw(domain: Domain, seed: int, n: int) -> Matrix:
    """(n, 13) parameters; the first ones do not depend on how many there are."""
    return domain.draw(np.random.default_rng(seed).random((n, domain.n_params)))


def panels(params: Matrix) -> NDArray[np.float64]:
    """Exact vols of the 15 quotes, (n, 3, 5)."""
    return exact_iv_panels(params, SCENARIOS).iv


def quotes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-moneyness and expiry of the 15 quotes, (15,) each, expiry by expiry."""
    return np.tile(np.log(STRIKES), len(EXPIRIES)), np.repeat(EXPIRIES, len(STRIKES))


def noisy(iv: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The vols (n, 3, 5) of out-of-the-money prices that are off by `PRICE_NOISE`."""
    k, t = quotes()
    drawn = np.random.default_rng(seed).standard_normal((len(iv), k.size))
    out = np.empty((len(iv), k.size))
    for vols, noise, row in zip(iv.reshape(len(iv), -1), drawn, out, strict=True):
        value = time_value(k, vols * np.sqrt(t)) * (1.0 + PRICE_NOISE * noise)
        row[:] = implied_volatility_from_time_value(value, k, t).volatility
    return out.reshape(iv.shape)


def call_prices(iv: NDArray[np.float64]) -> Matrix:
    """(n, 15) calls of vols (n, 3, 5), in units of the forward."""
    k, t = quotes()
    return np.stack([call_price(k, t, vols) for vols in iv.reshape(len(iv), -1)])
