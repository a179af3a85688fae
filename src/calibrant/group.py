"""Many panels end to end in memory, so that one compiled call serves all of them and none waits for the interpreter."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from .arrays import IntVector, Vector
from .panel import OptionPanel, QuoteScales, weigh


class FlatScales(NamedTuple):
    """The `QuoteScales` of the panels of a group. An array of one value a quote is cut as the quotes are; of panel i,
    `expiries` and `least_vega` begin at first[i], `offsets`, which is one longer, at first[i] + i."""

    offsets: IntVector
    expiries: Vector
    root_expiry: Vector
    root_weight: Vector
    vega: Vector
    least_vega: Vector


class PanelGroup:
    """Panels of any size, one after the other. Panel i has the quotes first[i] to first[i + 1] of every flat array."""

    def __init__(self, panels: Sequence[OptionPanel]) -> None:
        """Also works out the `scales` of the panels, which each then has without a call of its own."""
        self.panels = tuple(panels)
        self.first: IntVector = np.zeros(len(self.panels) + 1, np.int64)
        """(n_panels + 1,)"""
        np.cumsum([panel.n_quotes for panel in self.panels], out=self.first[1:])
        n = int(self.first[-1])
        self.expiry, self.log_moneyness, self.mid, self.weight = (
            _joined([getattr(panel, name) for panel in self.panels])
            for name in ("expiry", "log_moneyness", "mid", "weight")
        )
        self.scales = FlatScales(np.empty(n + len(self.panels), np.int64), *np.empty((5, n)))
        self.n_expiries: IntVector = np.empty(len(self.panels), np.int64)
        """(n_panels,)"""
        lowest_vega = np.empty(len(self.panels))
        _weigh_all(
            self.first,
            self.expiry,
            self.log_moneyness,
            self.mid,
            self.weight,
            self.scales,
            self.n_expiries,
            lowest_vega,
        )
        offsets, expiries, root_expiry, root_weight, vega, least_vega = self.scales
        ends = self.first.tolist()
        sizes = zip(self.n_expiries.tolist(), lowest_vega.tolist(), strict=True)
        for i, (panel, (m, lowest)) in enumerate(zip(self.panels, sizes, strict=True)):
            a, b = ends[i], ends[i + 1]
            panel.keep_scales(
                QuoteScales(
                    offsets[a + i : a + i + m + 1],
                    expiries[a : a + m],
                    root_expiry[a:b],
                    root_weight[a:b],
                    vega[a:b],
                    least_vega[a : a + m],
                    lowest,
                )
            )

    def __len__(self) -> int:
        return len(self.panels)


def _joined(arrays: list[Vector]) -> Vector:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else np.empty(0)


@njit(cache=True, nogil=True, error_model="numpy")
def _weigh_all(
    first: IntVector,
    expiry: Vector,
    log_moneyness: Vector,
    mid: Vector,
    weight: Vector,
    scales: FlatScales,
    n_expiries: IntVector,
    lowest: Vector,
) -> None:
    for i in range(n_expiries.size):
        a, b = first[i], first[i + 1]
        m = weigh(
            expiry[a:b],
            log_moneyness[a:b],
            mid[a:b],
            weight[a:b],
            scales.offsets[a + i : b + i + 1],
            scales.expiries[a:b],
            scales.root_expiry[a:b],
            scales.root_weight[a:b],
            scales.vega[a:b],
            scales.least_vega[a:b],
        )
        n_expiries[i] = m
        lowest[i] = scales.least_vega[a : a + m].min()
