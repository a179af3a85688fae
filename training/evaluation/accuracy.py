"""Errors of the answers on the full vol grid, and their correlation with the truth."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix, Vector
from training.domain import Domain

from .density import bin_masses, chi_squared
from .surfaces import Nodes, Surfaces, nodes_of, vols_at

_PER_BP = 1e4


class Spread(NamedTuple):
    """A figure over the panels."""

    median: float
    mean: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: Vector) -> "Spread":
        """Of one value a panel."""
        return cls(float(np.median(values)), float(np.mean(values)), *map(float, np.quantile(values, (0.9, 0.99))))


class Accuracy(NamedTuple):
    """Of the network's parameters on one kind of input, against the exact surface whatever the input was."""

    n_panels: int
    rmse_bp: Spread
    """Root mean square vol error of each panel over the full grid, every node with a quote, or over the nodes asked."""
    mape_pct: Spread
    """Mean absolute vol error over vol, percent, over the same nodes."""
    chi_squared: Spread
    """Distance of the densities, see `density`, the mean over the expiries of each panel."""
    pearson: dict[str, float]
    """Correlation of each parameter with the truth."""


class HeldOut(NamedTuple):
    """Panels whose truth is known, priced once for all kinds of input."""

    params: Matrix
    """(n, n_params), the truth."""
    nodes: Nodes
    masses: Surfaces
    """(n, n_expiries, n_bins), the exact densities."""

    @classmethod
    def of(cls, domain: Domain, params: Matrix) -> "HeldOut":
        return cls(params, nodes_of(domain, params), bin_masses(domain.model, params, domain.grid()[1]))


def accuracy(domain: Domain, answers: Matrix, held_out: HeldOut, where: NDArray[np.bool_] | None = None) -> Accuracy:
    """Accuracy of the answers (n, n_params).

    where  (n, n_expiries, n_strikes), the nodes that vol errors are taken over, instead of all; panels without any of
           them are left out of everything
    """
    nodes, truth = held_out.nodes, held_out.params
    error = vol_errors(answers, nodes, where)
    judged = np.isfinite(error).any(axis=(1, 2))
    distance = chi_squared(bin_masses(domain.model, answers[judged], nodes.expiry), held_out.masses[judged]).mean(
        axis=1
    )
    return Accuracy(
        n_panels=int(judged.sum()),
        rmse_bp=Spread.of(rmse_bp(error[judged])),
        mape_pct=Spread.of(100.0 * np.nanmean(np.abs(error[judged]) / nodes.iv[judged], axis=(1, 2))),
        chi_squared=Spread.of(distance),
        pearson=pearson(domain.parameters, answers[judged], truth[judged]),
    )


def vol_errors(answers: Matrix, nodes: Nodes, where: NDArray[np.bool_] | None = None) -> Surfaces:
    """Vols of the answers less the exact ones, NaN where there is no quote or `where` says no."""
    error = vols_at(nodes, answers) - nodes.iv
    return error if where is None else np.where(where, error, np.nan)


def rmse_bp(error: Surfaces) -> Vector:
    """Root mean square of each panel's vol errors (n, n_expiries, n_strikes), NaN where there is no quote, (n,) bp."""
    rmse: Vector = _PER_BP * np.sqrt(np.nanmean(error * error, axis=(1, 2)))
    return rmse


def pearson(names: tuple[str, ...], answers: Matrix, truth: Matrix) -> dict[str, float]:
    """Correlation of each column of the answers with the truth."""
    return {name: float(np.corrcoef(answers[:, i], truth[:, i])[0, 1]) for i, name in enumerate(names)}
