"""CORS: pages of the origins that a setting names may use the service from a browser.

A browser asks first whether it may, and is answered here, by the headers alone: it sends no key with that, and a page
that may not ask is nobody's load. Every answer to such a page says that it may be read, refusals included. Whose page
it is says nothing about who asks: keys do.
"""

from collections.abc import Awaitable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KEPT_S = b"7200"
"""So long a browser need not ask again; Chrome keeps it no longer."""
_MAY_SEND = (
    b"authorization, content-encoding, content-type, inference-header-content-length, prefer, traceparent, "
    b"x-request-deadline-ms, x-request-id"
)
_MAY_READ = (
    b"access-control-expose-headers",
    b"inference-header-content-length, location, retry-after, server-timing, traceparent, x-request-id",
)
_VARY = (b"vary", b"origin")


class CrossOrigin:
    """Answers what browsers ask beforehand, and marks the answers to pages of the origins."""

    def __init__(self, app: ASGIApp, origins: str, methods: Sequence[str]) -> None:
        """`origins` separated by commas, or `*` for all."""
        self.app = app
        self._may_ask = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", _MAY_SEND),
            (b"access-control-max-age", _KEPT_S),
        ]
        self._origins = frozenset(origin.strip().encode() for origin in origins.split(","))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is None:
            return self.app(scope, receive, send)
        allowed = origin in self._origins or b"*" in self._origins
        marks = [_VARY, (b"access-control-allow-origin", origin)] if allowed else [_VARY]
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return _answer(send, [*marks, *self._may_ask] if allowed else marks)

        def send_marked(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *marks, *([_MAY_READ] if allowed else [])]
            return send(message)

        return self.app(scope, receive, send_marked)


async def _answer(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    # One that may not is told so by what is missing, as the standard has it.
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
