"""The application: the service behind its routes, as an ASGI server calls it."""

import socket
from functools import cached_property

from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from .cors import CrossOrigin
from .middleware import RequestBoundary
from .openapi import document
from .routes import ROUTES
from .routing import Routes
from .service import Service
from .settings import Settings


class Application:
    """To be called between `service.start` and `service.stop`."""

    def __init__(self, settings: Settings | None = None, job_process: socket.socket | None = None) -> None:
        """`job_process` leads to the job process; without one its work is done in this."""
        self.service = Service(settings or Settings(), job_process)
        self.routes = Routes(ROUTES)
        boundary = RequestBoundary(self.service, self.routes)
        origins = self.service.settings.cors_origins
        self._layers = boundary if origins is None else CrossOrigin(boundary, origins, self.routes.methods)

    @cached_property
    def document(self) -> bytes:
        """The OpenAPI document."""
        return to_json(document(self.routes.table))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._layers(scope, receive, send)
