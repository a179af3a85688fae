"""The surface check in vol space: the slow, readable twin of `surface.py`.

The conditions on the total variance w(k, T) = vol^2 T are those of Gatheral & Jacquier (2014):

* `butterfly`  Durrleman's g(k) = (1 - k w'/2w)^2 - w'^2/4 (1/w + 1/4) + w''/2 >= 0, the density up to a factor;
* `calendar`   dw/dT >= 0 at fixed k;
* the wings    |dw/dk| <= 2 (Lee 2004) at the outermost strikes where w < 2 |k|, a `vertical` on the right and a
               `butterfly` on the left (see `violations.py`).

Sizes are turned into those of the price check: what a butterfly over one step of strikes, or a calendar spread over one
step of expiries, would cost. Derivatives are five-point differences over the grid; their error is stated as the
difference from three-point ones. Where no implied vol exists nothing is seen: that is why the price check is the one in
use.
"""

from collections.abc import Callable

import numpy as np

from ..arrays import Matrix, Vector
from ..black import implied_volatility_from_time_value
from ..models.model import Model
from ..pricing.fourier import otm_values
from .surface import surface_expiries
from .violations import BUTTERFLY, CALENDAR, KINDS, VERTICAL, Verdict, verdict_of

TotalVariance = Callable[[Vector, float], Vector]
"""(log_moneyness (n,), expiry) -> w (n,), NaN where there is none."""

N_STRIKES = 200
SPAN = 5.0
LEAST_TIME_VALUE = 1e-11
"""Time values below are mostly the pricer's error (1e-13), and so would be their vols."""


def check_surface_in_vols(model: Model, params: Vector, quoted_expiry: Vector) -> Verdict:
    """`surface.check_surface` in vol space; arguments as there."""

    def total_variance(log_moneyness: Vector, expiry: float) -> Vector:
        years = np.full(log_moneyness.size, expiry)
        values = otm_values(model, log_moneyness, years, params)
        seen = values > LEAST_TIME_VALUE
        w = np.full(log_moneyness.size, np.nan)
        vol = implied_volatility_from_time_value(values[seen], log_moneyness[seen], years[seen])
        w[seen] = vol.volatility**2 * expiry
        return w

    return check_total_variance(total_variance, surface_expiries(quoted_expiry))


def check_total_variance(total_variance: TotalVariance, expiry: Vector) -> Verdict:
    """The conditions on a smooth surface: 200 strikes within +-5 at-the-money standard deviations of each expiry.

    expiry  (n_expiries,), years, > 0, ascending, two or more
    """
    interval = np.diff(expiry, append=2.0 * expiry[-1] - expiry[-2])
    excess = np.zeros((len(KINDS), expiry.size, N_STRIKES))
    error = np.zeros(expiry.size)
    log_moneyness = np.empty((expiry.size, N_STRIKES))
    for i, years in enumerate(expiry.tolist()):
        sd = float(np.sqrt(total_variance(np.zeros(1), years)[0]))
        step = 2.0 * SPAN * sd / (N_STRIKES - 1)
        # Two more at either end, for the differences.
        wide = step * (np.arange(-2.0, N_STRIKES + 2.0) - 0.5 * (N_STRIKES - 1))
        k = wide[2:-2]
        around = total_variance(wide, years)
        short = 1e-4 * years
        by_expiry = (total_variance(k, years + short) - total_variance(k, years - short)) / (2.0 * short)
        fine, coarse = (
            _row_excess(k, around[2:-2], by_k, by_kk, by_expiry * interval[i], step)
            for by_k, by_kk in (_five_point(around, step), _three_point(around, step))
        )
        log_moneyness[i] = k
        excess[:, i] = np.nan_to_num(fine)
        error[i] = np.max(np.nan_to_num(np.abs(fine - coarse)))
    return verdict_of(
        excess.reshape(len(KINDS), -1),
        np.repeat(expiry, N_STRIKES),
        log_moneyness.ravel(),
        float(error.max()),
        of_quotes=False,
    )


def durrleman(log_moneyness: Vector, w: Vector, by_k: Vector, by_kk: Vector) -> Vector:
    """Durrleman's g: the density of ln(S_T/F) is g / sqrt(2 pi w) e^{-d2^2/2} (Gatheral & Jacquier 2014, eq. 2.1)."""
    g: Vector = (1.0 - 0.5 * log_moneyness * by_k / w) ** 2 - 0.25 * by_k**2 * (1.0 / w + 0.25) + 0.5 * by_kk
    return g


def _row_excess(k: Vector, w: Vector, by_k: Vector, by_kk: Vector, growth: Vector, step: float) -> Matrix:
    """What each kind is missed by, (n_kinds, N_STRIKES); NaN where there is no vol."""
    root = np.sqrt(w)
    d1 = -k / root + 0.5 * root
    # dC/dw = n(d1) / (2 sqrt w), and K n(d2) = n(d1) with K in units of the forward.
    by_w = np.exp(-0.5 * d1**2) / (2.0 * root * np.sqrt(2.0 * np.pi))
    excess = np.zeros((len(KINDS), k.size))
    # A middle price exceeds the chord of neighbours one step away by -density K step^2 / 2.
    excess[BUTTERFLY] = -durrleman(k, w, by_k, by_kk) * by_w * step**2
    excess[CALENDAR] = -growth * by_w
    seen = np.flatnonzero(np.isfinite(excess[BUTTERFLY]))
    for kind, at, slope in ((BUTTERFLY, seen[0], -by_k[seen[0]]), (VERTICAL, seen[-1], by_k[seen[-1]])):
        if w[at] < 2.0 * abs(k[at]):
            excess[kind, at] = max(excess[kind, at], (slope - 2.0) * by_w[at] * step)
    return excess


def _five_point(y: Vector, step: float) -> tuple[Vector, Vector]:
    """First and second derivative at all nodes but two at either end."""
    a, b, c, d, e = y[:-4], y[1:-3], y[2:-2], y[3:-1], y[4:]
    return (a - 8.0 * b + 8.0 * d - e) / (12.0 * step), (16.0 * (b + d) - a - e - 30.0 * c) / (12.0 * step**2)


def _three_point(y: Vector, step: float) -> tuple[Vector, Vector]:
    b, c, d = y[1:-3], y[2:-2], y[3:-1]
    return (d - b) / (2.0 * step), (b - 2.0 * c + d) / step**2
