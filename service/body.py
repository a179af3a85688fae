"""The body of a request."""

import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import BinaryIO

from starlette.requests import ClientDisconnect, Request

_UNBROKEN = 250_000
"""Bytes without giving way: about as many as uvloop reads at once."""


class Turns:
    """Lets others go first after each quarter of a megabyte of a body, read or written."""

    def __init__(self, give_way: Callable[[], Awaitable[None]]) -> None:
        self._give_way = give_way
        self._unbroken = 0

    async def passed(self, n_bytes: int) -> None:
        """To be awaited with so many bytes more."""
        self._unbroken += n_bytes
        if self._unbroken >= _UNBROKEN:
            self._unbroken = 0
            await self._give_way()


async def body_of(request: Request) -> bytes:
    """All of it. Most bodies come whole, in one message: `Request.body` takes a generator and a join to find that out.

    raises  ClientDisconnect
    """
    parts = []
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def body_file_of(request: Request, turns: Turns) -> BinaryIO:
    """All of a body that may have tens of megabytes, in a file that has no name and lies in memory.

    Another process can take it over as it is; and a buffer that grows would be moved now and then, which at 20 MB held
    up the event loop, and with it everybody, for 20 ms.

    raises  ClientDisconnect
    """
    file = memory_file()
    try:
        async for piece in request.stream():
            file.write(piece)
            # While this waits the server reads 64 kB more, and then nothing.
            await turns.passed(len(piece))
    except BaseException:
        file.close()
        raise
    return file


def memory_file() -> BinaryIO:
    """A file without a name, written as it is told; in memory where the system has such files."""
    if sys.platform == "linux":
        return open(os.memfd_create("calibrant", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    return tempfile.TemporaryFile()


def seal(file: BinaryIO) -> None:
    """Whoever else has such a file cannot cut it short from now on: a mapping of what is not there ends the process."""
    if sys.platform == "linux":
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)


def empty_unless_sealed(file: BinaryIO) -> None:
    """Give back the memory of a file that others have too, unless one of them has begun on it."""
    if sys.platform == "linux":
        with suppress(PermissionError):
            os.ftruncate(file.fileno(), 0)


def mapped(file: BinaryIO) -> memoryview:
    """What such a file holds, read-only and not copied. The file may be closed."""
    file.flush()
    # A mapping of nothing is an error to the system.
    size = os.fstat(file.fileno()).st_size
    return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)) if size else memoryview(b"")
