"""Every query of the dashboard, asked of a Prometheus that has watched the service under load."""

from typing import Any

import numpy as np
import pytest

from deploy.grafana.queries import Prometheus, Series, filled_in, panels
from deploy.tests.watched import Watched

NOT_HERE = {
    "GPU (DCGM exporter)": "no GPU and no DCGM exporter beside the test",
    "{{model}} week before": "the week before the last hour: this Prometheus is a minute old",
}
"""Rows and legends whose queries must parse, but find nothing here, and why."""
NOTHING_HAPPENED = {"engine failures", "log lines lost"}
"""Legends of what the load must not bring about."""
SAMPLED = {"Requests in flight, by replica", "Jobs waiting, by priority", "Estimated wait, by priority"}
"""Panels of what is read when Prometheus asks, and then may be none each time."""
SELDOM = {"Collector, pauses"}
"""Panels of what so short a load need not bring about: the collector looks after ten thousand objects."""


def targets() -> list[Any]:
    return [
        pytest.param(panel, target, id=f"{panel['title']}-{target['refId']}")
        for panel in panels()
        for target in panel["targets"]
    ]


def asked(prometheus: Prometheus, target: dict[str, Any], start: float, end: float) -> list[Series]:
    """As the panel asks it: at the end, or all along."""
    expr = filled_in(target["expr"])
    assert "$" not in expr, "a variable that Grafana would not know either"
    return prometheus.instant(expr, end) if target["instant"] else prometheus.range(expr, start, end)


@pytest.mark.parametrize(("panel", "target"), targets())
def test_a_query_of_the_dashboard_answers(watched: Watched, panel: dict[str, Any], target: dict[str, Any]) -> None:
    found = asked(watched.prometheus, target, watched.began, watched.ended)
    if panel["row"] in NOT_HERE or target["legendFormat"] in NOT_HERE:
        assert found == [], "it is to be found here after all: take it out of NOT_HERE"
        return
    assert found, "the panel is empty"
    values = np.concatenate([series.values for series in found])
    # 0/0 shows no more than what is not there, and a line that never leaves zero not whether it would.
    assert np.isfinite(values).any()
    if panel["title"] not in SAMPLED | SELDOM:
        assert np.nan_to_num(values).any() == (target["legendFormat"] not in NOTHING_HAPPENED)


def test_the_variables_of_the_dashboard_find_the_replicas(watched: Watched) -> None:
    (replica,) = watched.prometheus.instant('calibrant_ready{job="calibrant"}', watched.ended)
    assert replica.labels["instance"] == f"127.0.0.1:{watched.server.port}"


@pytest.mark.parametrize(
    ("title", "legends"),
    [
        ("Shed by reason", {"rate_limited", "deadline_unreachable", "deadline_expired", "overloaded"}),
        ("Answers by HTTP status", {"200", "401", "404", "422", "429"}),
        ("Stages, p99", {"decode", "queue", "network", "refine", "diagnostics", "encode"}),
        ("Throughput by route", {"/v1/calibrate", "/v1/calibrate/batch", "/v1/price", "/health/ready", "/metrics"}),
    ],
)
def test_a_panel_tells_the_kinds_apart(watched: Watched, title: str, legends: set[str]) -> None:
    (panel,) = [panel for panel in panels() if panel["title"] == title]
    (target,) = panel["targets"]
    found = asked(watched.prometheus, target, watched.began, watched.ended)
    label = target["legendFormat"].strip("{}")
    assert {series.labels[label] for series in found} >= legends
