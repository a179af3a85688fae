"""Panels as markets quote them, which no surface of the model fits, and the model's least-squares fit to each.

What a network for real panels is asked for is not the truth behind the quotes, since there is none, but where the
refinement will end. So a panel is drawn as quotes, calibrated by the library, and its parameters are the answer. Two
panels in five are the model's own surfaces with the noise of `market_panels`; the others are slices of stochastic
volatility inspired shape (Gatheral & Jacquier 2014) whose levels, skews and bends change over the expiries as those of
equities, currencies, commodities and volatility indices do: faster, slower and less smoothly than the model can.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from calibrant.arrays import Matrix, Vector
from calibrant.black import otm_and_vega
from calibrant.calibration import Calibration, calibrate
from calibrant.errors import InvalidInput
from calibrant.fit_problem import fit_problem
from calibrant.grid import project
from calibrant.models import Model
from calibrant.optimisers.objective import COARSE, evaluate
from calibrant.options import CalibrationOptions, Effort, Start
from calibrant.panel import OptionPanel

from .domain import Domain
from .market_panels import (
    DRAWS,
    LEAST_TIME_VALUE,
    MOST_EXPIRIES,
    MOST_STRIKES,
    REFERENCE_VOL,
    MarketPanels,
    MarketQuotes,
    expiries_of,
    market_quotes,
    strikes_of,
)

# Where the numbers of a panel's surface lie among its uniform draws, behind those of `market_panels`.
_OF_SURFACE = DRAWS
_OF_SLICES = _OF_SURFACE + 16
_OF_NOISE = DRAWS - MOST_EXPIRIES * MOST_STRIKES
FITTED_DRAWS = _OF_SLICES + 3 * MOST_EXPIRIES
"""Uniform numbers that a panel owns: 604."""

_OWN_SURFACES = 0.4
"""Share of panels that are the model's, but for their noise."""
_CLEAN = 0.3
"""Of the others, share without noise beyond that of their slices."""
_MAX_WORK = 20_000.0
"""Of one calibration: the one panel in thirty that asks for more would take a third of the time."""
_EVEN_WEIGHTS = 0.5
"""Share of panels with equal weights: the spreads of the others widen towards the wings."""


