"""Connections that stall, trickle, lie or crowd, while good requests are answered."""

import asyncio
import http.client
import json
import os
import re
import resource
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.connections import RESERVED, JoiningTransport
from tests.service.process import Server, http_post, received

HEADER, BODY, WRITE = 1.0, 1.5, 1.0
LIMIT = 1500
MEMORY = 64 << 20
WAITING = 1300
"""Bodies that wait are more than that."""
IN_HEAD, IN_BODY = 600, 800
FULL = Path("/dev/full")
GOOD = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = Server(
        header_timeout_s=HEADER,
        body_timeout_s=BODY,
        write_timeout_s=WRITE,
        max_connections=LIMIT,
        max_memory_bytes=MEMORY,
        keep_alive_s=4,
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


def descriptors(server: Server) -> int:
    return sum(len(os.listdir(f"/proc/{worker}/fd")) for worker in server.workers())


def closed(server: Server, reason: str) -> float:
    return server.metric(f'calibrant_connections_closed_total{{reason="{reason}"}}')


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
    before = closed(server, part)
    with server.connect() as connection:
        connection.sendall(sent)
        assert limit - 0.5 < closed_after(connection) < limit + 5.0
    assert closed(server, part) == before + 1


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


def test_stalled_sockets_by_the_hundred_do_not_stop_the_others_and_are_closed(
    server: Server, dax: dict[str, Any]
) -> None:
    sent = http_post(dax)
    head = sent.index(b"\r\n\r\n") + 4
    before = descriptors(server), closed(server, "header"), closed(server, "body")
    with ExitStack() as stack, httpx.Client(base_url=server.url) as client:
        for i in range(IN_HEAD):
            stack.enter_context(server.connect()).sendall(sent[: i % head])
        for i in range(IN_BODY):
            # More than the service serves at a time, were they whole.
            stack.enter_context(server.connect()).sendall(sent[: head + i])
        good = 0
        while server.metric("calibrant_connections") > 2 or good < 20:
            assert client.post("/v1/calibrate", json=dax).status_code == 200
            good += 1
            assert good < 2000
    assert (closed(server, "header"), closed(server, "body")) == (before[1] + IN_HEAD, before[2] + IN_BODY)
    server.until(lambda: descriptors(server) <= before[0])


@contextmanager
def kept(server: Server) -> Iterator[Callable[..., int]]:
    """Statuses of requests that go over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10.0)
    connection.connect()
    connection.auto_open = 0

    def status(method: str, path: str, body: bytes | None = None) -> int:
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status

    with closing(connection):
        yield status


def test_thousands_of_requests_on_one_connection_leave_nothing_behind(server: Server) -> None:
    asked = ("POST", "/v1/calibrate", b"{}"), ("GET", "/health/live"), ("GET", "/nothing")
    resident = 0.0
    with kept(server) as status:
        for i in range(4000):
            if i == 1000:
                resident = server.resident_mib()
            assert status(*asked[i % 3]) == (422, 200, 404)[i % 3]
    assert server.resident_mib() < resident + 5.0


PATHS = """
    /health/live /health/ready /metrics /v1/models /openapi.json /docs /v1/nothing /v1/calibrate
    /v2 /v2/health/live /v2/health/ready /v2/models/heston /v2/models/heston/ready /v2/models/sabr
"""


@pytest.mark.parametrize("path", PATHS.split())
def test_head_is_answered_as_get_is_without_the_body(server: Server, path: str) -> None:
    own = {"date", "server-timing", "x-request-id"} | ({"content-length"} if path == "/metrics" else set())
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10.0)) as connection:
        answers = []
        # All over one connection: bytes of a body would be taken for the next answer.
        for method in ("GET", "HEAD", "GET", "HEAD"):
            connection.request(method, path)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            assert len(response.read()) == (0 if method == "HEAD" else int(headers["content-length"]))
            answers.append((response.status, {name: headers[name] for name in headers.keys() - own}))
    of_get, *others = answers
    if path != "/metrics":
        # A problem names its request, whose name is of one length.
        assert all(answer == of_get for answer in others)
    else:
        assert all(answer[0] == 200 and answer[1].keys() == of_get[1].keys() for answer in others)


def full(server: Server, stack: ExitStack) -> None:
    """As many connections as the service takes, kept alive: it is asked over one beyond."""
    for _ in range(LIMIT):
        connection = stack.enter_context(server.connect())
        # Idle from then on, and so kept for longer than one that has sent nothing.
        connection.sendall(GOOD)
    # The loop accepts them in its own time.
    server.until(lambda: b" 503 " in server.exchange(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"), 5.0)


def test_connections_over_the_limit_are_told_so(server: Server, dax: dict[str, Any]) -> None:
    with ExitStack() as stack:
        full(server, stack)
        # Who says nothing is told in the end.
        for asked in (http_post(dax), b"GET /%68ealth/live HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /heal", b""):
            head, _, body = server.exchange(asked).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in head
            assert b"connection: close" in head
            assert json.loads(body)["code"] == "overloaded"
    server.until(lambda: httpx.get(f"{server.url}/health/live").status_code == 200)


def test_a_full_service_still_says_how_it_is_and_only_that(server: Server) -> None:
    with ExitStack() as stack:
        full(server, stack)
        for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics"):
            answer = server.exchange(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode() + GOOD)
            # One answer, and the last of its connection.
            assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"]
        # That room is full too.
        for _ in range(RESERVED + 5):
            stack.enter_context(server.connect())
        assert server.exchange(GOOD).startswith(b"HTTP/1.1 503")
        # Those who do not ask lose it before long.
        server.until(lambda: server.exchange(GOOD).startswith(b"HTTP/1.1 200"), 5.0)
    server.until(lambda: httpx.get(f"{server.url}/health/live").status_code == 200)


def test_bodies_that_wait_to_be_whole_are_counted_against_the_memory(server: Server, dax: dict[str, Any]) -> None:
    most = 60_000
    head = _POST + b"content-length: %d\r\n\r\n" % most
    before = closed(server, "limit")
    with ExitStack() as stack, httpx.Client(base_url=server.url) as client:
        waiting = [stack.enter_context(server.connect()) for _ in range(WAITING)]
        for connection in waiting:
            connection.sendall(head + b" " * (most - 10))
        server.until(lambda: closed(server, "limit") > before)
        refused = [received(connection, 0.1) for connection in waiting]
        told = [answer for answer in refused if answer]
        assert all(answer.startswith(b"HTTP/1.1 503") and b'"overloaded"' in answer for answer in told)
        # As many as there is memory for are waited for.
        assert len(waiting) - len(told) == pytest.approx(MEMORY // (most - 10), abs=5)
        for connection in waiting:
            connection.close()
        server.until(lambda: client.post("/v1/calibrate", json=dax).status_code == 200)


def send_for_ever(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        connection.sendall(piece)


def test_headers_without_end_are_cut_off(server: Server) -> None:
    before = closed(server, "header_size")
    with server.connect() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
            send_for_ever(connection, (b"x-%d: %s\r\n" % (i, b"y" * 1000) for i in range(100_000)))
    assert closed(server, "header_size") == before + 1


def test_a_client_that_reads_nothing_is_cut_off(server: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(0.5)
        asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 100
        # It asks for more than fits between them and takes none of it.
        with pytest.raises(OSError):  # noqa: PT011 - a timeout, a reset or a broken pipe
            send_for_ever(connection, repeat(asked))
        server.until(lambda: closed(server, "write") == 1, 10.0)


_POST = b"POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
_CHUNKED = _POST + b"transfer-encoding: chunked\r\n\r\n"

AMBIGUOUS = {
    "no HTTP at all": bytes(range(256)),
    "a negative length": _POST + b"content-length: -2\r\n\r\n{}",
    "a length with a sign": _POST + b"content-length: +2\r\n\r\n{}",
    "a hexadecimal length": _POST + b"content-length: 0x2\r\n\r\n{}",
    "an empty length": _POST + b"content-length: \r\n\r\n{}",
    "a length beyond 64 bits": _POST + b"content-length: 99999999999999999999\r\n\r\n{}",
    "two lengths": _POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "the same length twice": _POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "a list of lengths": _POST + b"content-length: 2, 2\r\n\r\n{}",
    "a length and chunks": _POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": _POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "another coding than chunks": _POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "no coding": _POST + b"transfer-encoding: identity\r\n\r\n",
    "chunks within another coding": _POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": _POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "a blank before the colon": _POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": _POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab": _POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a name with a blank": _POST + b"content length: 2\r\n\r\n{}",
    "a NUL in a value": _POST + b"x-a: b\x00c\r\n\r\n",
    "a NUL in the path": b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a lone CR": _POST + b"x-a: b\rcontent-length: 2\r\n\r\n{}",
    "lone LFs": b"GET /health/live HTTP/1.1\nhost: x\n\n",
    "a chunk with a negative size": _CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": _CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": _CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "chunks parted by LFs": _CHUNKED + b"2\n{}\n0\n\n",
    "an LF in what a chunk says of itself": _CHUNKED + b"2;a=\nb\r\n{}\r\n0\r\n\r\n",
    "a length behind the chunks": _CHUNKED + b"2\r\n{}\r\n0\r\ncontent-length: 7\r\n\r\n",
    "no host": b"GET /health/live HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health/live HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    "another version": b"GET /health/live HTTP/1.2\r\nhost: x\r\n\r\n",
    "no path": b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n",
    "a call for a tunnel": b"CONNECT /health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "a call for a tunnel elsewhere": b"CONNECT y:80 HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_and_ends_its_connection(server: Server, what: str) -> None:
    before = closed(server, "malformed")
    with server.connect() as connection:
        connection.sendall(AMBIGUOUS[what] + GOOD)
        answer = received(connection, 5.0)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"400"]
    assert b"application/problem+json" in head
    assert b"connection: close" in head
    assert json.loads(body)["code"] == "invalid_input"
    assert closed(server, "malformed") == before + 1


def test_the_refusal_of_what_is_no_request_comes_in_its_turn(server: Server, dax: dict[str, Any]) -> None:
    # Large enough for the service to have begun on it.
    begun = _CHUNKED + b"30000\r\n" + b" " * 0x30000 + b"\r\nzz\r\n"
    for garbage in (b"\x00garbage", _CHUNKED + b"zz\r\n", begun):
        answers = server.exchange(GOOD + http_post(dax) + GOOD + garbage)
        assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", b"200", b"400"]
        assert b'"rmse_bp"' in answers
    assert re.findall(rb"HTTP/1.1 (\d+)", server.exchange(begun)) == [b"400"]
    server.until(lambda: server.metric("calibrant_in_flight") == 1)


def test_an_offer_of_another_protocol_is_declined_and_its_body_is_no_request(
    server: Server, dax: dict[str, Any]
) -> None:
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    sent = http_post(dax).replace(b"host: x\r\n", b"host: x\r\n" + offer)
    smuggled = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n"
    hidden = _POST + offer + b"content-length: %d\r\n\r\n" % len(smuggled)
    in_chunks = _POST + offer + b"transfer-encoding: chunked\r\n\r\n"
    for request, rest, expected in (
        (sent, LAST, [b"200", b"200"]),
        (sent + GOOD, LAST, [b"200", b"200", b"200"]),
        (hidden, smuggled + LAST, [b"422", b"200"]),
        (in_chunks, b"2\r\n{}\r\n0\r\n\r\n" + LAST, [b"422", b"200"]),
    ):
        with server.connect() as connection:
            connection.sendall(request)
            time.sleep(0.05)
            connection.sendall(rest)
            assert re.findall(rb"HTTP/1.1 (\d+)", received(connection, 5.0)) == expected


def test_a_last_request_that_offers_another_protocol_is_the_last(server: Server) -> None:
    last = GOOD.replace(b"\r\n\r\n", b"\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(last)
        assert b"connection: close" in received(connection, 2.0)


def test_what_follows_a_body_is_no_header(server: Server, dax: dict[str, Any]) -> None:
    body = json.dumps(dax).encode()
    sent = _CHUNKED + b"%x\r\n%s\r\n0\r\naccept: application/msgpack\r\n\r\n" % (len(body), body)
    answer = server.exchange(sent + LAST)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"content-type: application/json" in answer


ENDLESS = {
    "trailers": (_CHUNKED + b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 1000),
    "one trailer": (_CHUNKED + b"2\r\n{}\r\n0\r\na: ", b"b" * 10_000),
    "what a chunk says of itself": (_CHUNKED + b"2;a=", b"b" * 10_000),
    "blank lines": (b"", b"\r\n" * 10_000),
    "chunks of one byte": (_CHUNKED, b"1\r\n \r\n" * 10_000),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_is_neither_request_nor_body_comes_to_an_end(server: Server, what: str) -> None:
    head, more = ENDLESS[what]
    before = closed(server, "header_size")
    with server.connect() as connection:
        connection.sendall(head)
        with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
            send_for_ever(connection, repeat(more))
    assert closed(server, "header_size") == before + 1


def test_requests_that_come_together_are_answered_in_their_order(server: Server) -> None:
    named = b"".join(GOOD.replace(b"host: x", b"host: x\r\nx-request-id: %d" % i) for i in range(3000))
    with server.connect() as connection:
        connection.sendall(named + LAST)
        answers = received(connection, 5.0)
    assert re.findall(rb"x-request-id: (\d+)\r", answers) == [b"%d" % i for i in range(3000)]
    assert answers.count(b"HTTP/1.1 200") == 3001


def test_an_expected_body_that_is_not_wanted_ends_the_connection(server: Server, dax: dict[str, Any]) -> None:
    expecting = _POST + b"expect: 100-continue\r\n"
    # Had it stayed open, this would be the body to one and a request to the other.
    answer = server.exchange(expecting + b"content-length: 99999999\r\n\r\n" + GOOD)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"413"]
    body = json.dumps(dax).encode()
    with server.connect() as connection:
        connection.sendall(expecting + b"content-length: %d\r\n\r\n" % len(body))
        assert received(connection, 0.5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body + LAST)
        assert re.findall(rb"HTTP/1.1 (\d+)", received(connection, 5.0)) == [b"200", b"200"]


def test_a_client_that_goes_within_its_answer_takes_nothing_with_it(server: Server, dax: dict[str, Any]) -> None:
    few = {"quotes": {name: column[:6] for name, column in dax["quotes"].items()}, "refine": "none"}
    sent = http_post({"panels": [few] * 300}, "/v1/calibrate/batch")
    for _ in range(3):
        with server.connect() as connection:
            connection.sendall(sent)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            # A reset instead of an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.until(lambda: server.metric("calibrant_in_flight") == 1)
    assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200


class Sent(asyncio.Transport):
    """Keeps what each write was given."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))


def test_the_head_of_an_answer_leaves_with_the_first_of_its_body() -> None:
    sent = Sent()
    together = JoiningTransport(sent)
    together.write(b"head\r\n\r\n")
    assert sent.writes == []
    for part in (b"one", memoryview(b"two")):
        together.write(part)
    assert sent.writes == [b"head\r\n\r\none", b"two"]
    empty = JoiningTransport(sent)
    empty.write(b"204\r\n\r\n")
    empty.write(b"")
    assert sent.writes[2:] == [b"204\r\n\r\n"]


def test_the_answer_to_head_has_no_body(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"HEAD /docs HTTP/1.1\r\nhost: x\r\n\r\nGET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        answers = received(connection, 1.0)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200"]
    assert answers.count(b"\r\n\r\n") == 2


def test_each_kind_of_process_says_what_it_takes(server: Server) -> None:
    for kind in ("worker", "job process", "supervisor"):
        assert server.metric(f'calibrant_process_resident_memory_bytes{{kind="{kind}"}}') > 1e7
        assert server.metric(f'calibrant_process_open_fds{{kind="{kind}"}}') >= 3
    for kind in ("worker", "job process"):
        assert server.metric(f'calibrant_silence_seconds{{kind="{kind}"}}') < 5.0
        assert server.metric(f'calibrant_memory_reserved_bytes{{kind="{kind}"}}') == 0.0
    assert server.metric("calibrant_memory_budget_bytes") == MEMORY


def test_an_idle_connection_is_closed_and_a_busy_one_kept(server: Server) -> None:
    asked = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    with server.connect() as connection:
        # Longer in all than any of the limits.
        for _ in range(8):
            connection.sendall(asked)
            answer = received(connection, 0.4)
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"}")
        assert closed_after(connection) < 10.0


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
    server.until(lambda: server.metric("calibrant_client_disconnects_total") == before + 4, 30.0)
    server.until(lambda: server.metric('calibrant_queue_depth{priority="long"}') == 0, 30.0)
    assert server.metric("calibrant_in_flight") == 1


@pytest.mark.skipif(not FULL.exists(), reason="a device that is always full is Linux's")
def test_a_full_log_disk_failed_none_of_this(server: Server) -> None:
    assert server.metric("calibrant_log_lines_lost_total") > 20
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
