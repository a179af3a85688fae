"""Assembly of the application: routes, middleware, start-up."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from calibrant.errors import shown

from .cors import CrossOrigin
from .endpoints import batch, calibrate, operations, price, v2
from .errors import MethodNotAllowed, NotFound
from .middleware import BodyLimit, Direct, RequestBoundary
from .openapi import describe
from .routing import RawRoute, by_path
from .service import Service
from .settings import Settings
from .wire import oip, schema


def create_app(settings: Settings | None = None, batch_worker: socket.socket | None = None) -> FastAPI:
    """`batch_worker` leads to the process that calibrates batches; without one they are calibrated in this."""
    service = Service(settings or Settings(), batch_worker)
    direct: dict[tuple[str, str], ASGIApp] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = Application(
        service,
        direct,
        title="Calibrant",
        description="Stochastic-volatility models calibrated to option quotes.",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        # To where the Host header says, which is the client's to choose.
        redirect_slashes=False,
        # Spans are made by `tracing`, with our stages in them, and metrics by `metrics`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.service = service
    app.router.route_class = RawRoute
    calibrate.add_routes(app)
    batch.add_routes(app)
    v2.add_routes(app)
    price.add_routes(app)
    operations.add_routes(app)
    direct.update(by_path(app.routes))
    service.routes = frozenset(getattr(route, "path", "") for route in app.routes)
    describe(app, *schema.DOCUMENTS, *oip.DOCUMENTS)
    return app


class Application(FastAPI):
    """FastAPI with our layers for its own: `RequestBoundary` writes every refusal, also that of what went wrong."""

    def __init__(self, service: Service, direct: Mapping[tuple[str, str], ASGIApp], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._service = service
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stack = self.middleware_stack
        if scope["type"] == "http" and stack is not None:
            # FastAPI looks for its telemetry first, of which we want none.
            scope["app"] = self
            await stack(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        settings = self._service.settings
        routed = ExceptionMiddleware(self.router, handlers={HTTPException: _refuse_route})
        inner = Direct(routed, endpoints=self._direct)
        limited = BodyLimit(inner, max_bytes=settings.max_body_bytes, max_batch_bytes=settings.max_batch_body_bytes)
        bounded = RequestBoundary(limited, service=self._service)
        return bounded if settings.cors_origins is None else CrossOrigin(bounded, settings.cors_origins)


async def _refuse_route(request: Request, error: Exception) -> Response:
    """What the router refuses, as a problem like every other refusal."""
    assert isinstance(error, HTTPException)
    # Not that of `request.url`, which is put together with the Host header: a path in there would be the one named.
    path = shown(request.scope["path"])
    if error.status_code == 405:
        methods = set((error.headers or {}).get("Allow", "").split(", "))
        allowed = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
        detail = f"{path} answers {allowed}, not {shown(request.method)}."
        raise MethodNotAllowed(detail, headers={"allow": allowed})
    raise NotFound(f"There is nothing at {path}.")
