"""Those who wait: many clients at once without deadlines, and small requests beside the slowest ones."""

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from calibrant.models import HESTON
from calibrant.panel import OptionPanel, identifiable
from reporting.machine import table

from .load import serving
from .load.plan import ANSWERED, Plan, Stream, post
from .load.running import quantiles_ms, run, summary
from .market import Quotes, read_panels
from .quoted_panels import quoted_panels
from .sections import Measured
from .service_overload import outcome_table
from .sessions import N_PANELS, Session

CLIENTS = 64
SMALL_MS = 50.0
_SLOWEST = ("slow_*.json", "fixed_*.json")
_CHAIN = "spx_20260731"
_AT_ONCE = 10
_EVERY = 15.0
"""Seconds between two times that the slowest ones come together."""
_WHILE = 60.0
"""Seconds that they are waited for at the end."""
_PATIENCE = 600.0
"""Seconds for one answer, where a run takes minutes."""
_LEAST_SMILE, _LARGEST_SMILE = 20, 300
_MOVED, _ENDED = "calibrant_moved_total", "calibrant_workers_ended_total"


def _smiles(folder: Path) -> Iterator[Quotes]:
    """One-expiry panels: each expiry of a market panel that has some quotes, and enough of them that say something."""
    for panel in read_panels(folder):
        quotes = panel.quotes
        for expiry in sorted({t for t in quotes["expiry"] if t is not None}):
            rows = [i for i, t in enumerate(quotes["expiry"]) if t == expiry]
            if not _LEAST_SMILE <= len(rows) <= _LARGEST_SMILE:
                continue
            smile: Quotes = {name: [column[i] for i in rows] for name, column in quotes.items()}
            if identifiable(OptionPanel.from_quotes(**smile)).n_quotes >= HESTON.n_params:
                yield smile


def _everywhere() -> tuple[tuple[int, ...], str]:
    cores = tuple(sorted(os.sched_getaffinity(0)))[:2]
    return cores, f"server and client on cores {', '.join(map(str, cores))}"


