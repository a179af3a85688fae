"""The body of a request."""

import numpy as np
from starlette.requests import ClientDisconnect, Request

from .context import context_of


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


async def large_body_of(request: Request, most: int) -> memoryview:
    """All of a body that may have tens of megabytes, at most `most` bytes, read-only.

    Into memory that is reserved beforehand and taken as it is written: a buffer that grows is moved now and then, which
    at 20 MB held up the event loop, and with it everybody, for 20 ms.

    raises  ClientDisconnect
    """
    declared = context_of(request.scope).headers.get("content-length")
    room = np.empty(most if declared is None else int(declared), np.uint8)
    n = 0
    async for piece in request.stream():
        room[n : n + len(piece)] = np.frombuffer(piece, np.uint8)
        n += len(piece)
    return room[:n].data.toreadonly()
