"""HTTPS, and connections that never come to it."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

import service.server as service_server
from service.app import Application
from service.connections import Connection
from service.settings import Settings
from service.supervisor import bound
from tests.service.process import Server, received

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there to make a certificate")
LIMIT, HEADER = 300, 2.0
HANDSHAKES = "calibrant_tls_handshakes"
CLOSED = 'calibrant_connections_closed_total{reason="%s"}'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """And its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost")
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(["openssl", *made, *names, *files], check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def trusted(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.fixture(scope="module")
def server(certificate: tuple[Path, Path], trusted: ssl.SSLContext) -> Iterator[Server]:
    server = Server(
        tls_certificate=certificate[0],
        tls_key=certificate[1],
        default_deadline_ms=60_000,
        max_connections=LIMIT,
        header_timeout_s=HEADER,
    )
    server.secure(trusted)
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()


@pytest.fixture
def http(server: Server, trusted: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, verify=trusted) as client:
        yield client


def closed(server: Server, reason: str) -> float:
    return server.metric(CLOSED % reason)


def test_with_a_certificate_https_is_spoken(server: Server, http: httpx.Client, dax: dict[str, Any]) -> None:
    assert http.post("/v1/calibrate", json=dax).json()["status"] == "converged"
    before = closed(server, "handshake")
    # Who speaks plainly gets nothing.
    assert b"200" not in server.exchange(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    server.until(lambda: closed(server, "handshake") == before + 1)


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(
    server: Server, trusted: ssl.SSLContext
) -> None:
    """The client's last word and its request in one packet: nobody may be waiting for the request yet."""
    for _ in range(20):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusted.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with server.connect() as connection:
            shaken = False
            while not shaken:
                try:
                    client.do_handshake()
                    shaken = True
                    client.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    connection.sendall(outgoing.read())
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    heard = connection.recv(65536)
                    assert heard, "the service has closed the connection"
                    incoming.write(heard)
            incoming.write(received(connection, 2.0))
            assert client.read(65536).startswith(b"HTTP/1.1 200")


def test_connections_that_never_begin_a_handshake_are_counted_and_closed_while_others_are_answered(
    server: Server, http: httpx.Client, dax: dict[str, Any]
) -> None:
    before = closed(server, "handshake")
    n = LIMIT - 50
    with ExitStack() as stack:
        began = time.monotonic()
        for _ in range(n):
            stack.enter_context(server.connect())
        server.until(lambda: server.metric(HANDSHAKES) > 0.5 * n)
        assert server.metric("calibrant_connections") > 0.5 * n
        good = 0
        while closed(server, "handshake") < before + n:
            assert http.post("/v1/calibrate", json=dax).status_code == 200
            good += 1
            assert time.monotonic() < began + HEADER + 20.0
        assert good > 0
    assert closed(server, "handshake") == before + n
    server.until(lambda: server.metric(HANDSHAKES) == 0)


def test_a_connection_is_counted_once_and_against_the_limit(server: Server, trusted: ssl.SSLContext) -> None:
    before = closed(server, "limit")
    with ExitStack() as stack:
        # Of these some come beyond the limit and are closed at once, so that there is room for whoever asks for health.
        for _ in range(2 * LIMIT):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        server.until(lambda: closed(server, "limit") > before)
        assert httpx.get(f"{server.url}/health/live", verify=trusted, timeout=10.0).status_code == 200
    server.until(lambda: server.metric(HANDSHAKES) == 0)
    server.until(lambda: server.metric("calibrant_connections") < 3)


@pytest.mark.parametrize("secure", [True, False], ids=["TLS", "plain"])
def test_what_waits_at_a_socket_is_for_whoever_accepts_next(
    secure: bool, certificate: tuple[Path, Path], trusted: ssl.SSLContext, tmp_path: Path
) -> None:
    # There are no networks: it lives, and serves nothing.
    app = Application(Settings(networks=tmp_path))
    files: dict[str, Any] = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]} if secure else {}
    config = uvicorn.Config(app, http=Connection, lifespan="off", log_config=None, **files)
    listener = bound("127.0.0.1", 0)
    listener.listen()
    address = listener.getsockname()

    async def first_line() -> bytes:
        reader, writer = await asyncio.open_connection(*address, ssl=trusted if secure else None)
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line

    async def answers() -> list[bytes]:
        server, started = service_server.Server(config, app), asyncio.Event()
        server.begun = started.set
        serving = asyncio.create_task(server.serve([listener]))
        await started.wait()
        n_open, lines = len(os.listdir("/proc/self/fd")), []
        for _ in range(5):
            asked = [asyncio.create_task(first_line()) for _ in range(3)]
            # Nobody accepts it.
            await asyncio.sleep(0.05)
            assert not any(asking.done() for asking in asked)
            await server.accept(True)
            lines += await asyncio.gather(*asked)
            await server.accept(False)
        while len(os.listdir("/proc/self/fd")) > n_open:
            await asyncio.sleep(0.01)
        server.exit_soon()
        await serving
        return lines

    assert asyncio.run(asyncio.wait_for(answers(), 60.0)) == [b"HTTP/1.1 200 OK\r\n"] * 15
