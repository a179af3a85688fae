"""Logs that no request waits for or fails by."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

from service.logs import JsonFormatter, LogWriter, TextFormatter


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
