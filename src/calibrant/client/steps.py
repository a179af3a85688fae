"""A call as steps: what to send, what to make of the answer, whether to try again. No step waits by itself.

A call is a generator that yields what is to be done and is sent what came of it. `blocking` and `asynchronous` do it,
each in its way, and know nothing else; so both clients behave the same, by construction.
"""

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from numpy.typing import ArrayLike

from .codecs import CODECS, JSON, MSGPACK, Codec
from .errors import CalibrantError, FieldProblem, NoAnswer, class_of
from .patience import BROKEN, UNCONNECTED, Patience, Retries, expired
from .requests import (
    BarrierOf,
    Chain,
    LeverageSettings,
    Options,
    PanelRequest,
    Quotes,
    TouchSettings,
    batch_document,
    calibration_document,
    panel_document,
    price_document,
)
from .results import (
    BatchItem,
    Calibration,
    Job,
    Leverage,
    ModelInfo,
    ModelList,
    Outcome,
    Panel,
    Place,
    Prices,
    ProblemDocument,
    Touches,
)

T = TypeVar("T")

_LEVERAGE: Final = "/v1/leverage"
_TOUCH: Final = "/v1/one-touch"
_LINES: Final = "application/x-ndjson"
_READY_S: Final = 5.0
_EVENTS: Final = "text/event-stream"
_WATCHED_S: Final = 86_400.0
"""A job is watched for so long at most."""
_SILENCE_S: Final = 30.0
"""Between two events of a job, of which there is one a second: then they are asked for again."""


@dataclass(frozen=True)
class Pause:
    """To be answered by None, later."""

    seconds: float


