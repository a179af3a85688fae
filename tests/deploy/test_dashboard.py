"""What can be said of the dashboard without Grafana and Prometheus."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.build import DASHBOARD, dashboard
from deploy.grafana.panels import ROWS, Panel
from tests.deploy.test_prometheus import FOREIGN, exposed, labels_of, matchers_in, metrics_in, recorded
from tests.shared import ROOT

PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"
PANELS = [panel for row in ROWS for panel in row.panels]


def document() -> Any:
    return json.loads(DASHBOARD.read_text())


def test_the_committed_dashboard_is_what_the_builder_makes() -> None:
    assert DASHBOARD.read_text() == dashboard(), "run `python -m deploy.grafana.build`"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_speaks_of_what_there_is(panel: Panel) -> None:
    for query in panel.queries:
        names = metrics_in(query.expr)
        assert names
        assert names <= exposed() | recorded() | FOREIGN
        for metric, labels in matchers_in(query.expr):
            if metric in exposed():
                assert labels <= labels_of(metric)
        for metric in names & exposed():
            # Another job's replicas are another service's.
            assert f'{metric}{{job="$job"' in query.expr


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_explains_itself(panel: Panel) -> None:
    assert panel.description.endswith(".")
    assert panel.kind == "table" or all(query.legend for query in panel.queries)
    assert list(panel.thresholds) == sorted(panel.thresholds)
    assert (panel.kind == "table") == bool(panel.columns)


def test_titles_tell_panels_apart() -> None:
    assert len({panel.title for panel in PANELS}) == len(PANELS)


def test_only_variables_of_the_dashboard_are_used() -> None:
    known = {variable["name"] for variable in document()["templating"]["list"]} | {"__rate_interval"}
    text = json.dumps(document())
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__all"} <= known


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in document()["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_grafana_finds_the_dashboard_and_the_data_source() -> None:
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "calibrant.yml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    mounted = {}
    for volume in compose["services"]["grafana"]["volumes"]:
        if isinstance(volume, str):
            source, target, *_ = volume.split(":")
        else:
            source, target = volume["source"], volume["target"]
        mounted[target] = Path(source)
    assert mounted[provider["options"]["path"]] == Path("grafana/dashboards")
    assert mounted["/etc/grafana/provisioning"] == Path("grafana/provisioning")
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]
    # The shortest window of a rate in the panels is four scrapes.
    interval = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["global"][
        "scrape_interval"
    ]
    assert source["jsonData"]["timeInterval"] == interval
