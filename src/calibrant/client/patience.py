"""How often and how long one call is tried."""

import random
from dataclasses import dataclass
from time import monotonic
from uuid import uuid4

from .errors import CalibrantError, DeadlineExpired, NoAnswer

_JITTER = 0.5
"""Share of a pause that chance adds to it: those who were refused together do not come back together."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """When to try again: after a 503 or 429, a proxy's 502, and after a connection that broke. A calibration changes
    nothing at the service, so asking twice is safe; what was refused for another reason would be refused again, and a
    deadline that is over stays over (504), though the service says when it might have time."""

    attempts: int = 4
    """In all; 1 never tries again. In a stream they begin anew whenever more of the answer has come."""
    resends: int = 2
    """Of those, the ones that follow a request which was sent and got no answer, or half of one: it may be what ended
    the process that had it, and would end the next. Over the whole call, however much of a stream had come."""
    first_pause_s: float = 0.1
    """Doubled each time; a longer `Retry-After` is always waited for."""
    longest_pause_s: float = 5.0


class Patience:
    """The attempts and the time that one call has left."""

    def __init__(self, retries: Retries, deadline_ms: float | None, timeout_s: float, network_ms: float) -> None:
        if deadline_ms is not None and not deadline_ms > 0.0:
            raise ValueError(f"`deadline_ms` must be > 0, but is {deadline_ms}.")
        self._retries = retries
        self._network_ms = network_ms
        self._told = deadline_ms is not None
        self._end = monotonic() + (timeout_s if deadline_ms is None else 1e-3 * deadline_ms)
        self._tries = 0
        self._losses = 0
        self._interruptions = 0
        self.request_id = uuid4().hex
        """Of all its attempts, so that the service's log tells which belong together."""

    def remaining(self) -> float:
        """Seconds.

        raises  DeadlineExpired if none is left
        """
        left = self._end - monotonic()
        if left <= 0.0:
            raise expired(self.request_id)
        return left

    @property
    def deadline_ms(self) -> float | None:
        """What the service is told that it has: the rest, less the way there and back; None if nothing was asked."""
        if not self._told:
            return None
        left = 1e3 * self.remaining()
        return max(left - self._network_ms, 0.5 * left)

    def came_forward(self) -> None:
        """Part of the answer has come: the count of attempts begins anew."""
        self._tries = 0

    def pause(self, failure: CalibrantError) -> float:
        """Seconds to wait before the next attempt.

        raises  the failure, if another attempt is of no use or out of time
        """
        self._tries += 1
        failure.request_id = failure.request_id or self.request_id
        unanswered = isinstance(failure, NoAnswer)
        self._losses += unanswered and failure.code != UNCONNECTED
        # What had the request ended: if the next one does too, it was the request.
        self._interruptions += failure.status == 503 and failure.code == "engine_failed"
        given_up = self._tries >= self._retries.attempts or self._losses > self._retries.resends
        given_up |= self._interruptions > 1
        if given_up or not (unanswered or failure.status in (429, 503)):
            raise failure
        seconds = min(self._retries.first_pause_s * 2.0 ** (self._tries - 1), self._retries.longest_pause_s)
        if failure.retry_after_s is not None:
            seconds = max(seconds, failure.retry_after_s)
        elif failure.code == BROKEN and self._tries == 1:
            # Nearly always a kept connection that the server closed as the request was on its way.
            return 0.0
        seconds *= 1.0 + _JITTER * random.random()
        if monotonic() + seconds >= self._end:
            raise failure
        return seconds


BROKEN = "connection_broken"
UNCONNECTED = "not_connected"
"""Codes of `NoAnswer`."""


def expired(request_id: str | None = None) -> DeadlineExpired:
    detail = "The time given was over before the service had answered."
    return DeadlineExpired(detail, code="deadline_expired", request_id=request_id)
