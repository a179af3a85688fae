"""What the service knows about one request while it is served."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from starlette.types import Scope

_KEY = "calibrant.context"


@dataclass(slots=True)
class RequestContext:
    request_id: str
    received: float = field(default_factory=perf_counter)
    """Clock of `time.perf_counter`: deadlines count from here."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each stage, in order."""
    after: list[Callable[[], None]] = field(default_factory=list)
    """To be called once the response has left."""
    problem: str | None = None
    """`code` of the refusal, if it was refused."""

    def deadline(self, budget_ms: float | None, header_ms: float | None) -> float | None:
        """When the answer is due, on the clock of `received`: the smaller budget holds."""
        budgets = [ms for ms in (budget_ms, header_ms) if ms is not None]
        return self.received + 1e-3 * min(budgets) if budgets else None


def attach(scope: Scope, context: RequestContext) -> None:
    scope[_KEY] = context


def context_of(scope: Scope) -> RequestContext:
    context = scope[_KEY]
    assert isinstance(context, RequestContext)
    return context
