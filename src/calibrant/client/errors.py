"""Why there is no answer: a class for each thing that a caller can do about it.

The service's own `code` is kept, and is finer: `Overloaded` is `overloaded`, `deadline_unreachable` or `not_ready`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class FieldProblem:
    """One thing wrong with one field of the request."""

    pointer: str
    """JSON pointer from the root of the request: `/quotes/expiry/17`."""
    detail: str


class CalibrantError(Exception):
    """A request that got no answer, and why; its text is the service's sentence."""

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int | None = None,
        request_id: str | None = None,
        errors: tuple[FieldProblem, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        """As in the service's contract; `connection_broken`, `not_connected` and `unreadable_answer` are the client's
        own, and `http_502` and the like are a proxy's."""
        self.status = status
        """Of HTTP; None where the service did not say it, or said it of one panel of a batch."""
        self.request_id = request_id
        """Under which the service's logs know it."""
        self.errors = errors
        self.retry_after_s = retry_after_s


class InvalidInput(CalibrantError):
    """The request is at fault, and `errors` says where: sent again it will be refused again."""


class NotAllowed(CalibrantError):
    """The key is missing, unknown, or not good for this."""


class Overloaded(CalibrantError):
    """Not now: the service has no room or no time, or is not ready. `retry_after_s` says when to come back."""


class RateLimited(Overloaded):
    """This client asks too often: fewer requests help, other servers do not."""


class DeadlineExpired(CalibrantError):
    """The time given was over, here or at the service, before there was an answer."""


class EngineFailed(CalibrantError):
    """The service failed on this request; its log says why under `request_id`."""


class NoAnswer(CalibrantError):
    """There was no connection, or it broke before the answer was whole: here, or behind a proxy that says 502."""


_CLASSES: Final[Mapping[str, type[CalibrantError]]] = {
    "invalid_input": InvalidInput,
    "too_large": InvalidInput,
    "unauthenticated": NotAllowed,
    "forbidden": NotAllowed,
    "overloaded": Overloaded,
    "deadline_unreachable": Overloaded,
    "not_ready": Overloaded,
    "rate_limited": RateLimited,
    "deadline_expired": DeadlineExpired,
    "engine_failed": EngineFailed,
}


def class_of(code: str, status: int | None) -> type[CalibrantError]:
    """The class for a code; for a refusal that has none, from a proxy, by its status."""
    if code in _CLASSES:
        return _CLASSES[code]
    return {429: RateLimited, 502: NoAnswer, 503: Overloaded}.get(status or 0, CalibrantError)
