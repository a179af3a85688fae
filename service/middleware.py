"""Pure ASGI middleware: identity, time and refusals of a request outermost, then the limit on its body.

Pure, because one empty `BaseHTTPMiddleware` of Starlette's adds about half a millisecond to every request.
"""

import logging
import re
from time import perf_counter
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calibrant.errors import InvalidInput

from .context import RequestContext, attach
from .errors import EngineFailed, InvalidRequest, ServiceError, TooLarge, problem_response
from .metrics import Metrics

log = logging.getLogger("calibrant.service")

# Echoed into a header and into logs, so nothing that could break either.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestBoundary:
    """Names each request, times it, counts it, and writes every refusal, wherever below it was raised."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        context = RequestContext(given if _REQUEST_ID.fullmatch(given) else uuid4().hex)
        attach(scope, context)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = context.request_id
                headers["server-timing"] = _server_timing(context)
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.info("request %s: the client hung up", context.request_id)
        except Exception as error:
            if status:
                raise
            refusal = self._refusal(error, context)
            context.problem = refusal.code
            await problem_response(refusal, context.request_id)(scope, receive, send_with_headers)
        finally:
            self.metrics.in_flight.dec()
            if status:
                self._count(scope, context, status)

    @staticmethod
    def _refusal(error: Exception, context: RequestContext) -> ServiceError:
        if isinstance(error, ServiceError):
            return error
        if isinstance(error, InvalidInput):
            return InvalidRequest(error.problems)
        log.error("request %s failed", context.request_id, exc_info=error)
        return EngineFailed("The service failed on this request; the cause is logged under its `request_id`.")

    def _count(self, scope: Scope, context: RequestContext, status: int) -> None:
        # Only paths of the application: a label a client can choose would be a series a client can create.
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(perf_counter() - context.received)
        self.metrics.observe_stages(context.stages)
        if context.problem is not None:
            self.metrics.problems.labels(context.problem).inc()
        for observe in context.after:
            observe()


def _server_timing(context: RequestContext) -> str:
    """W3C Server-Timing, milliseconds."""
    stages = [f"{name};dur={1e3 * seconds:.3f}" for name, seconds in context.stages.items()]
    return ", ".join([*stages, f"total;dur={1e3 * (perf_counter() - context.received):.3f}"])


class BodyLimit:
    """Refuses a body over the limit before its bytes are kept: by its declared length, else while it arrives."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = int(Headers(scope=scope).get("content-length", "0"))
        if declared > self.max_bytes:
            raise self._too_large(f"{declared}")
        arrived = 0

        async def receive_counted() -> Message:
            nonlocal arrived
            message = await receive()
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                if arrived > self.max_bytes:
                    raise self._too_large(f"at least {arrived}")
            return message

        await self.app(scope, receive_counted, send)

    def _too_large(self, size: str) -> TooLarge:
        return TooLarge(f"The body must have at most {self.max_bytes} bytes, but has {size}.")
