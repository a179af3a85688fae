"""Prices under Black-Scholes, local, stochastic and stochastic local vol: vanillas and touches, with their errors.

`bs` is the closed form; the others are paths of one kind, `lv` with the local vol for leverage and a variance of one,
`heston` with a leverage of one and the whole vol of variance, `slv` with the calibrated leverage and the mixed one.
"""

from typing import Literal, NamedTuple

import numpy as np

from ..arrays import Matrix, Vector
from ..black import implied_volatility_from_time_value, vega
from ..fx.conventions import Conventions
from ..steps import Steps
from .barriers import Barrier, black_scholes, log_levels
from .leverage import Leverage
from .local_vol import LocalVolatility
from .particles import Heston
from .paths import Block, Dynamics, PathOptions, Watch, mean_steps
from .surface import Surface, implied_vol
from .walk import FAR

ModelName = Literal["bs", "lv", "heston", "slv"]


class TouchPrice(NamedTuple):
    """In domestic currency, for one unit of payout currency."""

    price: float
    se: float
    """Standard error of the simulation; 0 of a closed form."""
    tv: float
    """The Black-Scholes value at that expiry's at-the-money vol."""
    delta: float | None
    """Derivative by the spot; None where it was not asked for, like those that follow."""
    delta_se: float | None
    gamma: float | None
    gamma_se: float | None


class Repriced(NamedTuple):
    """Vanillas priced by simulation, against the surface; arrays (n_quotes,)."""

    expiry: Vector
    strike: Vector
    target_iv: Vector
    model_iv: Vector
    """NaN where the price carries none."""
    se_bp: Vector
    """Standard error of `model_iv`, in basis points of vol."""

    @property
    def error_bp(self) -> Vector:
        return 1e4 * (self.model_iv - self.target_iv)

    def columns(self) -> dict[str, Vector]:
        """In the order in which they are told."""
        columns = {**self._asdict(), "error_bp": self.error_bp}
        return {name: columns[name] for name in ("expiry", "strike", "target_iv", "model_iv", "error_bp", "se_bp")}


class Martingale(NamedTuple):
    """How well E[S] = F is met, at dates; arrays (n_dates,)."""

    expiry: Vector
    error: Vector
    """E[S_t] / F(t) - 1."""
    se: Vector


def stochastic(heston: Heston) -> Dynamics:
    """Heston's model itself."""
    return Dynamics(heston=heston, leverage=_constant(1.0))


def local(local_vol: LocalVolatility, dates: Vector, rho: float = 0.0) -> Dynamics:
    """The local vol model, driven by the same normal numbers as a stochastic one with that correlation."""
    grid = local_vol.grid(dates)
    leverage = Leverage(expiry=grid.expiry, start=grid.start, step=grid.step, value=grid.vol)
    return Dynamics(heston=Heston(kappa=0.0, theta=1.0, xi=0.0, rho=rho, v0=1.0), leverage=leverage)


def _constant(value: float) -> Leverage:
    dates = np.array([0.0, 1.0])
    return Leverage(expiry=dates, start=np.zeros(2), step=np.ones(2), value=np.full((2, 2), value))


def vanilla_steps(
    dynamics: Dynamics,
    surface: Surface,
    expiry: Vector,
    log_moneyness: Vector,
    options: PathOptions,
) -> Steps[tuple[Repriced, Martingale]]:
    """Out-of-the-money vanillas and the forward itself.

    expiry         (n_quotes,) years
    log_moneyness  (n_quotes,) log(strike / forward)
    """
    market = surface.market
    ends = np.unique(expiry)
    dates = options.dates(ends)
    log_forward = market.log_forward(dates)
    watched = np.searchsorted(dates, ends - 1e-9)
    at = np.searchsorted(ends, expiry)
    sign = np.where(log_moneyness > 0.0, 1.0, -1.0)[:, np.newaxis]
    strike = np.exp(log_moneyness)[:, np.newaxis]

    def payoff(block: Block) -> Matrix:
        relative = np.exp(block.log_spot - log_forward[watched][:, np.newaxis])
        return np.concatenate((np.maximum(sign * (relative[at] - strike), 0.0), relative))

    discount = market.discount(dates)
    means = yield from mean_steps(dynamics, dates, log_forward, discount, watched, Watch.nothing(), payoff, options)
    mean, error = _mean_and_error(means[:, 0])
    n = expiry.size
    target = implied_vol(surface, log_moneyness, expiry)
    model = implied_volatility_from_time_value(mean[:n], log_moneyness, expiry).volatility
    se = 1e4 * error[:n] / vega(log_moneyness, expiry, np.where(np.isfinite(model), model, target))
    repriced = Repriced(expiry, np.exp(log_moneyness + market.log_forward(expiry)), target, model, se)
    return repriced, Martingale(ends, mean[n:] - 1.0, error[n:])


