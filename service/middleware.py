"""What surrounds every endpoint: route, identity, time, admission, the limit on the body, refusals, counts.

One layer, because each that wraps `send` costs as much again, and pure ASGI: one empty `BaseHTTPMiddleware` of
Starlette's adds about half a millisecond to every request.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable
from time import perf_counter

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .admission import SHED, body_bytes
from .context import HUNG_UP, RECEIVED, RequestContext, attach
from .errors import DeadlineExpired, EngineFailed, ServiceError, TooLarge, problem_response, refusal_of
from .lane import Priority
from .routing import Route, Routes
from .service import Service
from .tracing import span

log = logging.getLogger("calibrant.service")

# Echoed into a header and into logs, so nothing that could break either.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
# W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class RequestBoundary:
    """Names each request, lets it in or not, times it, counts it, and writes every refusal, wherever it was raised."""

    def __init__(self, service: Service, routes: Routes, router: ASGIApp) -> None:
        """`router` answers what the table does not have called directly."""
        self.service = service
        self.routes = routes
        self.router = router
        self.metrics = service.metrics
        self.admission = service.admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = _context(scope)
        route, scope["path_params"] = self.routes.find(scope["method"], scope["path"])
        attach(scope, context)
        echoed = [(b"x-request-id", context.request_id.encode())]
        trace = context.headers.get("traceparent")
        if trace is not None and _TRACEPARENT.fullmatch(trace):
            echoed.append((b"traceparent", trace.encode()))
        status = 0

        # Like the layers within it gives back what is to be awaited: a coroutine of its own would only pass that on.
        def send_with_headers(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *echoed, (b"server-timing", _server_timing(context))]
            return send(message)

        kind: Priority | None = None
        self.metrics.in_flight.inc(0.0 if route.watches else 1.0)
        try:
            try:
                with span(scope, context):
                    kind = self.admission.admit(route, (scope.get("client") or ("unknown", 0))[0], context)
                    limited = self._limited(receive, route, kind, context)
                    if route.direct:
                        response = await route.endpoint(Request(scope, limited))
                        await response(scope, receive, send_with_headers)
                    else:
                        # HEAD is GET from here on: the server, which keeps its own scope, sends no body.
                        await self.router({**scope, "method": route.method}, limited, send_with_headers)
            except ClientDisconnect:
                raise
            except Exception as error:
                if status:
                    # The answer is cut short, which its client sees; here it is told by its problem.
                    context.problem = refusal_of(error).code
                    raise
                refusal = self._refusal(error, context)
                context.problem = refusal.code
                response = problem_response(refusal, context.request_id, route.oip)
                # Its traceback holds this frame: a circle, and in it the body until the collector comes past.
                del refusal
                await response(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            if HUNG_UP not in scope:
                raise
            # The server cancelled it for that reason, and no one is left to hear of it.
            self.metrics.hung_up.inc()
        except ClientDisconnect:
            self.metrics.hung_up.inc()
        finally:
            if kind is not None:
                self.admission.leave(kind, context)
            self.metrics.in_flight.inc(0.0 if route.watches else -1.0)
            if status:
                # In the event loop's next round: what was sent leaves at the end of this one.
                seconds = perf_counter() - context.received
                asyncio.get_running_loop().call_soon(self._count, route, scope, context, status, seconds)

    def _refusal(self, error: Exception, context: RequestContext) -> ServiceError:
        refusal = refusal_of(error)
        if isinstance(refusal, EngineFailed):
            log.error("request %s failed: %s", context.request_id, error, exc_info=error)
            self.metrics.engine_failures.inc()
        return refusal

    def _limited(self, receive: Receive, route: Route, kind: Priority | None, context: RequestContext) -> Receive:
        """What the endpoint receives; a body over the limit is refused before it is kept.

        raises  TooLarge by its declared length; one of which none is declared is refused while it arrives
        """
        settings = self.service.settings
        limit = settings.max_batch_body_bytes if route.large else settings.max_body_bytes
        declared, hold = context.declared_bytes, context.hold
        if declared > limit:
            raise _too_large(limit, f"{declared}")
        if declared:
            # The server holds the client to what it declared.
            return receive
        arrived = 0

        async def receive_counted() -> Message:
            nonlocal arrived
            message = await receive()
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                if arrived > limit:
                    raise _too_large(limit, f"at least {arrived}")
                if hold is not None and kind is not None:
                    hold.resize(body_bytes(kind, arrived))
            return message

        return receive_counted

    def _count(self, route: Route, scope: Scope, context: RequestContext, status: int, seconds: float) -> None:
        metrics = self.metrics
        metrics.requests.inc(route.path, str(status))
        metrics.request_seconds.observe(seconds, route.path)
        metrics.observe_stages(context.stages)
        problem = context.problem
        if problem is not None:
            metrics.problems.inc(problem)
            if context.model is not None:
                metrics.refusal_seconds.observe(seconds, context.model)
            if problem in SHED or problem == DeadlineExpired.code:
                metrics.shed.inc(problem)
        for observe in context.after:
            observe()
        # They hold the context: a circle, and in it the panel until the collector comes past.
        context.after.clear()
        if self.service.settings.log_requests:
            fields = {
                "request_id": context.request_id,
                "client": context.client,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 6),
                "code": problem,
            }
            log.info("request", extra={"fields": fields})


def _context(scope: Scope) -> RequestContext:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    given = headers.get("x-request-id")
    request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    received = scope.get(RECEIVED)
    return RequestContext(request_id, headers, perf_counter() if received is None else received)


def _server_timing(context: RequestContext) -> bytes:
    """W3C Server-Timing, milliseconds."""
    stages = [f"{name};dur={1e3 * seconds:.3f}" for name, seconds in context.stages.items()]
    return ", ".join([*stages, f"total;dur={1e3 * (perf_counter() - context.received):.3f}"]).encode()


def _too_large(limit: int, size: str) -> TooLarge:
    return TooLarge(f"The body must have at most {limit} bytes, but has {size}.")
