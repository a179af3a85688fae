"""Static arbitrage of a fitted model's surface, by Fourier inversion on a dense grid.

A fitted Heston surface has no arbitrage of its own, so what its check examines is the numbers. On its grid, 200 strikes
within +-5 at-the-money standard deviations of each of 50 expiries, from half the shortest to one and a half times the
longest quoted one, it prices from samples of the characteristic function, and looks for

* `bounds`     a call below its intrinsic value or above the forward;
* `vertical`   a call dearer, or a put cheaper, than that of the next strike below;
* `butterfly`  a call above the chord of its neighbours: the density of the transform, averaged over one step of
               strikes, below zero; at the lowest strike, with the forward as the lower neighbour (the left wing);
* `calendar`   dC/dT < 0 at fixed log-moneyness, from the derivative of the characteristic function by expiry; its size
               is what the call loses until the next expiry of the grid.

No implied volatility enters. `surface_twin.py` holds the same check in vol space, slow and readable.

The grid is far denser than prices of a few dozen nodes can vary. So half its strikes, and expiries a quarter apart, are
looked at first. Where the nodes' frequencies are low enough for them (`MOST_DETAIL`), and no condition is missed by
more than the error at them or between them, none on the grid is (tests/test_arbitrage_surface.py plants what is hard to
see). Else all the strikes are looked at, and the whole grid is kept only where there are violations to list.
Where the error is above `LARGEST_ERROR`, the accurate pricer decides (`accurate_look.py`).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..arrays import Matrix, Vector
from ..errors import InvalidInput, Problem
from ..models.model import Model
from ..steps import Steps, finish
from .accurate_look import accurate_look
from .samples import Sampler, plain_sampler
from .surface_kernels import (
    FIRST_STRIKES,
    LARGEST_ERROR,
    LOOK_RATIO,
    MAX_NODES,
    MOST_DETAIL,
    N_EXPIRIES,
    N_KINDS,
    N_STRIKES,
    PERIODS,
    WORK_SHAPE,
    count_missed,
    count_on_grid,
    detail_of,
    excess_of,
    fitting_scale,
    interval_after,
    invert_row,
    level_ahead,
    next_level,
    price_grid_kernel,
    spacing_of,
    spread_expiries,
    tail_target,
    turn_table,
)
from .violations import Verdict, unverified, verdict_of

_WIDENING = 3.0
"""The grid's longest over its shortest expiry is that many times the quoted ones': see `spread_expiries`."""
_turns = lru_cache(maxsize=2)(turn_table)


class PriceGrid(NamedTuple):
    """A model's prices on the dense grid; one row an expiry."""

    expiry: Vector
    """(n_expiries,)"""
    scale: Vector
    """(n_expiries,) 1 to 1.1 at-the-money standard deviations; the strikes lie within +-5 of these."""
    strike: Matrix
    """(n_expiries, n_strikes), in units of the forward."""
    capped: Matrix
    """(n_expiries, n_strikes), E[min(S_T, K)] / F, which is 1 less the call and K/F less the put."""
    growth: Matrix
    """(n_expiries, n_strikes), dC/dT at fixed log-moneyness times the interval to the next expiry."""
    error: Vector
    """(n_expiries,) what any size computed from these may be wrong by."""
    detail: Vector
    """(n_expiries,) radians that the highest frequency in the prices turns from strike to strike."""

    @property
    def log_moneyness(self) -> Matrix:
        """(n_expiries, n_strikes)"""
        n_strikes = self.strike.shape[1]
        return np.outer(self.scale, spacing_of(n_strikes) * (np.arange(n_strikes) - 0.5 * (n_strikes - 1)))


_LOOKS = ((FIRST_STRIKES, MOST_DETAIL, True), (N_STRIKES, math.inf, False))
"""Strikes, the detail that they are looked at with at most, and whether what is between them counts."""


def surface_expiries(quoted_expiry: Vector) -> Vector:
    """The (N_EXPIRIES,) expiries that are checked, evenly spaced in their logarithm.

    raises  InvalidInput for expiries that are not finite or not > 0, or for none at all
    """
    expiry: Vector = spread_expiries(*_ends(quoted_expiry), N_EXPIRIES)
    return expiry


def _ends(quoted_expiry: Vector) -> tuple[float, float]:
    """The shortest and the longest."""
    # Plain floats: numpy takes ten times as long over a few numbers.
    years = np.asarray(quoted_expiry, dtype=np.float64).tolist()
    if not years or not all(map(math.isfinite, years)) or not min(years) > 0.0:
        raise InvalidInput(Problem.at(("expiry",), f"must be finite numbers > 0, but is {str(years)[:80]}."))
    return min(years), max(years)


def check_surface(model: Model, params: Vector, quoted_expiry: Vector) -> Verdict:
    """`check_surface_steps`, to its end."""
    return finish(check_surface_steps(model, params, quoted_expiry))


