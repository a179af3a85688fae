"""Panels a second: in process, and through the batch endpoint."""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import msgspec
import numpy as np

from calibrant.calibration import calibrate
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel
from calibrant.pipeline import assess, begin_all, starting_from
from calibrant.release import Release, released
from calibrant.steps import finish, in_one_step
from reporting.machine import table
from service.batches.crew import Crew
from service.scheduler import SWITCH_INTERVAL

from .load import serving
from .load.plan import post
from .odd_panels import svi_quotes
from .quoted_panels import quoted_panels
from .sections import Measured
from .sessions import N_PANELS, Session, apart

_PART = 64
"""Panels that a thread takes at a time."""
_RUNS = 10
_ROUNDS = 4


class Speed(NamedTuple):
    per_s: float
    per_cpu_s: float
    """By the processor time of the process: what it would be if nothing else ran."""


def _refined(cores: tuple[int, ...], seconds: float, networks: Path, noise_bp: float) -> Speed:
    """Network + refinement in a process of its own: threads that share the panels in parts, as those of a batch do."""
    os.sched_setaffinity(0, cores)
    sys.setswitchinterval(SWITCH_INTERVAL)
    release = released(networks, HESTON.name)
    panels = quoted_panels(N_PANELS * 4, noise_bp).panels()
    crew = Crew(len(cores))
    parts = [panels[i : i + _PART] for i in range(0, len(panels), _PART)]

    def converged_of(i: int) -> int:
        part = parts[i % len(parts)]
        begun = begin_all(part, HESTON, release, [CalibrationOptions()] * len(part), [None] * len(part))
        ended = [
            calibrate(panel, HESTON, starting_from(of_panel.proposals), begun=of_panel.fit).status
            for panel, of_panel in zip(part, begun, strict=True)
        ]
        return ended.count("converged")

    def shared(n: int) -> int:
        return sum(finish(crew.share(lambda i: in_one_step(partial(converged_of, i)), n)))

    shared(len(parts))
    began, began_cpu, done, converged = perf_counter(), process_time(), 0, 0
    # Several times all panels at once: at the end the threads wait for the last of them.
    while perf_counter() < began + seconds:
        converged += shared(_ROUNDS * len(parts))
        done += _ROUNDS * len(panels)
    speed = Speed(done / (perf_counter() - began), done / (process_time() - began_cpu))
    crew.stop()
    if converged < 0.9 * done:
        raise RuntimeError(f"Only {converged} of {done} panels converged.")
    return speed


def throughput(given: argparse.Namespace) -> Measured:
    """Many short runs, one and two cores in turn, so that both see the same machine."""
    cores = tuple(sorted(os.sched_getaffinity(0)))[:2]
    quoted_panels(N_PANELS * 4, given.noise_bp)
    rates: dict[int, list[Speed]] = {n: [] for n in range(1, len(cores) + 1)}
    context = multiprocessing.get_context("spawn")
    for _ in range(_RUNS):
        for n, found in rates.items():
            with context.Pool(1) as pool:
                asked = cores[:n], given.seconds / _RUNS, given.networks, given.noise_bp
                found.append(pool.apply(_refined, asked))
            print(f"{n} core(s): {found[-1]}", flush=True)
    runs = {str(n): [speed._asdict() for speed in speeds] for n, speeds in rates.items()}
    data = {"seconds": given.seconds, "noise_bp": given.noise_bp, "runs": runs}
    return Measured(data, f"cores {', '.join(map(str, cores))} used")


def throughput_lines(data: dict[str, Any]) -> list[str]:
    found = {n: [speed["per_s"] for speed in speeds] for n, speeds in data["runs"].items()}
    best, median = ({n: float(of(rates)) for n, rates in found.items()} for of in (np.max, np.median))
    rows = [
        [
            n,
            f"{best[n]:.0f}",
            f"{best[n] / best['1']:.2f}",
            f"{median[n]:.0f}",
            f"{median[n] / median['1']:.2f}",
            ", ".join(f"{rate:.0f}" for rate in found[n]),
            f"{max(speed['per_cpu_s'] for speed in speeds):.0f}",
        ]
        for n, speeds in data["runs"].items()
    ]
    return [
        "## Throughput in process",
        f"Network + refinement of panels of 80 quotes, {data['noise_bp']:g} bp of noise, by a thread a core that takes "
        f"{_PART} panels at a time. Panels a second, one and two cores in turn. Wanted: 2,000 on one core, 1.8 times "
        "that on two.",
        "",
        *table(
            ["cores", "best", "times one core", "median", "times one core", "runs", "a second of processor time"], rows
        ),
    ]


def batch(given: argparse.Namespace) -> Measured:
    cores = apart()
    quoted = quoted_panels(N_PANELS, given.noise_bp)
    document = {"panels": [quoted.request(i) for i in range(given.panels)]}
    bodies = {
        "application/json": json.dumps(document).encode(),
        "application/msgpack": msgspec.msgpack.encode(document),
    }
    runs: dict[str, list[float]] = {media_type: [] for media_type in bodies}
    with serving.service(cores.server, networks=given.networks) as server, serving.pinned(cores.client):
        server.wait_until_answering()
        for media_type, body in bodies.items():
            end = perf_counter() + given.seconds
            while perf_counter() < end or len(runs[media_type]) < 2:
                began = perf_counter()
                headers = {"content_type": media_type, "accept": media_type}
                status, answer = server.ask("POST", "/v1/calibrate/batch", body, **headers)
                seconds = perf_counter() - began
                require_converged(status, answer, media_type, given.panels)
                runs[media_type].append(given.panels / seconds)
                print(f"{media_type}: {runs[media_type][-1]:.0f} panels/s", flush=True)
    data = {"panels": given.panels, "noise_bp": given.noise_bp, "per_s": runs}
    return Measured(data, cores.use)


