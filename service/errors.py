"""What a request can be refused for, and how a refusal is written: RFC 9457 `application/problem+json`.

Each error class fixes its status and its `code`, the two things a client may branch on; the sentence is for people.
Whatever may be answered at another time says when: it has a `Retry-After`.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

from pydantic_core import to_json
from starlette.responses import Response

from calibrant.errors import InvalidInput, Problem, shown

MAX_PROBLEMS = 20
"""Problems listed in one refusal: a sentence for each of ten thousand bad quotes helps nobody."""


_LONGEST = 1000
"""Characters of a sentence, whatever it quotes."""


class ServiceError(Exception):
    """A request that gets no answer, and why."""

    status: ClassVar[int]
    code: ClassVar[str]
    retry_after: ClassVar[int | None] = None
    """Seconds, where whoever refuses knows no better; None if it would be refused again."""

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.detail = shown(detail, _LONGEST)
        self.headers = dict(headers or {})
        if self.retry_after is not None:
            self.headers.setdefault("retry-after", str(self.retry_after))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[Callable[..., "ServiceError"], tuple[Any, ...]]:
        # Exceptions are pickled by the arguments of their making, which are not the same in all of these classes.
        return _restored, (type(self), self.detail, self.headers, self.problems)


class InvalidRequest(ServiceError):
    status, code = 422, "invalid_input"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems[0].detail, problems=problems[:MAX_PROBLEMS])


class Malformed(ServiceError):
    status, code = 400, "invalid_input"


class TooLarge(ServiceError):
    status, code = 413, "too_large"


class UnsupportedMediaType(ServiceError):
    status, code = 415, "unsupported_media_type"


class DeadlineExpired(ServiceError):
    status, code = 504, "deadline_expired"
    retry_after = 1


class DeadlineUnreachable(ServiceError):
    status, code = 503, "deadline_unreachable"
    retry_after = 1


class Overloaded(ServiceError):
    status, code = 503, "overloaded"
    retry_after = 1


class RateLimited(ServiceError):
    status, code = 429, "rate_limited"
    retry_after = 1


class Unauthenticated(ServiceError):
    status, code = 401, "unauthenticated"


class Forbidden(ServiceError):
    status, code = 403, "forbidden"


class NotReady(ServiceError):
    status, code = 503, "not_ready"
    retry_after = 5


class Interrupted(NotReady):
    """What had the request ended, perhaps by it: clients send it once more at most."""

    code = "engine_failed"


class EngineFailed(ServiceError):
    status, code = 500, "engine_failed"


class NotFound(ServiceError):
    status, code = 404, "not_found"


class MethodNotAllowed(ServiceError):
    status, code = 405, "method_not_allowed"


def _restored(
    kind: type[ServiceError], detail: str, headers: dict[str, str], problems: Sequence[Problem]
) -> ServiceError:
    error = kind.__new__(kind)
    ServiceError.__init__(error, detail, headers=headers, problems=problems)
    return error


Kept = TypeVar("Kept", bound=BaseException)


def bare(error: Kept) -> Kept:
    """An error to be kept: without its traceback and those of the errors behind it, which hold the frames that they
    went through, and with them the body of the request until the collector comes past."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def refusal_of(error: BaseException) -> ServiceError:
    """What a client is told of an error; of one that is the service's own, nothing that would give anything away."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, InvalidInput):
        return InvalidRequest(error.problems)
    return EngineFailed("The service failed on this request; the cause is logged under its `request_id`.")


def problem_document(error: ServiceError, request_id: str | None = None) -> dict[str, Any]:
    """The body of a refusal: what `schema.ProblemDocument` describes."""
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


def problem_response(error: ServiceError, request_id: str | None = None, oip: bool = False) -> Response:
    """`oip`: for clients of the Open Inference Protocol, which read the field `error` and no other."""
    document = problem_document(error, request_id)
    if oip:
        document["error"] = error.detail
    return Response(to_json(document), error.status, error.headers, media_type="application/problem+json")
