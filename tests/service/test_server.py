"""The service as it is run: `python -m service` in a process of its own, spoken to over a socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.shared import ROOT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    def __init__(self) -> None:
        self.port = free_port()
        environment = {**os.environ, "CALIBRANT_PORT": str(self.port)}
        self.process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=environment)
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_ready(self, seconds: float = 300.0) -> None:
        """Until the port answers: it opens when the first request would be served."""
        end = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, "the server has ended"
            try:
                assert httpx.get(f"{self.url}/health/ready").status_code == 200
                return
            except httpx.ConnectError:
                assert time.monotonic() < end, "the server did not open its port"
                time.sleep(0.1)

    def resident_mib(self) -> float:
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def exchange(self, sent: bytes) -> bytes:
        """Raw bytes out, whatever comes back until the server falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection:
            connection.sendall(sent)
            received = b""
            try:
                while chunk := connection.recv(65536):
                    received += chunk
            except TimeoutError:
                pass
        return received

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_the_dax_panel_is_answered_over_the_wire(server: Server, dax: dict[str, Any]) -> None:
    with httpx.Client(base_url=server.url) as http:
        for _ in range(3):
            response = http.post("/v1/calibrate", json=dax)
            assert response.status_code == 200
            assert response.json()["status"] == "converged"
        assert http.get("/docs").status_code == 200


def test_a_hundred_megabytes_are_refused_and_not_kept(server: Server) -> None:
    before = server.resident_mib()
    body = b" " * 100_000_000

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 1_000_000):
            yield body[start : start + 1_000_000]

    headers = {"content-type": "application/json"}
    for content in (body, chunks()):
        response = httpx.post(f"{server.url}/v1/calibrate", content=content, headers=headers, timeout=60.0)
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert server.resident_mib() - before < 30


def test_bytes_that_are_no_http_do_no_harm(server: Server, dax: dict[str, Any]) -> None:
    assert server.exchange(bytes(range(256))).startswith(b"HTTP/1.1 400")
    assert server.exchange(b"POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n").startswith(
        b"HTTP/1.1 400"
    )
    assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200


def test_a_body_that_never_ends_does_not_stop_the_others(server: Server, dax: dict[str, Any]) -> None:
    body = json.dumps(dax).encode()
    head = "POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as stalled:
        stalled.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:-1])
        assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200


def test_a_termination_signal_ends_it_in_order(server: Server) -> None:
    # Last of this module: the server is not needed after it.
    assert server.stop() == 0
