"""Requests that take far more memory than they have bytes, again and again, beside good ones.

    python -m benchmarks.load.memory [--seconds 300] [--group /sys/fs/cgroup/memory/NAME]

One service with its defaults, each attack by clients of its own as fast as they are answered. What its processes hold
is looked at ten times a second: private and shared pages, each once, and the files in memory that batches arrive in.
Wanted: never more than the limit of a container, no process ended, no good request lost, and at the end what was held
before. With `--group` the service, and not its clients, runs inside a control group whose limit the kernel keeps.
Writes docs/results/memory.{json,md}.
"""

import argparse
import json
import os
import re
import socket
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any

import numpy as np

from reporting.machine import RESULTS, table

from ..quoted_panels import quoted_panels
from ..sections import record
from . import serving
from .arrow import aliased
from .plan import Plan, Stream, post
from .running import Running, summary
from .serving import Serving

LIMIT_MB = 2048.0 * 1.048576
"""Of the container: 2 GiB."""
GROWTH = 0.10
"""Share of what it held before that it may hold more in the end; the first requests of a process take some anyway."""
SECTION = "attacks"
N_PANELS = 16
PATIENCE_MS = 1000.0
_BATCH_BYTES = 60_000_000
_ROWS = 20_000_001
"""Of a stream with a byte a row, from which more than a hundred would be made."""
_WARM_UP = 10.0
_SETTLING = 15.0
"""Seconds until what is held in the end is looked at: connections that wait are closed after ten."""
_ARROW = "application/vnd.apache.arrow.stream"


