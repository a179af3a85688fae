"""Logs to standard error, written by a thread of their own.

A request never waits for the log and never fails by it: what the disk or the reader of the pipe does not take is
dropped, and the loss is counted.
"""

import json
import logging
import os
import re
import traceback
from collections.abc import Callable
from queue import Full, Queue
from threading import Thread
from typing import Any, Literal

_MOST_LINES = 10_000
"""Kept for a log that is slow at the moment."""
_STANDARD_ERROR = 2
_WORD = re.compile(r"[^\s\"=]+")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """An object a line: `time` (seconds since 1970), `level`, `logger`, `message`, what was given as `extra={"fields":
    {…}}`, and the `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """A line for people, with the fields behind it.

    Whatever a client sent may be in it, and no part of that begins a line, writes over one or passes for a field: what
    cannot be printed is escaped, a field that is more than a word is quoted, and a traceback is indented.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        line = super().formatMessage(record) + "".join(f" {name}={_worded(value)}" for name, value in fields.items())
        return _printable(line)

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {_printable(line)}" for line in lines)


def _printable(text: str) -> str:
    """The text, escaped where it ends a line, moves the cursor, turns the direction or is half a character."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _worded(value: object) -> str:
    """The value of a field, in quotes unless it is a word."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class LogWriter(logging.Handler):
    """Hands lines to a thread that writes them."""

    def __init__(self, lost: Callable[[], None] = lambda: None, descriptor: int = _STANDARD_ERROR) -> None:
        super().__init__()
        self._lost = lost
        self._descriptor = descriptor
        self._lines: Queue[bytes | None] = Queue(_MOST_LINES)
        self._thread = Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record).encode(errors="backslashreplace") + b"\n")
        except Full:
            self._lost()
        except Exception:
            # Whatever a record holds that cannot be written, the request that logs it has to go on.
            self._lost()

    def close(self) -> None:
        """Return once what was logged is written, or a second has passed."""
        super().close()
        try:
            self._lines.put(None, timeout=1.0)
        except Full:
            return
        self._thread.join(1.0)

    def _write(self) -> None:
        torn = False
        while (line := self._lines.get()) is not None:
            # What follows half a line must not become its other half.
            rest = b"\n" + line if torn else line
            try:
                # Unbuffered: what a full disk refuses must not be in the way when it has room again.
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                    torn = bool(rest)
            except OSError:
                self._lost()


def set_up(level: str, style: Literal["text", "json"], lost: Callable[[], None] = lambda: None) -> LogWriter:
    """Send all logging of this process to standard error; `close` the writer at the end."""
    writer = LogWriter(lost)
    writer.setFormatter(JsonFormatter() if style == "json" else TextFormatter(_TEXT))
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    return writer