def touch_steps(
    dynamics: Dynamics,
    surface: Surface,
    barriers: tuple[Barrier, ...],
    options: PathOptions,
    *,
    conventions: Conventions | None = None,
    greeks: bool = False,
) -> Steps[list[TouchPrice]]:
    """Touches and no-touches by paths.

    conventions  what at the money means for the theoretical value
    greeks       whether delta and gamma are wanted: by the same paths from three spots, the leverage held where it is
    """
    market = surface.market
    expiry = np.array([barrier.expiry for barrier in barriers])
    ends = np.unique(expiry)
    dates = options.dates(ends)
    log_forward, discount = market.log_forward(dates), market.discount(dates)
    watched = np.searchsorted(dates, ends - 1e-9)
    at = np.searchsorted(ends, expiry)
    low, high = log_levels(barriers, FAR)
    foreign = np.array([barrier.payout == "foreign" for barrier in barriers])
    no_touch = np.array([barrier.kind == "no_touch" for barrier in barriers])
    at_hit = np.array([barrier.paid == "at_hit" for barrier in barriers])
    levels = np.array([barrier.level or 1.0 for barrier in barriers])
    unit_at_hit = np.where(foreign, levels, 1.0)[:, np.newaxis]
    factor = discount[watched[at]][:, np.newaxis]

    def payoff(block: Block) -> Matrix:
        unit = factor * np.where(foreign[:, np.newaxis], np.exp(block.log_spot[at]), 1.0)
        share = np.where(no_touch[:, np.newaxis], block.alive, 1.0 - block.alive)
        return np.where(at_hit[:, np.newaxis], unit_at_hit * block.paid, unit * share)

    # The error of a difference grows as the bump shrinks, its bias with the square of the bump: a seventh of the spot's
    # own deviation moves a touch's gamma by a few thousandths. But no bump may touch a level.
    deviation = float(np.sqrt(surface.total_variance(0.0, ends[0]).w))
    nearest = float(np.min(np.abs(np.concatenate((low, high)) - np.log(market.spot))))
    bump = min(0.15 * deviation, 0.5 * nearest)
    shifts = (0.0, bump, -bump) if greeks else (0.0,)
    watch = Watch(low, high, watched[at])
    means = yield from mean_steps(dynamics, dates, log_forward, discount, watched, watch, payoff, options, shifts)
    price, error = _mean_and_error(means[:, 0])
    tv = [black_scholes(barrier, surface, conventions) for barrier in barriers]
    if not greeks:
        return [
            TouchPrice(p, e, value, None, None, None, None)
            for p, e, value in zip(price.tolist(), error.tolist(), tv, strict=True)
        ]
    spot = market.spot
    # By ln S: f' = S V', f'' = S V' + S^2 V''.
    first = (means[:, 1] - means[:, 2]) / (2.0 * bump)
    second = (means[:, 1] - 2.0 * means[:, 0] + means[:, 2]) / bump**2
    delta, delta_error = _mean_and_error(first / spot)
    gamma, gamma_error = _mean_and_error((second - first) / spot**2)
    columns = (price, error, np.array(tv), delta, delta_error, gamma, gamma_error)
    return [TouchPrice(*row) for row in np.column_stack(columns).tolist()]


def black_scholes_price(
    barrier: Barrier, surface: Surface, conventions: Conventions | None = None, *, greeks: bool = False
) -> TouchPrice:
    """The theoretical value, with differences of the closed form for greeks."""
    tv = black_scholes(barrier, surface, conventions)
    if not greeks:
        return TouchPrice(tv, 0.0, tv, None, None, None, None)
    spot = surface.market.spot
    bump = 1e-3 * spot * float(np.sqrt(surface.total_variance(0.0, barrier.expiry).w))
    up, down = (black_scholes(barrier, surface, conventions, spot + move) for move in (bump, -bump))
    return TouchPrice(tv, 0.0, tv, (up - down) / (2.0 * bump), 0.0, (up - 2.0 * tv + down) / bump**2, 0.0)


def _mean_and_error(replicates: Matrix) -> tuple[Vector, Vector]:
    """Over the first axis."""
    n = replicates.shape[0]
    return replicates.mean(axis=0), replicates.std(axis=0, ddof=1) / np.sqrt(n)
