"""Metrics that several processes can add up."""

import pickle

import prometheus_client as reference
import pytest

from service.metrics import Metrics
from service.tally import Counter, Family, Gauge, Histogram, exposition, merged, snapshot

EDGES = (0.001, 0.002, 0.5)
OBSERVED = (0.0005, 0.001, 0.0011, 0.4, 0.5, 7.0)


def lines(text: bytes) -> set[str]:
    """What a scrape tells, without the times of creation, which are the reference's own."""
    return {line for line in text.decode().splitlines() if "_created" not in line}


def test_the_exposition_is_that_of_the_reference_library() -> None:
    ours: list[Family] = [
        Counter("x_requests", "Requests.", ["route", "code"]),
        Gauge("x_depth", "Depth.", ["kind"]),
        Histogram("x_seconds", "Seconds.", ["stage"], edges=EDGES),
    ]
    counter, gauge, histogram = ours
    registry = reference.CollectorRegistry()
    their_counter = reference.Counter("x_requests", "Requests.", ["route", "code"], registry=registry)
    their_gauge = reference.Gauge("x_depth", "Depth.", ["kind"], registry=registry)
    their_histogram = reference.Histogram("x_seconds", "Seconds.", ["stage"], buckets=EDGES, registry=registry)
    assert isinstance(counter, Counter)
    assert isinstance(gauge, Gauge)
    assert isinstance(histogram, Histogram)
    for route in ("/a", '/b"\\\n'):
        counter.inc(route, "200", by=2.5)
        their_counter.labels(route, "200").inc(2.5)
    gauge.set(3.0, "long")
    their_gauge.labels("long").set(3.0)
    for value in OBSERVED:
        histogram.observe(value, "refine")
        their_histogram.labels("refine").observe(value)
    assert lines(exposition(ours, snapshot(ours))) == lines(reference.generate_latest(registry))


def test_processes_add_up_and_of_those_gone_what_was_counted_remains() -> None:
    counter = Counter("c", "", ["kind"])
    histogram = Histogram("h", "", edges=EDGES)
    total, longest = Gauge("g", ""), Gauge("m", "", (), "max")
    families: list[Family] = [counter, histogram, total, longest]
    parts = []
    for n in (1.0, 2.0, 4.0):
        counter.values.clear()
        counter.inc("all", by=n)
        counter.inc(f"only {n:g}")
        histogram.values.clear()
        histogram.observe(0.0015 * n)
        total.set(n)
        longest.set(n)
        # As it comes over the channel.
        parts.append(pickle.loads(pickle.dumps(snapshot(families))))
    whole = merged(families, parts[:2], parts[2:])
    assert whole["c"] == {("all",): [7.0], ("only 1",): [1.0], ("only 2",): [1.0], ("only 4",): [1.0]}
    assert whole["h"] == {(): [0.0, 1.0, 2.0, 0.0, pytest.approx(0.0105)]}
    assert (whole["g"], whole["m"]) == ({(): [3.0]}, {(): [2.0]})
    # The parts are as they were: the next scrape begins from them again.
    assert merged(families, parts[:2], parts[2:]) == whole


def test_a_snapshot_does_not_change_any_more() -> None:
    counter = Counter("c", "")
    counter.inc()
    taken = snapshot([counter])
    counter.inc()
    assert taken["c"] == {(): [1.0]}


def test_every_metric_is_named_documented_and_exposed() -> None:
    metrics = Metrics()
    text = metrics.exposition().decode()
    names = [family.name for family in metrics.families]
    assert len(set(names)) == len(names) > 25
    for family in metrics.families:
        assert family.name.startswith("calibrant_")
        assert family.help.endswith(".")
        assert f"# TYPE {family.name}" in text
    assert 0.002 in metrics.request_seconds.edges
