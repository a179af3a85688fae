"""Synthetic panels as a function of (seed, index): any range can be made anywhere, by any number of workers."""

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix
from calibrant.panel import OptionPanel

from .domain import Domain
from .exact import exact_iv_panels
from .fitted_panels import FITTED_DRAWS, fitted_panel, fitted_panels
from .market_panels import DRAWS, market_panels, market_parameters

_DRAWS_PER_STEP = 4
"""64-bit numbers that one step of Philox's counter gives."""
_STEPS_PER_PANEL = 2
"""Of a panel quoted on the grid: enough for eight parameters."""


def panel_dtype(domain: Domain) -> np.dtype[np.void]:
    """One record of a shard: the parameters, the exact vols (NaN where the price carries none), the vol metric."""
    n = domain.n_params
    return np.dtype([("params", "<f8", (n,)), ("iv", "<f4", domain.shape), ("metric", "<f4", (n * (n + 1) // 2,))])


def panel_parameters(domain: Domain, seed: int, start: int, stop: int) -> Matrix:
    """Parameters of the panels start..stop-1.

    seed     >= 0, the key of the counter-based generator
    returns  (stop - start, n_params)
    """
    if domain.standardised:
        return market_parameters(domain, _draws(seed, start, stop, DRAWS))
    n_draws = _DRAWS_PER_STEP * _STEPS_PER_PANEL
    if domain.n_params > n_draws:
        raise ValueError(f"a panel owns {n_draws} draws, but {domain.name} has {domain.n_params} parameters")
    return domain.scale_unit(_draws(seed, start, stop, n_draws)[:, : domain.n_params])


def make_panels(domain: Domain, seed: int, start: int, stop: int) -> NDArray[np.void]:
    """Exact panels start..stop-1 of the seed, (stop - start,) records of `panel_dtype(domain)`."""
    params = panel_parameters(domain, seed, start, stop)
    if domain.standardised:
        iv, metric = market_panels(params, domain, _draws(seed, start, stop, DRAWS))
    else:
        iv, metric = exact_iv_panels(params, domain)
    panels = np.empty(len(params), panel_dtype(domain))
    panels["params"], panels["iv"], panels["metric"] = params, iv, metric
    return panels


def make_fitted_panels(domain: Domain, seed: int, start: int, stop: int) -> NDArray[np.void]:
    """Panels start..stop-1 of the seed that no surface of the model fits, with their least-squares fits for parameters.

    raises  ValueError for a domain whose panels are quoted on its grid
    """
    if not domain.standardised:
        raise ValueError(f"`fitted` panels are irregular, but those of {domain.name!r} are quoted on its grid")
    draws = _draws(seed, start, stop, FITTED_DRAWS)
    panels = np.empty(stop - start, panel_dtype(domain))
    drawn = market_parameters(domain, draws[:, :DRAWS])
    panels["params"], (panels["iv"], panels["metric"]) = fitted_panels(drawn, domain, draws)
    return panels


def irregular_panels(domain: Domain, seed: int, start: int, stop: int) -> list[OptionPanel]:
    """The quotes behind `make_fitted_panels`, of those panels that have any."""
    draws = _draws(seed, start, stop, FITTED_DRAWS)
    drawn = map(fitted_panel, market_parameters(domain, draws[:, :DRAWS]), draws)
    return [panel for panel in drawn if panel is not None]


def _draws(seed: int, start: int, stop: int, n_draws: int) -> Matrix:
    """Uniform numbers (stop - start, n_draws) that belong to these panels alone; n_draws a multiple of a step's."""
    # Philox is counter-based (Salmon et al. 2011): the key is the seed and the counter the index, so skipping is free.
    bits = np.random.Philox(key=seed)
    bits.advance(n_draws // _DRAWS_PER_STEP * start)
    return np.random.Generator(bits).random((stop - start, n_draws))
