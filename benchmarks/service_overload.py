"""Open-loop load: interactive requests beside batches, and five times what can be sustained."""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import perf_counter, sleep
from typing import Any

from reporting.machine import table

from .load import serving
from .load.plan import Plan, Records, Stream, get, post
from .load.running import Running, quantiles_ms, run, summary
from .quoted_panels import QuotedPanels, quoted_panels
from .sections import Measured
from .service_throughput import require_converged
from .sessions import N_PANELS, Cores, apart

DEADLINE_MS = 50.0
LATENCY_MS = 10.0
"""What p99 may be at a rate that is sustained."""
OVERLOAD = 5.0
_WINDOWS = 5
HEALTH_MS = 50.0


def interactive(
    quoted: QuotedPanels,
    rate: float,
    seconds: float,
    *,
    name: str,
    begin: float = 0.0,
    deadline_ms: float | None = None,
) -> Stream:
    headers = {} if deadline_ms is None else {"x_request_deadline_ms": f"{deadline_ms:g}"}
    return Stream(
        name=name,
        rate=rate,
        seconds=seconds,
        begin=begin,
        requests=tuple(post("/v1/calibrate", body, **headers) for body in quoted.bodies()),
        connections=1024,
    )


def mixed(given: argparse.Namespace) -> Measured:
    """Windows in which batches come one after the other, and before each the same requests without any."""
    everywhere = tuple(sorted(os.sched_getaffinity(0)))[:2]
    quoted = quoted_panels(N_PANELS, given.noise_bp)
    body = json.dumps({"panels": [quoted.request(i) for i in range(given.panels)]}).encode()
    windows = []
    with (
        serving.service(everywhere, networks=given.networks, audit_share=given.audit_share) as server,
        serving.pinned(everywhere),
    ):
        server.wait_until_answering()

        def offered(name: str) -> dict[str, Any]:
            stream = interactive(quoted, given.rate, given.seconds, name=name)
            return summary(run(Plan(ports=(server.port,), streams=(stream,))), given.seconds)

        for _ in range(_WINDOWS):
            alone = offered("alone")
            with _Batches(server, body, given.panels) as batches:
                sleep(min(2.0, given.seconds))
                beside = offered("beside batches")
            windows.append({"batch_seconds": batches.seconds, "alone": alone, "beside": beside})
            print(f"alone {alone['latency_ms']}, beside {beside['latency_ms']}", flush=True)
        audits = sum(server.metric(f'calibrant_audits_total{{model="heston",outcome="{x}"}}') for x in AUDITED)
    data = {
        "panels": given.panels,
        "noise_bp": given.noise_bp,
        "audit_share": given.audit_share,
        "audits": audits,
        "rate": given.rate,
        "seconds": given.seconds,
        "windows": windows,
    }
    return Measured(data, f"server and client on cores {', '.join(map(str, everywhere))}")


class _Batches:
    """Batches one after the other for as long as a `with` statement lasts, and until the last of them is done."""

    def __init__(self, server: serving.Serving, body: bytes, n_panels: int) -> None:
        self.seconds: list[float] = []
        self._server, self._body, self._n_panels = server, body, n_panels
        self._answers: list[tuple[int, bytes]] = []
        self._stop = Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "_Batches":
        self._sending = self._pool.submit(self._send)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._sending.result()
        # Not while others are timed: it takes a core for 0.2 s.
        for status, answer in self._answers:
            require_converged(status, answer, "application/json", self._n_panels)

    def _send(self) -> None:
        while not self._stop.is_set():
            began = perf_counter()
            self._answers.append(self._server.ask("POST", "/v1/calibrate/batch", self._body))
            self.seconds.append(perf_counter() - began)


AUDITED = ("confirmed", "better_found")


