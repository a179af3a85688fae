"""The OpenAPI document, and a page that shows it."""

from starlette.requests import Request
from starlette.responses import Response

from ..openapi import PAGE
from ..routing import JSON


async def document(request: Request) -> Response:
    """What this document is made of: every path, with what it takes and answers."""
    return Response(request.app.document, media_type=JSON)


async def page(request: Request) -> Response:
    """The document for reading."""
    return Response(PAGE, media_type="text/html")
