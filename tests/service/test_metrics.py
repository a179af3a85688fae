"""What the metrics say, and that they say it from the start."""

import os
import re
import time
from contextlib import ExitStack
from typing import Any

import pytest

from service.errors import ServiceError
from service.metrics import Metrics
from service.service import Service
from service.settings import Settings
from service.tally import merged
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


def test_a_process_says_what_it_takes_of_the_machine(client: Client) -> None:
    kind = '{kind="worker"}'
    before = value(client, f"calibrant_process_cpu_seconds_total{kind}")
    assert 5e7 < value(client, f"calibrant_process_resident_memory_bytes{kind}") < 1e11
    assert 3 <= value(client, f"calibrant_process_open_fds{kind}") < value(client, f"calibrant_process_max_fds{kind}")
    assert time.time() - 1e5 < value(client, f"calibrant_process_start_time_seconds{kind}") <= time.time()
    with ExitStack() as stack:
        opened = value(client, f"calibrant_process_open_fds{kind}")
        for _ in range(50):
            stack.enter_context(open(os.devnull))
        assert value(client, f"calibrant_process_open_fds{kind}") == opened + 50
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert value(client, f"calibrant_process_cpu_seconds_total{kind}") > before + 0.15
    assert value(client, 'calibrant_lane_held_seconds{lane="interactive"}') == 0.0


def test_of_several_processes_of_a_kind_the_worst_is_told() -> None:
    ours, theirs = Metrics(), Metrics()
    for metrics, resident, n_open, most, cpu in ((ours, 100.0, 7.0, 50.0, 1.5), (theirs, 20.0, 30.0, 40.0, 0.25)):
        metrics.resident.set(resident, "worker")
        metrics.descriptors.set(n_open, "worker")
        metrics.most_descriptors.set(most, "worker")
        metrics.cpu.inc("worker", by=cpu)
    both = merged(ours.families, [ours.snapshot()], [theirs.snapshot()])
    # What one that has gone took is free again, but its time is spent.
    assert (both["calibrant_process_resident_memory_bytes"], both["calibrant_process_cpu_seconds"]) == (
        {("worker",): [100.0]},
        {("worker",): [1.75]},
    )
    both = merged(ours.families, [ours.snapshot(), theirs.snapshot()])
    for name, expected in (
        ("calibrant_process_resident_memory_bytes", 120.0),
        ("calibrant_process_open_fds", 30.0),
        ("calibrant_process_max_fds", 40.0),
    ):
        assert both[name] == {("worker",): [expected]}