def require_converged(status: int, answer: bytes, media_type: str, n: int) -> None:
    decode = json.loads if media_type == "application/json" else msgspec.msgpack.decode
    document = decode(answer)
    if status != 200:
        raise RuntimeError(f"HTTP {status}: {document}")
    statuses = [result.get("status") for result in document["results"]]
    if len(statuses) != n or statuses.count("converged") < 0.9 * n:
        raise RuntimeError(f"Of {n} panels {statuses.count('converged')} converged.")


def batch_lines(data: dict[str, Any]) -> list[str]:
    rows = [
        [media_type, f"{max(rates):.0f}", f"{np.median(rates):.0f}", f"{min(rates):.0f}", str(len(rates))]
        for media_type, rates in data["per_s"].items()
    ]
    return [
        "## Batch endpoint",
        f"`/v1/calibrate/batch` with {data['panels']} panels of 80 quotes, {data['noise_bp']:g} bp of noise, refined, "
        "both diagnostics, one request after the other. Panels a second, first byte sent to last received. "
        "Wanted: 1,000 on one core.",
        "",
        *table(["format", "best", "median", "worst", "batches"], rows),
    ]


_CONNECTIONS = 8
_TURNS = 10
"""Windows of each kind of panel."""
_MISFIT_SEED = 43
_LEAST_BP, _MOST_BP = 23.0, 83.0
_EXPIRIES, _STRIKES = 8, 10
_TICKS = os.sysconf("SC_CLK_TCK")


def _misfits(n: int, release: Release) -> Iterator[bytes]:
    """Requests of so many panels of 80 quotes which Heston misses by about what it misses on real smiles."""
    rng = np.random.default_rng(_MISFIT_SEED)
    while n > 0:
        expiry = np.sort(np.exp(rng.uniform(np.log(0.05), np.log(2.0), _EXPIRIES)))
        t, k, vol = svi_quotes(rng, expiry, _STRIKES)
        found = assess(OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=vol), HESTON, release).calibration
        if found.n_quotes == t.size and _LEAST_BP <= found.rmse_bp <= _MOST_BP:
            n -= 1
            quotes = {"expiry": t.tolist(), "log_moneyness": k.tolist(), "iv": vol.tolist()}
            yield json.dumps({"quotes": quotes}).encode()


def _processor_seconds(pids: Sequence[int]) -> float:
    """That processes have taken so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / _TICKS


def misfit(given: argparse.Namespace) -> Measured:
    """A few connections as fast as they are answered, panels of one kind and of the other in turn."""
    cores = apart()
    bodies = {
        "Heston": quoted_panels(N_PANELS, given.noise_bp).bodies(),
        "SVI-like": list(_misfits(N_PANELS, released(given.networks, HESTON.name))),
    }
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in bodies}
    seconds = given.seconds / _TURNS

    def answered(port: int, requests: Sequence[bytes], first: int, end: float) -> int:
        n = 0
        with Session(port) as session:
            while perf_counter() < end:
                head = session.exchange(requests[(first + n) % len(requests)]).head
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise RuntimeError(head.decode(errors="replace"))
                n += 1
        return n

    with serving.service(cores.server, networks=given.networks) as server, serving.pinned(cores.client):
        server.wait_until_answering()
        for i in range(_TURNS + 1):
            for kind, of_kind in bodies.items():
                requests = [post("/v1/calibrate", body) for body in of_kind]
                began, began_cpu = perf_counter(), _processor_seconds(server.workers())
                with ThreadPoolExecutor(_CONNECTIONS) as pool:
                    asking = [
                        pool.submit(answered, server.port, requests, 8 * j, began + seconds)
                        for j in range(_CONNECTIONS)
                    ]
                    n = sum(each.result() for each in asking)
                cpu = _processor_seconds(server.workers()) - began_cpu
                # The first of each kind warms up.
                if i:
                    runs[kind].append({"per_s": n / (perf_counter() - began), "cpu_ms": 1e3 * cpu / n})
    data = {"seconds": given.seconds, "noise_bp": given.noise_bp, "runs": runs}
    return Measured(data, cores.use)


def misfit_lines(data: dict[str, Any]) -> list[str]:
    found = {
        kind: {name: np.array([run[name] for run in runs]) for name in ("per_s", "cpu_ms")}
        for kind, runs in data["runs"].items()
    }
    heston = found["Heston"]
    rows = [
        [
            kind,
            f"{np.median(each['per_s']):.0f}",
            f"{each['per_s'].max():.0f}",
            f"{np.median(each['per_s'] / heston['per_s']):.2f}",
            f"{np.median(each['cpu_ms']):.2f}",
            f"{np.median(heston['cpu_ms'] / each['cpu_ms']):.2f}",
        ]
        for kind, each in found.items()
    ]
    return [
        "## Panels that Heston fits and panels that it does not",
        f"`/v1/calibrate` over {_CONNECTIONS} connections as fast as they are answered, {N_PANELS} panels of 80 quotes "
        f"of each kind: Heston's on the paper's grid with {data['noise_bp']:g} bp of noise, and of SVI-like surfaces "
        f"with expiries and strikes of their own, which Heston misses by {_LEAST_BP:g} to {_MOST_BP:g} bp. Windows of "
        f"{data['seconds'] / _TURNS:g} s in turn, ratios within each turn; processor time is that of all processes of "
        "the service. Wanted: a third of the rate.",
        "",
        *table(["panels", "a second, median", "best", "of Heston's", "processor ms a request", "of Heston's"], rows),
    ]
