"""The load generator against servers that do what a service under stress does."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Lock, Thread
from typing import Any

import numpy as np
import pytest

from benchmarks.load.generator import Generator
from benchmarks.load.plan import Plan, Records, Stream, get, post
from benchmarks.load.running import quantiles_ms, run, summary

GOOD = json.dumps({"parameters": {"kappa": 2.0}}).encode()


def answer(status: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


OK = answer("200 OK", GOOD)


class Server:
    """Answers every request by a function of its number; b"" closes the connection."""

    def __init__(self, reply: Callable[[int, bytes], bytes]) -> None:
        self._reply = reply
        self._count = 0
        self._lock = Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._serve_until_gone, args=(connection,), daemon=True).start()

    def _serve_until_gone(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    chunk = connection.recv(65536)
                    if not chunk:
                        return
                    received += chunk
                head, _, received = received.partition(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
                while len(received) < length:
                    received += connection.recv(65536)
                received = received[length:]
                with self._lock:
                    number = self._count
                    self._count += 1
                reply = self._reply(number, head)
                if not reply:
                    return
                connection.sendall(reply)


@contextmanager
def serving(reply: Callable[[int, bytes], bytes]) -> Iterator[int]:
    server = Server(reply)
    yield server.port
    server.close()


def stream(**given: Any) -> Stream:
    return Stream(**{"name": "x", "rate": 400.0, "seconds": 0.25, "requests": (post("/", b"{}"),), **given})


def load(port: int, *streams: Stream, **given: Any) -> Records:
    return Generator(Plan(ports=(port,), streams=streams or (stream(),), after=0.5, **given)).run()


def test_every_request_is_answered_and_counted_once() -> None:
    with serving(lambda _, __: OK) as port:
        found = summary(load(port), 0.25)
    assert (found["requests"], found["answered"], found["offered_per_s"]) == (100, 100, 400.0)
    assert (found["refusals"], found["failed"], found["unsent"], found["held"]) == ({}, {}, 0, 0)


def test_what_waits_behind_a_stall_counts_from_when_it_was_due() -> None:
    # Coordinated omission: a generator that waited for the first answer, which takes a quarter of a second, would see
    # one slow request; but those that came due meanwhile waited too.
    def stall(number: int, _: bytes) -> bytes:
        if number == 0:
            time.sleep(0.25)
        return OK

    with serving(stall) as port:
        records = load(port, stream(seconds=0.35, connections=1, arrivals="even"))
    assert records.count("answered") == 140
    assert (records.latency > 0.125).sum() >= 45
    # Each of them at least for what was left of the stall.
    assert np.all(records.done >= records.sent[0] + 0.25)


def test_a_run_that_could_not_send_in_time_is_void() -> None:
    def slow(_: int, __: bytes) -> bytes:
        time.sleep(0.05)
        return OK

    with serving(slow) as port:
        records = load(port, stream(connections=1))
        found = summary(records, 0.25)
        assert found["void"]
        assert found["achieved_per_s"] < 0.95 * found["offered_per_s"]
        assert found["unsent"] + sum(found["failed"].values()) + found["answered"] == 100


def test_refusals_are_told_apart_by_code_and_retry_after() -> None:
    def refuse(number: int, _: bytes) -> bytes:
        body = json.dumps({"code": ("overloaded", "rate_limited", "deadline_expired")[number % 3]}).encode()
        return (
            answer("503 X", body, "retry-after: 1"),
            answer("429 X", body),
            answer("504 X", b"gateway"),
        )[number % 3]

    with serving(refuse) as port:
        found = summary(load(port, stream(rate=600.0)), 0.25)
    assert {code: (each["count"], each["with_retry_after"]) for code, each in found["refusals"].items()} == {
        "overloaded": (50, 50),
        "rate_limited": (50, 0),
        "http_504": (50, 0),
    }
    assert (found["answered"], found["latency_ms"]) == (0, {})


def test_a_connection_closed_without_an_answer_is_a_lost_request() -> None:
    with serving(lambda number, _: b"" if number % 10 == 5 else OK) as port:
        found = summary(load(port), 0.25)
    assert (found["answered"], found["failed"]) == (90, {"lost": 10})


def test_a_port_that_nobody_listens_on_and_an_answer_that_never_comes_are_failures() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as silent:
        port = silent.getsockname()[1]
        assert summary(load(port), 0.25)["failed"] == {"silent": 100}
    assert summary(load(port), 0.25)["failed"] == {"unconnected": 100}


def test_an_answer_in_time_is_within_the_deadline_from_when_it_was_due() -> None:
    def late(number: int, _: bytes) -> bytes:
        if number % 2:
            time.sleep(0.3)
        return OK

    with serving(late) as port:
        records = load(port, stream(rate=80.0))
    found = summary(records, 0.25, deadline_ms=250.0)
    assert found["answered"] == 20
    assert found["answered_in_time"] <= 10


def test_an_answer_with_another_number_is_wrong() -> None:
    other = answer("200 OK", json.dumps({"parameters": {"kappa": 2.0 + 1e-6}}).encode())
    requests = (post("/", b"{}"), post("/", b"[]"))
    with serving(lambda number, _: other if number == 17 else OK) as port:
        checked = stream(requests=requests, expected=({"kappa": 2.0}, {"kappa": 2.0}))
        found = summary(load(port, checked), 0.25)
    assert (found["answered"], found["failed"]) == (99, {"wrong": 1})


def test_requests_are_held_while_no_target_is_ready() -> None:
    with serving(lambda _, head: answer("503 X", b"{}") if b"/health/ready" in head else OK) as port:
        found = summary(load(port, heed_readiness=True), 0.25)
    assert (found["held"], found["answered"], found["failed"]) == (100, 0, {})


def test_with_two_targets_the_ready_one_gets_the_requests() -> None:
    with serving(lambda _, __: answer("503 X", b"{}")) as first, serving(lambda _, __: OK) as second:
        plan = Plan(ports=(first, second), streams=(stream(),), heed_readiness=True, after=0.5)
        found = summary(Generator(plan).run(), 0.25)
    assert (found["answered"], found["held"], found["failed"]) == (100, 0, {})


def test_streams_begin_when_they_should_and_are_told_apart() -> None:
    with serving(lambda _, __: OK) as port:
        records = load(port, stream(), stream(name="later", begin=0.15, seconds=0.1, requests=(get("/"),)))
    later = records.of(1)
    assert (records.of(0).due.size, later.due.size) == (100, 40)
    assert later.due.min() >= 0.15
    assert np.all(later.sent >= later.due)
    assert records.of(0, 0.05, 0.1).due.max() < 0.1


def test_the_schedule_is_that_of_its_seed() -> None:
    with serving(lambda _, __: OK) as port:
        first, again, other = (load(port, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.due, again.due)
    assert not np.array_equal(first.due, other.due)


def test_processes_share_a_rate() -> None:
    with serving(lambda _, __: OK) as port:
        plan = Plan(ports=(port,), streams=(stream(rate=80.0), stream(rate=40.0)), after=0.5)
        records = run(plan, processes=2)
    assert (records.of(0).due.size, records.of(1).due.size) == (20, 10)
    assert records.count("answered") == 30


def test_a_run_stays_on_this_machine_and_ends() -> None:
    with pytest.raises(ValueError, match="must be of this machine"):
        Plan(ports=(80,), host="192.0.2.1", streams=(stream(),))
    with pytest.raises(ValueError, match="must take at most"):
        Plan(ports=(80,), streams=(replace(stream(), seconds=3600.0),))


def test_quantiles_are_those_of_the_values() -> None:
    seconds = np.linspace(1e-4, 0.1, 1000)
    found = quantiles_ms(seconds)
    # Three digits are what the histogram keeps.
    assert found == pytest.approx({"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}, rel=2e-3)
    assert quantiles_ms(seconds[:0]) == {}
