"""How long a job will take, by its size and by how long those before it took.

Two figures for each kind of job. The mean says how long a queue is. The low one, a quartile, says which jobs are long
whatever their numbers: of two panels of 80 quotes one takes a millisecond and another fifty, where the first answer is
in doubt, and no panel tells which it is before it is tried.
"""

from dataclasses import dataclass

from calibrant.panel import OptionPanel

_EXPIRY = 10
"""Quotes that cost as much as what an expiry costs by itself: its nodes."""
_QUANTILE = 0.25
_STEP = 0.05
"""Share by which an observation moves the quartile: some fifty observations follow a change of load."""
_WEIGHT = 0.02
"""Of one observation in the mean."""
_OUTLIER = 20.0
"""Times the mean that one observation counts for at most: a machine that stops for a second is not a cost."""


@dataclass(slots=True)
class _Rate:
    """Seconds per unit of size."""

    low: float
    mean: float

    def observe(self, rate: float) -> None:
        self.low *= 1.0 + _STEP * _QUANTILE if rate > self.low else 1.0 - _STEP * (1.0 - _QUANTILE)
        self.mean += _WEIGHT * (min(rate, _OUTLIER * self.mean) - self.mean)


class Costs:
    """Running measure of what jobs cost. Used on the event loop only."""

    def __init__(self) -> None:
        # To begin with, as measured on a 2.5 GHz core over the panels of `shared/market`.
        self._rates = {
            "lm": _Rate(1e-5, 2e-5),
            "lbfgs": _Rate(1e-4, 4e-4),
            "none": _Rate(4e-6, 6e-6),
            "price": _Rate(7e-6, 1e-5),
            "price_gradient": _Rate(7e-6, 1.3e-5),
        }

    def least(self, kind: str, size: int) -> float:
        """Seconds that all but the quickest quarter of such jobs take."""
        return size * self._rates[kind].low

    def mean(self, kind: str, size: int) -> float:
        """Seconds that such jobs take on average."""
        return size * self._rates[kind].mean

    def observe(self, kind: str, size: int, seconds: float) -> None:
        self._rates[kind].observe(seconds / size)


def panel_size(panel: OptionPanel) -> int:
    """In quotes."""
    return panel.n_quotes + _EXPIRY * panel.expiries.size
