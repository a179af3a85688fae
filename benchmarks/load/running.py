"""A load run in processes of its own, and what it comes to.

Every request has a time at which it is due, drawn before the first is sent, and its latency counts from then, whenever
it could be sent: a server that stalls cannot slow down the questions about it (Tene's coordinated omission). How many
of the requests could be sent in time is counted: below 95 % the run says nothing of the server and is void.

Its loop is `generator`; several processes share a rate.
"""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import IO, Any

import numpy as np
from hdrh.histogram import HdrHistogram

from calibrant.arrays import Vector
from reporting.machine import ROOT

from .generator import READY
from .plan import ANSWERED, FAILED, HELD, UNSENT, Plan, Records

LEAST_SENT = 0.95
"""Share of the offered rate below which a run is void."""
_LATE = 0.05
"""Seconds after the last request was due by which a request must have left to count as sent in time."""
_QUANTILES = (50.0, 90.0, 99.0, 99.9)


class Running:
    """A run in processes of its own, which import no more than this module."""

    def __init__(self, plan: Plan, cores: Sequence[int] = (), processes: int = 1) -> None:
        self._processes = []
        for i in range(processes):
            process = subprocess.Popen(
                [sys.executable, "-c", "from benchmarks.load.generator import work; work()"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._processes.append(process)
            _pipe(process.stdin).write(pickle.dumps((_share(plan, i, processes), tuple(cores))))
            _pipe(process.stdin).flush()
        for process in self._processes:
            if _pipe(process.stdout).readline() != READY:
                raise RuntimeError("The generator did not start.")
        for process in self._processes:
            _pipe(process.stdin).close()
        self.started = perf_counter()

    def at(self, seconds: float) -> float:
        """Seconds from now until so many after the start."""
        return max(self.started + seconds - perf_counter(), 0.0)

    def result(self) -> Records:
        """Wait for the end."""
        records = []
        for process in self._processes:
            with _pipe(process.stdout) as answer:
                records.append(pickle.loads(answer.read()))
            process.wait()
        return _joined(records)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def run(plan: Plan, cores: Sequence[int] = (), processes: int = 1) -> Records:
    return Running(plan, cores, processes).result()


def _share(plan: Plan, i: int, n: int) -> Plan:
    if n == 1:
        return plan
    streams = tuple(replace(s, rate=s.rate / n, connections=max(s.connections // n, 1)) for s in plan.streams)
    return replace(plan, streams=streams, seed=plan.seed + 1000 * i)


def _joined(parts: Sequence[Records]) -> Records:
    outcomes = tuple(dict.fromkeys(outcome for part in parts for outcome in part.outcomes))
    numbered = [np.array([outcomes.index(outcome) for outcome in part.outcomes])[part.outcome] for part in parts]
    return Records(
        stream=np.concatenate([part.stream for part in parts]),
        due=np.concatenate([part.due for part in parts]),
        sent=np.concatenate([part.sent for part in parts]),
        done=np.concatenate([part.done for part in parts]),
        outcome=np.concatenate(numbered),
        retry_after=np.concatenate([part.retry_after for part in parts]),
        outcomes=outcomes,
    )


# What it comes to -----------------------------------------------------------------------------------------------------


def histogram(seconds: Vector) -> HdrHistogram:
    """Microseconds up to two minutes, to three digits."""
    recorded = HdrHistogram(1, 120_000_000, 3)
    for value in np.maximum(np.rint(1e6 * seconds), 1.0).astype(int).tolist():
        recorded.record_value(value)
    return recorded


def quantiles_ms(seconds: Vector) -> dict[str, float]:
    """p50 to p99.9 and the largest, of no values none."""
    if not seconds.size:
        return {}
    recorded = histogram(seconds)
    found = {f"p{q:g}": recorded.get_value_at_percentile(q) / 1e3 for q in _QUANTILES}
    return {**found, "max": recorded.get_max_value() / 1e3}


def summary(records: Records, seconds: float, deadline_ms: float | None = None) -> dict[str, Any]:
    """Of the requests of one stream over so many seconds: plain numbers, ready for JSON."""
    n = int(records.due.size)
    end = records.due.max(initial=0.0) + _LATE
    sent = int((records.sent <= end).sum()) + records.count(HELD)
    answered = records.where(ANSWERED)
    in_time = answered if deadline_ms is None else answered & (records.latency <= 1e-3 * deadline_ms)
    refusals = {}
    for outcome in records.outcomes:
        if outcome not in (ANSWERED, HELD, UNSENT, *FAILED) and records.count(outcome):
            mine = records.where(outcome)
            refusals[outcome] = {
                "count": int(mine.sum()),
                "with_retry_after": int(records.retry_after[mine].sum()),
                "latency_ms": quantiles_ms(records.latency[mine]),
            }
    lag = (records.sent - records.due)[np.isfinite(records.sent)]
    return {
        "requests": n,
        "offered_per_s": n / seconds,
        "achieved_per_s": sent / seconds,
        "void": bool(n) and sent < LEAST_SENT * n,
        "send_lag_ms": quantiles_ms(lag),
        "answered": int(answered.sum()),
        "answered_in_time": int(in_time.sum()),
        "latency_ms": quantiles_ms(records.latency[answered]),
        "refusals": refusals,
        "failed": {outcome: records.count(outcome) for outcome in FAILED if records.count(outcome)},
        "held": records.count(HELD),
        "unsent": records.count(UNSENT),
        "hdr_us": histogram(records.latency[answered]).encode().decode() if answered.any() else None,
    }
