"""What can be said of the rules without Prometheus: of whom they speak, and that each alert is tested and explained."""

import re
from functools import cache
from typing import Any

import pytest
import yaml

from calibrant.models import MODELS
from calibrant.models.model import Model
from service.core import begin_model
from service.metrics import Metrics
from service.tally import Counter, Histogram
from tests.shared import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
OPERATE = ROOT / "docs" / "operate.md"
SEVERITIES = {"critical", "warning"}
# Of others: Prometheus itself, the exporter in haproxy, and those of DCGM's exporter that its etc/default-counters.csv
# switches on.
FOREIGN = {
    "up",
    "scrape_duration_seconds",
    "ALERTS",
    "prometheus_rule_evaluation_failures_total",
    "haproxy_backend_active_servers",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_USED",
}
_WORDS = {"and", "or", "unless", "offset", "bool", "group_left", "group_right"}
"""Of PromQL that no parenthesis follows."""


@cache
def exposed() -> frozenset[str]:
    """The names under which the service's metrics are scraped."""
    names = set()
    for family in Metrics().families:
        if isinstance(family, Counter):
            names.add(f"{family.name}_total")
        elif isinstance(family, Histogram):
            names |= {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
        else:
            names.add(family.name)
    return frozenset(names)


@cache
def labels_of(metric: str) -> frozenset[str]:
    """The labels that a metric of the service has, and those that Prometheus adds."""
    for family in Metrics().families:
        parts = {f"{family.name}_total", family.name, *(f"{family.name}_{part}" for part in ("bucket", "count", "sum"))}
        if metric in parts:
            return frozenset((*family.labels, "job", "instance", *(["le"] if metric.endswith("_bucket") else [])))
    raise AssertionError(f"no metric of the service: {metric}")


def metrics_in(expr: str) -> set[str]:
    """The names of metrics and of records in a query."""
    without_text = re.sub(r"\"[^\"]*\"|'[^']*'", '""', expr)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", without_text)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right) ?\([^)]*\)", " ", bare)
    names = set(re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\w|:)(?!\s*\()", bare))
    return names - _WORDS


def matchers_in(expr: str) -> list[tuple[str, set[str]]]:
    """Each metric that is selected by labels, and those labels."""
    found = re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", re.sub(r"\"[^\"]*\"", '""', expr))
    return [(name, set(re.findall(r"(\w+) ?(?:=~|!~|!=|=)", inside))) for name, inside in found]


@cache
def all_rules() -> list[dict[str, Any]]:
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    assert files
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


@cache
def alert_cases() -> list[dict[str, Any]]:
    """What promtool is to find, alert by alert."""
    files = sorted((PROMETHEUS / "tests").glob("*.yml"))
    tests = [test for path in files for test in yaml.safe_load(path.read_text())["tests"]]
    return [case for test in tests for case in test.get("alert_rule_test", [])]


def recorded() -> set[str]:
    return {rule["record"] for rule in all_rules() if "record" in rule}


ALERTS = [rule for rule in all_rules() if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.get("record", rule.get("alert")))
def test_a_rule_speaks_of_what_there_is(rule: dict[str, Any]) -> None:
    names = metrics_in(rule["expr"])
    assert names, "it speaks of nothing"
    assert names <= exposed() | recorded() | FOREIGN
    for metric, labels in matchers_in(rule["expr"]):
        if metric in exposed():
            assert labels <= labels_of(metric)


def test_names_are_found_in_a_query() -> None:
    expr = 'sum by (job) (rate(a_total{x="sum"}[5m])) / on (job) b:c:rate5m > bool 0.01 and d offset 1d unless e_bucket'
    assert metrics_in(expr) == {"a_total", "b:c:rate5m", "d", "e_bucket"}
    assert matchers_in(expr) == [("a_total", {"x"})]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_objective_of_a_model_is_its_own_in_every_rule(model: Model) -> None:
    """The service counts what was within it, so that no rule has to know a model."""
    metrics = Metrics()
    begin_model(metrics, model)
    assert metrics.objective.values[(model.name,)] == [1e-3 * model.objective_ms]
    assert metrics.on_time.values[(model.name,)] == [0.0]
    of_compute = [rule["expr"] for rule in all_rules() if "calibrant_compute" in rule["expr"]]
    assert any("calibrant_compute_on_time_total" in expr for expr in of_compute)
    assert not [expr for expr in of_compute if "model=" in expr or "le=" in expr]


def test_the_threshold_of_pauses_is_an_edge_of_their_histogram() -> None:
    assert 0.01 in Metrics().pauses.edges


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    name: str = rule["alert"]
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"]["runbook"] == f"docs/operate.md#{name.lower()}"
    summary = rule["annotations"]["summary"]
    assert summary.endswith((".", "gaps.", "blind."))
    assert re.search(r"\d|{{", summary), "no number"


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_shown_to_fire_and_not_to_fire(name: str) -> None:
    cases = [case for case in alert_cases() if case["alertname"] == name]
    assert any(case["exp_alerts"] for case in cases), "never shown to fire"
    assert any(not case["exp_alerts"] for case in cases), "never shown not to fire"


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_explained_to_the_operator(name: str) -> None:
    headings = re.findall(r"^#+ +`?(\w+)`?$", OPERATE.read_text(), re.MULTILINE)
    assert name in headings


def test_the_configuration_reads_all_rules_and_the_replicas_by_name() -> None:
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert configuration["rule_files"] == ["rules/*.yml"]
    (job,) = (job for job in configuration["scrape_configs"] if job["job_name"] == "calibrant")
    assert job["dns_sd_configs"][0]["names"] == ["calibrant"]
