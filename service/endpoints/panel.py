"""`POST /v1/panel`."""

from collections.abc import Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from calibrant.errors import InvalidInput, Problem
from calibrant.intake import Built, panel_steps
from calibrant.steps import Steps, told

from ..body import body_of
from ..context import context_of
from ..dispatch import all_or_nothing
from ..errors import UnsupportedMediaType
from ..routing import FILES, FORMATS
from ..service import service_of
from ..wire.formats import FORMATS as DOCUMENTS
from ..wire.formats import JSON, answer_format, require_media_type, require_plain
from ..wire.panels import chain_in, memory_of

TAKEN = (*FORMATS, *FILES)


async def panel(request: Request) -> Response:
    """Make a panel of a chain of quotes: forwards by parity, vols of bid, mid and ask, what was left out and why."""
    service, context = service_of(request), context_of(request.scope)
    require_plain(context.headers)
    media_type = require_media_type(context.headers, TAKEN)
    body = await body_of(request)
    context.reserve(memory_of(body, media_type))
    steps = told(_steps(body, media_type, dict(request.query_params)), all_or_nothing)
    built = await service.dispatch.panel(steps, len(body), context.deadline(None))
    answer = answer_format(context.headers, DOCUMENTS.get(media_type, JSON))
    encoding = partial(answer.encode, built)
    return Response(encoding(), media_type=answer.media_type)


def _steps(body: bytes, media_type: str, asked: Mapping[str, str]) -> Steps[dict[str, object]]:
    """raises  UnsupportedMediaType where the format, or exercise, needs a package that the service does not have"""
    try:
        tables, settings = chain_in(body, media_type, asked)
        built: Built = yield from panel_steps(tables, settings)
        return built.document()
    except ImportError as error:
        raise UnsupportedMediaType(str(error)) from None
    except InvalidInput as error:
        raise InvalidInput(*map(_of_body, error.problems)) from None


def _of_body(problem: Problem) -> Problem:
    """Of a file, which has no fields to point at, the body."""
    return problem if problem.path[:1] != ("the body",) else Problem((), problem.detail)
