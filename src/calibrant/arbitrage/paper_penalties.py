"""The penalties P1..P3 of the paper (its sections 3.4 and 4.2), under the paper's names.

They are training terms, not arbitrage conditions: an exact Heston surface breaks P1 and P3 routinely and is free of
arbitrage (`docs/results/arbitrage.md` counts both). Total variance w is taken as a function of the strike, not of its
logarithm, and derivatives are those of the grid.
"""

from typing import NamedTuple

import numpy as np

from ..arrays import Matrix, Vector


class PaperPenalties(NamedTuple):
    """Each penalty where the grid allows its difference; zero where its condition holds."""

    p1: Matrix
    """(n_expiries, n_strikes - 2), ReLU(-d2w/dK2) at the inner strikes."""
    p2: Matrix
    """(n_expiries - 1, n_strikes), ReLU(-dw/dT) between neighbouring expiries."""
    p3: Matrix
    """(n_expiries, n_pairs), ReLU(dw/dK) between neighbouring strikes, both at the spot or above."""

    @property
    def total(self) -> float:
        """The paper's L_penalty, the sum over the grid."""
        return float(self.p1.sum() + self.p2.sum() + self.p3.sum())


def paper_penalties(implied_vol: Matrix, strike: Vector, expiry: Vector, spot: float = 1.0) -> PaperPenalties:
    """P1 = ReLU(-w_KK), P2 = ReLU(-w_T), P3 = ReLU(w_K) for K > S_0, with w = T vol^2.

    implied_vol  (n_expiries, n_strikes), decimals, no gaps
    strike       (n_strikes,), ascending, in the unit of the spot
    expiry       (n_expiries,), years, ascending
    """
    return PaperPenalties(*(np.maximum(-slope, 0.0) for slope in _slopes(implied_vol, strike, expiry, spot)))


def _slopes(implied_vol: Matrix, strike: Vector, expiry: Vector, spot: float) -> tuple[Matrix, Matrix, Matrix]:
    """w_KK, w_T and -w_K: what each condition wants to be no less than zero."""
    w = implied_vol**2 * expiry[:, None]
    gaps = np.diff(strike)
    by_strike = np.diff(w, axis=1) / gaps
    curvature = np.diff(by_strike, axis=1) / (0.5 * (gaps[1:] + gaps[:-1]))
    by_expiry = np.diff(w, axis=0) / np.diff(expiry)[:, None]
    return curvature, by_expiry, -by_strike[:, strike[:-1] >= spot]
