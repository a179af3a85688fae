"""Synthetic panels as a function of (seed, index): any range can be made anywhere, by any number of workers."""

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix
from calibrant.panel import OptionPanel

from .domain import Domain
from .exact import exact_iv_panels
from .fitted_panels import FITTED_DRAWS, fitted_panel, fitted_panels
from .market_panels import DRAWS, market_panels

_DRAWS_PER_STEP = 4
"""64-bit numbers that one step of Philox's counter gives."""
_FIRST = 8
"""Draws of a panel that are its parameters'; those of a model with more parameters lie behind all others."""


def panel_dtype(domain: Domain) -> np.dtype[np.void]:
    """One record of a shard: the parameters, the exact vols (NaN where the price carries none), the vol metric."""
    n = domain.n_params
    return np.dtype([("params", "<f8", (n,)), ("iv", "<f4", domain.shape), ("metric", "<f4", (n * (n + 1) // 2,))])


def panel_parameters(domain: Domain, seed: int, start: int, stop: int) -> Matrix:
    """Parameters of the panels start..stop-1.

    seed     >= 0, the key of the counter-based generator
    returns  (stop - start, n_params)
    """
    return _drawn(domain, seed, start, stop, DRAWS if domain.standardised else _FIRST)[0]


def make_panels(domain: Domain, seed: int, start: int, stop: int) -> NDArray[np.void]:
    """Exact panels start..stop-1 of the seed, (stop - start,) records of `panel_dtype(domain)`."""
    panels = np.empty(stop - start, panel_dtype(domain))
    if domain.standardised:
        params, draws = _drawn(domain, seed, start, stop, DRAWS)
        panels["iv"], panels["metric"] = market_panels(params, domain, draws)
    else:
        params = panel_parameters(domain, seed, start, stop)
        panels["iv"], panels["metric"] = exact_iv_panels(params, domain)
    panels["params"] = params
    return panels


def make_fitted_panels(domain: Domain, seed: int, start: int, stop: int) -> NDArray[np.void]:
    """Panels start..stop-1 of the seed that no surface of the model fits, with their least-squares fits for parameters.

    raises  ValueError for a domain whose panels are quoted on its grid
    """
    if not domain.standardised:
        raise ValueError(f"`fitted` panels are irregular, but those of {domain.name!r} are quoted on its grid")
    panels = np.empty(stop - start, panel_dtype(domain))
    fits, (iv, metric) = fitted_panels(*_drawn(domain, seed, start, stop, FITTED_DRAWS), domain)
    panels["params"], panels["iv"], panels["metric"] = fits, iv, metric
    return panels


def irregular_panels(domain: Domain, seed: int, start: int, stop: int) -> list[OptionPanel]:
    """The quotes behind `make_fitted_panels`, of those panels that have any."""
    drawn = zip(*_drawn(domain, seed, start, stop, FITTED_DRAWS), strict=True)
    panels = (fitted_panel(params, draw, domain) for params, draw in drawn)
    return [panel for panel in panels if panel is not None]


def _drawn(domain: Domain, seed: int, start: int, stop: int, n_draws: int) -> tuple[Matrix, Matrix]:
    """The panels' parameters, and the uniform numbers (stop - start, n_draws) that they are made of besides."""
    more = max(domain.n_params - _FIRST, 0)
    steps = -(-(n_draws + more) // _DRAWS_PER_STEP)
    # Philox is counter-based (Salmon et al. 2011): the key is the seed and the counter the index, so skipping is free.
    bits = np.random.Philox(key=seed)
    bits.advance(steps * start)
    draws = np.random.Generator(bits).random((stop - start, steps * _DRAWS_PER_STEP))
    of_params = np.concatenate([draws[:, :_FIRST], draws[:, n_draws : n_draws + more]], axis=1)
    return domain.draw(of_params[:, : domain.n_params]), draws[:, :n_draws]
