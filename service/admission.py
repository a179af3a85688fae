"""Who is let in: decided by the headers alone, before the body is read, so that a refusal costs next to nothing.

How long a request would wait is estimated in two parts: for its lane, the costs of the jobs before it; for the event
loop, twice its lateness of late, since a request needs the loop to be decoded and to be answered. The lateness shows
what no queue does: that the loop itself, the interpreter lock or the machine is short. A request is refused if it
would wait for longer than it may; where its client gave a deadline, the wait and its own time together.
"""

import asyncio
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from .auth import Keys
from .context import DEADLINE_HEADER, RequestContext, milliseconds
from .dispatch import short_patience
from .errors import DeadlineUnreachable, Overloaded, RateLimited
from .lane import Priority, retry_after
from .memory import Memory, of_body
from .pauses import Pauses
from .routing import Route
from .scheduler import Scheduler, impatient, unreachable
from .settings import Settings

LARGE_BODY = 64 * 1024
"""Bytes from which on a request is a long job: half a millisecond of decoding alone."""
_CLIENTS = 10_000
"""Whose rates are remembered: the others have not been here for longer."""
_OWN = 2e-3
"""Seconds that a request takes beside its waiting, until some have been measured: their median."""
_STEP = 0.02
"""Share by which one request moves that median, up or down."""
_MARGIN = 1.2
"""Waits turn out longer than estimated about as often as shorter: an answer that just misses its deadline is the worst
of all, since it costs as much as one in time."""
_GIVING_WAY = 5e-3
"""Seconds, at most, that a quarter of a megabyte of a large body waits for interactive requests: beside a stream of
them that never ends it arrives at 50 MB a second."""
_LIMITS = {Priority.INTERACTIVE: 512, Priority.LONG: 64, Priority.BULK: 8, Priority.JOB: 32}
"""Requests of a kind that may be in the service, wherever in it. A batch holds many panels; of jobs only those
count that are answered at once."""


def kind_of(route: Route, context: RequestContext) -> Priority | None:
    """How urgent a request is by its headers; None if it needs no engine."""
    large = route.work is Priority.INTERACTIVE and context.declared_bytes > LARGE_BODY
    return Priority.LONG if large else route.work


def body_bytes(kind: Priority, n_bytes: int) -> int:
    """Bytes of this process's memory that such a body takes; batches and jobs are kept as they come, read elsewhere."""
    return n_bytes if kind in (Priority.BULK, Priority.JOB) else of_body(n_bytes)


@dataclass(slots=True)
class _Bucket:
    """Tokens of one client."""

    tokens: float
    at: float


class RateLimit:
    """A bucket of tokens for each client: it fills at the rate and holds the burst."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def spend(self, client: str, now: float) -> None:
        """raises  RateLimited if the client has no token left"""
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket(self._burst, now)
            if len(self._buckets) > _CLIENTS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(client)
            bucket.tokens = min(bucket.tokens + self._rate * (now - bucket.at), self._burst)
            bucket.at = now
        if bucket.tokens < 1.0:
            wait = (1.0 - bucket.tokens) / self._rate
            raise RateLimited(
                f"More than {self._rate:g} requests a second came from this client.",
                headers={"retry-after": retry_after(wait)},
            )
        bucket.tokens -= 1.0


class Admission:
    """Lets requests in and counts them out. Used on the event loop."""

    def __init__(self, settings: Settings, scheduler: Scheduler, pauses: Pauses, memory: Memory) -> None:
        self._keys = Keys.read(settings.api_keys)
        self._scheduler = scheduler
        self._pauses = pauses
        self._memory = memory
        self._patience = short_patience(settings)
        self._rate = None if settings.rate_limit is None else RateLimit(settings.rate_limit, settings.rate_burst)
        self._inside = dict.fromkeys(_LIMITS, 0)
        self._own = _OWN
        self._quiet = asyncio.Event()
        """No interactive request is inside."""
        self._quiet.set()

    def admit(self, route: Route, address: str, context: RequestContext) -> Priority | None:
        """Let a request in that came from this address; what is returned goes to `leave`.

        raises  Unauthenticated, Forbidden, RateLimited, Overloaded, TooLarge, DeadlineUnreachable, InvalidInput
        """
        if route.open:
            return None
        context.client = address
        if self._keys.required:
            context.client = context.owner = self._keys.authorise(context.headers.get("authorization"), route.scope)
        kind = kind_of(route, context)
        if kind is None:
            return None
        if self._rate is not None:
            self._rate.spend(context.client, context.received)
        given = context.headers.get(DEADLINE_HEADER)
        if given is not None:
            context.deadline_ms = milliseconds(given)
        self._require_room(kind, context)
        hold = self._memory.hold()
        hold.grow(body_bytes(kind, context.declared_bytes))
        context.hold = hold
        self._inside[kind] += 1
        if kind is Priority.INTERACTIVE:
            self._quiet.clear()
        return kind

    def leave(self, kind: Priority, context: RequestContext) -> None:
        if context.hold is not None:
            context.hold.close()
        self._inside[kind] -= 1
        if self._inside[Priority.INTERACTIVE] == 0:
            self._quiet.set()
        waited = context.stages.get("queue")
        if waited is not None and kind is Priority.INTERACTIVE:
            own = perf_counter() - context.received - waited
            self._own *= 1.0 + _STEP if own > self._own else 1.0 - _STEP

    async def give_way(self) -> None:
        """Let the interactive requests inside go first, whatever they wait for, for a few milliseconds at most.

        For whoever has a body of tens of megabytes in hand, between its pieces: it takes the event loop 40 ms, in which
        an interactive request took 10.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_GIVING_WAY):
                await self._quiet.wait()

    def wait(self, kind: Priority) -> float:
        """Seconds that a request which comes now would wait."""
        return self._scheduler.wait(kind) + 2.0 * self._pauses.lag

    def _require_room(self, kind: Priority, context: RequestContext) -> None:
        wait = self.wait(kind)
        given = context.deadline(None)
        # With nobody inside it is let in whatever was measured, or one bad measurement would shut the door for good.
        if self._inside[kind] > 0:
            if given is not None:
                if perf_counter() + _MARGIN * wait + self._own > given:
                    raise unreachable(wait)
            elif kind is Priority.INTERACTIVE and wait > self._patience.seconds:
                raise impatient(wait, self._patience)
        if self._inside[kind] >= _LIMITS[kind]:
            raise Overloaded(
                f"{_LIMITS[kind]} requests of this kind are being served already.",
                headers={"retry-after": retry_after(wait)},
            )


SHED = (DeadlineUnreachable.code, Overloaded.code, RateLimited.code)
"""Codes of refusals for want of time or room, beside `deadline_expired`."""