def fitted_panels(params: Matrix, draws: Matrix, domain: Domain) -> tuple[Matrix, MarketPanels]:
    """Projected panels, their fits and the metric of the fits.

    params   (n, n_params), of the panels that are the model's own surfaces; what a panel without a fit keeps
    draws    (n, FITTED_DRAWS), uniform
    returns  (n, n_params) the fits, inside the domain's output box, and `MarketPanels`; a panel that cannot be
             calibrated has no vols
    """
    n, n_params = params.shape
    low, high = domain.output_box()
    fits = np.clip(params, low, high)
    iv = np.full((n, *domain.shape), np.nan)
    metric = np.zeros((n, n_params * (n_params + 1) // 2))
    rows, columns = np.tril_indices(n_params)
    grid = domain.network_grid()
    for i in range(n):
        panel = fitted_panel(params[i], draws[i], domain)
        found = None if panel is None else _calibrated(panel, domain.model, params[i])
        if panel is None or found is None:
            continue
        iv[i] = project(panel, grid).iv
        fits[i] = np.clip(found.parameters, low, high)
        jacobian = _relative_jacobian(found) * domain.output_slope(fits[i : i + 1])[0][:, np.newaxis]
        metric[i] = (jacobian @ jacobian.T / found.n_quotes)[rows, columns]
    return fits, MarketPanels(iv, metric)


def fitted_panel(params: Vector, draw: Vector, domain: Domain) -> OptionPanel | None:
    """One panel of the domain, from its draws (FITTED_DRAWS,); None where no quote can be used."""
    own = draw[_OF_SURFACE] < _OWN_SURFACES
    found = market_quotes(params, draw[:DRAWS], domain.model, domain.laddered) if own else bent_quotes(draw)
    width = 0.0 if draw[_OF_SURFACE + 1] < _EVEN_WEIGHTS else 0.02 * 50.0 ** draw[_OF_SURFACE + 2]
    deviations = found.log_moneyness / np.maximum(found.exact_iv * np.sqrt(found.expiry), 1e-4)
    try:
        return OptionPanel.from_quotes(
            expiry=found.expiry,
            log_moneyness=found.log_moneyness,
            iv=found.iv,
            weight=(1.0 + width * deviations**2) ** -2.0,
        )
    except InvalidInput:
        return None


def bent_quotes(draw: Vector) -> MarketQuotes:
    """Quotes of slices w(z) = w(0) / 2 (1 + rho eta z + sqrt((eta z + rho)^2 + 1 - rho^2)), z = k / sqrt(w(0)).

    `exact_iv` is that of the slices.
    """
    expiry = expiries_of(draw)
    n = expiry.size
    unit = draw[_OF_SURFACE:_OF_SLICES]
    normal = ndtri(np.clip(draw[_OF_SLICES : _OF_SLICES + 3 * n].reshape(n, 3), 1e-6, 1.0 - 1e-6))
    # A level that decays towards the long run, as volatility does after a shock, and expiries of their own besides.
    pace = _between(0.04, 3.0, unit[4])
    own = _between(2e-3, 0.1, unit[5])
    level = _between(0.04, 1.2, unit[3]) * np.exp(
        0.4 * float(ndtri(unit[6])) * np.exp(-expiry / pace) + own * normal[:, 0]
    )
    # Skew and bend by standard deviation change slowly with the expiry, as a power law does.
    power = 0.1 + 0.15 * float(ndtri(unit[8]))
    eta = _between(0.12, 1.6, unit[7]) * (expiry / 0.25) ** power * np.exp(3.0 * own * normal[:, 1])
    lean = -0.95 + 1.2 * unit[10] if unit[9] < 0.6 else -0.5 + 1.4 * unit[10]
    turn = 0.08 * float(ndtri(unit[11]))
    rho = np.clip(lean + turn * np.log(expiry / 0.25) + 2.0 * own * normal[:, 2], -0.97, 0.97)

    places = np.empty(MOST_STRIKES)
    slices = []
    for e in range(n):
        z = places[: strikes_of(draw, e, expiry[e], expiry[n // 2], places)].copy()
        steep = eta[e] * z
        share = 0.5 * (1.0 + rho[e] * steep + np.sqrt((steep + rho[e]) ** 2 + 1.0 - rho[e] ** 2))
        exact = level[e] * np.sqrt(share)
        noise = np.zeros(z.size)
        if unit[12] >= _CLEAN:
            u = np.clip(draw[_OF_NOISE + e * MOST_STRIKES :][: z.size], 1e-6, 1.0 - 1e-6)
            # Logistic, whose tails are heavier than the normal's, at unit standard deviation.
            noise = _between(3e-4, 5e-2, unit[13]) * 0.5513 * np.log(u / (1.0 - u))
        slices.append(
            np.stack([np.full(z.size, expiry[e]), z * level[e] * math.sqrt(expiry[e]), exact * np.exp(noise), exact])
        )
    t, k, iv, exact = np.concatenate(slices, axis=1)
    value = np.empty(t.size)
    otm_and_vega(k, exact * np.sqrt(t), value, np.empty(t.size))
    quoted = (value > LEAST_TIME_VALUE) & (exact < 4.0)
    return MarketQuotes(t[quoted], k[quoted], iv[quoted], exact[quoted])


def _between(low: float, high: float, unit: float) -> float:
    """Log-uniform."""
    return float(low * (high / low) ** unit)


def _calibrated(panel: OptionPanel, model: Model, params: Vector) -> Calibration | None:
    try:
        found = calibrate(panel, model, [Start("given", params)], effort=Effort(max_work=_MAX_WORK))
    except InvalidInput:
        return None
    return found if found.status == "converged" else None


def _relative_jacobian(found: Calibration) -> Matrix:
    """Weighted derivative of the vols by the parameters, (n_params, n_quotes), of a panel at `REFERENCE_VOL`."""
    problem = fit_problem(found.panel, found.model, CalibrationOptions())
    n = problem.vol.size
    jacobian = np.empty((found.parameters.size, n))
    evaluate(found.parameters, problem, COARSE, problem.vol.copy(), np.empty(n), jacobian)
    scaled: NDArray[np.float64] = jacobian * (REFERENCE_VOL / math.sqrt(float(np.mean(problem.vol**2))))
    return scaled
