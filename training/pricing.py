"""A model's prices and total variances inside torch: the library's compiled kernel with its closed-form gradient.

The forward pass prices every panel of a batch and keeps the Jacobian that the kernel gives with the prices (the paper's
section 3.3); the backward pass is one contraction with it. Everything inside is float64 on the processor, whatever the
type and the device of the network.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import implied_sd_kernel
from calibrant.compiled import kernel
from calibrant.models import Model
from calibrant.pricing.fit_kernel import time_values
from calibrant.pricing.implied import refresh_implied_sd

from .exact import SMALLEST_TIME_VALUE

PRICE_TOLERANCE = 1e-10
"""Of a price in a loss, in units of the forward: 1e-3 bp of vol where vega is 1e-3 of the forward."""

_VARIANCE_TOLERANCE = 1e-12
"""A thousandth of the smallest time value that a total variance is taken from."""


class Grid(NamedTuple):
    """A model on the strikes and expiries of a rectangular grid with forward 1."""

    model: Model

    log_moneyness: Vector
    """(n_strikes,), ascending."""
    expiry: Vector
    """(n_expiries,), years, ascending."""


class TotalVariances(NamedTuple):
    """w = vol^2 T on a grid, (b, n_expiries, n_strikes) each."""

    w: Tensor
    """Positive everywhere; 1 with no gradient where it is not found."""
    found: Tensor
    """Booleans: whether the price carries a vol, that is a time value above `SMALLEST_TIME_VALUE`."""


class BlackCalls(NamedTuple):
    """Black's price and its slope, the shape of the vols each."""

    call: Tensor
    vega: Tensor


def call_prices(params: Tensor, grid: Grid, *, tolerance: float = PRICE_TOLERANCE) -> Tensor:
    """Undiscounted calls in units of the forward, differentiable once by the parameters.

    params     (b, n_params); outside the model's bounds the nearest bound counts, without gradient
    tolerance  of a price
    returns    (b, n_expiries, n_strikes), float64
    raises     ValueError for a parameter that is not finite, ArithmeticError if a price does not settle
    """
    values: Tensor = _TimeValues.apply(_within_bounds(params, grid.model), grid, tolerance)  # type: ignore[no-untyped-call]
    intrinsic = np.maximum(-np.expm1(grid.log_moneyness), 0.0)
    return values.to(params.device) + torch.from_numpy(intrinsic).to(params.device)


def total_variances(params: Tensor, grid: Grid) -> TotalVariances:
    """Total variance of the model's vols, differentiable once by the parameters.

    params   as in `call_prices`
    error    relative, 1e-3 at the smallest time value and 1e-9 near the money
    returns  a panel whose prices do not settle is found nowhere
    raises   ValueError for a parameter that is not finite
    """
    w, found = _TotalVariances.apply(_within_bounds(params, grid.model), grid)  # type: ignore[no-untyped-call]
    return TotalVariances(w.to(params.device), found.to(params.device))


def black_calls(iv: Tensor, grid: Grid) -> BlackCalls:
    """Calls of vols (b, n_expiries, n_strikes), float64; a missing vol (NaN) has the intrinsic value and no vega."""
    k = torch.from_numpy(grid.log_moneyness).to(iv.device)
    root = torch.from_numpy(np.sqrt(grid.expiry)).to(iv.device)[:, None]
    missing = ~(iv > 0.0)
    sd = torch.where(missing, 1.0, iv.double()) * root
    d1 = 0.5 * sd - k / sd
    call = torch.special.ndtr(d1) - k.exp() * torch.special.ndtr(d1 - sd)
    vega = root * torch.exp(-0.5 * d1.square()) / (2.0 * np.pi) ** 0.5
    return BlackCalls(torch.where(missing, (-torch.expm1(k)).clamp(min=0.0), call), vega.masked_fill(missing, 0.0))


def _within_bounds(params: Tensor, model: Model) -> Tensor:
    # tanh in float32 can round to -1, and rho = -1 is no Heston model.
    lower, upper = (torch.from_numpy(bound) for bound in (model.lower, model.upper))
    return params.cpu().double().clamp(lower, upper)


class _TimeValues(torch.autograd.Function):
    """(b, n_params) on the processor -> (b, n_expiries, n_strikes) values of the out-of-the-money options."""

    @staticmethod
    def forward(ctx: FunctionCtx, params: Tensor, grid: Grid, tolerance: float) -> Tensor:
        value, jacobian, settled = _price(params, grid, tolerance, with_gradient=params.requires_grad)
        if not settled.all():
            worst = params[int(np.argmin(settled))].tolist()
            raise ArithmeticError(f"the prices of parameters {worst} did not settle to {tolerance}")
        ctx.save_for_backward(torch.from_numpy(jacobian))
        return torch.from_numpy(value).reshape(len(params), grid.expiry.size, grid.log_moneyness.size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor, None, None]:
        return _contract(by_value, *ctx.saved_tensors), None, None


