"""One request after the other over one connection: what takes how long, beside a bare echo, in every format."""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import to_json

from calibrant.arrays import Vector
from calibrant.client import Client
from calibrant.client.codecs import JSON, MSGPACK
from calibrant.client.requests import calibration_document
from reporting.machine import table

from .load import serving
from .load.plan import post
from .quoted_panels import quoted_panels
from .sections import Measured
from .sessions import N_PANELS, Exchange, Session, apart, at, pace, stage_ms, window

COMPUTE = ("decode", "network", "refine", "diagnostics", "encode")
STAGES = ("decode", "queue", "network", "refine", "diagnostics", "encode")
WINDOWS = 5
_PACE = 1.0
"""Seconds on either side of a window."""


class Window(NamedTuple):
    """What a window came to, milliseconds."""

    stages: dict[str, Vector]
    network_us: Vector
    """Of `timing_us` in the body."""
    round_trip: Vector

    @property
    def compute(self) -> Vector:
        """All that is done for an answer, the queue not counted."""
        total: Vector = np.sum([self.stages[stage] for stage in COMPUTE], axis=0)
        return total


def measured(exchanges: Sequence[Exchange]) -> Window:
    stages = [stage_ms(exchange.head) for exchange in exchanges]
    network = [json.loads(exchange.body)["timing_us"]["network"] for exchange in exchanges]
    return Window(
        stages={name: np.array([each[name] for each in stages]) for name in STAGES},
        network_us=np.array(network),
        round_trip=np.array([1e3 * exchange.seconds for exchange in exchanges]),
    )


def latency(given: argparse.Namespace) -> Measured:
    """Windows of the service, each after one of the echo, over one connection each."""
    cores = apart()
    requests = [post("/v1/calibrate", body) for body in quoted_panels(N_PANELS, given.noise_bp).bodies()]
    windows = []
    with (
        serving.service(cores.server, networks=given.networks) as server,
        serving.echo(cores.server) as mirror,
        serving.pinned(cores.client),
    ):
        server.wait_until_answering()
        mirror.until(lambda: mirror.answers("/"))
        with Session(server.port) as asked, Session(mirror.port) as echoed:
            list(window(asked, requests, min(given.seconds, 2.0)))
            for _ in range(WINDOWS):
                echo_ms = 1e3 * np.array([x.seconds for x in window(echoed, requests, given.seconds / 4.0)])
                before = pace(cores.server[0], _PACE)
                found = measured(list(window(asked, requests, given.seconds)))
                paces = np.concatenate((before, pace(cores.server[0], _PACE)))
                windows.append(
                    {
                        "requests": found.round_trip.size,
                        "compute_ms": at(found.compute, 50, 99),
                        "stages_ms_p50": {name: at(found.stages[name], 50)[0] for name in STAGES},
                        "network_us": at(found.network_us, 50, 99),
                        "round_trip_ms": at(found.round_trip, 50, 99),
                        "echo_ms": at(echo_ms, 50, 99),
                        "pace_us": at(paces, 0, 50),
                    }
                )
                print(windows[-1], flush=True)
    data = {"seconds": given.seconds, "noise_bp": given.noise_bp, "panels": N_PANELS, "windows": windows}
    return Measured(data, cores.use)


def latency_lines(data: dict[str, Any]) -> list[str]:
    best = min(data["windows"], key=lambda each: each["compute_ms"][1])
    alone = min(each["pace_us"][0] for each in data["windows"])
    rows = [
        [
            f"{i + 1}{', the best' if each is best else ''}",
            str(each["requests"]),
            *(f"{ms:.3f}" for ms in each["compute_ms"]),
            f"{each['network_us'][0] / 1e3:.3f}",
            *(f"{ms:.3f}" for ms in each["round_trip_ms"]),
            *(f"{ms:.3f}" for ms in each["echo_ms"]),
            f"{each['round_trip_ms'][0] / each['echo_ms'][0]:.1f}",
            f"{alone / each['pace_us'][1]:.0%}",
        ]
        for i, each in enumerate(data["windows"])
    ]
    columns = ["window", "requests", "compute p50", "p99", "network p50", "round trip p50", "p99", "echo p50", "p99"]
    stages = ", ".join(f"{name} {ms:.3f}" for name, ms in best["stages_ms_p50"].items())
    return [
        "## Latency",
        f"One connection, one request after the other, windows of {data['seconds']:g} s, JSON. {data['panels']} panels "
        f"of 80 quotes in turn, {data['noise_bp']:g} bp of noise, refined, both diagnostics. Milliseconds. Compute is "
        "decode + network + refine + diagnostics + encode, from `Server-Timing`. The echo is a bare ASGI application "
        "under the same server on the same core, asked with the same bytes before each window. Wanted of the best "
        "window: compute p50 at most 1.0 and p99 at most 2, network p50 at most 0.3 (0.5 if accuracy needs it), round "
        "trip p50 at most 15 times the echo's. The last column is how fast the server's core ran a fixed piece of "
        "Python before and after the window, in the median, against its fastest: what a virtual machine's neighbours "
        "leave it.",
        "",
        *table([*columns, "round trip / echo", "core"], rows),
        "",
        f"Medians of the stages in the best window: {stages}.",
    ]


