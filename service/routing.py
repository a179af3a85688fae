"""Routes: what is answered where, and all that the layers before an endpoint have to know of a request.

The table is in `routes`. Whatever depends on the path (keys, urgency, the limit of the body, metrics, the OpenAPI
document, what a full service still answers, CORS) reads it from the route found here, once a request.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import request_response

from calibrant.errors import shown

from .auth import Scope
from .errors import MethodNotAllowed, NotFound
from .lane import Priority

JSON = "application/json"
FORMATS = (JSON, "application/msgpack")
"""Content types of all that takes and gives plain documents."""

FILES = (
    "text/csv",
    "text/tab-separated-values",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.apache.parquet",
    "application/octet-stream",
)
"""Content types of files, whose content tells what they are."""

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Reads the raw body and builds its own response. The first line of its docstring is its summary in the document."""


@dataclass(frozen=True)
class Route:
    method: Literal["GET", "POST", "DELETE"]
    """HEAD is GET (RFC 9110, 9.3.2): the server sends no body."""
    path: str
    """With the names of its parameters in braces; the label of the metrics too."""
    endpoint: Endpoint
    work: Priority | None = None
    """How urgent, if it needs the engine: then it is let in by time, room and rate. A large body makes it long work."""
    scope: Scope | None = None
    """That a key must have; None where any key will do."""
    open: bool = False
    """Whether it is answered without a key."""
    page: bool = False
    """Whether it is for browsers: in no document of the API, and `direct`."""
    large: bool = False
    """Whether its body may have as many bytes as a batch."""
    watches: bool = False
    """Whether it stays open for as long as its client likes: it is not counted as in flight."""
    oip: bool = False
    """Whether clients of the Open Inference Protocol ask for it."""
    direct: bool = False
    """Whether it is called without FastAPI's router, which takes 19 us of a request's 36 (health, processor time)."""
    body: type[BaseModel] | None = None
    takes: Sequence[str] = FORMATS
    """Media types of the body."""
    query: type[BaseModel] | None = None
    """What may stand in the query, where a body has no place for it."""
    answer: type[BaseModel] | None = None
    """None where no model describes it."""
    gives: Sequence[str] = (JSON,)
    accepted: type[BaseModel] | None = None
    """The answer, with status 202, where the client would rather have the result later."""

    @property
    def vital(self) -> bool:
        """Whether a full service answers it too: whoever asks how it is must be told."""
        return (self.open and not self.page) or self.scope is Scope.METRICS

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)


class RawRoute(APIRoute):
    """FastAPI's route as far as the document is concerned, and none of its dependencies, exit stacks and validation:
    they cost 80 us of every request for nothing that these endpoints use."""

    def __init__(self, path: str, endpoint: Endpoint, **kwargs: Any) -> None:
        super().__init__(path, endpoint, **kwargs)
        self.app = request_response(endpoint)


class Routes:
    """Finds the route of a request."""

    def __init__(self, table: Iterable[Route]) -> None:
        self.routes = tuple(table)
        self._fixed: dict[str, dict[str, Route]] = {}
        patterns: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            at = patterns if route.parameters else self._fixed
            at.setdefault(route.path, {})[route.method] = route
        self._patterns = [(re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)), at) for path, at in patterns.items()]

    @property
    def methods(self) -> list[str]:
        """That are answered anywhere."""
        return sorted({route.method for route in self.routes} | {"HEAD"})

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route, and the parameters in the path; what is not found is a route that refuses."""
        if method == "HEAD":
            method = "GET"
        methods, parameters = self._fixed.get(path), {}
        if methods is None:
            for pattern, of_pattern in self._patterns:
                if found := pattern.fullmatch(path):
                    methods, parameters = of_pattern, found.groupdict()
                    break
            else:
                return _nowhere(path, NotFound(f"There is nothing at {shown(path)}.")), {}
        route = methods.get(method)
        if route is None:
            allowed = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
            detail = f"{shown(path)} answers {allowed}, not {shown(method)}."
            is_open = all(route.open for route in methods.values())
            return _nowhere(path, MethodNotAllowed(detail, headers={"allow": allowed}), is_open), {}
        return route, parameters

    def vital(self, path: str) -> bool:
        """Whether a full service answers this."""
        return self.find("GET", path)[0].vital


def _nowhere(path: str, refusal: NotFound | MethodNotAllowed, is_open: bool = False) -> Route:
    async def refuse(_: Request) -> Response:
        raise refusal

    # A label that a client can choose would be a series that a client can create.
    return Route("GET", "other", refuse, direct=True, open=is_open, oip=path == "/v2" or path.startswith("/v2/"))
