"""The Heston model under the leverage, fitted to a surface's vanillas through `calibrant.calibrate`."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from ..api import calibrate
from ..arrays import Vector
from ..errors import InvalidInput, Problem
from .particles import Heston
from .surface import Surface, implied_vol

DELTAS = (-0.10, -0.25, 0.50, 0.25, 0.10)
"""Of the quotes by which a surface is fitted and repriced, negative of puts."""
TENORS = tuple(days / 365.0 for days in (30, 91, 182, 365, 730, 1095, 1825, 2555, 3650))
"""Years: the expiries of those quotes up to the maturity, and the maturity itself, where the caller names none."""
_NEAR = 0.25
"""Of the maturity: a tenor nearer to it than this is left out for it."""


class Quotes(NamedTuple):
    """Vanillas of a surface, (n_quotes,) each."""

    expiry: Vector
    log_moneyness: Vector
    iv: Vector


class HestonFit(NamedTuple):
    """Heston's parameters before mixing, and how they were come by."""

    heston: Heston
    rmse_bp: float | None
    """Root mean square of model less surface vol over the quotes fitted, in basis points; None if they were given."""


def pillars_up_to(maturity: float) -> tuple[float, ...]:
    """Years of the tenors before a maturity, and of the maturity."""
    return (*(tenor for tenor in TENORS if tenor < (1.0 - _NEAR) * maturity), maturity)


def delta_quotes(surface: Surface, expiries: tuple[float, ...]) -> Quotes:
    """Five quotes an expiry, at forward deltas (`DELTAS`) of the surface's own vols."""
    expiry = np.repeat(expiries, len(DELTAS))
    delta = np.tile(DELTAS, len(expiries))
    # d1 of the delta; ln(K / F) = -d1 s + s^2 / 2 with s at that very strike, which few steps find.
    d1 = np.where(delta < 0.0, -ndtri(-delta), ndtri(delta))
    k = np.zeros(expiry.size)
    for _ in range(50):
        deviation = implied_vol(surface, k, expiry) * np.sqrt(expiry)
        k = 0.5 * k + 0.5 * (0.5 * deviation**2 - d1 * deviation)
    return Quotes(expiry, k, implied_vol(surface, k, expiry))


def fit_heston(surface: Surface, expiries: tuple[float, ...], kappa: float | None = None) -> HestonFit:
    """Fit theta, xi, rho, v0, and kappa unless it is held, to a surface's delta quotes.

    raises  InvalidInput if no fit converges
    """
    quotes = delta_quotes(surface, expiries)
    fit = calibrate(
        {"expiry": quotes.expiry, "log_moneyness": quotes.log_moneyness, "iv": quotes.iv},
        fixed=None if kappa is None else {"kappa": kappa},
    )
    if not np.isfinite(fit.fit.rmse_bp):
        needed = f"must be given, since none could be fitted to the surface: {fit.message}"
        raise InvalidInput(Problem.at(("heston",), needed))
    return HestonFit(Heston(**fit.parameters), fit.fit.rmse_bp)
