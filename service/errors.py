"""What a request can be refused for, and how a refusal is written: RFC 9457 `application/problem+json`.

Each error class fixes its status and its `code`, the two things a client may branch on; the sentence is for people.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.responses import Response

from calibrant.errors import Problem

from .schema import LIST_TAG, NUMBER_TAG

MAX_PROBLEMS = 20
"""Problems listed in one refusal: a sentence for each of ten thousand bad quotes helps nobody."""


class ServiceError(Exception):
    """A request that gets no answer, and why."""

    status: ClassVar[int]
    code: ClassVar[str]

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.problems = tuple(problems)


class InvalidRequest(ServiceError):
    status, code = 422, "invalid_input"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems[0].detail, problems=problems[:MAX_PROBLEMS])


class TooLarge(ServiceError):
    status, code = 413, "too_large"


class UnsupportedMediaType(ServiceError):
    status, code = 415, "unsupported_media_type"


class DeadlineExpired(ServiceError):
    status, code = 504, "deadline_expired"


class NotReady(ServiceError):
    status, code = 503, "not_ready"


class EngineFailed(ServiceError):
    status, code = 500, "engine_failed"


class NotFound(ServiceError):
    status, code = 404, "not_found"


class MethodNotAllowed(ServiceError):
    status, code = 405, "method_not_allowed"


def problem_document(error: ServiceError, request_id: str | None = None) -> dict[str, Any]:
    """The body of a refusal: what `schema.Problem` describes."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
    }
    if error.problems:
        document["errors"] = [{"pointer": problem.pointer, "detail": problem.detail} for problem in error.problems]
    if request_id is not None:
        document["request_id"] = request_id
    return document


def problem_response(error: ServiceError, request_id: str | None = None) -> Response:
    body = to_json(problem_document(error, request_id))
    return Response(body, error.status, error.headers, media_type="application/problem+json")


def from_validation(error: ValidationError) -> InvalidRequest:
    """What pydantic found, in the words and with the pointers of the rest of the product."""
    return InvalidRequest([_problem(details) for details in error.errors(include_url=False)[:MAX_PROBLEMS]])


_NEEDED = {
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "tuple_type": "must be a pair of numbers",
    "too_short": "must be a pair of numbers",
    "too_long": "must be a pair of numbers",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
}


def _problem(error: ErrorDetails) -> Problem:
    path = tuple(part for part in error["loc"] if part not in (NUMBER_TAG, LIST_TAG))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "json_invalid":
        return Problem(path, f"The body is not JSON: {context['error']}.")
    if not path:
        return Problem(path, f"The body must be a JSON object, but is {_shown(error['input'])}.")
    if kind == "missing":
        return Problem.at(path, "is required, but is absent.")
    if kind == "extra_forbidden":
        return Problem.at(path, "is not a field of this request.")
    if kind == "literal_error":
        needed = f"must be one of {context['expected']}"
    elif kind == "greater_than":
        needed = f"must be > {context['gt']:g}"
    else:
        needed = _NEEDED.get(kind) or f"is not valid ({error['msg']})"
    return Problem.at(path, f"{needed}, but is {_shown(error['input'])}.")


def _shown(value: Any) -> str:
    """A value in a sentence, in JSON's words: whole when short, else its kind."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = to_json(value).decode()
    return text if len(text) <= 40 else f"{text[:37]}..."