def check_surface_steps(model: Model, params: Vector, quoted_expiry: Vector) -> Steps[Verdict]:
    """Static arbitrage of a fitted model. There is nothing to drive unless the accurate pricer has to look.

    params         (n_params,), within the model's admissible bounds
    quoted_expiry  (n,), years, > 0, any order, repeats allowed
    returns        violations above `numerical_error`, which bounds the error of every size computed; it is below 1e-8
                   unless tails are extreme. Where it is above `LARGEST_ERROR`, `accurate_look` decides; a surface that
                   is not verified there either counts as not free, and `unverified` says why
    raises         InvalidInput for parameters or expiries that are no such numbers
    """
    p = np.ascontiguousarray(params, dtype=np.float64)
    if p.shape != (model.n_params,) or not all(map(math.isfinite, p.tolist())):
        raise InvalidInput(
            Problem.at(("parameters",), f"must be {model.n_params} finite numbers, but is {p.tolist()}.")
        )
    shortest, longest = _ends(quoted_expiry)
    n_expiries = n_looked_at(shortest, longest)
    for n_strikes, most_detail, between in _LOOKS:
        n_swept, n_missed, error = _count(model, p, shortest, longest, n_expiries, n_strikes, most_detail, between)
        if not error <= LARGEST_ERROR:
            not_known = spread_expiries(shortest, longest, n_expiries)[n_swept:]
            return (yield from accurate_look(model, p, not_known, error))
        if n_missed == 0 and n_swept == n_expiries:
            return Verdict(free=True, n_violations=0, violations=(), numerical_error=error)
    return verdict_on(price_grid(model, p, spread_expiries(shortest, longest, N_EXPIRIES)))


def _count(
    model: Model,
    params: Vector,
    shortest: float,
    longest: float,
    n_expiries: int,
    n_strikes: int,
    most_detail: float,
    between: bool,
) -> tuple[int, int, float]:
    """`count_missed` of any model."""
    if model.layout.size > 0:
        asked = shortest, longest, n_expiries, n_strikes, *_turns(n_strikes), most_detail, between
        return count_missed(model.layout, params, *asked)
    grid = price_grid(model, params, spread_expiries(shortest, longest, n_expiries), n_strikes)
    ended = np.flatnonzero(~(grid.error <= LARGEST_ERROR) | (grid.detail > most_detail))
    if ended.size > 0:
        return int(ended[0]), 0, float(grid.error[: ended[0] + 1].max())
    n_missed = count_on_grid(grid.capped, grid.growth, grid.strike, grid.error, between)
    return n_expiries, n_missed, float(grid.error.max())


def n_looked_at(shortest: float, longest: float) -> int:
    """Expiries of a look: neighbours no farther apart than `LOOK_RATIO`, but no more of them than on the dense grid."""
    return min(math.ceil(math.log(_WIDENING * longest / shortest) / math.log(LOOK_RATIO)) + 1, N_EXPIRIES)


def check_sampled_surface(sampler: Sampler, expiry: Vector) -> Verdict:
    """The same for whatever can be sampled on Lewis's contour, at the given expiries: years, > 0, ascending, >= 2."""
    return verdict_on(sampled_grid(sampler, expiry))


def price_grid(model: Model, params: Vector, expiry: Vector, n_strikes: int = N_STRIKES) -> PriceGrid:
    """Prices on the dense grid, each expiry with the nodes it takes to know them to `TARGET_ERROR`, where that can be.

    expiry  (n_expiries,), years, > 0, ascending, two or more
    """
    if model.layout.size == 0:
        return sampled_grid(plain_sampler(model, params), expiry, n_strikes)
    grid = _empty_grid(expiry, n_strikes)
    contiguous = np.ascontiguousarray(params, dtype=np.float64)
    price_grid_kernel(model.layout, contiguous, expiry, *_turns(n_strikes), *grid[1:], math.inf, math.inf, False)
    return grid


def _empty_grid(expiry: Vector, n_strikes: int) -> PriceGrid:
    scale, error, detail = np.empty((3, expiry.size))
    strike, capped, growth = np.empty((3, expiry.size, n_strikes))
    return PriceGrid(expiry, scale, strike, capped, growth, error, detail)


def sampled_grid(sampler: Sampler, expiry: Vector, n_strikes: int = N_STRIKES) -> PriceGrid:
    """`price_grid_kernel`, step for step, around a sampler that is not compiled."""
    grid = _empty_grid(expiry, n_strikes)
    turns = _turns(n_strikes)
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
            grid.detail[i] = detail_of(level, sampled[0], n_strikes)
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
        return unverified(numerical_error, f"the numbers are known to {numerical_error:.1g} of the forward only")
    n_strikes = grid.strike.shape[1]
    excess = np.empty((grid.expiry.size, N_KINDS, n_strikes))
    excess_of(grid.capped, grid.growth, grid.strike, excess)
    return verdict_of(
        excess.transpose(1, 0, 2).reshape(N_KINDS, -1),
        np.repeat(grid.expiry, n_strikes),
        grid.log_moneyness.ravel(),
        numerical_error,
        of_quotes=False,
    )
