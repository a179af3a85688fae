"""What the metrics say, and that they say it from the start."""

import re
from typing import Any

import pytest

from service.errors import ServiceError
from service.service import Service
from service.settings import Settings
from tests.service.client import Client
from tests.shared import ROOT


def value(client: Client, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found is not None, f"{series} is not exposed."
    return float(found[1])


def test_counters_begin_at_zero_before_anything_has_happened() -> None:
    """Prometheus does not see the event with which a series begins: the first failure would raise no alert."""
    service = Service(Settings(networks=ROOT / "networks"))
    text = service.metrics.exposition().decode()
    service.scheduler.stop()
    for error in ServiceError.__subclasses__():
        assert f'calibrant_problems_total{{code="{error.code}"}} 0.0' in text
    for series in (
        "calibrant_engine_failures_total",
        "calibrant_client_disconnects_total",
        "calibrant_log_lines_lost_total",
        "calibrant_workers_ended_total",
        'calibrant_shed_total{reason="deadline_expired"}',
        'calibrant_reloads_total{outcome="failed"}',
        'calibrant_connections_closed_total{reason="header"}',
        'calibrant_arbitrage_violations_total{kind="calendar",subject="quotes"}',
    ):
        assert f"\n{series} 0.0\n" in text, series


def test_a_model_that_is_served_has_all_its_series(client: Client) -> None:
    for series in (
        'calibrant_calibrations_total{model="heston",start="given",status="not_converged"}',
        'calibrant_audits_total{model="heston",outcome="better_found"}',
        'calibrant_audit_excess_ratio_count{model="heston"}',
    ):
        assert value(client, series) == 0.0


def test_compute_is_that_of_interactive_calibrations_without_their_queue(client: Client, dax: dict[str, Any]) -> None:
    count = 'calibrant_compute_duration_seconds_count{model="heston"}'
    total = 'calibrant_compute_duration_seconds_sum{model="heston"}'
    before, sum_before = value(client, count), value(client, total)
    response = client.post("/v1/calibrate", dax)
    stages = dict(re.findall(r"(\w+);dur=([0-9.]+)", response.headers["server-timing"]))
    client.post("/v1/calibrate/batch", {"panels": [dax, dax]})
    client.post("/v1/calibrate", {"model": "heston"})
    assert value(client, count) == before + 1
    computed = sum(float(stages[stage]) for stage in ("decode", "network", "refine", "diagnostics", "encode"))
    assert 1e3 * (value(client, total) - sum_before) == pytest.approx(computed, abs=0.01)


def test_what_a_process_should_be_is_said_beside_what_it_is(client: Client) -> None:
    assert value(client, "calibrant_workers") == 1.0
    assert value(client, "calibrant_connections_limit") == 4096.0
    assert value(client, "calibrant_last_reload_successful") == 1.0
