"""Batches over sockets: limits hold before memory is taken, lines come early, and nothing is computed for nobody."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.process import Server
from tests.service.test_bad_input import panel

BATCH = "/v1/calibrate/batch"
HEADERS = {"content-type": "application/json"}
MEGABYTE = 1_000_000
CALIBRATED = 'calibrant_refinement_iterations_count{model="heston"}'
"""Series of panels done."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(max_batch_body_bytes=20 * MEGABYTE)
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()


def chunks(n: int) -> Iterator[bytes]:
    for _ in range(n):
        yield b" " * MEGABYTE


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_of_batches_is_refused_and_not_kept(server: Server, declared: bool) -> None:
    before = server.resident_mib()
    content: Any = b" " * 100 * MEGABYTE if declared else chunks(100)
    response = httpx.post(server.url + BATCH, content=content, headers=HEADERS, timeout=60.0)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert server.resident_mib() - before < 30


def test_many_small_values_take_no_more_memory_than_their_bytes(server: Server) -> None:
    before = server.resident_mib()
    # As Python objects they would be ten times as large.
    body = b'{"panels": [' + b"[]," * (6 * MEGABYTE) + b"[]]}"
    response = httpx.post(server.url + BATCH, content=body, headers=HEADERS, timeout=60.0)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert server.resident_mib() - before < 60


def test_a_client_that_hangs_up_ends_its_batch(server: Server) -> None:
    n = 3000
    body = json.dumps({"panels": [panel()] * n}).encode()
    headers = {**HEADERS, "accept": "application/x-ndjson"}
    with httpx.stream("POST", server.url + BATCH, content=body, headers=headers, timeout=60.0) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        assert json.loads(next(lines))["index"] == 0
        # The first line is here long before the last panel is done.
        assert server.metric(CALIBRATED) < n
    server.until(lambda: server.metric("calibrant_in_flight") == 1)
    assert 0 < server.metric(CALIBRATED) < n
