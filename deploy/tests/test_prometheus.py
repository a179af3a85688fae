"""The shipped rules: checked and tested by promtool, and evaluated by a real Prometheus that watches the service."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deploy.tests.watched import SHIPPED, Watched, shipped_configuration

RULES = sorted((SHIPPED / "rules").glob("*.yml"))
TESTS = sorted((SHIPPED / "tests").glob("*.yml"))
NEEDS_THE_PAST = {
    "job_model:calibrant_fit_rmse_basis_points:p50_1w": "the week before the last hour: this Prometheus is a minute old"
}
"""Records that find nothing here, and why."""


def promtool(*arguments: str | Path) -> str:
    """What it says; fails with that if it finds fault."""
    ran = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def rules(kind: str) -> list[dict[str, Any]]:
    """All that record, or all that alert."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    promtool("check", "config", shipped_configuration(tmp_path, {}, "a key"))


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    promtool("test", "rules", path)


def test_a_changed_threshold_is_noticed_by_the_tests_of_the_rules(tmp_path: Path) -> None:
    changed = tmp_path / "rules" / "service.yml"
    (tmp_path / "tests").mkdir()
    changed.parent.mkdir()
    text = (SHIPPED / "rules" / "service.yml").read_text()
    changed.write_text(text.replace("ratio5m > 0.01", "ratio5m > 0.06"))
    assert changed.read_text() != text
    test = tmp_path / "tests" / "service.yml"
    test.write_text((SHIPPED / "tests" / "service.yml").read_text())
    with pytest.raises(AssertionError, match="CalibrantShedding"):
        promtool("test", "rules", test)


def test_every_scrape_of_the_service_is_answered(watched: Watched) -> None:
    up = 'avg_over_time(up{job=~"calibrant|proxy|prometheus"}[15s])'
    found = {series.labels["job"]: float(series.values[0]) for series in watched.prometheus.instant(up, watched.ended)}
    assert found == {"calibrant": 1.0, "proxy": 1.0, "prometheus": 1.0}


def test_what_is_not_there_is_no_target(watched: Watched) -> None:
    assert watched.prometheus.instant('up{job="dcgm"}', watched.ended) == []


def test_prometheus_counts_what_the_clients_counted(watched: Watched) -> None:
    counted = 'sum(calibrant_requests_total{route="/v1/calibrate", code="200"})'
    assert watched.answered > 100
    assert watched.prometheus.value(counted, watched.ended) == watched.answered
    alone = "sum(calibrant_compute_duration_seconds_count)"
    v2 = 'sum(calibrant_requests_total{route="/v2/models/{model}/infer", code="200"})'
    assert watched.prometheus.value(alone, watched.ended) == watched.answered + watched.prometheus.value(
        v2, watched.ended
    )


@pytest.mark.parametrize("rule", rules("record"), ids=lambda rule: rule["record"])
def test_a_recording_rule_records(watched: Watched, rule: dict[str, Any]) -> None:
    found = watched.prometheus.instant(rule["record"], watched.ended)
    if rule["record"] in NEEDS_THE_PAST:
        assert found == [], "it is to be found here after all: take it out of NEEDS_THE_PAST"
        return
    assert found, "nothing was recorded"
    values = np.concatenate([series.values for series in found])
    assert np.isfinite(values).any()
    if re.search(r":ratio", rule["record"]):
        assert ((values >= 0.0) & (values <= 1.0)).all()


def test_no_rule_fails(watched: Watched) -> None:
    assert watched.prometheus.value("sum(prometheus_rule_evaluation_failures_total)", watched.ended) == 0
    healths = {rule["health"] for rule in watched.prometheus.rules()}
    assert healths == {"ok"}


def test_the_share_within_the_objective_is_counted_and_not_interpolated(watched: Watched) -> None:
    counts = "sum(calibrant_compute_on_time_total) / sum(calibrant_compute_duration_seconds_count)"
    share = watched.prometheus.value(counts, watched.ended)
    assert 0.0 < share < 1.0
    # Five minutes hold all of the load, and the counters began at 0: both are of every calibration there was.
    recorded = watched.prometheus.value("job_model:calibrant_compute_on_time:ratio5m", watched.ended)
    assert recorded == pytest.approx(share, rel=1e-6)


def test_the_lost_worker_raises_its_alert_and_the_sound_provider_none(watched: Watched) -> None:
    firing = watched.prometheus.instant('ALERTS{alertstate="firing"}', watched.ended)
    names = {series.labels["alertname"] for series in firing}
    assert "CalibrantWorkerEnded" in names
    sound = {
        "CalibrantProviderNotAsRequested",
        "CalibrantReplicaDown",
        "CalibrantNoReplicaReady",
        "CalibrantEngineFailures",
    }
    assert not names & sound
