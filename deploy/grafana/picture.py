"""The dashboard as a picture, for the documentation: its panels, drawn with matplotlib from a Prometheus's answers.

Not what Grafana draws, but the same queries on the same data.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

from .queries import Prometheus, Series, filled_in, panels

COLOURS = {"green": "#56a64b", "yellow": "#e0b400", "orange": "#ff780a", "red": "#e02f44"}
_UNITS = {"percentunit": (100.0, " %"), "suffix: bp": (1.0, " bp"), "suffix: x": (1.0, " x"), "reqps": (1.0, "/s")}
_ROW_UNIT = 0.36
"""Inches of a row of Grafana's grid."""
_HEADING = 0.8
"""Inches between two rows of panels, with the title of the next."""


def told(value: float, unit: str) -> str:
    """A value with its unit, as short as it goes."""
    if np.isnan(value):
        return "no data"
    if unit == "s":
        factor, name = (1.0, "s") if abs(value) >= 1.0 else (1e3, "ms") if abs(value) >= 1e-3 else (1e6, "µs")
        return "0" if value == 0.0 else f"{value * factor:.3g} {name}"
    factor, name = _UNITS.get(unit, (1.0, ""))
    return f"{value * factor:.4g}{name}"


def legend(template: str, labels: dict[str, str]) -> str:
    """The name of a series, from its labels."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template)


def _colour(panel: dict[str, Any], value: float) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return COLOURS[[step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]]


def _unit(panel: dict[str, Any]) -> str:
    return str(panel["fieldConfig"]["defaults"]["unit"])


def _series(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    named: list[tuple[str, Series]] = []
    for target in panel["targets"]:
        for series in prometheus.range(filled_in(target["expr"]), start, end):
            named.append((legend(target["legendFormat"], series.labels), series))
    named.sort(key=lambda one: one[0])
    # What has never happened has a line at zero in Grafana; here it would only lengthen the legend.
    happened = [(name, series) for name, series in named if np.nan_to_num(series.values).any()]
    named = happened or named
    colours = colormaps["tab20" if len(named) > 10 else "tab10"]
    times = np.arange(start, end + 0.5)
    total = np.zeros(times.size)
    for i, (name, series) in enumerate(named):
        if "stacking" in custom:
            values = np.zeros(times.size)
            values[np.clip(np.rint(series.times - start).astype(int), 0, times.size - 1)] = np.nan_to_num(series.values)
            axes.fill_between(times - start, total, total + values, color=colours(i), alpha=0.75, lw=0, label=name)
            total = total + values
        else:
            axes.plot(series.times - start, series.values, color=colours(i), lw=1.2, label=name)
    if "thresholdsStyle" in custom:
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None:
                axes.axhline(step["value"], color=COLOURS[step["color"]], ls="--", lw=1.2)
    scale = custom.get("scaleDistribution", {"type": "linear"})["type"]
    axes.set_yscale(scale, **({"linthresh": 1.0} if scale == "symlog" else {}))
    if scale != "log":
        axes.set_ylim(0.0, defaults.get("max") or 1.05 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: told(value, _unit(panel))))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0.0, end - start)
    axes.grid(alpha=0.25)
    columns = max(1, min(len(named), 100 // (4 + max(len(name) for name, _ in named))))
    shown = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), fontsize=6.5, ncols=columns, frameon=False)
    for line in shown.get_lines():
        line.set_linewidth(2.5)


def _stat(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, end: float) -> None:
    (series,) = prometheus.instant(filled_in(panel["targets"][0]["expr"]), end)
    value = float(series.values[0])
    axes.text(0.5, 0.42, told(value, _unit(panel)), ha="center", va="center", fontsize=19, color=_colour(panel, value))
    axes.set_axis_off()


def _table(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, end: float) -> None:
    columns: Sequence[str] = panel["transformations"][0]["options"]["include"]["names"]
    rows = [
        [series.labels[column].removesuffix("ExecutionProvider") for column in columns]
        for series in prometheus.instant(filled_in(panel["targets"][0]["expr"]), end)
    ]
    widths = [max(len(row[i]) for row in [list(columns), *rows]) + 2 for i in range(len(columns))]
    shares = [width / sum(widths) for width in widths]
    drawn = axes.table(rows, colLabels=list(columns), loc="upper center", cellLoc="left", colWidths=shares)
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7.5)
    drawn.scale(1.0, 1.5)
    axes.set_axis_off()


def _heatmap(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
    found = prometheus.range(filled_in(panel["targets"][0]["expr"]), start, end)
    found.sort(key=lambda series: float(series.labels["le"]))
    times = np.arange(start, end + 0.5)
    rates = np.zeros((len(found), times.size))
    for row, series in zip(rates, found, strict=True):
        row[np.clip(np.rint(series.times - start).astype(int), 0, times.size - 1)] = np.nan_to_num(series.values)
    inside = np.diff(rates, axis=0, prepend=0.0)
    edges = [told(float(series.labels["le"]), _unit(panel)) for series in found[:-1]]
    used = np.flatnonzero(inside.max(axis=1) > 0.0)
    low, high = max(int(used[0]) - 1, 0), min(int(used[-1]) + 2, len(found))
    shown = np.ma.masked_less_equal(inside[low:high], 0.01)
    axes.pcolormesh(times - start, np.arange(low, high + 1), shown[:, :-1], cmap="Oranges", norm=LogNorm(0.05, None))
    ticks = np.arange(low, high - 1)
    axes.set_yticks(ticks + 1.0, [edges[i] for i in ticks])
    axes.axhline(edges.index("2 ms") + 1.0, color=COLOURS["red"], ls="--", lw=1.2)


def draw(prometheus: Prometheus, start: float, end: float, note: str, path: Path) -> None:
    """Write the picture of all panels but those of GPUs, from what a Prometheus holds between two times.

    start, end  seconds since 1970
    note        what was measured, and on what
    """
    shown = [panel for panel in panels() if "GPU" not in panel["row"]]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown)
    rows = list(dict.fromkeys(panel["row"] for panel in shown))
    height = bottom * _ROW_UNIT + len(rows) * (_HEADING - _ROW_UNIT) + 0.5
    figure = Figure(figsize=(17.0, height))
    when = datetime.fromtimestamp(end, UTC)
    figure.text(0.012, 1.0 - 0.25 / height, "Calibrant", fontsize=15, weight="bold", va="center")
    subtitle = f"{end - start:.0f} s up to {when:%Y-%m-%d %H:%M} UTC, time axes in seconds; {note}"
    figure.text(0.1, 1.0 - 0.26 / height, subtitle, fontsize=9, color="0.35", va="center")
    for panel in shown:
        grid = panel["gridPos"]
        above = 0.5 + grid["y"] * _ROW_UNIT + (rows.index(panel["row"]) + 1) * (_HEADING - _ROW_UNIT)
        small = panel["type"] == "stat"
        tall = grid["h"] * _ROW_UNIT - (0.5 if small else 1.0)
        left = 0.05 if not small else 0.01
        axes = figure.add_axes(
            (
                grid["x"] / 24 + left * 0.75,
                1.0 - (above + 0.35 + tall) / height,
                grid["w"] / 24 - left * 0.75 - 0.012,
                tall / height,
            )
        )
        axes.set_title(panel["title"], fontsize=9.5, loc="center" if small else "left", weight="bold")
        axes.tick_params(labelsize=7)
        match panel["type"]:
            case "stat":
                _stat(axes, panel, prometheus, end)
            case "table":
                _table(axes, panel, prometheus, end)
            case "heatmap":
                _heatmap(axes, panel, prometheus, start, end)
            case _:
                _series(axes, panel, prometheus, start, end)
    for i, row in enumerate(rows):
        first = min(panel["gridPos"]["y"] for panel in shown if panel["row"] == row)
        above = 0.5 + first * _ROW_UNIT + (i + 1) * (_HEADING - _ROW_UNIT) - 0.18
        figure.text(0.012, 1.0 - above / height, row, fontsize=12, color="#1f60c4", va="center")
    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    # A picture of lines: with a palette it is a third of the size.
    Image.open(drawn).convert("RGB").quantize(256).save(path, optimize=True)
