"""Interactive requests beside a long job: windows with a leverage under way, and before and after each one without."""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import sleep
from typing import Any

from reporting.machine import table

from .load import serving
from .load.plan import Plan
from .load.running import run, summary
from .quoted_panels import quoted_panels
from .sections import Measured
from .service_overload import interactive
from .sessions import N_PANELS

_WINDOWS = 5
_ALLOWED = 0.2
"""By how much a job may raise the p99, beyond what two windows without one differ by."""
_WHEN = ("before", "beside", "after")
_LEVERAGE = {
    "surface": {
        "kind": "ssvi",
        "spot": 1.1,
        "domestic_rate": 0.02,
        "foreign_rate": 0.01,
        "parameters": {
            "s0": 0.08,
            "sinf": 0.1,
            "b": 1.5,
            "r0": -0.1,
            "rinf": -0.3,
            "a": 1.0,
            "eta": 1.2,
            "gam": 0.5,
            "th0": 0.01,
        },
    },
    "maturity": 5.0,
    "n_particles": 1_000_000,
}
"""One that takes a core for half a minute at least."""


def jobs(given: argparse.Namespace) -> Measured:
    everywhere = tuple(sorted(os.sched_getaffinity(0)))[:2]
    quoted = quoted_panels(N_PANELS, given.noise_bp)
    windows = []
    with serving.service(everywhere, networks=given.networks) as server, serving.pinned(everywhere):
        server.wait_until_answering()

        def offered(name: str) -> dict[str, Any]:
            stream = interactive(quoted, given.rate, given.seconds, name=name)
            return summary(run(Plan(ports=(server.port,), streams=(stream,))), given.seconds)

        # Begun and cancelled once, so that nothing is cold in the first window.
        with _running(server):
            sleep(1.0)
        for _ in range(_WINDOWS):
            window = {"before": offered("before")}
            with _running(server) as job:
                window["beside"] = offered("beside")
                state = json.loads(server.ask("GET", job)[1])
            windows.append({**window, "after": offered("after"), "progress": state["progress"]})
            if state["state"] != "running":
                raise RuntimeError(f"The job was {state['state']} before the window ended: give it more to do.")
            print(
                {name: window["latency_ms"].get("p99") for name, window in windows[-1].items() if name in _WHEN},
                flush=True,
            )
    p99 = {name: median(window[name]["latency_ms"]["p99"] for window in windows) for name in _WHEN}
    data = {
        "rate": given.rate,
        "seconds": given.seconds,
        "noise_bp": given.noise_bp,
        "request": _LEVERAGE,
        "windows": windows,
        "p99_ms": p99,
        "moved": p99["beside"] / p99["before"] - 1.0,
        "differ": abs(p99["after"] / p99["before"] - 1.0),
    }
    return Measured(data, f"server and client on cores {', '.join(map(str, everywhere))}")


@contextmanager
def _running(server: serving.Serving) -> Iterator[str]:
    """The path of a job that is under way while a `with` statement lasts, and cancelled then."""
    status, answer = server.ask("POST", "/v1/leverage", json.dumps(_LEVERAGE).encode(), prefer="respond-async")
    if status != 202:
        raise RuntimeError(f"The leverage was not begun: {answer.decode()}")
    path = f"/v1/jobs/{json.loads(answer)['id']}"
    server.until(lambda: json.loads(server.ask("GET", path)[1])["progress"] > 0.0)
    try:
        yield path
    finally:
        server.ask("DELETE", path)


def jobs_lines(data: dict[str, Any]) -> list[str]:
    rows = [
        [str(i + 1), *(f"{window[name]['latency_ms'][q]:.2f}" for name in _WHEN for q in ("p50", "p99"))]
        for i, window in enumerate(data["windows"])
    ]
    p99, moved, differ = data["p99_ms"], data["moved"], data["differ"]
    met = "met" if moved <= _ALLOWED + differ else "not met"
    return [
        "## Interactive requests beside a leverage",
        f"{data['rate']:g} requests a second, {len(data['windows'])} times three windows of {data['seconds']:g} s: "
        f"before, beside and after a leverage of {data['request']['n_particles']:,} particles that runs all the while. "
        f"Medians of the p99: {p99['before']:.2f}, {p99['beside']:.2f} and {p99['after']:.2f} ms; the job moved it by "
        f"{100 * moved:+.1f} %, two windows without it differ by {100 * differ:.1f} %. Wanted: at most "
        f"{100 * _ALLOWED:g} % beyond that, {met}. Milliseconds.",
        "",
        *table(["window", *(f"{name}, {q}" for name in _WHEN for q in ("p50", "p99"))], rows),
    ]
