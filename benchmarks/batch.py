"""Panels a second through `/v1/calibrate/batch`, refined and with both diagnostics, by format and by cores.

    python -m benchmarks.batch [--panels N] [--repeats N] [--cores N ...] [--out PATH]

The service runs as a process of its own, kept to as many cores as the row says; the client waits on another meanwhile.
Panels are the paper's: 80 quotes, noise of 0.5 bp, 5 % missing. The best of the repeats counts, since whatever else the
machine does only adds to a time.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import pyarrow
import pyarrow.ipc

from reporting.machine import RESULTS, describe_machine, table, write_report

from . import paper_box
from .load.arrow import arrow_stream, quote_table
from .load.serving import service
from .paper_panels import noisy_panels

SEED = 201
PATH = "/v1/calibrate/batch"
STAGES = ("decode", "network", "refine", "diagnostics")


class Run(NamedTuple):
    """One format on so many cores."""

    panels_per_second: float
    megabytes: float
    """Of the request's body."""
    stages_us: dict[str, float]
    """Mean per panel; none where the answer does not say it."""


class Format(NamedTuple):
    """How the panels are sent and what their answer is in."""

    name: str
    media_type: str
    accept: str
    encode: Callable[[list[dict[str, Any]]], bytes]
    statuses: Callable[[bytes], list[str]]
    stages: Callable[[bytes], dict[str, float]]


def _mean_stages(results: list[dict[str, Any]]) -> dict[str, float]:
    return {stage: float(np.mean([result["timing_us"][stage] for result in results])) for stage in STAGES}


def _of_json(content: bytes) -> Any:
    return json.loads(content)["results"]


def _of_msgpack(content: bytes) -> Any:
    return msgspec.msgpack.decode(content)["results"]


def _of_lines(content: bytes) -> Any:
    return [json.loads(line) for line in content.splitlines()]


def _documents(name: str, sent: str, accept: str, encode: Any, decode: Callable[[bytes], Any]) -> Format:
    return Format(
        name,
        sent,
        accept,
        lambda panels: encode({"panels": panels}),
        lambda content: [result["status"] for result in decode(content)],
        lambda content: _mean_stages(decode(content)),
    )


def _arrow_statuses(content: bytes) -> list[str]:
    statuses: list[str] = pyarrow.ipc.open_stream(content).read_all().column("status").to_pylist()
    return statuses


def _to_json(body: Any) -> bytes:
    return json.dumps(body).encode()


JSON, MSGPACK, ARROW = "application/json", "application/msgpack", "application/vnd.apache.arrow.stream"
FORMATS = (
    _documents("JSON", JSON, JSON, _to_json, _of_json),
    _documents("JSON, answered line by line", JSON, "application/x-ndjson", _to_json, _of_lines),
    _documents("MessagePack", MSGPACK, MSGPACK, msgspec.msgpack.encode, _of_msgpack),
    Format(
        "Arrow",
        ARROW,
        ARROW,
        lambda panels: arrow_stream(quote_table({i: panel["quotes"] for i, panel in enumerate(panels)})),
        _arrow_statuses,
        lambda _: {},
    ),
)


def requests(n: int) -> list[dict[str, Any]]:
    """Panels as a client sends them: every node of the grid, null where the quote is missing."""
    bodies = []
    for sample in noisy_panels(n, SEED):
        iv = np.full(paper_box.EXPIRY.size, np.nan)
        iv[sample.panel.index] = sample.panel.mid
        quotes = {"expiry": paper_box.EXPIRY.tolist(), "log_moneyness": paper_box.LOG_MONEYNESS.tolist()}
        bodies.append({"quotes": {**quotes, "iv": [None if np.isnan(vol) else vol for vol in iv.tolist()]}})
    return bodies


def measure(panels: list[dict[str, Any]], cores: int, repeats: int) -> dict[str, Run]:
    """Every format, with the service on the first so many cores of those that this process may use."""
    with service(sorted(os.sched_getaffinity(0))[:cores]) as server:
        server.wait_until_answering()
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=600.0) as http:
            return {kind.name: _best(http, kind, panels, repeats) for kind in FORMATS}


def _best(http: httpx.Client, kind: Format, panels: list[dict[str, Any]], repeats: int) -> Run:
    body = kind.encode(panels)
    headers = {"content-type": kind.media_type, "accept": kind.accept}
    best, content = float("inf"), b""
    for _ in range(repeats):
        began = perf_counter()
        response = http.post(PATH, content=body, headers=headers)
        seconds = perf_counter() - began
        if response.status_code != 200:
            raise RuntimeError(f"{kind.name} got {response.status_code}: {response.text[:500]}")
        if seconds < best:
            best, content = seconds, response.content
    statuses = kind.statuses(content)
    failed = [status for status in statuses if status != "converged"]
    if len(statuses) != len(panels) or failed:
        raise RuntimeError(
            f"{kind.name} answered {len(statuses)} of {len(panels)} panels, {len(failed)} not converged."
        )
    return Run(len(panels) / best, len(body) / 1e6, kind.stages(content))


def report(runs: dict[int, dict[str, Run]], n_panels: int, repeats: int) -> list[str]:
    rows = [
        [
            name,
            str(cores),
            f"{run.panels_per_second:.0f}",
            f"{run.megabytes:.1f}",
            *(f"{run.stages_us[stage]:.0f}" if run.stages_us else "" for stage in STAGES),
        ]
        for cores, by_name in runs.items()
        for name, run in by_name.items()
    ]
    return [
        "# Batches",
        "",
        f"{n_panels} panels of 80 quotes in one request to `{PATH}`, refined (`lm`), with both diagnostics; best of "
        f"{repeats}. `python -m benchmarks.batch`, seed {SEED}.",
        "",
        describe_machine("onnxruntime", "pydantic", "msgspec", "pyarrow"),
        "",
        *table(("format", "cores of the service", "panels a second", "MB sent", *(f"{s}, us" for s in STAGES)), rows),
        "",
        "Microseconds are means per panel, of the panel itself: with two cores two panels are refined at a time.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "batch.md")
    given = parser.parse_args()
    panels = requests(given.panels)
    runs = {cores: measure(panels, cores, given.repeats) for cores in given.cores}
    write_report(given.out, report(runs, given.panels, given.repeats))


if __name__ == "__main__":
    main()