class _TotalVariances(torch.autograd.Function):
    """(b, n_params) on the processor -> total variances and where they are found, (b, n_expiries, n_strikes) each."""

    @staticmethod
    def forward(ctx: FunctionCtx, params: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        w, jacobian, settled = _price(params, grid, _VARIANCE_TOLERANCE, with_gradient=params.requires_grad)
        found = np.empty(w.shape, np.bool_)
        _to_total_variances(grid.log_moneyness, grid.expiry, settled, w, jacobian, found)
        ctx.save_for_backward(torch.from_numpy(jacobian))
        shape = (len(params), grid.expiry.size, grid.log_moneyness.size)
        where = torch.from_numpy(found).reshape(shape)
        ctx.mark_non_differentiable(where)
        return torch.from_numpy(w).reshape(shape), where

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_w: Tensor, _: Tensor) -> tuple[Tensor, None]:
        return _contract(by_w, *ctx.saved_tensors), None


def _contract(by_value: Tensor, jacobian: Tensor) -> Tensor:
    return torch.einsum("bq,biq->bi", by_value.flatten(1), jacobian)


def _price(
    params: Tensor, grid: Grid, tolerance: float, *, with_gradient: bool
) -> tuple[Matrix, NDArray[np.float64], NDArray[np.bool_]]:
    """Time values (b, n_quotes), their Jacobian (b, n_params or 0, n_quotes) and whether they settled (b,)."""
    vectors = np.ascontiguousarray(params.detach().numpy())
    if not np.isfinite(vectors).all():
        raise ValueError("`params` must be finite")
    n, n_params = vectors.shape
    n_quotes = grid.expiry.size * grid.log_moneyness.size
    value = np.empty((n, n_quotes))
    jacobian = np.empty((n, n_params if with_gradient else 0, n_quotes))
    settled = np.empty(n, np.bool_)
    _fill(grid.model.layout, vectors, grid.log_moneyness, grid.expiry, tolerance, value, jacobian, settled)
    return value, jacobian, settled


@kernel
def _fill(
    layout: IntVector,
    params: Matrix,
    log_moneyness: Vector,
    expiries: Vector,
    tolerance: float,
    value: Matrix,
    jacobian: NDArray[np.float64],
    settled: NDArray[np.bool_],
) -> None:
    n_strikes = log_moneyness.size
    k = np.empty(expiries.size * n_strikes)
    offsets = np.empty(expiries.size + 1, np.int64)
    offsets[0] = 0
    for e in range(expiries.size):
        offsets[e + 1] = (e + 1) * n_strikes
        k[e * n_strikes : (e + 1) * n_strikes] = log_moneyness
    tolerances = np.full(expiries.size, tolerance)
    n_nodes = np.empty(expiries.size, np.int64)
    error = np.empty(expiries.size)
    for p in range(params.shape[0]):
        time_values(layout, params[p], expiries, offsets, k, tolerances, value[p], jacobian[p], n_nodes, error)
        settled[p] = n_nodes.min() >= 0


@kernel
def _to_total_variances(
    log_moneyness: Vector,
    expiry: Vector,
    settled: NDArray[np.bool_],
    value: Matrix,
    jacobian: NDArray[np.float64],
    found: NDArray[np.bool_],
) -> None:
    """Turn time values into total variances in place, and their Jacobian with them."""
    n_strikes = log_moneyness.size
    k = np.empty(n_strikes)
    sd = np.empty(n_strikes)
    density = np.empty(n_strikes)
    k[:] = log_moneyness
    for p in range(value.shape[0]):
        for e in range(expiry.size):
            row = value[p, e * n_strikes : (e + 1) * n_strikes]
            seen = found[p, e * n_strikes : (e + 1) * n_strikes]
            for j in range(n_strikes):
                seen[j] = settled[p] and row[j] > SMALLEST_TIME_VALUE
                if not seen[j]:
                    # Any time value will do, since the result is thrown away.
                    row[j] = SMALLEST_TIME_VALUE
            if e == 0:
                guess = 0.0
                for j in range(n_strikes):
                    guess = implied_sd_kernel(k[j], row[j], guess)
                    sd[j] = guess
            else:
                # The vol of the expiry before is a good guess, and lets a whole row be inverted on vector lanes.
                for j in range(n_strikes):
                    sd[j] *= np.sqrt(expiry[e] / expiry[e - 1])
            refresh_implied_sd(k, row, sd, density)
            for j in range(n_strikes):
                row[j] = sd[j] * sd[j] if seen[j] else 1.0
                density[j] = 2.0 * sd[j] / density[j] if seen[j] else 0.0
            for i in range(jacobian.shape[1]):
                slope = jacobian[p, i, e * n_strikes : (e + 1) * n_strikes]
                for j in range(n_strikes):
                    # Selected, not multiplied by zero: what has not settled need not be finite.
                    slope[j] = slope[j] * density[j] if seen[j] else 0.0
