"""The leverage function L(t, S) of a stochastic local volatility model, as a grid over dates and log-spots."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..arrays import Matrix, Vector


@dataclass(frozen=True, kw_only=True)
class Leverage:
    """L over (t, ln S), linear in both between the nodes and flat beyond them; each row is uniform in ln S."""

    expiry: Vector
    """(n_t,) years, ascending, from 0 on."""
    start: Vector
    """(n_t,) ln S of a row's first node."""
    step: Vector
    """(n_t,) between its nodes."""
    value: Matrix
    """(n_t, n_x)."""

    @property
    def log_spot(self) -> Matrix:
        """(n_t, n_x) where the values are."""
        return self.start[:, np.newaxis] + self.step[:, np.newaxis] * np.arange(self.value.shape[1])

    def row(self, expiry: float, log_spot: Vector) -> Vector:
        """(n,) at one date."""
        right = int(np.clip(np.searchsorted(self.expiry, expiry), 1, self.expiry.size - 1))
        gap = self.expiry[right] - self.expiry[right - 1]
        share = float(np.clip((expiry - self.expiry[right - 1]) / gap, 0.0, 1.0))
        return np.asarray((1.0 - share) * self._on_row(right - 1, log_spot) + share * self._on_row(right, log_spot))

    def at(self, spot: ArrayLike, expiry: ArrayLike) -> Vector:
        """At spots and years, broadcast against each other."""
        s, t = np.broadcast_arrays(np.asarray(spot, np.float64), np.asarray(expiry, np.float64))
        out = np.empty(s.shape)
        for date in np.unique(t):
            out[t == date] = self.row(float(date), np.log(s[t == date]))
        return out

    def resampled(self, expiry: Vector) -> "Leverage":
        """The same function with rows at other dates."""
        if np.array_equal(expiry, self.expiry):
            return self
        low, high = self.start, self.start + self.step * (self.value.shape[1] - 1)
        start, end = np.interp(expiry, self.expiry, low), np.interp(expiry, self.expiry, high)
        nodes = np.linspace(start, end, self.value.shape[1], axis=1)
        value = np.array([self.row(float(date), row) for date, row in zip(expiry, nodes, strict=True)])
        return Leverage(expiry=expiry, start=start, step=nodes[:, 1] - nodes[:, 0], value=value)

    def to_dict(self) -> dict[str, Any]:
        """As it goes over the wire: `expiry` (n_t,) years, `spot` and `value` (n_t, n_x)."""
        return {
            "expiry": self.expiry.tolist(),
            "spot": np.exp(self.log_spot).tolist(),
            "value": self.value.tolist(),
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Leverage":
        """What `to_dict` wrote."""
        log_spot = np.log(np.asarray(given["spot"], np.float64))
        return cls(
            expiry=np.asarray(given["expiry"], np.float64),
            start=log_spot[:, 0],
            step=(log_spot[:, -1] - log_spot[:, 0]) / (log_spot.shape[1] - 1),
            value=np.asarray(given["value"], np.float64),
        )

    def columns(self) -> dict[str, Vector]:
        """One line a node: `expiry`, `spot`, `leverage`."""
        return {
            "expiry": np.repeat(self.expiry, self.value.shape[1]),
            "spot": np.exp(self.log_spot).reshape(-1),
            "leverage": self.value.reshape(-1),
        }

    def _on_row(self, i: int, log_spot: Vector) -> Vector:
        place = np.clip((log_spot - self.start[i]) / self.step[i], 0.0, self.value.shape[1] - 1.0)
        left = np.minimum(place.astype(np.int64), self.value.shape[1] - 2)
        share = place - left
        row = self.value[i]
        return np.asarray(row[left] + share * (row[left + 1] - row[left]))