def mixed_lines(data: dict[str, Any]) -> list[str]:
    windows = data["windows"]
    rows = {f"{i}, {how}": window[how] for i, window in enumerate(windows, 1) for how in ("alone", "beside")}
    seconds = [x for window in windows for x in window["batch_seconds"]]
    return [
        "## Interactive requests while batches run",
        f"{data['rate']:g} interactive requests a second, open loop, in windows of {data['seconds']:g} s: alone, and "
        f"beside batches of {data['panels']} panels that come one after the other ({min(seconds):.1f} to "
        f"{max(seconds):.1f} s each). A share of {data['audit_share']:g} of all answers audited "
        f"({data['audits']:.0f} finished). Milliseconds. Wanted beside batches: every one answered, p99 at most 10. "
        "What the requests take alone is what the machine leaves them at that time.",
        "",
        *outcome_table(rows),
    ]


def outcome_table(summaries: dict[str, dict[str, Any]]) -> list[str]:
    """Requests and what became of them; latencies are those of the answers 200, from when they were due."""
    rows = []
    for name, each in summaries.items():
        refused = sum(x["count"] for x in each["refusals"].values())
        ms = each["latency_ms"]
        rows.append(
            [
                name + (" (VOID)" if each["void"] else ""),
                f"{each['offered_per_s']:.0f}",
                f"{each['achieved_per_s']:.0f}",
                str(each["requests"]),
                str(each["answered"]),
                str(each["answered_in_time"]),
                str(refused),
                str(sum(each["failed"].values()) + each["unsent"]),
                *(f"{ms[q]:.2f}" if ms else "none" for q in ("p50", "p99", "p99.9", "max")),
            ]
        )
    columns = ["requests", "offered/s", "sent/s", "due", "200", "in time", "refused", "failed", "p50", "p99", "p99.9"]
    return table([*columns, "max"], rows)


def probe(server: serving.Serving, quoted: QuotedPanels, rate: float, seconds: float, cores: Cores) -> dict[str, Any]:
    stream = interactive(quoted, rate, seconds, name="probe", deadline_ms=DEADLINE_MS)
    records = run(Plan(ports=(server.port,), streams=(stream,)), cores.client)
    return {"rate": rate, **summary(records, seconds, DEADLINE_MS)}


def sustained(found: dict[str, Any]) -> bool:
    whole = found["answered"] == found["requests"] and not found["void"]
    return whole and found["latency_ms"]["p99"] <= LATENCY_MS


def sustainable_rate(
    server: serving.Serving, quoted: QuotedPanels, seconds: float, cores: Cores, first: float
) -> tuple[float, list[dict[str, Any]]]:
    """The highest rate found with p99 within the limit and every request answered, by doubling, then by halving."""
    probes: list[dict[str, Any]] = []

    def good(rate: float) -> bool:
        # Twice before it is given up: a machine that stops for a moment is no limit of the service.
        for _ in range(2):
            probes.append(probe(server, quoted, rate, seconds, cores))
            fine = sustained(probes[-1])
            print(f"{rate:.0f}/s: {'sustained' if fine else 'not sustained'}, {probes[-1]['latency_ms']}", flush=True)
            if fine:
                return True
        return False

    low, high = 0.0, first
    while good(high):
        low, high = high, 2.0 * high
    while low == 0.0:
        high /= 2.0
        if high < 1.0:
            raise RuntimeError("Not even one request a second is sustained.")
        if good(high):
            low, high = high, 2.0 * high
    while high > 1.08 * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if good(middle) else (low, middle)
    return low, probes


