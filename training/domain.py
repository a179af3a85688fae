"""A training domain: the box the parameters are drawn from and the grid the panels are quoted on."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector

VISIBLE_DEVIATIONS = 4.0
"""Quotes further out than this many standard deviations, |log_moneyness| > 4 iv sqrt(expiry), count as missing.

Their time value is below about 3e-7 of the forward, where a vol says more about rounding than about the market; decided
inside the network, the rule is the same in training and in service.
"""


class Range(NamedTuple):
    """Closed interval of one parameter."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What a network is trained on, stated in the manifest of the artefact."""

    name: str
    """Key in `DOMAINS`, written into every shard and manifest."""
    parameters: tuple[str, ...]
    """Names in the model's order, which is the order of the network's output."""
    sampled: tuple[Range, ...]
    """One range per parameter; panels are drawn uniformly from their product."""
    output: tuple[Range, ...]
    """What tanh = -1 and +1 stand for: wider than `sampled`, since tanh reaches its own ends only at infinity."""
    log_moneyness: tuple[float, ...]
    """Columns of the grid, ascending."""
    expiry: tuple[float, ...]
    """Rows of the grid in years, ascending."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n_expiries, n_strikes)."""
        return len(self.expiry), len(self.log_moneyness)

    @property
    def n_params(self) -> int:
        return len(self.parameters)

    def sampled_box(self) -> tuple[Vector, Vector]:
        """Lower and upper corner of the box that panels are drawn from, (n_params,) each."""
        low, high = np.array(self.sampled).T
        return low, high

    def output_box(self) -> tuple[Vector, Vector]:
        """Parameters at tanh = -1 and at tanh = +1, (n_params,) each."""
        low, high = np.array(self.output).T
        return low, high

    def grid(self) -> tuple[Vector, Vector]:
        """Log-moneyness (n_strikes,) and expiry (n_expiries,)."""
        return np.array(self.log_moneyness), np.array(self.expiry)

    def scale_unit(self, unit: Matrix) -> Matrix:
        """Points of the unit cube (n, n_params) moved into the sampled box."""
        low, high = self.sampled_box()
        return low + (high - low) * unit


PAPER = Domain(
    name="paper",
    parameters=("kappa", "theta", "xi", "rho", "v0"),
    # Section 4.4 of the paper.
    sampled=(Range(0.5, 8.0), Range(0.02, 0.5), Range(0.1, 1.5), Range(-0.95, -0.05), Range(0.01, 0.4)),
    # The paper scales to kappa 0.1-10, theta 0.01-0.5, xi 0.05-2, rho -1-0, v0 0.01-0.5 (section 4.1): its theta ends
    # and its v0 begins exactly on an edge of the sampled box, where tanh saturates and the gradient vanishes. These
    # ranges hold both boxes with 2 % of the sampled width or more to spare at every edge (rho cannot pass -1, the
    # variances cannot pass 0).
    output=(Range(0.1, 10.0), Range(0.005, 0.53), Range(0.03, 2.0), Range(-1.0, 0.0), Range(0.002, 0.5)),
    log_moneyness=tuple(float(k) for k in np.log(np.linspace(0.8, 1.2, 10))),
    expiry=tuple(float(t) for t in np.linspace(0.1, 2.0, 8)),
)

DOMAINS = {PAPER.name: PAPER}