@dataclass(frozen=True)
class Send:
    """To be answered by `Head` or `Lost`."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    timeout: float
    """Seconds of silence, in any part of it."""


@dataclass(frozen=True)
class Read:
    """To be answered by the next bytes of the body, b"" at its end, or `Lost`."""


@dataclass(frozen=True)
class Deliver:
    """To be given to the caller before going on, and answered by None."""

    item: BatchItem | Job


@dataclass(frozen=True)
class Head:
    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Lost:
    error: httpx.HTTPError


Step = Pause | Send | Read | Deliver
Event = Head | Lost | bytes | None
Steps = Generator[Step, Event, T]


@dataclass(frozen=True)
class Reply:
    """A whole answer that is no refusal."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-request-id")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for every call of a client."""

    key: str | None
    deadline_ms: float | None
    timeout_s: float
    network_ms: float
    retries: Retries
    wire: Literal["msgpack", "json"]


class Calls:
    """The calls of one client."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._codec: Codec = CODECS[terms.wire]

    def calibrate(self, quotes: Quotes, deadline_ms: float | None, options: Options) -> Steps[Calibration]:
        document = calibration_document(quotes, options)
        reply = yield from self._ask("POST", "/v1/calibrate", document, self._patience(deadline_ms))
        return replace(_decoded(reply, Calibration), request_id=reply.request_id)

    def calibrate_batch(self, panels: Iterable[PanelRequest], deadline_ms: float | None) -> Steps[list[Outcome]]:
        document = batch_document(panels)
        reply = yield from self._ask("POST", "/v1/calibrate/batch", document, self._patience(deadline_ms))
        outcomes = _outcomes(reply)
        if len(outcomes) != len(document["panels"]):
            raise _unreadable(f"it has {len(outcomes)} results for {len(document['panels'])} panels", reply.headers)
        return outcomes

    def submit_batch(self, panels: Iterable[PanelRequest]) -> Steps[Job]:
        document, patience = batch_document(panels), self._patience(None)
        later = {"prefer": "respond-async"}
        return _decoded((yield from self._ask("POST", "/v1/calibrate/batch", document, patience, later)), Job)

    def job(self, job_id: str, method: Literal["GET", "DELETE"]) -> Steps[Job]:
        return _decoded((yield from self._ask(method, _path_of(job_id), None, self._patience(None))), Job)

    def job_outcomes(self, job_id: str) -> Steps[list[Outcome]]:
        return _outcomes((yield from self._ask("GET", f"{_path_of(job_id)}/result", None, self._patience(None))))

    def watch_job(self, job_id: str) -> Steps[None]:
        """Delivers the job whenever the service tells of it, the last time when it has ended."""
        patience = Patience(self._terms.retries, None, _WATCHED_S, 0.0)
        while True:
            path = f"{_path_of(job_id)}/events"
            yield from self._opened("GET", path, None, patience, {"accept": _EVENTS}, _SILENCE_S)
            rest = b""
            while True:
                part = yield Read()
                if not isinstance(part, bytes) or not part:
                    break
                *events, rest = (rest + part).split(b"\n\n")
                for event in events:
                    job = _decoded(Reply({}, event.partition(b"data: ")[2]), Job)
                    patience.came_forward()
                    yield Deliver(job)
                    if job.ended:
                        return
            broken = _lost(part.error) if isinstance(part, Lost) else _cut("a job that has not ended")
            yield Pause(patience.pause(broken))

    def stream_batch(self, panels: Iterable[PanelRequest], deadline_ms: float | None) -> Steps[None]:
        """Delivers each panel's outcome once, also where the connection breaks and the batch is asked for again."""
        document, patience = batch_document(panels), self._patience(deadline_ms)
        waiting = set(range(len(document["panels"])))
        while True:
            head = yield from self._opened("POST", "/v1/calibrate/batch", document, patience, {"accept": _LINES})
            rest = b""
            while True:
                part = yield Read()
                if not isinstance(part, bytes) or not part:
                    break
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    index, outcome = _outcome(line, JSON, head.headers.get("x-request-id"))
                    if index in waiting:
                        waiting.discard(index)
                        patience.came_forward()
                        yield Deliver(BatchItem(index, outcome))
                patience.remaining()
            if not waiting:
                return
            broken = _lost(part.error) if isinstance(part, Lost) else _cut(f"{len(waiting)} panels without a result")
            yield Pause(patience.pause(broken))

    def panel(self, chain: Chain, deadline_ms: float | None, settings: Mapping[str, Any]) -> Steps[Panel]:
        document = panel_document(chain, settings)
        reply = yield from self._ask("POST", "/v1/panel", document, self._patience(deadline_ms))
        return replace(_decoded(reply, Panel), request_id=reply.request_id)

    def price(
        self,
        parameters: Mapping[str, float],
        expiry: ArrayLike,
        log_moneyness: ArrayLike,
        model: str,
        gradient: bool,
        deadline_ms: float | None,
    ) -> Steps[Prices]:
        document = price_document(model, parameters, expiry, log_moneyness, gradient)
        reply = yield from self._ask("POST", "/v1/price", document, self._patience(deadline_ms))
        return replace(_decoded(reply, Prices), request_id=reply.request_id)

    def leverage(
        self, surface: Mapping[str, Any], deadline_ms: float | None, settings: LeverageSettings
    ) -> Steps[Leverage]:
        document = {**settings, "surface": surface}
        reply = yield from self._ask("POST", _LEVERAGE, document, self._patience(deadline_ms))
        return _named((yield from self._awaited(reply)), Leverage)

    def submit_leverage(self, surface: Mapping[str, Any], settings: LeverageSettings) -> Steps[Job]:
        return (yield from self._submitted(_LEVERAGE, {**settings, "surface": surface}))

    def leverage_of(self, job_id: str) -> Steps[Leverage]:
        return _named((yield from self._result_of(job_id)), Leverage)

    def one_touch(
        self, barriers: Iterable[BarrierOf], deadline_ms: float | None, settings: TouchSettings
    ) -> Steps[Touches]:
        document = {**settings, "barriers": list(barriers)}
        reply = yield from self._ask("POST", _TOUCH, document, self._patience(deadline_ms))
        return _named((yield from self._awaited(reply)), Touches)

    def submit_one_touch(self, barriers: Iterable[BarrierOf], settings: TouchSettings) -> Steps[Job]:
        return (yield from self._submitted(_TOUCH, {**settings, "barriers": list(barriers)}))

    def touches_of(self, job_id: str) -> Steps[Touches]:
        return _named((yield from self._result_of(job_id)), Touches)

    def _submitted(self, path: str, document: Any) -> Steps[Job]:
        later = {"prefer": "respond-async"}
        return _decoded((yield from self._ask("POST", path, document, self._patience(None), later)), Job)

    def _result_of(self, job_id: str) -> Steps[Reply]:
        return (yield from self._ask("GET", f"{_path_of(job_id)}/result", None, self._patience(None)))

    def _awaited(self, reply: Reply) -> Steps[Reply]:
        """The answer itself, or the result of the job that it has become, once that has ended."""
        if "location" not in reply.headers:
            return reply
        job_id = _decoded(reply, Job).id
        watching = self.watch_job(job_id)
        event: Event = None
        while True:
            try:
                step = watching.send(event)
            except StopIteration:
                return (yield from self._result_of(job_id))
            event = None if isinstance(step, Deliver) else (yield step)

    def models(self) -> Steps[tuple[ModelInfo, ...]]:
        reply = yield from self._ask("GET", "/v1/models", None, self._patience(None))
        return _decoded(reply, ModelList).models

    def ready(self) -> Steps[bool]:
        # Asked once: who wants to wait for it asks again.
        once = Patience(Retries(attempts=1), None, min(_READY_S, self._terms.timeout_s), 0.0)
        try:
            yield from self._ask("GET", "/health/ready", None, once)
        except CalibrantError as error:
            if error.status in (None, 503):
                return False
            raise
        return True

    def _patience(self, deadline_ms: float | None) -> Patience:
        terms = self._terms
        chosen = terms.deadline_ms if deadline_ms is None else deadline_ms
        return Patience(terms.retries, chosen, terms.timeout_s, terms.network_ms)

    def _ask(
        self, method: str, path: str, document: Any, patience: Patience, more: Mapping[str, str] | None = None
    ) -> Steps[Reply]:
        while True:
            head = yield from self._opened(method, path, document, patience, more)
            body = yield from _body(patience)
            if isinstance(body, bytes):
                return Reply(head.headers, body)
            yield Pause(patience.pause(_lost(body.error)))

    def _opened(
        self,
        method: str,
        path: str,
        document: Any,
        patience: Patience,
        more: Mapping[str, str] | None = None,
        silence_s: float = math.inf,
    ) -> Steps[Head]:
        """Send, with more headers, until the answer is one; its body has not been read then."""
        while True:
            codec = self._codec
            headers = {"x-request-id": patience.request_id, "accept": codec.media_type, **(more or {})}
            content = b""
            if document is not None:
                headers["content-type"] = codec.media_type
                content = codec.encode(document)
            if self._terms.key is not None:
                headers["authorization"] = f"Bearer {self._terms.key}"
            deadline_ms = patience.deadline_ms
            if deadline_ms is not None:
                headers["x-request-deadline-ms"] = f"{deadline_ms:.3f}"
            head = yield Send(method, path, headers, content, min(patience.remaining(), silence_s))
            if isinstance(head, Head):
                if head.status in (200, 202):
                    return head
                body = yield from _body(patience)
                failure = _refusal(head, body) if isinstance(body, bytes) else _lost(body.error)
                if failure.code == "unsupported_media_type" and codec is MSGPACK:
                    # A service, or something before it, that knows only JSON.
                    self._codec = JSON
                    continue
            else:
                assert isinstance(head, Lost)
                failure = _lost(head.error)
            yield Pause(patience.pause(failure))


