"""The application: the service behind its routes, as an ASGI server calls it."""

import socket

from starlette.types import Receive, Scope, Send

from .cors import CrossOrigin
from .middleware import RequestBoundary
from .routes import ROUTES
from .routing import Routes
from .service import Service
from .settings import Settings


class Application:
    """To be called between `service.start` and `service.stop`."""

    def __init__(self, settings: Settings | None = None, job_process: socket.socket | None = None) -> None:
        """`job_process` leads to the process that calibrates batches; without one they are calibrated in this."""
        self.service = Service(settings or Settings(), job_process)
        self.routes = Routes(ROUTES)
        boundary = RequestBoundary(self.service, self.routes)
        origins = self.service.settings.cors_origins
        self._layers = boundary if origins is None else CrossOrigin(boundary, origins, self.routes.methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._layers(scope, receive, send)
