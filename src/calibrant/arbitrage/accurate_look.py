"""The accurate pricer's word on a surface of which the surface check's own numbers say nothing.

Where a characteristic function hardly decays, with a vol of vol so large that the variance sits at zero, the check's
nodes leave an error above `LARGEST_ERROR`; so does rounding where the vol of vol is next to nothing. The pricer copes
with both, but would take seconds for the dense grid: a few strikes of a few expiries are priced, and the hull finds
every static arbitrage among them.
"""

import math

import numpy as np

from ..arrays import Vector
from ..models.model import Model
from ..pricing.fourier import PricingError, call_prices
from ..steps import Progress, Steps
from .price_surface import check_price_surface
from .violations import Verdict, unverified

N_LOOKED_AT = 3
"""Expiries at most."""
N_SIDE = 4
"""Strikes on either side of the forward."""
_NEAREST, _FARTHEST = 0.05, 3.0
"""The first and the last of them, in standard deviations of the shortest and of the longest expiry: the peak of a
distribution whose variance sits at zero is far narrower than its deviation."""


def accurate_look(model: Model, params: Vector, expiry: Vector, error: float) -> Steps[Verdict]:
    """Free, or not verified; a step is one expiry.

    params   (n_params,)
    expiry   (n_expiries,), years, > 0, ascending: the first is not known, the others have not been looked at
    error    what the sizes of the check may be wrong by at the first
    returns  free with the error that the hull grants the pricer; else what was found, and why nothing is verified
    """
    seen = f"at an expiry of {expiry[0]:.2g} years the check knows its numbers to {error:.1g} of the forward only"
    years = expiry[np.unique(np.linspace(0, expiry.size - 1, N_LOOKED_AT).round().astype(np.int64))]
    variances = [model.expected_variance(t, params) for t in (float(years[0]), float(years[-1]))]
    if not all(0.0 < variance < math.inf for variance in variances):
        return unverified(error, f"{seen}, and its variance is no number > 0")
    side = np.geomspace(_NEAREST * math.sqrt(variances[0]), _FARTHEST * math.sqrt(variances[1]), N_SIDE)
    k = np.concatenate([-side[::-1], [0.0], side])
    calls = np.empty((years.size, k.size))
    for i, t in enumerate(years.tolist()):
        if (yield Progress(float(i * k.size), float(calls.size))):
            return unverified(error, f"{seen}, and there was no time for the accurate pricer")
        try:
            calls[i] = call_prices(model, k, np.full(k.size, t), params)
        except PricingError:
            return unverified(error, f"{seen}, and the accurate pricer finds no price at {t:.2g} years")
    if not np.isfinite(calls).all():
        return unverified(error, f"{seen}, and the accurate pricer finds no price")
    verdict = check_price_surface(k, years, calls)
    if verdict.free:
        return verdict
    at_odds = f"{seen}, and the prices of the accurate pricer are at odds by {verdict.violations[0].size:.1g}"
    return verdict._replace(unverified=at_odds)
