"""Servers for benchmarks: the service and the bare echo, each on the cores it is given, and a look at their memory."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from reporting.machine import CACHE, ROOT

START = 300.0
"""Seconds: the first start on a machine compiles every kernel."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Processes started within run on these cores, and stay there; none given means no change."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Serving:
    """A server in a process of its own, until the end of a `with` statement."""

    def __init__(
        self, command: Sequence[str], cores: Sequence[int], port: int, log: Path | None = None, **environment: str
    ) -> None:
        self.port = port
        self.trusted: ssl.SSLContext | None = None
        """With it HTTPS is spoken to the server."""
        self.log = log or CACHE / f"server-{port}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with pinned(cores), self.log.open("ab", 0) as log_file:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log_file,
                stderr=log_file,
            )

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.returncode in (0, -signal.SIGTERM):
            self.log.unlink(missing_ok=True)

    def wait_until_answering(self) -> "Serving":
        """Until it answers single panels and batches: the job process is started when another one serves."""
        self.until(lambda: self.answers("/health/ready"))
        self.until(lambda: self.metric("calibrant_job_process_ready") == 1.0)
        return self

    def until(self, condition: Callable[[], bool]) -> None:
        end = perf_counter() + START
        while not condition():
            if self.process.poll() is not None:
                raise RuntimeError(f"The server has ended with {self.process.returncode}: see {self.log}.")
            if perf_counter() > end:
                raise TimeoutError(f"The server does not answer: see {self.log}.")
            time.sleep(0.05)

    def answers(self, path: str) -> bool:
        try:
            return self.ask("GET", path)[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """One request over a connection of its own; header names with underscores."""
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=600.0)
            if self.trusted is None
            else http.client.HTTPSConnection("localhost", self.port, timeout=600.0, context=self.trusted)
        )
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"content-type": "application/json", **named})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def metric(self, series: str) -> float:
        """The value of a series; 0 if there is none."""
        text = self.ask("GET", "/metrics")[1].decode()
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def workers(self) -> list[int]:
        """Process ids of its children."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def resident_mb(self) -> float:
        """Memory of all of its processes, millions of bytes."""
        pages = 0
        for pid in (self.process.pid, *self.workers()):
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return 1e-6 * pages * os.sysconf("SC_PAGE_SIZE")

    def signal(self, sent: signal.Signals) -> None:
        self.process.send_signal(sent)


def service(
    cores: Sequence[int] = (),
    *,
    port: int | None = None,
    module: str = "service",
    log: Path | None = None,
    trusted: ssl.SSLContext | None = None,
    **settings: Any,
) -> Serving:
    """The service, with settings by their names; to be waited for. Without `log` it is kept where it ends badly, and
    with `trusted` it is spoken to by HTTPS."""
    port = port or free_port()
    given = {f"CALIBRANT_{name.upper()}": str(value) for name, value in settings.items()}
    given = {"CALIBRANT_LOG_LEVEL": "warning", **given, "CALIBRANT_PORT": str(port)}
    server = Serving(["-m", module], cores, port, log, **given)
    server.trusted = trusted
    return server


def echo(cores: Sequence[int] = ()) -> Serving:
    """`benchmarks.echo` under the server and the event loop that the service runs under."""
    port = free_port()
    options = (
        *("--loop", "uvloop", "--http", "httptools", "--lifespan", "off", "--log-level", "warning"),
        # As long as the service keeps a connection that waits for the other's window to end.
        *("--timeout-keep-alive", "75"),
    )
    command = ["-m", "uvicorn", "benchmarks.echo:app", "--port", str(port), "--no-access-log", *options]
    return Serving(command, cores, port)


def parameters_of(server: Serving, bodies: Sequence[bytes]) -> list[dict[str, float]]:
    """What the server answers to each request when it is asked nothing else."""
    answers = []
    for body in bodies:
        status, content = server.ask("POST", "/v1/calibrate", body)
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {content.decode(errors='replace')}")
        answers.append(json.loads(content)["parameters"])
    return answers
