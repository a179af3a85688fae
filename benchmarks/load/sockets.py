"""Raw sockets against the service at full size, while good requests are answered.

    python -m benchmarks.load.sockets kept       100,000 requests on one connection
    python -m benchmarks.load.sockets stalled    1,000 sockets that stall within a head and 1,000 within a body
    python -m benchmarks.load.sockets floods     endless and heavy requests, one client each
    python -m benchmarks.load.sockets handshakes 3,000 sockets that connect to HTTPS and say nothing

Each starts a service of its own and writes its own section of docs/results/sockets.{json,md}. The good requests come
at a steady rate from the open-loop generator, and each answer is compared with the one given before.
"""

import argparse
import os
import resource
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any

import numpy as np

from deploy.operate.secret_files import self_signed
from reporting.machine import RESULTS, table
from service.metrics import CLOSINGS

from ..quoted_panels import quoted_panels
from ..sections import record
from ..sessions import Session
from . import serving
from .plan import Plan, Stream, get, post
from .running import Running, quantiles_ms, summary
from .serving import Serving

N_PANELS = 16
GROWTH_MB = 20.0
"""Allowed; the first requests of a process take some anyway."""
FLOOD_GROWTH_MB = 50.0
WARM_UP = 1000
LONGEST = 60.0
"""Seconds until a connection is closed for whatever reason."""
PATIENCE_MS = 1000.0
"""The default deadline of these services: that some are refused for want of time is not the subject."""
REASONS = CLOSINGS
_CHUNKED = (
    b"POST /v1/calibrate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_BODY_BYTES = 4_000_000
"""A little less than the service takes."""


def descriptors(server: Serving) -> int:
    return sum(len(os.listdir(f"/proc/{worker}/fd")) for worker in server.workers())


def closed(server: Serving) -> dict[str, int]:
    """Connections that the server closed, by the reason."""
    found = {each: int(server.metric(f'calibrant_connections_closed_total{{reason="{each}"}}')) for each in REASONS}
    return {reason: count for reason, count in found.items() if count}


def service() -> Serving:
    return serving.service(default_deadline_ms=PATIENCE_MS)


def good_requests(server: Serving, bodies: tuple[bytes, ...], rate: float, seconds: float) -> Running:
    expected = tuple(serving.parameters_of(server, bodies))
    requests = tuple(post("/v1/calibrate", body) for body in bodies)
    stream = Stream(name="good", rate=rate, seconds=seconds, requests=requests, connections=16, expected=expected)
    return Running(Plan(ports=(server.port,), streams=(stream,)))


# One connection -------------------------------------------------------------------------------------------------------


def kept(given: argparse.Namespace, bodies: tuple[bytes, ...]) -> dict[str, Any]:
    """Requests of five kinds, one after the other, on one connection."""
    kinds = {
        "a calibration": (post("/v1/calibrate", bodies[0]), b"200"),
        "its health": (get("/health/live"), b"200"),
        "no request": (post("/v1/calibrate", b"{}"), b"422"),
        "no media type": (post("/v1/calibrate", bodies[0], "text/plain"), b"415"),
        "no path": (get("/nothing"), b"404"),
    }
    asked = list(kinds.values())
    unexpected: dict[str, int] = {}
    with service() as server:
        server.wait_until_answering()
        before = 0.0
        with Session(server.port) as session:
            began = perf_counter()
            for i in range(given.requests):
                if i == WARM_UP:
                    before = server.resident_mb()
                request, wanted = asked[i % len(asked)]
                status = session.exchange(request).head[9:12]
                if status != wanted:
                    unexpected[status.decode()] = unexpected.get(status.decode(), 0) + 1
            seconds = perf_counter() - began
            after = server.resident_mb()
    return {
        "kinds": list(kinds),
        "requests": given.requests,
        "seconds": seconds,
        "unexpected": unexpected,
        "resident_mb": [before, after],
        "as_wanted": not unexpected and after - before < GROWTH_MB,
    }


def kept_lines(data: dict[str, Any]) -> list[str]:
    before, after = data["resident_mb"]
    return [
        "## One connection",
        f"Requests in turn for {', '.join(data['kinds'])}. Resident memory of all processes after {WARM_UP:,} requests "
        f"and at the end. Wanted: every status the expected one, growth below {GROWTH_MB:g} MB.",
        "",
        *table(
            ["requests", "a second", "unexpected", "MB before", "MB after", "as wanted"],
            [
                [
                    f"{data['requests']:,}",
                    f"{data['requests'] / data['seconds']:.0f}",
                    str(sum(data["unexpected"].values())),
                    f"{before:.1f}",
                    f"{after:.1f}",
                    "yes" if data["as_wanted"] else "NO",
                ]
            ],
        ),
    ]


# Sockets that stall ---------------------------------------------------------------------------------------------------


def stalled(given: argparse.Namespace, bodies: tuple[bytes, ...]) -> dict[str, Any]:
    """Sockets that send part of a request and nothing more, with the service's own limits of time, two times."""
    with service() as server:
        server.wait_until_answering()
        running = good_requests(server, bodies, given.rate, 2.0 * given.seconds)
        sleep(0.1 * given.seconds)
        before = server.resident_mb(), descriptors(server)
        first = _stalled(server, given.stalled, bodies[0])
        sleep(running.at(given.seconds))
        between = server.resident_mb()
        second = _stalled(server, given.stalled, bodies[0])
        found = summary(running.result().of(0), 2.0 * given.seconds)
        after = server.resident_mb(), descriptors(server)
        reasons = closed(server)
    wanted = {"header": 2 * given.stalled, "body": 2 * given.stalled}
    good = found["answered"] == found["requests"] and not found["void"] and reasons == wanted
    # The generator's own connections are closed by now, and so may fewer be open than before. What the first sockets
    # took is there for the second ones.
    return {
        "stalled": given.stalled,
        "seconds_until_closed": max(first[0], second[0]),
        "closed": reasons,
        "good": found,
        "resident_mb": [before[0], between, after[0]],
        "descriptors": [before[1], max(first[1], second[1]), after[1]],
        "as_wanted": good and after[0] - between < GROWTH_MB / 4.0 and after[1] <= before[1],
    }


def _stalled(server: Serving, n: int, body: bytes) -> tuple[float, int]:
    """Seconds until the last of them was closed, and the most descriptors of the worker meanwhile."""
    request = post("/v1/calibrate", body)
    head = request.index(b"\r\n\r\n") + 4
    before, most = sum(closed(server).values()), 0
    began = perf_counter()
    with ExitStack() as stack:
        for i in range(n):
            for sent in (request[: i % head], request[: head + i % (len(request) - head)]):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port))).sendall(sent)
        while sum(closed(server).values()) < before + 2 * n and perf_counter() < began + LONGEST:
            most = max(most, descriptors(server))
            sleep(0.25)
    return perf_counter() - began, most