def _body(patience: Patience) -> Steps[bytes | Lost]:
    parts: list[bytes] = []
    while True:
        part = yield Read()
        if isinstance(part, Lost):
            return part
        assert isinstance(part, bytes)
        if not part:
            return b"".join(parts)
        parts.append(part)
        # Each part may take as long as the whole has left: a body that drips must end too.
        patience.remaining()


def _codec_of(headers: Mapping[str, str]) -> Codec:
    return MSGPACK if headers.get("content-type", "").startswith(MSGPACK.media_type) else JSON


def _decoded(reply: Reply, into: type[T]) -> T:
    try:
        return _codec_of(reply.headers).decode(reply.body, into)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(str(error), reply.headers) from error


Named = TypeVar("Named", Leverage, Touches)


def _named(reply: Reply, into: type[Named]) -> Named:
    """With the id of the request that it answers."""
    return replace(_decoded(reply, into), request_id=reply.request_id)


def _path_of(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _outcomes(reply: Reply) -> list[Outcome]:
    codec = _codec_of(reply.headers)
    results = _decoded(reply, dict[str, list[msgspec.Raw]]).get("results", [])
    return [_outcome(bytes(result), codec, reply.request_id)[1] for result in results]


def _outcome(result: bytes, codec: Codec, request_id: str | None) -> tuple[int, Outcome]:
    """One result of a batch, and the index that it bears, if it bears one."""
    try:
        place = codec.decode(result, Place)
        index = -1 if place.index is None else place.index
        if place.code is None:
            return index, replace(codec.decode(result, Calibration), request_id=request_id)
        return index, _error(codec.decode(result, ProblemDocument), None, request_id, None)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(str(error), {"x-request-id": request_id or ""}) from error


def _refusal(head: Head, body: bytes) -> CalibrantError:
    try:
        document = _codec_of(head.headers).decode(body, ProblemDocument)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Not the service's: a proxy's page.
        document = ProblemDocument()
    return _error(document, head.status, head.headers.get("x-request-id"), _retry_after(head.headers))


def _error(
    document: ProblemDocument, status: int | None, request_id: str | None, retry_after_s: float | None
) -> CalibrantError:
    code = document.code or f"http_{status}"
    return class_of(code, status)(
        document.detail or f"The answer was HTTP {status}, without a reason.",
        code=code,
        status=status,
        request_id=document.request_id or request_id,
        errors=tuple(FieldProblem(e.get("pointer", ""), e.get("detail", "")) for e in document.errors or ()),
        retry_after_s=retry_after_s,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; None where it is neither a number of them nor a date (RFC 9110, 10.2.3)."""
    given = headers.get("retry-after", "")
    try:
        seconds = float(given)
    except ValueError:
        until = _instant(given)
        if until is None:
            return None
        # By the clock that wrote it, where the answer tells that too: ours may be another.
        now = _instant(headers.get("date", "")) or datetime.now(UTC)
        return max((until - now).total_seconds(), 0.0)
    return seconds if math.isfinite(seconds) and seconds >= 0.0 else None


def _instant(date: str) -> datetime | None:
    """Of HTTP's dates, which are all of Greenwich."""
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _lost(error: httpx.HTTPError) -> CalibrantError:
    failure: CalibrantError
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        failure = expired()
        failure.__cause__ = error
        return failure
    connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    what = "The connection broke before the answer was whole" if connected else "There is no connection"
    failure = NoAnswer(f"{what}: {error}.", code=BROKEN if connected else UNCONNECTED)
    failure.__cause__ = error
    return failure


def _cut(what: str) -> NoAnswer:
    return NoAnswer(f"The answer ended with {what}.", code=BROKEN)


def _unreadable(why: str, headers: Mapping[str, str]) -> CalibrantError:
    detail = f"The answer is not as the contract says: {why}."
    return CalibrantError(detail, code="unreadable_answer", status=200, request_id=headers.get("x-request-id"))
