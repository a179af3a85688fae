"""Pictures of a calibrated panel, with matplotlib."""

import math
from collections.abc import Iterator

import numpy as np

try:
    from matplotlib import pyplot
    from matplotlib.axes import Axes
except ImportError as error:
    raise ImportError("`plot` needs matplotlib: pip install 'calibrant[notebook]'.") from error

from .arrays import Vector
from .calibration import Calibration
from .panel import OptionPanel
from .pipeline import Assessment
from .prices import vols_of
from .pricing.fourier import value_steps
from .steps import finish

_COLUMNS = 4
_WIDTH, _HEIGHT = 3.0, 2.4
"""Of one smile, inches."""
_LEGEND, _TITLES = 1.1, 0.8
"""Room for the legend beside the smiles and for what is written above and below them."""
_LEAST_WIDTH = 6.5
"""Of the figure, for the line above."""
_POINTS = 61
"""Of the fitted smile."""
_MARGIN = 0.03
"""By which it goes beyond the quotes, of their range; at least `_LEAST_MARGIN` where they are one strike."""
_LEAST_MARGIN = 0.01
_INK, _FAINT, _FIT = "#222222", "#8c8c8c", "#0b6fb8"


def draw_smiles(assessment: Assessment) -> list[Axes]:
    """A small picture for each expiry, in a grid."""
    panel, fit = assessment.panel, assessment.calibration
    n = panel.expiries.size
    columns = min(n, _COLUMNS)
    rows = math.ceil(n / columns)
    size = max(_LEAST_WIDTH, columns * _WIDTH + _LEGEND), rows * _HEIGHT + _TITLES
    # Not in the style: a notebook's first figure sets up how figures are shown, and the style's end would undo that.
    figure = pyplot.figure(figsize=size, facecolor="white", layout="constrained")
    with pyplot.style.context("default"):
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for empty in axes[n:]:
            empty.remove()
        axes = axes[:n]
        for (expiry, quotes), ax in zip(_smiles(panel), axes, strict=True):
            _draw(ax, expiry, quotes, panel, fit)
        quality = f"root mean square error {fit.rmse_bp:.1f} bp, {fit.n_quotes} quotes"
        figure.suptitle(f"{fit.model.name}, {fit.status}: {quality}", fontsize="medium")
        figure.supxlabel("log(strike / forward)" if panel.forward is None else "strike", fontsize="medium")
        figure.supylabel("implied volatility (%)", fontsize="medium")
        # Of all pictures, since not every expiry has quotes left out.
        named = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(list(named.values()), list(named), loc="outside right center", frameon=False, fontsize="small")
    return axes


def _smiles(panel: OptionPanel) -> Iterator[tuple[float, slice]]:
    """Each expiry and where its quotes are."""
    for expiry, first, last in zip(panel.expiries.tolist(), panel.offsets[:-1], panel.offsets[1:], strict=True):
        yield expiry, slice(first, last)


def _draw(ax: Axes, expiry: float, quotes: slice, panel: OptionPanel, fit: Calibration) -> None:
    k, mid = panel.log_moneyness[quotes], 100.0 * panel.mid[quotes]
    x = _places(k, panel, quotes)
    used = np.isin(panel.index[quotes], fit.panel.index)
    spread = np.isfinite(panel.bid[quotes]) & np.isfinite(panel.ask[quotes])
    if spread.any():
        low, high = 100.0 * panel.bid[quotes][spread], 100.0 * panel.ask[quotes][spread]
        ax.vlines(x[spread], low, high, color=_FAINT, linewidth=2.0, label="bid to ask")
    ax.plot(x[used], mid[used], "o", color=_INK, markersize=3.5, label="quotes")
    if not used.all():
        ax.plot(x[~used], mid[~used], "o", color=_INK, markersize=3.5, fillstyle="none", label="left out")
    margin = max(_MARGIN * (k.max() - k.min()), _LEAST_MARGIN if k.max() == k.min() else 0.0)
    along = np.linspace(k.min() - margin, k.max() + margin, _POINTS)
    values = finish(value_steps(fit.model, along, np.full(_POINTS, expiry), fit.parameters))
    vols = 100.0 * vols_of(values, along, np.full(_POINTS, expiry))
    ax.plot(_places(along, panel, quotes), vols, color=_FIT, linewidth=1.5, label="fit")
    ax.set_title(f"{expiry:.3g} years", fontsize="small")
    ax.tick_params(labelsize="small")
    ax.locator_params(axis="x", nbins=5)
    ax.grid(color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)


def _places(k: Vector, panel: OptionPanel, quotes: slice) -> Vector:
    """Where log-moneyness is drawn: at its strike, by the forward of the quotes nearest to it, where that is known."""
    if panel.forward is None:
        return k
    forward = np.interp(k, panel.log_moneyness[quotes], panel.forward[quotes])
    return np.asarray(forward * np.exp(k))