def stalled_lines(data: dict[str, Any]) -> list[str]:
    good, ms = data["good"], data["good"]["latency_ms"]
    rows = [
        [
            f"{data['stalled']:,} + {data['stalled']:,}",
            _listed(data["closed"]),
            f"{data['seconds_until_closed']:.1f}",
            f"{good['answered']} of {good['requests']}",
            *(f"{ms[q]:.1f}" for q in ("p50", "p99", "max")),
            "yes" if data["as_wanted"] else "NO",
        ]
    ]
    before, between, after = data["resident_mb"]
    open_before, open_during, open_after = data["descriptors"]
    return [
        "## Sockets that stall",
        "Within a head + within a body, twice, with the limits of 5 s and 10 s that the service has. Good requests, "
        f"{good['offered_per_s']:.0f} a second, latencies in milliseconds from when they were due. Wanted: all good "
        "ones answered 200 with the right numbers, all stalled ones closed for their reason, memory and descriptors "
        "back.",
        "",
        *table(["stalled", "closed", "after, s", "good answered", "p50", "p99", "max", "as wanted"], rows),
        "",
        f"Resident memory {before:.1f} MB before, {between:.1f} after the first {2 * data['stalled']:,}, {after:.1f} "
        f"after as many again; descriptors of the worker {open_before} before, {open_during} at most, {open_after} "
        "after.",
    ]


# Sockets that begin no handshake --------------------------------------------------------------------------------------


def handshakes(given: argparse.Namespace, bodies: tuple[bytes, ...]) -> dict[str, Any]:
    """Sockets that connect where TLS is spoken and say nothing, beside good requests by TLS on new connections."""
    certificate, key = self_signed(["localhost"])
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Any] = {
            "tls_certificate": Path(folder) / "certificate.pem",
            "tls_key": Path(folder) / "key.pem",
        }
        files["tls_certificate"].write_text(certificate)
        files["tls_key"].write_text(key)
        trusted = ssl.create_default_context(cafile=str(files["tls_certificate"]))
        with serving.service(default_deadline_ms=PATIENCE_MS, trusted=trusted, **files) as server:
            server.wait_until_answering()
            before = descriptors(server)
            seconds: list[float] = []
            statuses: dict[str, int] = {}
            began = perf_counter()
            with ExitStack() as stack:
                for _ in range(given.idle):
                    stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                most = int(server.metric("calibrant_tls_handshakes"))
                while perf_counter() < began + given.seconds:
                    asked = perf_counter()
                    status, _ = server.ask("POST", "/v1/calibrate", bodies[len(seconds) % len(bodies)])
                    seconds.append(perf_counter() - asked)
                    statuses[str(status)] = statuses.get(str(status), 0) + 1
                    most = max(most, int(server.metric("calibrant_tls_handshakes")))
            # It is looked at twice a second: one of those just now may have been a good one's.
            server.until(lambda: server.metric("calibrant_tls_handshakes") == 0.0)
            reasons, after = closed(server), descriptors(server)
    return {
        "idle": given.idle,
        "most_at_once": most,
        "closed": reasons,
        "statuses": statuses,
        "latency_ms": quantiles_ms(np.array(seconds)),
        "descriptors": [before, after],
        "as_wanted": set(statuses) == {"200"} and reasons.get("handshake", 0) == given.idle,
    }


