"""Connections that stall, trickle, lie or crowd, while good requests are answered."""

import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.process import Server, http_post, received

HEADER, BODY, WRITE = 1.0, 1.5, 1.0
LIMIT = 60
FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(
        header_timeout_s=HEADER,
        body_timeout_s=BODY,
        write_timeout_s=WRITE,
        max_connections=LIMIT,
        keep_alive_s=2,
        default_deadline_ms=5000,
        # All of this on a machine whose log disk is full.
        log=FULL if FULL.exists() else None,
        log_requests=True,
        log_format="json",
    )
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()


def closed_after(connection: socket.socket) -> float:
    """Seconds until the server closes it."""
    began = time.monotonic()
    connection.settimeout(15.0)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


STALLS = {
    "nothing at all": (b"", "header", HEADER),
    "half a request line": (b"POST /v1/calib", "header", HEADER),
    "half a header": (b"POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ncontent-le", "header", HEADER),
    "no body": (b"POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", "body", BODY),
    "a length too long": (
        b"POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{}",
        "body",
        BODY,
    ),
    "half a chunk": (
        b"POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{",
        "body",
        BODY,
    ),
}


@pytest.mark.parametrize("stall", STALLS)
def test_a_connection_that_stalls_is_closed(server: Server, stall: str) -> None:
    sent, part, limit = STALLS[stall]
    series = f'calibrant_connections_closed_total{{reason="{part}"}}'
    before = server.metric(series)
    with server.connect() as connection:
        connection.sendall(sent)
        assert limit - 0.5 < closed_after(connection) < limit + 5.0
    assert server.metric(series) == before + 1


def trickle(connection: socket.socket) -> None:
    for byte in b"POST /v1/calibrate HTTP/1.1\r\n" + b"x-filler: y\r\n" * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def test_a_connection_that_trickles_is_closed_however_busy(server: Server) -> None:
    with server.connect() as connection:
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
            trickle(connection)
        assert time.monotonic() - began < HEADER + 5.0


def test_a_request_in_chunks_of_one_byte_is_answered(server: Server, dax: dict[str, Any]) -> None:
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = http_post({**dax, "refine": "none"})
        for i in range(len(sent)):
            connection.sendall(sent[i : i + 1])
        assert received(connection, 1.0).startswith(b"HTTP/1.1 200")


def test_a_hundred_stalled_sockets_do_not_stop_the_others(server: Server, dax: dict[str, Any]) -> None:
    with ExitStack() as stack:
        for i in range(LIMIT - 10):
            connection = stack.enter_context(server.connect())
            connection.sendall(http_post(dax)[: 40 + 10 * i])
        for _ in range(5):
            assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200
    server.until(lambda: server.metric("calibrant_connections") <= 2)


def test_connections_over_the_limit_are_told_so(server: Server) -> None:
    with ExitStack() as stack:
        kept = [stack.enter_context(server.connect()) for _ in range(LIMIT)]
        # The loop accepts them in its own time.
        answer = b""
        end = time.monotonic() + 5.0
        while not answer and time.monotonic() < end:
            with server.connect() as one_more:
                answer = received(one_more, 0.5)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in head
        assert json.loads(body)["code"] == "overloaded"
        assert len(kept) == LIMIT
    server.until(lambda: httpx.get(f"{server.url}/health/live").status_code == 200)


def send_for_ever(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        connection.sendall(piece)


def test_headers_without_end_are_cut_off(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
            send_for_ever(connection, (b"x-%d: %s\r\n" % (i, b"y" * 1000) for i in range(100_000)))
    assert server.metric('calibrant_connections_closed_total{reason="header_size"}') == 1


def test_a_client_that_reads_nothing_is_cut_off(server: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(0.5)
        asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 100
        # It asks for more than fits between them and takes none of it.
        with pytest.raises(OSError):  # noqa: PT011 - a timeout, a reset or a broken pipe
            send_for_ever(connection, repeat(asked))
        server.until(lambda: server.metric('calibrant_connections_closed_total{reason="write"}') == 1, 10.0)


def test_what_is_no_http_is_a_problem(server: Server) -> None:
    for sent in (bytes(range(256)), b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n"):
        head, _, body = server.exchange(sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert b"application/problem+json" in head
        assert json.loads(body)["code"] == "invalid_input"


def test_an_idle_connection_is_closed_and_a_busy_one_kept(server: Server) -> None:
    asked = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    with server.connect() as connection:
        # Longer in all than any of the limits.
        for _ in range(8):
            connection.sendall(asked)
            answer = received(connection, 0.4)
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"}")
        assert closed_after(connection) < 8.0


def test_pipelined_requests_are_all_answered(server: Server) -> None:
    answers = server.exchange(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n" * 20)
    assert answers.count(b"HTTP/1.1 200") == 20


def test_a_client_that_hangs_up_takes_its_work_with_it(server: Server, dax: dict[str, Any]) -> None:
    quotes = {name: column * 40 for name, column in dax["quotes"].items()}
    sent = http_post({"quotes": quotes, "refine": "lbfgs"})
    before = server.metric("calibrant_client_disconnects_total")
    connections = [server.connect() for _ in range(4)]
    for connection in connections:
        connection.sendall(sent)
    server.until(lambda: server.metric('calibrant_queue_depth{priority="long"}') >= 3)
    for connection in connections:
        connection.close()
    # Far sooner than four such calibrations take: those that had not begun are dropped.
    server.until(lambda: server.metric("calibrant_client_disconnects_total") == before + 4, 10.0)
    server.until(lambda: server.metric('calibrant_queue_depth{priority="long"}') == 0, 10.0)
    assert server.metric("calibrant_in_flight") == 1


@pytest.mark.skipif(not FULL.exists(), reason="a device that is always full is Linux's")
def test_a_full_log_disk_failed_none_of_this(server: Server) -> None:
    assert server.metric("calibrant_log_lines_lost_total") > 20
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