def echo(given: argparse.Namespace) -> Measured:
    cores = apart()
    requests = [post("/", body) for body in quoted_panels(N_PANELS, given.noise_bp).bodies()]
    with serving.echo(cores.server) as mirror, serving.pinned(cores.client):
        mirror.until(lambda: mirror.answers("/"))
        with Session(mirror.port) as session:
            found = [
                at(1e3 * np.array([x.seconds for x in window(session, requests, given.seconds)]), 50, 99)
                for _ in range(WINDOWS)
            ]
    return Measured({"seconds": given.seconds, "bytes": len(requests[0]), "windows_ms": found}, cores.use)


def echo_lines(data: dict[str, Any]) -> list[str]:
    rows = [[str(i + 1), *(f"{ms:.4f}" for ms in each)] for i, each in enumerate(data["windows_ms"])]
    return [
        "## Echo",
        f"A bare ASGI application that sends back the {data['bytes']} bytes it gets; milliseconds.",
        "",
        *table(["window", "p50", "p99"], rows),
    ]


# Formats --------------------------------------------------------------------------------------------------------------


def v2_request(quotes: dict[str, list[float]]) -> tuple[bytes, int]:
    """A body of the Open Inference Protocol and the length of its header."""
    tensors = [(name, np.asarray(column).tobytes()) for name, column in quotes.items()]
    described = [
        {
            "name": name,
            "shape": [len(data) // 8],
            "datatype": "FP64",
            "parameters": {"binary_data_size": len(data)},
        }
        for name, data in tensors
    ]
    header = to_json({"inputs": described, "parameters": {"binary_data_output": True}})
    return b"".join((header, *(data for _, data in tensors))), len(header)


def wire(given: argparse.Namespace) -> Measured:
    """The same panels in each format over one connection; what writing them takes, and what the server says it took."""
    cores = apart()
    quoted = quoted_panels(N_PANELS, given.noise_bp)
    arrays = [{name: np.array(column) for name, column in quoted.quotes(i).items()} for i in range(N_PANELS)]
    v2 = "/v2/models/heston/infer"

    def tensors(i: int) -> bytes:
        body, header = v2_request(arrays[i])  # type: ignore[arg-type]
        return post(v2, body, "application/octet-stream", inference_header_content_length=str(header))

    def in_json(i: int) -> bytes:
        return post("/v1/calibrate", JSON.encode(calibration_document(arrays[i], {})))

    def in_msgpack(i: int) -> bytes:
        return post("/v1/calibrate", MSGPACK.encode(calibration_document(arrays[i], {})), MSGPACK.media_type)

    writers: dict[str, Callable[[int], bytes]] = {"JSON": in_json, "MessagePack": in_msgpack, "v2 tensors": tensors}
    found = {}
    with serving.service(cores.server, networks=given.networks) as server, serving.pinned(cores.client):
        server.wait_until_answering()
        with Session(server.port) as session:
            for name, write_request in writers.items():
                requests = [write_request(i) for i in range(N_PANELS)]
                list(window(session, requests, min(given.seconds, 1.0)))
                exchanges = list(window(session, requests, given.seconds))
                stages = [stage_ms(exchange.head) for exchange in exchanges]
                found[name] = {
                    "request_bytes": len(requests[0]),
                    "answer_bytes": len(exchanges[0].body),
                    "write_us": _best_us(partial(write_request, 0)),
                    "decode_ms": at(np.array([each["decode"] for each in stages]), 50, 99),
                    "encode_ms": at(np.array([each.get("encode", np.nan) for each in stages]), 50, 99),
                    "round_trip_ms": at(np.array([1e3 * exchange.seconds for exchange in exchanges]), 50, 99),
                }
        with Client(f"http://127.0.0.1:{server.port}") as client:
            asked_ms: list[float] = []
            end = perf_counter() + given.seconds
            while perf_counter() < end:
                began = perf_counter()
                client.calibrate(arrays[len(asked_ms) % N_PANELS])
                asked_ms.append(1e3 * (perf_counter() - began))
    data = {"seconds": given.seconds, "formats": found, "client_ms": at(np.array(asked_ms), 50, 99)}
    return Measured(data, cores.use)


def _best_us(work: Callable[[], object], n: int = 2000) -> float:
    best = np.inf
    for _ in range(n):
        began = perf_counter()
        work()
        best = min(best, perf_counter() - began)
    return round(1e6 * float(best), 2)


def wire_lines(data: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            str(each["request_bytes"]),
            str(each["answer_bytes"]),
            f"{each['write_us']:.1f}",
            f"{1e3 * each['decode_ms'][0]:.0f}",
            f"{1e3 * each['encode_ms'][0]:.0f}",
            f"{1e3 * each['round_trip_ms'][0]:.0f}",
        ]
        for name, each in data["formats"].items()
    ]
    columns = ["format", "request, bytes", "answer, bytes", "write (best)", "decode p50", "encode p50"]
    return [
        "## Formats",
        "The same panels of 80 quotes in each, one connection. Microseconds. Writing is the client's, from arrays; "
        "decode and encode are the server's. The tensors' answer has no "
        "verdicts and no fit but its root mean square.",
        "",
        *table([*columns, "round trip p50"], rows),
        "",
        f"`calibrant.client.Client`, from arrays to its result, by MessagePack: p50 "
        f"{1e3 * data['client_ms'][0]:.0f}, p99 {1e3 * data['client_ms'][1]:.0f}.",
    ]