def handshakes_lines(data: dict[str, Any]) -> list[str]:
    ms = data["latency_ms"]
    before, after = data["descriptors"]
    row = [
        f"{data['idle']:,}",
        f"{data['most_at_once']:,}",
        _listed(data["closed"]),
        _listed(data["statuses"]),
        *(f"{ms[q]:.1f}" for q in ("p50", "p99", "max")),
        f"{before}, {after}",
        "yes" if data["as_wanted"] else "NO",
    ]
    return [
        "## Sockets that begin no handshake",
        "Connected where TLS is spoken, and silent, with the limit of 5 s that the service has. Beside them good "
        "requests one after the other, each on a new connection; latencies in milliseconds with the handshake. Wanted: "
        "all good ones answered 200, all silent ones counted, and closed for their reason.",
        "",
        *table(
            ["idle", "at once", "closed", "good", "p50", "p99", "max", "descriptors before, after", "as wanted"], [row]
        ),
    ]


# Endless and heavy requests -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flood:
    """What one client does as fast as it can."""

    head: bytes
    """Sent once on each connection."""
    piece: bytes
    """Sent again and again until the service closes the connection."""
    answered: bool = False
    """Each piece is a request whose answer is waited for."""


def _filled(begin: bytes, item: bytes, end: bytes) -> bytes:
    """JSON of the largest size with as many items as fit."""
    return begin + b",".join([item] * ((_BODY_BYTES - len(begin) - len(end)) // (len(item) + 1))) + end


def _heavy(body: bytes) -> Flood:
    return Flood(b"", post("/v1/calibrate", body), answered=True)


def floods_of(bodies: tuple[bytes, ...]) -> dict[str, Flood | None]:
    columns = b'{"quotes":{"expiry":['
    unknown = b",".join(b'"f%d":1' % i for i in range(360_000))
    quotes = b",".join([b"0.512345678901"] * 33_000)
    return {
        "nothing": None,
        "calibrations": Flood(b"", post("/v1/calibrate", bodies[0]), answered=True),
        "headers without end": Flood(b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 50_000),
        "trailers without end": Flood(_CHUNKED + b"0\r\n", b"a: b\r\n" * 50_000),
        "one trailer without end": Flood(_CHUNKED + b"0\r\na: ", b"b" * 200_000),
        "chunks of one byte": Flood(_CHUNKED, b"1\r\n \r\n" * 40_000),
        "requests without a pause": Flood(b"", get("/nothing") * 5_000),
        "a body after its refusal": Flood(
            b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % 2**62, b"b" * 200_000
        ),
        "JSON: 33,000 quotes": _heavy(
            columns
            + quotes
            + b'],"log_moneyness":['
            + quotes
            + b'],"iv":['
            + quotes.replace(b"0.512345678901", b"-1")
            + b"]}}"
        ),
        "JSON: numbers": _heavy(_filled(columns, b"0.512345678901", b"]}}")),
        "JSON: nulls": _heavy(_filled(columns, b"null", b"]}}")),
        "JSON: empty lists": _heavy(_filled(b'{"x":[', b"[]", b"]}")),
        "JSON: nested lists": _heavy(b"[" * _BODY_BYTES),
        "JSON: unknown fields": _heavy(b"{" + unknown + b"}"),
        "JSON: one string": _heavy(b'{"model":"' + b"a" * (_BODY_BYTES - 20) + b'"}'),
        "JSON: one string of escapes": _heavy(b'{"model":"' + b"\\u00e9" * (_BODY_BYTES // 6 - 20) + b'"}'),
        "JSON: one number": _heavy(columns + b"1" * (_BODY_BYTES - 40) + b"]}}"),
        "JSON: long numbers": _heavy(_filled(columns, b"1" * 500, b"]}}")),
    }


def floods(given: argparse.Namespace, bodies: tuple[bytes, ...]) -> dict[str, Any]:
    """Requests without end, or that take long to decode, from one client."""
    data: dict[str, Any] = {}
    with service() as server:
        server.wait_until_answering()
        for name, flood in floods_of(bodies).items():
            data[name] = _flooded(
                server, flood, good_requests(server, bodies, given.rate, given.seconds), given.seconds
            )
            print(f"{name}: {data[name]['good']['latency_ms']}", flush=True)
    return data


def _flooded(server: Serving, flood: Flood | None, running: Running, seconds: float) -> dict[str, Any]:
    before = peak = server.resident_mb()
    closed_before = closed(server)
    enough, sent = Event(), [0]
    flooding = [] if flood is None else [Thread(target=_flood, args=(server.port, flood, enough, sent))]
    for thread in flooding:
        thread.start()
    while running.at(seconds) > 0.0:
        sleep(0.1)
        peak = max(peak, server.resident_mb())
    enough.set()
    for thread in flooding:
        thread.join()
    good = summary(running.result().of(0), seconds)
    alright = good["answered"] == good["requests"] and not good["void"]
    return {
        "sent_mb_per_s": 1e-6 * sent[0] / seconds,
        "good": good,
        "growth_mb": peak - before,
        "closed": {each: n - closed_before.get(each, 0) for each, n in closed(server).items()},
        "as_wanted": alright and peak - before < FLOOD_GROWTH_MB,
    }


def _flood(port: int, flood: Flood, enough: Event, sent: list[int]) -> None:
    while not enough.is_set():
        try:
            _flood_once(port, flood, enough, sent)
        except OSError:
            # The service has cut it off: it comes again.
            continue


def _flood_once(port: int, flood: Flood, enough: Event, sent: list[int]) -> None:
    if flood.answered:
        with Session(port) as session:
            while not enough.is_set():
                session.exchange(flood.piece)
                sent[0] += len(flood.piece)
        return
    with socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
        connection.sendall(flood.head)
        rest = memoryview(flood.piece)
        while not enough.is_set():
            try:
                n = connection.send(rest)
            except TimeoutError:
                continue
            sent[0] += n
            rest = rest[n:] or memoryview(flood.piece)


def floods_lines(data: dict[str, Any]) -> list[str]:
    rows = []
    for name, each in data.items():
        good, ms = each["good"], each["good"]["latency_ms"]
        rows.append(
            [
                name + (" (VOID)" if good["void"] else ""),
                f"{each['sent_mb_per_s']:.1f}",
                f"{good['answered']} of {good['requests']}",
                _listed({code: refused["count"] for code, refused in good["refusals"].items()} | good["failed"]),
                *(f"{ms[q]:.1f}" if ms else "none" for q in ("p50", "p99", "max")),
                f"{each['growth_mb']:.1f}",
                _listed(each["closed"]),
                "yes" if each["as_wanted"] else "NO",
            ]
        )
    return [
        "## Endless and heavy requests",
        "One client that sends as fast as it can, on a connection at a time; bodies of JSON are of 4 MB, but for that "
        "of 33,000 quotes, whose last column is wrong. Beside it good requests, latencies in milliseconds from when "
        "they were due. Wanted: all good ones answered 200 with the right numbers, memory not above the start by "
        f"{FLOOD_GROWTH_MB:g} MB.",
        "",
        *table(
            ["flood", "MB/s", "good answered", "not", "p50", "p99", "max", "growth, MB", "closed", "as wanted"],
            rows,
        ),
    ]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "0"


LINES: dict[str, Callable[[Any], list[str]]] = {
    "kept": kept_lines,
    "stalled": stalled_lines,
    "floods": floods_lines,
    "handshakes": handshakes_lines,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, work, seconds in (
        ("kept", kept, 0.0),
        ("stalled", stalled, 20.0),
        ("floods", floods, 10.0),
        ("handshakes", handshakes, 15.0),
    ):
        command = commands.add_parser(name, help=work.__doc__)
        command.set_defaults(work=work)
        command.add_argument("--out", type=Path, default=RESULTS / "sockets", help="page, without its suffix")
        if name == "kept":
            command.add_argument("--requests", type=int, default=100_000)
        else:
            command.add_argument("--rate", type=float, default=50.0, help="good requests a second, default 50")
            command.add_argument("--seconds", type=float, default=seconds, help=f"of each run, default {seconds:g}")
        if name == "handshakes":
            command.add_argument("--idle", type=int, default=3000, help="sockets, default 3000")
        if name == "stalled":
            command.add_argument("--stalled", type=int, default=1000, help="of each kind, default 1000")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    data = given.work(given, tuple(quoted_panels(N_PANELS).bodies()))
    record(given.out, "# Raw sockets", LINES, given.command, data, "server and client on all of them")
    parts = data.values() if given.command == "floods" else [data]
    return 0 if all(part["as_wanted"] for part in parts) else 1


if __name__ == "__main__":
    sys.exit(main())
