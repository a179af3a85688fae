"""What the service knows about one request while it is served."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from starlette.types import Scope

from calibrant.errors import InvalidInput, Problem, shown

from .headers import decimal_number, whole_number
from .memory import Hold

DEADLINE_HEADER = "x-request-deadline-ms"
RECEIVED = "calibrant.received"
"""Key of a scope: when the server saw the first byte of the request, on the clock of `time.perf_counter`."""
HUNG_UP = "calibrant.hung_up"
"""Key of a scope, there once the client has gone."""
_KEY = "calibrant.context"


@dataclass(slots=True)
class RequestContext:
    request_id: str
    headers: dict[str, str]
    """By their names in lower case; of several of one name the last."""
    received: float = field(default_factory=perf_counter)
    """Clock of `time.perf_counter`: deadlines count from here."""
    client: str = ""
    """Name of the key it came with, else the address it came from."""
    owner: str = ""
    """Name of the key; empty where none is needed."""
    deadline_ms: float | None = None
    """Of the header `X-Request-Deadline-Ms`."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each stage, in order."""
    after: list[Callable[[], None]] = field(default_factory=list)
    """To be called once the response has left."""
    hold: Hold | None = None
    """Memory reserved until it is answered; None if it needs no engine."""
    model: str | None = None
    """That is to be calibrated to the one panel of the request, once that is known."""
    problem: str | None = None
    """`code` of the refusal, if it was refused."""

    @property
    def declared_bytes(self) -> int:
        """Of the body, by `Content-Length`, to which the server holds the client; 0 without one.

        raises  InvalidInput if that is no whole number
        """
        given = self.headers.get("content-length")
        if given is None:
            return 0
        length = whole_number(given)
        if length is None:
            needed = f"The header Content-Length must be a whole number of bytes, but is {shown(given)!r}."
            raise InvalidInput(Problem((), needed))
        return length

    def reserve(self, n_bytes: int) -> None:
        """So much memory more, until it is answered.

        raises  TooLarge, Overloaded
        """
        if self.hold is not None:
            self.hold.grow(n_bytes)

    def deadline(self, budget_ms: float | None) -> float | None:
        """When the answer is due, on the clock of `received`: the smaller of the budget and the header's holds."""
        return due(self.received, budget_ms, self.deadline_ms)


def due(received: float, *limits_ms: float | None) -> float | None:
    """When the first of these limits has passed, on the clock of `received`; None if there is none."""
    given = [ms for ms in limits_ms if ms is not None]
    return received + 1e-3 * min(given) if given else None


def attach(scope: Scope, context: RequestContext) -> None:
    scope[_KEY] = context


def context_of(scope: Scope) -> RequestContext:
    context = scope[_KEY]
    assert isinstance(context, RequestContext)
    return context


def hold_of(scope: Mapping[str, Any]) -> Hold | None:
    """What a request holds of the memory; None too where it was refused before it came so far."""
    context = scope.get(_KEY)
    return context.hold if isinstance(context, RequestContext) else None


def milliseconds(value: str) -> float:
    """What the header `X-Request-Deadline-Ms` says."""
    ms = decimal_number(value)
    if ms is None or not 0.0 < ms < math.inf:
        # A header has no place in the body for a pointer to name.
        needed = f"The header X-Request-Deadline-Ms must be a number > 0, but is {shown(value)!r}."
        raise InvalidInput(Problem((), needed))
    return ms
