"""What training minimises: six losses by name, of the network's answer against what is known of its panels.

`price`   the paper's eq. 12: squared price error through the differentiable Fourier pricer, over a panel's quotes;
`vega`    price error over the vega of the true vol, nearly the vol error: its root mean square over a panel's quotes;
`metric`  vol error to first order from the exact Jacobian that comes with each panel, no pricing needed;
`blend`   `metric` with a higher floor, plus the squared parameter error;
`valley`  `vega` plus the squared parameter error: the exact surface, and where along its valley the answer lies;
`plain`   squared parameter error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .domain import VISIBLE_DEVIATIONS, Domain
from .pricing import Grid, black_calls, call_prices

LOSSES = ("price", "vega", "metric", "blend", "valley", "plain")
IN_BASIS_POINTS = ("vega", "metric", "blend", "valley")
"""Losses that are a vol error in basis points."""

_PER_BP = 1e4
# Without a floor the direction in which a panel says nothing about kappa would be left to chance; a tenth of the output
# range then costs as much as 1 bp of vol.
_FLOOR_BP = 10.0
_SMALLEST_BP = 0.1
# The paper prices in no stated unit. In percent of the forward, as its strikes are, lambda = 1 makes the penalty's
# gradient as large as that of the prices where the parameters are wrong by a percent of their range; in units of the
# forward it would be two thousand times larger (64 panels of the paper's box).
_PERCENT = 100.0
# An early answer misprices far strikes by a hundred times their vega: first-order vols out there would be all of the
# loss. Near the truth the floor only gives them less weight.
_SMALLEST_VEGA = 0.01


class Panels(NamedTuple):
    """What is known of panels."""

    iv: Tensor
    """(n, n_expiries, n_strikes), exact, NaN where the price carries no vol."""
    target: Tensor
    """(n, n_params) on the network's scale."""
    metric: Tensor
    """(n, n_params (n_params + 1) / 2), lower triangle of J'J / n_quotes on that scale."""

    def at(self, chosen: Tensor) -> "Panels":
        """Some of them, by index."""
        return Panels(*(part[chosen] for part in self))


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Which loss, and its numbers."""

    name: str = "metric"
    """One of `LOSSES`."""
    blend_floor_bp: float = 60.0
    """Of `blend`: vol error that a parameter error of one, half of the output range, costs in any direction."""
    blend_plain: float = 500.0
    """Of `blend` and `valley`: weight of the squared parameter error."""


Loss = Callable[[Tensor, Panels], Tensor]
"""(answer (b, n_params) on the network's scale, panels (b,)) -> the mean over the panels."""


def make_loss(options: LossOptions, domain: Domain, parameters_of: Callable[[Tensor], Tensor]) -> Loss:
    """The loss of that name.

    parameters_of  from the network's scale to the model's parameters
    raises         ValueError for another name, or for a loss of prices on a domain without fixed strikes
    """
    floor_bp, plain = options.blend_floor_bp, options.blend_plain
    if options.name in ("price", "vega", "valley"):
        if domain.standardised:
            raise ValueError(
                f"`loss` {options.name!r} prices on a fixed grid of strikes, but the panels of {domain.name!r} are "
                "irregular: use 'metric', 'blend' or 'plain'"
            )
        grid = Grid(domain.model, *domain.grid())
        of_prices = price_loss if options.name == "price" else vega_loss
        along = plain if options.name == "valley" else 0.0
        return lambda answer, panels: (
            of_prices(parameters_of(answer.double()), panels.iv, grid)
            + along * (answer - panels.target).square().sum(1).mean()
        )
    if options.name == "metric":
        return lambda answer, panels: metric_loss(answer - panels.target, panels.metric)
    if options.name == "blend":
        return lambda answer, panels: blend_loss(answer - panels.target, panels.metric, floor_bp, plain)
    if options.name == "plain":
        return lambda answer, panels: plain_loss(answer - panels.target)
    raise ValueError(f"`loss` must be one of {LOSSES}, but is {options.name!r}")


def price_loss(params: Tensor, iv: Tensor, grid: Grid) -> Tensor:
    """Mean over panels of the squared price error, in percent of the forward, summed over quotes (the paper's eq. 12).

    params  (b, n_params), differentiable
    iv      (b, n_expiries, n_strikes), exact; a missing vol counts with the intrinsic value
    """
    error = _PERCENT * (call_prices(params, grid) - black_calls(iv, grid).call)
    return error.square().sum((1, 2)).mean()


def vega_loss(params: Tensor, iv: Tensor, grid: Grid) -> Tensor:
    """Mean over panels of the root mean square of price error over vega, basis points; arguments of `price_loss`.

    The quotes that count are those that the network sees in an exact panel.
    """
    market = black_calls(iv, grid)
    seen = _seen(iv, grid)
    by_vega = seen / market.vega.clamp(min=_SMALLEST_VEGA)
    square = (_PER_BP * by_vega * (call_prices(params, grid) - market.call)).square().sum((1, 2))
    return (square / seen.sum((1, 2)).clamp(min=1) + _SMALLEST_BP**2).sqrt().mean()


def metric_loss(error: Tensor, metric: Tensor, floor_bp: float = _FLOOR_BP) -> Tensor:
    """Mean over panels of the first-order vol error in basis points, with a floor on every direction.

    The Gauss-Newton metric of the vols: it weighs a parameter error by the vol error that it causes, and costs a matrix
    product instead of a pricing.
    """
    scaled = (_PER_BP * _PER_BP) * torch.einsum("bi,bij,bj->b", error, unpack_metric(metric), error)
    return (scaled + floor_bp**2 * error.square().sum(1) + _SMALLEST_BP**2).sqrt().mean()


def blend_loss(error: Tensor, metric: Tensor, floor_bp: float, plain: float) -> Tensor:
    """`metric_loss` and `plain` times the mean over panels of the squared error, summed over parameters.

    The first keeps the vols close; the second keeps a panel that says little of a parameter from giving it up.
    """
    return metric_loss(error, metric, floor_bp) + plain * error.square().sum(1).mean()


def plain_loss(error: Tensor) -> Tensor:
    """Mean square parameter error on the network's scale."""
    return error.square().mean()


def vol_rmse_bp(error: Tensor, metric: Tensor) -> Tensor:
    """Root mean square vol error of each panel to first order, from the exact Jacobian of its vols.

    error    (b, n) parameter error on the network's scale
    metric   (b, n (n + 1) / 2) lower triangle of J'J / n_quotes on that scale
    returns  (b,), basis points
    """
    square = torch.einsum("bi,bij,bj->b", error, unpack_metric(metric), error)
    return _PER_BP * square.clamp(min=0.0).sqrt()


def unpack_metric(packed: Tensor) -> Tensor:
    """The symmetric matrix (b, n, n) from its lower triangle (b, n (n + 1) / 2), row by row."""
    n = int((2 * packed.shape[1]) ** 0.5)
    rows, columns = torch.tril_indices(n, n)
    full = packed.new_zeros(len(packed), n, n)
    full[:, rows, columns] = packed
    full[:, columns, rows] = packed
    return full


def _seen(iv: Tensor, grid: Grid) -> Tensor:
    """Booleans (b, n_expiries, n_strikes): vols within `VISIBLE_DEVIATIONS`; a missing one compares false."""
    k = torch.from_numpy(grid.log_moneyness).to(iv.device)
    root = torch.from_numpy(grid.expiry).to(iv.device).sqrt()[:, None]
    return k.abs() <= VISIBLE_DEVIATIONS * iv * root
