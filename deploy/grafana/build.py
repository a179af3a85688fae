"""Grafana's dashboard, built from the panels: `python -m deploy.grafana.build` writes dashboards/calibrant.json.

The builders are those of Grafana's own SDK (`grafana-foundation-sdk`), so that the document is of the schema that
Grafana reads; what is shown stands in `panels`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    FieldColorModeId,
    Threshold,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from .panels import ROWS, Panel, Query

DASHBOARD = Path(__file__).with_name("dashboards") / "calibrant.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHTS = {"stat": 4, "timeseries": 8, "heatmap": 8, "table": 8}


def _target(query: Query, kind: str, number: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(chr(ord("A") + number)).datasource(SOURCE).expr(query.expr)
    target = target.legend_format(query.legend or "__auto")
    if kind == "table":
        return target.instant().format(PromQueryFormat.TABLE)
    if kind == "stat":
        return target.instant()
    return target.range().format(PromQueryFormat.HEATMAP if kind == "heatmap" else PromQueryFormat.TIME_SERIES)


def _series(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
    builder = (
        timeseries.Panel()
        .legend(legend.placement(LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .show_points(VisibilityMode.NEVER)
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 5)
        .color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    )
    if panel.stacked:
        builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if panel.largest is not None:
        builder.max(panel.largest)
    if panel.scale == "log":
        builder.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))
    else:
        builder.min(0)
    if panel.scale == "symlog":
        symmetric = common.ScaleDistributionConfig().type(ScaleDistribution.SYMLOG).log(10)
        builder.scale_distribution(symmetric.linear_threshold(1))
    if panel.thresholds:
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return builder


def _stat(panel: Panel) -> stat.Panel:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    return stat.Panel().reduce_options(reduced).color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)


def _table(panel: Panel) -> table.Panel:
    # Of the labels and the value of a sample those columns, in that order.
    shown = {"include": {"names": list(panel.columns)}}
    order = {"indexByName": {column: number for number, column in enumerate(panel.columns)}}
    builder = table.Panel().with_transformation(DataTransformerConfig("filterFieldsByName", options=shown))
    return builder.with_transformation(DataTransformerConfig("organize", options=order))


def _heatmap(panel: Panel) -> heatmap.Panel:
    colours = heatmap.HeatmapColorOptions().scheme("Oranges").steps(64)
    return heatmap.Panel().color(colours).y_axis(heatmap.YAxisConfig().unit(panel.unit)).show_legend()


_KINDS: Mapping[str, Callable[[Panel], Any]] = {
    "timeseries": _series,
    "stat": _stat,
    "table": _table,
    "heatmap": _heatmap,
}


def _panel(panel: Panel, number: int) -> Any:
    builder = _KINDS[panel.kind](panel)
    builder.id(number).title(panel.title).description(panel.description).datasource(SOURCE)
    builder.span(panel.width).height(_HEIGHTS[panel.kind]).unit(panel.unit)
    steps = [Threshold(None, panel.base), *(Threshold(value, colour) for value, colour in panel.thresholds)]
    builder.thresholds(builders.ThresholdsConfig().steps(steps))
    for i, query in enumerate(panel.queries):
        builder.with_target(_target(query, panel.kind, i))
    return builder


def _variables() -> tuple[Any, ...]:
    every = VariableOption(text="All", value="$__all")
    job = builders.QueryVariable("job").label("Job").query("label_values(calibrant_ready, job)")
    replica = builders.QueryVariable("instance").label("Replica")
    replica.query('label_values(calibrant_ready{job="$job"}, instance)').multi(True).include_all(True).all_value(".*")
    replica.current(every)
    for variable, refresh in (
        (job, VariableRefresh.ON_DASHBOARD_LOAD),
        (replica, VariableRefresh.ON_TIME_RANGE_CHANGED),
    ):
        variable.datasource(SOURCE).refresh(refresh).sort(VariableSort.ALPHABETICAL_ASC)
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus"), job, replica


def dashboard() -> str:
    """The dashboard as Grafana imports it, in JSON."""
    builder = (
        builders.Dashboard("Calibrant")
        .uid("calibrant")
        .description(
            "Is it within its objective, on which provider and network, and what is refused and why: docs/operate.md."
        )
        .tags(["calibrant"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for variable in _variables():
        builder.with_variable(variable)
    number = 0
    for row in ROWS:
        number += 1
        heading = builders.Row(row.title).id(number)
        panels = []
        for panel in row.panels:
            number += 1
            panels.append(_panel(panel, number))
        if row.collapsed:
            for built in panels:
                heading.with_panel(built)
        builder.with_row(heading)
        if not row.collapsed:
            for built in panels:
                builder.with_panel(built)
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(dashboard())
