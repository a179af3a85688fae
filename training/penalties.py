"""The no-arbitrage term of the training loss: the paper's, or the conditions that the paper stands for.

`paper`      P1 = ReLU(-w_KK), P2 = ReLU(-w_T), P3 = ReLU(w_K) for K > S_0, on the total variance w of the network's
             parameters (sections 3.4 and 4.2): the differentiable twin of `calibrant.arbitrage.paper_penalties`.
             An exact Heston surface breaks P1 and P3 without arbitrage, so this term moves the answers.
`arbitrage`  ReLU(-g) with Durrleman's g, and ReLU(-w_T) at fixed log-moneyness (Gatheral & Jacquier 2014). What the
             network answers is a Heston surface, which has no arbitrage: this term is zero but for its differences.

Both are the mean over panels of the sum over the paper's dense grid of 200 strikes and 50 expiries, as the paper sums
them. The grid costs a pricing of 10,000 quotes a panel, so a step evaluates it on a random part of its batch: the mean
over that part has the mean over the batch as its expectation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calibrant.arrays import Vector
from calibrant.models import HESTON, Model

from .pricing import Grid, TotalVariances, total_variances

_STRIKE = np.linspace(0.8, 1.2, 200)
DENSE_GRID = Grid(HESTON, np.log(_STRIKE), np.linspace(0.1, 2.0, 50))
"""The paper's, with forward 1; the spot is the forward, since its rate is zero."""


@dataclass(frozen=True, kw_only=True)
class PenaltyOptions:
    """The term lambda_t * L_penalty of a loss."""

    kind: str = "none"
    """`none`, or a key of `PENALTIES`."""
    lambda0: float = 1000.0
    """Weight in the first epoch."""
    decay: float = 0.96
    """Factor of the weight from epoch to epoch."""
    panels: int = 32
    """Panels of a batch that it is evaluated on; the whole batch, as in the paper, where it has no more."""

    @property
    def measured(self) -> str:
        """The kind that validation measures: the one trained with, or the paper's."""
        return self.kind if self.kind != "none" else "paper"

    def weight(self, epoch: int) -> float:
        """lambda_t of the epoch, counted from 0; zero without a penalty."""
        return self.lambda0 * self.decay**epoch if self.kind != "none" else 0.0


def paper_penalty(surface: TotalVariances, strike: Vector, expiry: Vector, spot: float = 1.0) -> Tensor:
    """The paper's L_penalty of each panel: P1 + P2 + P3 summed over the grid where all nodes of a difference are found.

    strike, expiry  of the surface, ascending
    returns         (b,)
    """
    w, found = surface
    gaps, years = (_like(np.diff(x), w) for x in (strike, expiry))
    by_strike = w.diff(dim=2) / gaps
    curvature = by_strike.diff(dim=2) / (0.5 * (gaps[1:] + gaps[:-1]))
    by_expiry = w.diff(dim=1) / years[:, None]
    pair = found[:, :, 1:] & found[:, :, :-1]
    above = torch.from_numpy(strike[:-1] >= spot).to(w.device)
    return (
        _sum_below_zero(curvature, pair[:, :, 1:] & pair[:, :, :-1])
        + _sum_below_zero(by_expiry, found[:, 1:] & found[:, :-1])
        + _sum_below_zero(-by_strike, pair & above)
    )


def arbitrage_penalty(surface: TotalVariances, strike: Vector, expiry: Vector) -> Tensor:
    """What Durrleman's g and w_T fall below zero by, summed over the grid, for each panel (b,); arguments as above."""
    w, found = surface
    k = _like(np.log(strike), w)
    left, right = k[1:-1] - k[:-2], k[2:] - k[1:-1]
    slope = w.diff(dim=2) / k.diff()
    # Three points of an uneven grid: the parabola through them.
    by_k = (right * slope[:, :, :-1] + left * slope[:, :, 1:]) / (left + right)
    by_kk = 2.0 * slope.diff(dim=2) / (left + right)
    here = w[:, :, 1:-1]
    g = (1.0 - 0.5 * k[1:-1] * by_k / here).square() - 0.25 * by_k.square() * (1.0 / here + 0.25) + 0.5 * by_kk
    by_expiry = w.diff(dim=1) / _like(np.diff(expiry), w)[:, None]
    return _sum_below_zero(g, found[:, :, 1:-1] & found[:, :, 2:] & found[:, :, :-2]) + _sum_below_zero(
        by_expiry, found[:, 1:] & found[:, :-1]
    )


PENALTIES: dict[str, Callable[[TotalVariances, Vector, Vector], Tensor]] = {
    "paper": paper_penalty,
    "arbitrage": arbitrage_penalty,
}


def penalty(params: Tensor, kind: str, model: Model = HESTON) -> Tensor:
    """Mean over the panels of parameters (b, n_params) of the penalty summed over the dense grid; differentiable."""
    surfaces = total_variances(params, DENSE_GRID._replace(model=model))
    return PENALTIES[kind](surfaces, _STRIKE, DENSE_GRID.expiry).mean()


def _like(values: Vector, w: Tensor) -> Tensor:
    return torch.from_numpy(values).to(w)


def _sum_below_zero(wanted: Tensor, where: Tensor) -> Tensor:
    """Of each panel: how far what should not be negative is."""
    return torch.where(where, (-wanted).clamp(min=0.0), 0.0).sum((1, 2))