def overload(given: argparse.Namespace) -> Measured:
    cores = apart()
    quoted = quoted_panels(N_PANELS, given.noise_bp)
    seconds, tail = given.seconds, min(5.0, given.seconds)
    memory: list[tuple[float, float]] = []
    with serving.service(cores.server, networks=given.networks) as server, serving.pinned(cores.client):
        server.wait_until_answering()
        if given.sustainable is None:
            rate, probes = sustainable_rate(server, quoted, given.probe_seconds, cores, given.rate)
        else:
            rate = given.sustainable
            probes = [probe(server, quoted, rate, given.probe_seconds, cores)]
        health = Stream(
            name="health", rate=10.0, seconds=seconds, requests=(get("/health/live"),), connections=16, arrivals="even"
        )
        plan = Plan(
            ports=(server.port,),
            streams=(
                interactive(quoted, OVERLOAD * rate, seconds, name="overload", deadline_ms=DEADLINE_MS),
                health,
                interactive(quoted, 0.9 * rate, tail, name="after", begin=seconds, deadline_ms=DEADLINE_MS),
            ),
        )
        running = Running(plan, cores.client)
        for second in range(int(seconds) + 1):
            sleep(running.at(second))
            memory.append((second, server.resident_mb()))
        records = running.result()
    return Measured(overload_data(records, rate, probes, memory, given, tail), cores.use)


def overload_data(
    records: Records,
    rate: float,
    probes: list[dict[str, Any]],
    memory: list[tuple[float, float]],
    given: argparse.Namespace,
    tail: float,
) -> dict[str, Any]:
    seconds = given.seconds
    health = records.of(1)
    first = min(10.0, seconds / 6.0)
    settled = [mb for second, mb in memory if second >= first]
    return {
        "noise_bp": given.noise_bp,
        "probe_seconds": given.probe_seconds,
        "sustainable_per_s": rate,
        "searched": given.sustainable is None,
        "probes": [{name: value for name, value in each.items() if name != "hdr_us"} for each in probes],
        "seconds": seconds,
        "overload": summary(records.of(0), seconds, DEADLINE_MS),
        "health": {**summary(health, seconds, HEALTH_MS), "latency_ms": quantiles_ms(health.latency[health.done > 0])},
        "first_second_after": summary(records.of(2, seconds, seconds + 1.0), 1.0, DEADLINE_MS),
        "after_a_second": summary(records.of(2, seconds + 1.0), max(tail - 1.0, 1e-9), DEADLINE_MS),
        "memory_mb": memory,
        "memory_from_s": first,
        "memory_growth_mb": settled[-1] - settled[0],
    }


def overload_lines(data: dict[str, Any]) -> list[str]:
    over = data["overload"]
    share = over["answered_in_time"] / data["seconds"] / data["sustainable_per_s"]
    refusals = [
        [
            code,
            str(each["count"]),
            str(each["with_retry_after"]),
            *(f"{each['latency_ms'][q]:.2f}" for q in ("p50", "p99")),
        ]
        for code, each in over["refusals"].items()
    ]
    streams = {
        "the sustainable rate": next(x for x in reversed(data["probes"]) if x["rate"] == data["sustainable_per_s"]),
        f"{OVERLOAD:g} times as much": over,
        "health": data["health"],
        "first second after": data["first_second_after"],
        "after that second": data["after_a_second"],
    }
    how = "the highest found" if data["searched"] else "taken as given, not the highest found"
    return [
        "## Overload",
        f"The sustainable rate is {how} with p99 at most {LATENCY_MS:g} ms and every request answered, in runs of "
        f"{data['probe_seconds']:g} s: {data['sustainable_per_s']:.0f} a second. Then {OVERLOAD:g} times as many for "
        f"{data['seconds']:g} s, Poisson arrivals, deadline {DEADLINE_MS:g} ms sent with each; in time means within it "
        f"from when the request was due (health: within {HEALTH_MS:g} ms). Afterwards 0.9 of the sustainable "
        "rate. Milliseconds.",
        "",
        *outcome_table(streams),
        "",
        f"Answered in time under overload: {100.0 * share:.0f} % of the sustainable rate (wanted: 40). Memory grew by "
        f"{data['memory_growth_mb']:.1f} MB from second {data['memory_from_s']:g} to second {data['seconds']:g} "
        "(wanted: less than 20).",
        "",
        *(table(["refusal", "count", "with Retry-After", "p50", "p99"], refusals) if refusals else ["No refusals."]),
    ]
