"""Static arbitrage of a surface: of a fitted model, by Fourier inversion on a dense grid, or of prices on any grid.

A fitted Heston surface has no arbitrage of its own, so what its check examines is the numbers. It prices 200 strikes
within +-5 at-the-money standard deviations of each of 50 expiries, from half the shortest to one and a half times the
longest quoted one, from samples of the characteristic function, and looks for

* `bounds`     a call below its intrinsic value or above the forward;
* `vertical`   a call dearer, or a put cheaper, than that of the next strike below;
* `butterfly`  a call above the chord of its neighbours: the density of the transform, averaged over one step of
               strikes, below zero; at the lowest strike, with the forward as the lower neighbour (the left wing);
* `calendar`   dC/dT < 0 at fixed log-moneyness, from the derivative of the characteristic function by expiry; its size
               is what the call loses until the next expiry of the grid.

No implied volatility enters. `surface_twin.py` holds the same check in vol space, slow and readable.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..arrays import Matrix, Vector
from ..errors import InvalidInput, Problem
from ..models.model import Model
from .hull import PRICE_ERROR, static_arbitrage
from .samples import COMPILED, Sampler, plain_sampler
from .surface_kernels import (
    MAX_NODES,
    N_KINDS,
    N_STRIKES,
    PERIODS,
    SPACING,
    WORK_SHAPE,
    count_missed,
    excess_of,
    fitting_scale,
    interval_after,
    invert_row,
    level_ahead,
    next_level,
    price_grid_kernel,
    spread_expiries,
    tail_target,
    turn_table,
)
from .violations import Verdict, verdict_of

LARGEST_ERROR = 1e-6
"""A surface whose numbers are known no better than this, in units of the forward, is not called free of arbitrage."""

_turns = lru_cache(maxsize=1)(turn_table)


class PriceGrid(NamedTuple):
    """A model's prices on the dense grid; one row an expiry."""

    expiry: Vector
    """(n_expiries,)"""
    scale: Vector
    """(n_expiries,) 1 to 1.1 at-the-money standard deviations; the strikes lie within +-5 of these."""
    strike: Matrix
    """(n_expiries, N_STRIKES), in units of the forward."""
    capped: Matrix
    """(n_expiries, N_STRIKES), E[min(S_T, K)] / F, which is 1 less the call and K/F less the put."""
    growth: Matrix
    """(n_expiries, N_STRIKES), dC/dT at fixed log-moneyness times the interval to the next expiry."""
    error: Vector
    """(n_expiries,) what any size computed from these may be wrong by."""

    @property
    def log_moneyness(self) -> Matrix:
        """(n_expiries, N_STRIKES)"""
        return np.outer(self.scale, SPACING * (np.arange(N_STRIKES) - 0.5 * (N_STRIKES - 1)))


def surface_expiries(quoted_expiry: Vector) -> Vector:
    """The (N_EXPIRIES,) expiries that are checked, evenly spaced in their logarithm.

    raises  InvalidInput for expiries that are not finite or not > 0, or for none at all
    """
    expiry: Vector = spread_expiries(*_ends(quoted_expiry))
    return expiry


def _ends(quoted_expiry: Vector) -> tuple[float, float]:
    """The shortest and the longest."""
    # Plain floats: numpy takes ten times as long over a few numbers.
    years = np.asarray(quoted_expiry, dtype=np.float64).tolist()
    if not years or not all(map(math.isfinite, years)) or not min(years) > 0.0:
        raise InvalidInput(Problem.at(("expiry",), f"must be finite numbers > 0, but is {str(years)[:80]}."))
    return min(years), max(years)


def check_surface(model: Model, params: Vector, quoted_expiry: Vector) -> Verdict:
    """Static arbitrage of a fitted model on the dense grid.

    params         (n_params,), within the model's admissible bounds
    quoted_expiry  (n,), years, > 0, any order, repeats allowed
    returns        violations above `numerical_error`, which bounds the error of every size computed; it is below 1e-8
                   unless tails are extreme, and above `LARGEST_ERROR` the surface counts as not free, with none listed
    raises         InvalidInput for parameters or expiries that are no such numbers
    """
    p = np.ascontiguousarray(params, dtype=np.float64)
    if p.shape != (model.n_params,) or not all(map(math.isfinite, p.tolist())):
        raise InvalidInput(
            Problem.at(("parameters",), f"must be {model.n_params} finite numbers, but is {p.tolist()}.")
        )
    shortest, longest = _ends(quoted_expiry)
    code = COMPILED.get(model.name)
    if code is not None:
        # A first look that keeps no prices: most surfaces need no more, nor do those of which nothing can be said.
        n_missed, numerical_error = count_missed(code, p, shortest, longest, *_turns())
        known = numerical_error <= LARGEST_ERROR
        if n_missed == 0 or not known:
            return Verdict(free=known, n_violations=0, violations=(), numerical_error=numerical_error)
    return verdict_on(price_grid(model, p, spread_expiries(shortest, longest)))


