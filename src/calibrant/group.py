"""Many panels end to end in memory, so that one compiled call serves all of them and none waits for the interpreter."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from .arrays import IntVector, Vector
from .compiled import careful
from .panel import OptionPanel, QuoteScales, weigh


class PanelGroup:
    """Panels of any size, one after the other. Panel i has the quotes first[i] to first[i + 1] of every flat array."""

    def __init__(self, panels: Sequence[OptionPanel]) -> None:
        """Also works out the `scales` of the panels, which each then has without a call of its own."""
        self.panels = tuple(panels)
        ends = [0, *accumulate([panel.mid.size for panel in self.panels])]
        self.first: IntVector = np.array(ends)
        """(n_panels + 1,)"""
        self.expiry = _joined([panel.expiry for panel in self.panels])
        self.log_moneyness = _joined([panel.log_moneyness for panel in self.panels])
        self.mid = _joined([panel.mid for panel in self.panels])
        self.weight = _joined([panel.weight for panel in self.panels])
        self.scales: QuoteScales
        """Those of all panels. An array of one value a quote is cut as the quotes are; of panel i, `expiries` and
        `least_vega` begin at first[i], `offsets`, which is one longer, at first[i] + i."""
        self.n_expiries: IntVector
        """(n_panels,)"""
        if len(self.panels) == 1:
            self.scales = self.panels[0].scales
            self.n_expiries = np.array([self.scales.expiries.size])
        else:
            self._weigh(ends)

    def __len__(self) -> int:
        return len(self.panels)

    def _weigh(self, ends: list[int]) -> None:
        n = len(self.panels)
        offsets = np.empty(ends[-1] + n, np.int64)
        expiries, root_expiry, root_weight, vega, least_vega = np.empty((5, ends[-1]))
        self.n_expiries, lowest_vega = np.empty(n, np.int64), np.empty(n)
        _weigh_all(
            self.first,
            self.expiry,
            self.log_moneyness,
            self.mid,
            self.weight,
            offsets,
            expiries,
            root_expiry,
            root_weight,
            vega,
            least_vega,
            self.n_expiries,
            lowest_vega,
        )
        lowest = lowest_vega.tolist()
        self.scales = QuoteScales(
            offsets, expiries, root_expiry, root_weight, vega, least_vega, min(lowest, default=np.inf)
        )
        for i, m in enumerate(self.n_expiries.tolist()):
            a, b = ends[i], ends[i + 1]
            self.panels[i].keep_scales(
                QuoteScales(
                    offsets[a + i : a + i + m + 1],
                    expiries[a : a + m],
                    root_expiry[a:b],
                    root_weight[a:b],
                    vega[a:b],
                    least_vega[a : a + m],
                    lowest[i],
                )
            )


def _joined(arrays: list[Vector]) -> Vector:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else np.empty(0)


@careful
def _weigh_all(
    first: IntVector,
    expiry: Vector,
    log_moneyness: Vector,
    mid: Vector,
    weight: Vector,
    offsets: IntVector,
    expiries: Vector,
    root_expiry: Vector,
    root_weight: Vector,
    vega: Vector,
    least_vega: Vector,
    n_expiries: IntVector,
    lowest_vega: Vector,
) -> None:
    """`panel.weigh` for each panel of a group; `offsets` and what follows are filled."""
    for i in range(n_expiries.size):
        a, b = first[i], first[i + 1]
        m = weigh(
            expiry[a:b],
            log_moneyness[a:b],
            mid[a:b],
            weight[a:b],
            offsets[a + i : b + i + 1],
            expiries[a:b],
            root_expiry[a:b],
            root_weight[a:b],
            vega[a:b],
            least_vega[a:b],
        )
        n_expiries[i] = m
        lowest_vega[i] = least_vega[a : a + m].min()