def held_mb(server: Serving) -> float:
    """Memory of all of its processes, pages that they share counted once, and that of files that lie in memory.

    A page of a file that is mapped is not counted by its process: the file is.
    """
    total, files = 0, {}
    for pid in (server.process.pid, *server.workers()):
        try:
            pages = dict(re.findall(r"^(\w+): +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
            total += 1024 * (int(pages["Pss"]) - int(pages.get("Pss_Shmem", 0)))
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{descriptor}"
                if os.readlink(path).startswith("/memfd:"):
                    found = os.stat(path)
                    files[found.st_ino] = 512 * found.st_blocks
        except OSError:
            # It has ended, or closed the file.
            continue
    return 1e-6 * (total + sum(files.values()))


def _confine(server: Serving, group: Path) -> None:
    """Put a service that has just been started, and so all that it will start, into a control group.

    raises  RuntimeError if its limit is not that of the container
    """
    files = [group / name for name in ("memory.max", "memory.limit_in_bytes")]
    limit = next((file.read_text().strip() for file in files if file.exists()), "no limit at all")
    if limit != str(int(1e6 * LIMIT_MB)):
        raise RuntimeError(f"The limit of {group} must be {1e6 * LIMIT_MB:.0f} bytes, but is {limit}.")
    (group / "cgroup.procs").write_text(str(server.process.pid))


# Attacks --------------------------------------------------------------------------------------------------------------


def _batch(panel: str, n_bytes: int = _BATCH_BYTES) -> bytes:
    n = min(n_bytes // (len(panel) + 1), 20_000)
    return post("/v1/calibrate/batch", ('{"panels":[' + ",".join([panel] * n) + "]}").encode())


def _columns(n: int, **columns: str) -> str:
    filled = ",".join(f'"{name}":[{",".join([value] * n)}]' for name, value in columns.items())
    return '{"quotes":{' + filled + '},"refine":"none"}'


@cache
def attacks() -> dict[str, tuple[Callable[[int, bytes, Event, dict[str, int]], None], bytes]]:
    """What each client does, and the request that it does it with."""
    missing = _columns(30_000, expiry="1", log_moneyness="0", iv="null").replace("null", "0.2", 6)
    integers = aliased(_ROWS)
    options = {
        "parameters": {"kappa": 2.0, "theta": 0.05, "xi": 0.5, "rho": -0.7, "v0": 0.05},
        "expiry": [1.0] * 8000,
        "log_moneyness": np.round(np.linspace(-1.0, 1.0, 8000), 2).tolist(),
        "gradient": True,
    }
    priced = post("/v1/price", json.dumps(options).encode())
    return {
        "panels that are all refused": (_asking, _batch(_columns(3000, expiry="1", log_moneyness="0", iv="-1"))),
        "missing quotes": (_asking, _batch(missing)),
        "columns that are one buffer": (_asking, post("/v1/calibrate/batch", integers, _ARROW)),
        "prices that nobody reads": (_not_reading, priced),
        "bodies that never end": (_not_ending, post("/v1/calibrate", b" " * 4_000_000)[:-1000]),
    }


def _asking(port: int, request: bytes, enough: Event, told: dict[str, int]) -> None:
    """One request after the other, each answer read to its end."""
    while not enough.is_set():
        with socket.create_connection(("127.0.0.1", port), timeout=120.0) as connection:
            connection.sendall(request)
            status, n_bytes = _read(connection)
            told[status] = told.get(status, 0) + 1
            told["largest answer, bytes"] = max(told.get("largest answer, bytes", 0), n_bytes)


def _read(connection: socket.socket) -> tuple[str, int]:
    """Status and length of an answer, to the end that its head says or its connection has."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = connection.recv(65536)
        if not more:
            return "none", len(head)
        head += more
    head, _, rest = head.partition(b"\r\n\r\n")
    declared = re.search(rb"content-length: (\d+)", head)
    n_bytes = len(rest)
    while declared is not None and n_bytes < int(declared[1]):
        more = connection.recv(1 << 20)
        if not more:
            break
        n_bytes += len(more)
    return head[9:12].decode(), n_bytes


def _not_reading(port: int, request: bytes, enough: Event, told: dict[str, int]) -> None:
    """Fifty connections that ask and never read; whoever is cut off comes again."""
    connections: list[socket.socket] = []
    while not enough.is_set():
        if len(connections) == 50:
            connections.pop(0).close()
        connection = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        connections.append(connection)
        connection.sendall(request)
        told["asked"] = told.get("asked", 0) + 1
        sleep(0.05)
    for connection in connections:
        connection.close()


def _not_ending(port: int, request: bytes, enough: Event, told: dict[str, int]) -> None:
    """Connections that send all of a large body but its end."""
    connections: list[socket.socket] = []
    while not enough.is_set():
        if len(connections) == 40:
            connections.pop(0).close()
        connection = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        connections.append(connection)
        connection.settimeout(1.0)
        connection.sendall(request)
        told["begun"] = told.get("begun", 0) + 1
        sleep(0.05)
    for connection in connections:
        connection.close()


def _again(work: Callable[..., None], *arguments: Any) -> None:
    enough: Event = arguments[2]
    while not enough.is_set():
        try:
            work(*arguments)
        except OSError:
            # Refused, cut off, or too slow: it comes again.
            sleep(0.05)


# The run --------------------------------------------------------------------------------------------------------------


def attacked(given: argparse.Namespace) -> dict[str, Any]:
    bodies = tuple(quoted_panels(N_PANELS).bodies())
    with serving.service(default_deadline_ms=PATIENCE_MS) as server:
        if given.group is not None:
            _confine(server, given.group)
        server.wait_until_answering()
        # What the first requests of each kind take of a process stays with it.
        enough, told = Event(), {name: dict[str, int]() for name in attacks()}
        warming = _started(server, told, enough)
        sleep(_WARM_UP)
        _stop(warming, enough)
        sleep(_SETTLING)
        before = peak = held_mb(server)
        enough, told = Event(), {name: dict[str, int]() for name in attacks()}
        expected = tuple(serving.parameters_of(server, bodies))
        requests = tuple(post("/v1/calibrate", body) for body in bodies)
        stream = Stream(
            name="good", rate=given.rate, seconds=given.seconds, requests=requests, connections=16, expected=expected
        )
        running = Running(Plan(ports=(server.port,), streams=(stream,)))
        threads = _started(server, told, enough)
        while running.at(given.seconds) > 0.0:
            peak = max(peak, held_mb(server))
            sleep(0.1)
        _stop(threads, enough)
        good = summary(running.result().of(0), given.seconds)
        sleep(_SETTLING)
        after = held_mb(server)
        ended = int(server.metric("calibrant_workers_ended_total"))
        reserved = sum(
            server.metric(f'calibrant_memory_reserved_bytes{{kind="{kind}"}}') for kind in ("worker", "job process")
        )
    lost = sum(good["failed"].values())
    within = peak < LIMIT_MB and after < (1.0 + GROWTH) * before
    return {
        "seconds": given.seconds,
        "confined": given.group is not None,
        "good": good,
        "told": told,
        "held_mb": [before, peak, after],
        "still_reserved_bytes": reserved,
        "workers_ended": ended,
        "as_wanted": bool(within and not lost and not ended and not reserved and not good["void"]),
    }


def _started(server: Serving, told: dict[str, dict[str, int]], enough: Event) -> list[Thread]:
    threads = [
        Thread(target=_again, args=(work, server.port, request, enough, told[name]))
        for name, (work, request) in attacks().items()
    ]
    for thread in threads:
        thread.start()
    return threads


def _stop(threads: list[Thread], enough: Event) -> None:
    enough.set()
    end = perf_counter() + 120.0
    for thread in threads:
        thread.join(max(end - perf_counter(), 0.0))


def lines(data: dict[str, Any]) -> list[str]:
    good, (before, peak, after) = data["good"], data["held_mb"]
    ms = good["latency_ms"]
    refused = {code: each["count"] for code, each in good["refusals"].items()} | good["failed"]
    rows = [
        [
            f"{good['answered']} of {good['requests']}" + (" (VOID)" if good["void"] else ""),
            ", ".join(f"{n} {what}" for what, n in refused.items()) or "0",
            *(f"{ms[q]:.1f}" if ms else "none" for q in ("p50", "p99", "max")),
            *(f"{mb:.0f}" for mb in (before, peak, after)),
            str(data["workers_ended"]),
            "yes" if data["as_wanted"] else "NO",
        ]
    ]
    told = [
        [name, ", ".join(f"{n} {what}" if "," not in what else f"{what} {n}" for what, n in each.items())]
        for name, each in data["told"].items()
    ]
    return [
        "## Attacks on the memory",
        f"All of them at once for {data['seconds']:.0f} s, beside good requests, {good['offered_per_s']:.0f} a second, "
        "latencies in milliseconds from when they were due; megabytes of all processes before, at most and "
        f"{_SETTLING:.0f} s after. "
        + ("The kernel kept the limit. " if data["confined"] else "")
        + f"Wanted: none lost, no process ended, at most {LIMIT_MB:.0f} MB (2 GiB), in the end "
        f"no more than {100 * GROWTH:.0f} % above the start, nothing reserved.",
        "",
        *table(
            ["good answered", "not", "p50", "p99", "max", "MB before", "at most", "after", "ended", "as wanted"], rows
        ),
        "",
        *table(["attack", "what it was told"], told),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=20.0, help="good requests a second, default 20")
    parser.add_argument("--seconds", type=float, default=300.0, help="of the attacks, default 300")
    parser.add_argument("--group", type=Path, help="folder of a control group with that limit, which the service joins")
    parser.add_argument("--out", type=Path, default=RESULTS / "memory", help="page, without its suffix")
    given = parser.parse_args()
    data = attacked(given)
    record(given.out, "# Memory", {SECTION: lines}, SECTION, data, "server and clients on all of them")
    return 0 if data["as_wanted"] else 1


if __name__ == "__main__":
    sys.exit(main())
