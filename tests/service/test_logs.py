"""Logs that no request waits for or fails by."""

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.logs import JsonFormatter, LogWriter, TextFormatter
from tests.service.process import Server


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": message, **extra})


def test_a_line_is_an_object_with_its_fields_and_its_exception() -> None:
    try:
        raise ZeroDivisionError("no\nluck")
    except ZeroDivisionError:
        failed = record("failed", exc_info=sys.exc_info(), fields={"request_id": "a\nb", "seconds": 0.5})
    text = JsonFormatter().format(failed)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["message"], line["request_id"], line["seconds"]) == ("info", "failed", "a\nb", 0.5)
    assert "ZeroDivisionError: no\nluck" in line["exception"]
    assert TextFormatter("%(message)s").format(record("done", fields={"a": 1})) == "done a=1"


HOSTILE = st.text(st.characters() | st.sampled_from('\n\r\x1b\x7f\x85\u2028\u2029\u202e\x00 ="\\'), max_size=40)


@given(said=HOSTILE, path=HOSTILE)
def test_nothing_that_a_client_sent_begins_a_line_or_passes_for_a_field(said: str, path: str) -> None:
    try:
        raise ValueError(said)
    except ValueError:
        failed = record("failed: %s", args=(said,), exc_info=sys.exc_info(), fields={"path": path, "status": 404})
    first, *others = TextFormatter("INFO %(message)s").format(failed).split("\n")
    assert all(line.startswith("    ") for line in others)
    assert all(line.isprintable() for line in (first, *others))
    # The fields are the last two words, however the path reads: blanks and quotes within it are in quotes.
    assert first.startswith("INFO failed: ")
    fields = re.search(r' path=([^\s"=]+|"(?:[^"\\]|\\.)*") status=404$', first)
    assert fields is not None
    assert " status=" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", first[fields.start() : -len(" status=404")])


@pytest.fixture
def losses() -> list[int]:
    return []


@pytest.fixture
def lost(losses: list[int]) -> Callable[[], None]:
    return lambda: losses.append(1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is Linux's")
def test_a_full_disk_loses_lines_and_nothing_else(losses: list[int], lost: Callable[[], None]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(lost, full)
    for i in range(50):
        writer.emit(record(f"line {i}"))
    writer.close()
    os.close(full)
    assert len(losses) == 50


def test_a_reader_that_does_not_read_holds_nobody_up(
    losses: list[int], lost: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.logs._MOST_LINES", 10)
    reader, writing = os.pipe()
    writer = LogWriter(lost, writing)
    # A pipe holds 64 KiB: the thread is stuck in the first line, ten wait, the others are lost.
    for _ in range(30):
        writer.emit(record("x" * 1_000_000))
    assert len(losses) >= 19
    # Once it is read again the rest is written, and the thread ends.
    os.set_blocking(reader, False)
    ending = threading.Thread(target=writer.close)
    ending.start()
    while ending.is_alive() or writer._thread.is_alive():
        try:
            os.read(reader, 1 << 20)
        except BlockingIOError:
            time.sleep(0.001)
    os.close(reader)
    os.close(writing)


def test_a_line_that_a_full_disk_cuts_in_two_does_not_take_the_next_one_with_it(
    losses: list[int], lost: Callable[[], None]
) -> None:
    reader, writing = os.pipe()
    # A pipe that is full says so, as a disk does.
    os.set_blocking(writing, False)
    writer = LogWriter(lost, writing)
    writer.emit(record("x" * 200_000))
    writer.emit(record("lost as well"))
    while len(losses) < 2:
        time.sleep(0.001)
    half = os.read(reader, 1 << 20)
    writer.emit(record("a line"))
    writer.emit(record("another"))
    writer.close()
    os.close(writing)
    with open(reader, "rb") as file:
        assert half.strip(b"x") == b""
        assert file.read() == b"\na line\nanother\n"


def test_a_collector_that_does_not_read_holds_no_request_up_and_gets_all_lines_later(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    server = Server(log=pipe, log_requests=True, log_format="json", log_level="info")
    try:
        lines = _read_until(reader, lambda: server.until(lambda: server.metric("calibrant_ready") == 1, 300.0))
        # Three times what a pipe holds.
        with httpx.Client(base_url=server.url) as client:
            for _ in range(1000):
                assert client.get("/health/live").status_code == 200
        assert server.metric("calibrant_log_lines_lost_total") == 0
        lines += _read_until(reader, server.stop)
    finally:
        server.kill()
        os.close(reader)
    paths = [json.loads(line).get("path") for line in lines.splitlines()]
    assert paths.count("/health/live") == 1000


def _read_until(reader: int, done: Callable[[], object]) -> bytes:
    """What comes through a pipe while something is done."""
    doing = threading.Thread(target=done)
    doing.start()
    read = b""
    while doing.is_alive():
        with suppress(BlockingIOError):
            read += os.read(reader, 1 << 16)
        time.sleep(0.001)
    return read


def test_what_cannot_be_formatted_is_lost(losses: list[int], lost: Callable[[], None]) -> None:
    reader, writing = os.pipe()
    writer = LogWriter(lost, writing)
    writer.emit(record("%d", args=("no number",)))
    writer.emit(record("\ud800 is no character"))
    writer.close()
    os.close(writing)
    with open(reader, "rb") as file:
        assert file.read() == b"\\ud800 is no character\n"
    assert len(losses) == 1
