"""The service inside a limit of memory, under requests that take far more than they have bytes."""

import json
import re
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from benchmarks.load.arrow import aliased
from service.wire.arrow import MEDIA_TYPE
from tests.service.process import Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes, and /proc, are Linux's")

MIB = 1 << 20
BUDGET = 64 * MIB
ROOM = 128 * MIB
"""What a process takes beside what requests reserve: new threads, the allocator's own, a job on each lane."""
SECONDS = 12.0
PATIENCE = 300.0
"""Seconds for one answer: what the machine has to do beside is not the subject."""
BATCH = "/v1/calibrate/batch"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(max_memory_bytes=BUDGET, max_batch_body_bytes=16 * MIB, default_deadline_ms=30_000)
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()


def memory(pid: int, what: str) -> int:
    """Bytes of a process, by the system's name: `VmData` is what it may write to, `VmRSS` what it has."""
    found = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def columns(n: int, **filled: Any) -> dict[str, Any]:
    return {"quotes": {name: [value] * n for name, value in filled.items()}, "refine": "none"}


@cache
def attacks() -> dict[str, tuple[str, bytes, str]]:
    # Few and large panels: the job process runs when nobody else wants to.
    refused = columns(500, expiry=1, log_moneyness=0, iv=-1)
    missing = columns(3000, expiry=1, log_moneyness=0, iv=None)
    missing["quotes"]["iv"][:6] = [0.2] * 6
    options = {
        "parameters": {"kappa": 2.0, "theta": 0.05, "xi": 0.5, "rho": -0.7, "v0": 0.05},
        "expiry": [1.0] * 49_000,
        "log_moneyness": [0.0] * 49_000,
        "gradient": True,
    }
    packed = {
        "panels that are all refused": {"panels": [refused] * 1000},
        "missing quotes": {"panels": [missing] * 200},
    }
    bodies = {name: (BATCH, json.dumps(body).encode(), "application/json") for name, body in packed.items()}
    return {
        **bodies,
        "columns that are one buffer": (BATCH, aliased(8_000_001), MEDIA_TYPE),
        "options": ("/v1/price", json.dumps(options).encode(), "application/json"),
    }


def attack(server: Server, name: str, enough: Event, told: dict[str, set[int]]) -> None:
    path, body, media_type = attacks()[name]
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        while not enough.is_set():
            told[name].add(client.post(path, content=body, headers={"content-type": media_type}).status_code)


def attacked(server: Server, dax: dict[str, Any], seconds: float) -> tuple[dict[str, set[int]], int]:
    """What the attacks were told, and how many good requests were answered beside them."""
    enough, good = Event(), 0
    told: dict[str, set[int]] = {name: set() for name in attacks()}
    with ThreadPoolExecutor(len(told)) as pool:
        attackers = [pool.submit(attack, server, name, enough, told) for name in told]
        try:
            end = time.monotonic() + seconds
            with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
                while time.monotonic() < end or not all(told.values()):
                    for ended in (attacker for attacker in attackers if attacker.done()):
                        # By itself, so it has failed, and would be waited for in vain.
                        ended.result()
                    response = client.post("/v1/calibrate", json=dax)
                    assert response.status_code == 200, response.text
                    good += 1
        finally:
            enough.set()
    for attacker in attackers:
        attacker.result()
    return told, good


def test_attacks_on_the_memory_end_nobody_and_leave_nothing(server: Server, dax: dict[str, Any]) -> None:
    # What the first requests of each kind take of a process stays with it.
    attacked(server, dax, SECONDS / 2.0)
    time.sleep(2.0)
    processes = server.children()
    before = {pid: memory(pid, "VmRSS") for pid in processes}
    for pid in processes:
        most = memory(pid, "VmData") + BUDGET + ROOM
        resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))
    told, good = attacked(server, dax, SECONDS)
    assert good > 5
    assert told["columns that are one buffer"] <= {413, 503}
    assert told["options"] <= {413, 503}
    # Refused panels are answered each for itself, and so are those with quotes missing, where there is room.
    assert set().union(*told.values()) <= {200, 413, 503}
    assert 200 in told["panels that are all refused"]
    assert server.children() == processes
    assert server.metric("calibrant_workers_ended_total") == 0
    for kind in ("worker", "job process"):
        series = f'calibrant_memory_reserved_bytes{{kind="{kind}"}}'
        server.until(lambda series=series: server.metric(series) == 0)
    for pid in processes:
        server.until(lambda pid=pid: memory(pid, "VmRSS") < 1.1 * before[pid])
