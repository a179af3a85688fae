"""Routes whose endpoints read the raw body and build their own response."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send


class RawRoute(APIRoute):
    """FastAPI's route as far as the document is concerned, and none of its dependencies, exit stacks and validation:
    they cost 80 us of every request for nothing that these endpoints use."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **kwargs: Any) -> None:
        super().__init__(path, endpoint, **kwargs)
        self.app = _raw(endpoint)


def _raw(endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def by_path(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], ASGIApp]:
    """The raw routes without a parameter in their path, by method and path."""
    return {
        (method, route.path): route.app
        for route in routes
        if isinstance(route, RawRoute) and not route.param_convertors
        for method in route.methods or ()
    }
