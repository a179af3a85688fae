"""The OpenAPI document, and a page that shows it."""

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from .. import openapi
from ..routing import JSON


async def document(request: Request) -> Response:
    """What this document is made of: every path, with what it takes and answers."""
    return Response(to_json(openapi.document(request.app.routes.table)), media_type=JSON)


async def page(request: Request) -> Response:
    """The document for reading."""
    return Response(openapi.PAGE, media_type="text/html")