def crowd(given: argparse.Namespace) -> Measured:
    """Clients that each send one request after the other."""
    cores, use = _everywhere()
    kinds = {
        "ordinary": [post("/v1/calibrate", body) for body in quoted_panels(N_PANELS, given.noise_bp).bodies()],
        "one expiry": [
            post("/v1/calibrate", json.dumps({"quotes": quotes}).encode()) for quotes in _smiles(given.quotes)
        ],
    }
    numbers = count()
    found: list[tuple[str, str, float]] = []

    def send(port: int) -> None:
        with Session(port, _PATIENCE) as session:
            while (i := next(numbers)) < given.requests:
                kind = list(kinds)[i % len(kinds)]
                exchange = session.exchange(kinds[kind][i // len(kinds) % len(kinds[kind])])
                status = exchange.head.split(b" ", 2)[1].decode()
                code = "" if status == "200" else json.loads(exchange.body)["code"]
                found.append((kind, f"{status} {code}".strip(), exchange.seconds))

    with serving.service(cores, networks=given.networks) as server, serving.pinned(cores):
        server.wait_until_answering()
        began = perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            for sending in [pool.submit(send, server.port) for _ in range(CLIENTS)]:
                sending.result()
        seconds = perf_counter() - began
        moved, ended = server.metric(_MOVED), server.metric(_ENDED)
    data = {
        "clients": CLIENTS,
        "seconds": seconds,
        "moved": moved,
        "workers_ended": ended,
        "kinds": {
            kind: {
                "panels": len(requests),
                "statuses": Counter(status for name, status, _ in found if name == kind),
                "latency_ms": quantiles_ms(np.array([s for name, _, s in found if name == kind])),
            }
            for kind, requests in kinds.items()
        },
    }
    return Measured(data, use)


def crowd_lines(data: dict[str, Any]) -> list[str]:
    rows = [
        [
            kind,
            str(each["panels"]),
            ", ".join(f"{n} {status}" for status, n in each["statuses"].items()),
            *(f"{each['latency_ms'][q]:.1f}" for q in ("p50", "p99", "max")),
        ]
        for kind, each in data["kinds"].items()
    ]
    return [
        "## Many clients at once",
        f"{data['clients']} clients, each with one request after the other and none with a deadline, in turn for an "
        "ordinary panel and for one expiry of a market panel. Wanted: none fails. "
        f"{data['moved']:.0f} went on in the background, {data['workers_ended']:.0f} workers ended. Milliseconds.",
        "",
        *table(["panels", "different ones", "answers", "p50", "p99", "max"], rows),
    ]


def _slow_bodies(given: argparse.Namespace) -> dict[str, bytes]:
    """The slowest requests known, by name."""
    bodies: dict[str, bytes] = {}
    for pattern in _SLOWEST:
        for path in sorted(given.cases.glob(pattern)):
            case = json.loads(path.read_text())
            if "request" in case:
                for refine in ("lm", "lbfgs"):
                    bodies[f"{path.stem} {refine}"] = json.dumps({**case["request"], "refine": refine}).encode()
    chain = next(panel for panel in read_panels(given.quotes) if panel.label.startswith(_CHAIN))
    for refine in ("lm", "lbfgs"):
        bodies[f"{_CHAIN} {refine}"] = json.dumps({"quotes": chain.quotes, "refine": refine}).encode()
    return bodies


def slow(given: argparse.Namespace) -> Measured:
    """Ten of the slowest requests together, again and again, and small ones all the time."""
    cores, use = _everywhere()
    slowest = list(_slow_bodies(given).items())
    quoted = quoted_panels(N_PANELS, given.noise_bp)
    small = tuple(post("/v1/calibrate", body) for body in quoted.bodies())
    with serving.service(cores, networks=given.networks, workers=given.workers) as server, serving.pinned(cores):
        server.wait_until_answering()
        server.until(lambda: server.metric("calibrant_ready") == given.workers)
        expected = tuple(serving.parameters_of(server, quoted.bodies()))
        together = [
            Stream(
                name="slowest",
                rate=1000.0 * _AT_ONCE,
                seconds=1e-3,
                begin=begin,
                requests=tuple(
                    post("/v1/calibrate", slowest[(i + n * _AT_ONCE) % len(slowest)][1]) for i in range(_AT_ONCE)
                ),
                arrivals="even",
            )
            for n, begin in enumerate(np.arange(1.0, given.seconds, _EVERY).tolist())
        ]
        steady = Stream(name="small", rate=given.rate, seconds=given.seconds, requests=small, expected=expected)
        records = run(Plan(ports=(server.port,), streams=(steady, *together), after=_WHILE))
        moved, ended = server.metric(_MOVED), server.metric(_ENDED)
    # The slowest ones as one stream.
    records = records._replace(stream=np.minimum(records.stream, 1))
    of_small, of_slow = records.of(0), records.of(1)
    late = of_small.where(ANSWERED) & (of_small.latency > 1e-3 * SMALL_MS)
    data = {
        "rate": given.rate,
        "seconds": given.seconds,
        "workers": given.workers,
        "requests": [name for name, _ in slowest],
        "moved": moved,
        "workers_ended": ended,
        "late": int(late.sum()),
        "small": summary(of_small, given.seconds, SMALL_MS),
        "slowest": summary(of_slow, given.seconds),
    }
    return Measured(data, use)


def slow_lines(data: dict[str, Any]) -> list[str]:
    return [
        "## The slowest requests beside small ones",
        f"{_AT_ONCE} of the slowest requests known ({', '.join(data['requests'])}) sent together every {_EVERY:g} s, "
        f"and {data['rate']:g} small ones a second for {data['seconds']:g} s, {data['workers']} worker(s). Wanted: "
        f"every small one answered within {SMALL_MS:g} ms, no worker ended, nothing lost. {data['late']} small ones "
        f"were answered later; {data['moved']:.0f} requests went on in the background, {data['workers_ended']:.0f} "
        "workers ended. Milliseconds.",
        "",
        *outcome_table({"small": data["small"], "slowest": data["slowest"]}),
    ]
