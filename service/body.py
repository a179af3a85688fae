"""The body of a request."""

from starlette.requests import ClientDisconnect, Request


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
