"""The application: FastAPI with the service behind its routes, as an ASGI server calls it."""

import socket
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route as FrameworkRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from .cors import CrossOrigin
from .middleware import RequestBoundary
from .openapi import described, documented
from .routes import ROUTES
from .routing import RawRoute, Route, Routes
from .service import Service
from .settings import Settings


class Application(FastAPI):
    """To be called between `service.start` and `service.stop`."""

    def __init__(self, settings: Settings | None = None, job_process: socket.socket | None = None) -> None:
        """`job_process` leads to the process that calibrates batches; without one they are calibrated in this."""
        super().__init__(
            title="Calibrant",
            description="Stochastic-volatility models calibrated to option quotes.",
            version=version("calibrant"),
            docs_url=None,
            redoc_url=None,
            # To where the Host header says, which is the client's to choose.
            redirect_slashes=False,
            # Spans are made by `tracing`, with our stages in them, and metrics by `metrics`.
            telemetry={"tracing": False, "metrics": False, "logs": False},
        )
        self.service = Service(settings or Settings(), job_process)
        # The document, which FastAPI brings, needs a key and is counted like the others.
        own = [Route("GET", route.path, route.endpoint) for route in self.routes if isinstance(route, FrameworkRoute)]
        self.table = Routes([*ROUTES, *own])
        self.router.route_class = RawRoute
        told = [route for route in ROUTES if not route.page]
        for route in told:
            self.add_api_route(route.path, route.endpoint, methods=[route.method], **documented(route))
        # Our layers for FastAPI's: the boundary writes every refusal, also that of what went wrong.
        boundary = RequestBoundary(self.service, self.table, self.router)
        origins = self.service.settings.cors_origins
        self._layers: ASGIApp = boundary if origins is None else CrossOrigin(boundary, origins, self.table.methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # FastAPI looks for its telemetry first, of which we want none.
        scope["app"] = self
        await self._layers(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = described(super().openapi(), ROUTES)
        return self.openapi_schema
