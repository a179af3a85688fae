"""The pages that a browser is given, and their files."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from ..pages import CONSOLE, DOCS, asset, policy

_HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "vary": "accept-encoding",
}


async def console(request: Request) -> Response:
    """The console: quotes in, a fitted surface out, in a browser."""
    return await _answer(request, CONSOLE)


async def docs(request: Request) -> Response:
    """The API's own page, from its OpenAPI document."""
    return await _answer(request, DOCS)


async def file(request: Request) -> Response:
    """A file of the pages: it may be kept for good where its address has the hash of its content."""
    return await _answer(request, request.path_params["file"])


async def _answer(request: Request, name: str) -> Response:
    # Plotly has five megabytes: read, and compressed, once, and not by the event loop.
    found = await asyncio.to_thread(asset, name)
    kept = request.query_params.get("v") == found.version
    tag = f'"{found.version}"'
    headers = {
        **_HEADERS,
        "content-security-policy": policy(name),
        "etag": tag,
        "cache-control": "public, max-age=31536000, immutable" if kept else "no-cache",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = found.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        content = await asyncio.to_thread(lambda: found.compressed)
    return Response(content, headers=headers, media_type=found.media_type)
