"""What training minimises, on the network's own scale of the parameters."""

import torch
from torch import Tensor

LOSSES = ("blend", "metric", "plain")

_PER_BP = 1e4
# Without a floor the direction in which a panel says nothing about kappa would be left to chance; a tenth of the output
# range then costs as much as 1 bp of vol.
_FLOOR_BP = 10.0
_SMALLEST_BP = 0.1
_BLEND_FLOOR_BP = 60.0
_BLEND_PLAIN = 500.0


def unpack_metric(packed: Tensor) -> Tensor:
    """The symmetric matrix (b, n, n) from its lower triangle (b, n (n + 1) / 2), row by row."""
    n = int((2 * packed.shape[1]) ** 0.5)
    rows, columns = torch.tril_indices(n, n)
    full = packed.new_zeros(len(packed), n, n)
    full[:, rows, columns] = packed
    full[:, columns, rows] = packed
    return full


def vol_rmse_bp(error: Tensor, metric: Tensor) -> Tensor:
    """Root mean square vol error of each panel to first order, from the exact Jacobian of its vols.

    error    (b, n) parameter error on the network's scale
    metric   (b, n (n + 1) / 2) lower triangle of J'J / n_quotes on that scale
    returns  (b,), basis points
    """
    square = torch.einsum("bi,bij,bj->b", error, unpack_metric(metric), error)
    return _PER_BP * square.clamp(min=0.0).sqrt()


def metric_loss(error: Tensor, metric: Tensor, floor_bp: float = _FLOOR_BP) -> Tensor:
    """Mean over panels of the first-order vol error in basis points, with a floor on every direction.

    The Gauss-Newton metric of the vols: it weighs a parameter error by the vol error that it causes, and costs a matrix
    product instead of a pricing.
    """
    scaled = (_PER_BP * _PER_BP) * torch.einsum("bi,bij,bj->b", error, unpack_metric(metric), error)
    return (scaled + floor_bp**2 * error.square().sum(1) + _SMALLEST_BP**2).sqrt().mean()


def plain_loss(error: Tensor) -> Tensor:
    """Mean square parameter error on the network's scale."""
    return error.square().mean()


def blend_loss(error: Tensor, metric: Tensor) -> Tensor:
    """The metric loss with a high floor plus the squared parameter error: for parameters that the vols hardly show.

    Where xi is small a rho that is wrong by 0.2 costs 3 bp; a vol loss has no reason to look for it.
    """
    return metric_loss(error, metric, _BLEND_FLOOR_BP) + _BLEND_PLAIN * error.square().sum(1).mean()
