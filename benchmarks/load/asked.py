"""Mutated inputs put to the application, and what is at fault in an answer."""

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.options import Effort
from calibrant.pipeline import assess
from calibrant.quotes_csv import read_csv
from calibrant.release import Release
from calibrant.report import calibration_report
from service.errors import DeadlineExpired, DeadlineUnreachable

from .mutated import JSON, MSGPACK, Input

_PROBLEM = "application/problem+json"
_IN_TIME = (DeadlineExpired.code, DeadlineUnreachable.code)
"""Codes of refusals that a deadline in the input may ask for."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(app: Callable[..., Any], given: Input) -> Answer:
    """One request to an ASGI application, without a server."""
    messages: list[dict[str, Any]] = []
    received = False

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received:
            # The client stays until it has its answer.
            await asyncio.Event().wait()
        received = True
        return {"type": "http.request", "body": given.body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    headers = {"content-length": str(len(given.body)), **given.headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": given.path,
        "raw_path": given.path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    start, *rest = messages
    named = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], named, b"".join(message.get("body", b"") for message in rest))


def fault_of(answer: Answer) -> str | None:
    """What no input may get: a failure of the service, or an answer that is none."""
    if b"engine_failed" in answer.body:
        return "engine_failed"
    media_type = answer.headers.get("content-type", "")
    try:
        document = _read(media_type, answer.body)
    except ValueError as error:
        return f"{media_type} that cannot be read: {error}"
    if answer.status == 200:
        return None
    if media_type != _PROBLEM or not document.get("detail"):
        return f"{answer.status} without a problem"
    if answer.status >= 500 and document["code"] not in _IN_TIME:
        return f"{answer.status} {document['code']}"
    return None


def _read(media_type: str, body: bytes) -> Any:
    if media_type in (JSON, _PROBLEM):
        return json.loads(body, parse_constant=_refuse)
    if media_type == MSGPACK:
        return msgspec.msgpack.decode(body)
    return None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def calibrated_file(given: Input, release: Release, max_work: float) -> int:
    """What the command line does with a file: 200 if it has answers, 422 if it is refused."""
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(given.body)
        file.flush()
        try:
            for _, panel in read_csv(Path(file.name)):
                assessment = assess(panel, HESTON, release, effort=Effort(max_work=max_work))
                json.dumps(calibration_report(assessment, timing_us={}), allow_nan=False)
        except InvalidInput:
            return 422
    return 200
