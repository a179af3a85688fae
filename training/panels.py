"""Synthetic panels as a function of (seed, index): any range can be made anywhere, by any number of workers."""

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix

from .domain import Domain
from .exact import exact_iv_panels

# One step of Philox's counter gives four 64-bit numbers; a panel owns two steps, which is enough for eight parameters.
_STEPS_PER_PANEL = 2
_DRAWS_PER_PANEL = 4 * _STEPS_PER_PANEL


def panel_dtype(domain: Domain) -> np.dtype[np.void]:
    """One record of a shard: the parameters, the exact vols (NaN where the price carries none), the vol metric."""
    n = domain.n_params
    return np.dtype([("params", "<f8", (n,)), ("iv", "<f4", domain.shape), ("metric", "<f4", (n * (n + 1) // 2,))])


def panel_parameters(domain: Domain, seed: int, start: int, stop: int) -> Matrix:
    """Parameters of the panels start..stop-1, uniform on the domain's sampled box.

    seed     >= 0, the key of the counter-based generator
    returns  (stop - start, n_params)
    """
    if domain.n_params > _DRAWS_PER_PANEL:
        raise ValueError(f"a panel owns {_DRAWS_PER_PANEL} draws, but {domain.name} has {domain.n_params} parameters")
    # Philox is counter-based (Salmon et al. 2011): the key is the seed and the counter the index, so skipping is free.
    bits = np.random.Philox(key=seed)
    bits.advance(_STEPS_PER_PANEL * start)
    unit = np.random.Generator(bits).random((stop - start, _DRAWS_PER_PANEL))
    return domain.scale_unit(unit[:, : domain.n_params])


def make_panels(domain: Domain, seed: int, start: int, stop: int) -> NDArray[np.void]:
    """Exact panels start..stop-1 of the seed, (stop - start,) records of `panel_dtype(domain)`."""
    params = panel_parameters(domain, seed, start, stop)
    iv, metric = exact_iv_panels(params, domain)
    panels = np.empty(len(params), panel_dtype(domain))
    panels["params"], panels["iv"], panels["metric"] = params, iv, metric
    return panels