def check_sampled_surface(sampler: Sampler, expiry: Vector) -> Verdict:
    """The same for whatever can be sampled on Lewis's contour, at the given expiries: years, > 0, ascending, >= 2."""
    return verdict_on(_sampled_grid(sampler, expiry))


def check_price_surface(log_moneyness: Vector, expiry: Vector, call: Matrix, error: float = PRICE_ERROR) -> Verdict:
    """Static arbitrage among the calls of a grid, whatever they come from.

    log_moneyness  (n_strikes,), log(strike / forward), ascending
    expiry         (n_expiries,), years, > 0, ascending
    call           (n_expiries, n_strikes), undiscounted, in units of the forward
    error          what each call and put may be wrong by, relative to the larger of strike and forward
    returns        every violation above it (see `hull.py`)
    raises         InvalidInput for arrays that are no such grid
    """
    k, t, c = (np.asarray(x, dtype=np.float64) for x in (log_moneyness, expiry, call))
    for name, values in (("log_moneyness", k), ("expiry", t)):
        if values.ndim != 1 or not np.isfinite(values).all() or not (np.diff(values) > 0.0).all():
            raise InvalidInput(Problem.at((name,), "must be finite numbers in ascending order."))
    if c.shape != (t.size, k.size) or c.size == 0 or not np.isfinite(c).all():
        raise InvalidInput(
            Problem.at(("call",), f"must be {t.size} x {k.size} finite numbers (expiries, strikes), but is {c.shape}.")
        )
    prices = np.ascontiguousarray(c).ravel()
    excess = np.empty((N_KINDS, c.size))
    offsets = np.arange(t.size + 1, dtype=np.int64) * k.size
    static_arbitrage(np.tile(np.exp(k), t.size), offsets, prices, prices, error, excess)
    return verdict_of(excess, np.repeat(t, k.size), np.tile(k, t.size), error, of_quotes=False)


def price_grid(model: Model, params: Vector, expiry: Vector) -> PriceGrid:
    """Prices on the dense grid, each expiry with the nodes it takes to know them to `TARGET_ERROR`, where that can be.

    expiry  (n_expiries,), years, > 0, ascending, two or more
    """
    code = COMPILED.get(model.name)
    if code is None:
        return _sampled_grid(plain_sampler(model, params), expiry)
    grid = _empty_grid(expiry)
    contiguous = np.ascontiguousarray(params, dtype=np.float64)
    price_grid_kernel(code, contiguous, expiry, *_turns(), *grid[1:])
    return grid


def _empty_grid(expiry: Vector) -> PriceGrid:
    n = expiry.size
    strike, capped, growth = np.empty((3, n, N_STRIKES))
    return PriceGrid(expiry, np.empty(n), strike, capped, growth, np.empty(n))


def _sampled_grid(sampler: Sampler, expiry: Vector) -> PriceGrid:
    """`price_grid_kernel`, step for step, around a sampler that is not compiled."""
    grid = _empty_grid(expiry)
    turns = _turns()
    samples = np.empty((4, MAX_NODES))
    work = np.empty(WORK_SHAPE)
    level = 0
    level_before = -1
    alias_before = 0.0
    ratio = 1.001
    for i, years in enumerate(expiry.tolist()):
        interval = interval_after(expiry, i)
        sampler(years, 0.0, 0.0, interval, samples[:, :1])
        natural = float(np.sqrt(-8.0 * np.log(samples[0, 0])))
        wanted = ratio * natural
        for _ in range(2 * len(PERIODS)):
            scale = wanted
            step = 2.0 * np.pi / (PERIODS[level] * scale)
            sampled = sampler(years, step, tail_target(scale), interval, samples)
            row = grid.strike[i], grid.capped[i], grid.growth[i]
            at_the_money, grid.error[i], alias = invert_row(
                samples, *sampled, scale, interval, level, *turns, work, *row
            )
            wanted = fitting_scale(at_the_money, scale)
            after = next_level(level, sampled[0], grid.error[i])
            if wanted == scale and after == level:
                break
            level = after
        grid.scale[i] = scale
        ratio = scale / natural
        if level != level_before:
            alias_before = alias
        level_before = level
        level = level_ahead(level, alias_before, alias)
        alias_before = alias
    return grid


def verdict_on(grid: PriceGrid) -> Verdict:
    """The verdict on a model's prices."""
    numerical_error = float(grid.error.max())
    # A NaN or an infinity, from parameters that no model has, is more than any bound as well.
    if not numerical_error <= LARGEST_ERROR:
        return Verdict(free=False, n_violations=0, violations=(), numerical_error=numerical_error)
    excess = np.empty((grid.expiry.size, N_KINDS, N_STRIKES))
    excess_of(grid.capped, grid.growth, grid.strike, excess)
    return verdict_of(
        excess.transpose(1, 0, 2).reshape(N_KINDS, -1),
        np.repeat(grid.expiry, N_STRIKES),
        grid.log_moneyness.ravel(),
        numerical_error,
        of_quotes=False,
    )
