"""Batches: a body as panels, each decoded for itself, and their results as one answer or a line each.

A body that is no batch at all is refused as a whole. What is wrong with one panel is that panel's problem and points to
it from the root of the request: `/panels/7/quotes/expiry/17`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from pydantic_core import from_json

from calibrant.errors import InvalidInput, Problem
from calibrant.pipeline import Assessment

from ..engine import CalibrationJob
from ..errors import InvalidRequest, ServiceError, TooLarge, problem_document
from . import schema, spans
from .documents import Echoed, calibration_document
from .formats import JSON, MSGPACK, Format
from .jobs import calibration_job
from .validation import bad_body, beneath, twice

Part = TypeVar("Part")
Deadline = Callable[[float | None], float | None]
"""From a panel's `budget_ms` to when its answer is due, on the clock of `time.perf_counter`."""


def _unlimited(n_bytes: int) -> None:
    pass


class Limits(NamedTuple):
    """What one batch may hold."""

    panels: int
    panel_bytes: int
    """Of one panel."""
    reserve: Callable[[int], None] = _unlimited
    """Called with the bytes that reading a batch will take, before they are taken.

    raises  TooLarge, Overloaded
    """


class PanelRequest(NamedTuple):
    """One panel of a batch, decoded."""

    job: CalibrationJob
    echo: Echoed


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one panel."""

    index: int
    echo: Echoed | None
    """None where the panel was refused."""
    outcome: Assessment | ServiceError
    stages: dict[str, float]
    """Seconds."""


class Batch(Protocol):
    """The panels of one body."""

    @property
    def n_panels(self) -> int: ...

    @property
    def largest_panel(self) -> int:
        """Bytes of the panel that has most."""
        ...

    def n_quotes(self, i: int) -> int:
        """Of a panel, roughly: what it will cost to calibrate."""
        ...

    def panel(self, i: int, deadline: Deadline) -> PanelRequest:
        """raises  ServiceError, whose problems point into the request"""
        ...

    def refusal(self, i: int, problems: Sequence[Problem]) -> InvalidRequest:
        """What the engine found wrong with a panel, pointing into the request."""
        ...


class Writer(Protocol[Part]):
    """How results are written: each by itself, on whatever thread made it, then all together."""

    media_type: str

    def part(self, answer: Answer) -> Part: ...

    def whole(self, parts: Sequence[Part]) -> bytes: ...


# Bodies ---------------------------------------------------------------------------------------------------------------


class _Language(NamedTuple):
    """How a format is cut into parts."""

    name: str
    members: Callable[[spans.Bytes, int], spans.Parts]
    elements: Callable[[spans.Bytes, int, int], list[spans.Span]]
    key: Callable[[bytes], Any]


_LANGUAGES: Mapping[str, _Language] = {
    JSON.media_type: _Language("JSON", spans.json_object, spans.json_list, from_json),
    MSGPACK.media_type: _Language("MessagePack", spans.msgpack_object, spans.msgpack_list, msgspec.msgpack.decode),
}
_MOST_FIELDS = 16
_BYTES_PER_SPAN = 256
"""Of memory, while they are looked for."""
_BYTES_PER_QUOTE = 30
"""Three numbers: 27 in MessagePack, 30 or more in JSON."""


class DocumentBatch:
    """`{"panels": [request, ...]}` in JSON or MessagePack."""

    def __init__(self, body: bytes | memoryview, wire: Format, limits: Limits) -> None:
        """raises  InvalidRequest if the body is no batch, TooLarge if it holds too many panels"""
        self._body = body
        self._wire = wire
        self._limits = limits
        # Two bytes a panel at least.
        limits.reserve(_BYTES_PER_SPAN * min(limits.panels, len(body) // 2))
        self._spans = _panel_spans(body, _LANGUAGES[wire.media_type], limits.panels)

    @property
    def n_panels(self) -> int:
        return len(self._spans)

    @property
    def largest_panel(self) -> int:
        return max(end - begin for begin, end in self._spans)

    def n_quotes(self, i: int) -> int:
        begin, end = self._spans[i]
        return (end - begin) // _BYTES_PER_QUOTE

    def panel(self, i: int, deadline: Deadline) -> PanelRequest:
        begin, end = self._spans[i]
        if end - begin > self._limits.panel_bytes:
            raise TooLarge(f"`panels[{i}]` must have at most {self._limits.panel_bytes} bytes, but has {end - begin}.")
        try:
            asked = self._wire.decode(bytes(self._body[begin:end]), schema.CalibrateRequest)
            return PanelRequest(calibration_job(asked, deadline(asked.budget_ms)), asked)
        except (InvalidInput, InvalidRequest) as error:
            raise self.refusal(i, error.problems) from None

    def refusal(self, i: int, problems: Sequence[Problem]) -> InvalidRequest:
        return beneath(("panels", i), problems)


def _panel_spans(body: bytes | memoryview, language: _Language, most: int) -> list[spans.Span]:
    """Where the panels of a batch begin and end."""
    data = spans.view(body)
    try:
        parts = language.members(data, _MOST_FIELDS)
        begins = {
            language.key(bytes(body[key[0] : key[1]])): value[0]
            for key, value in zip(parts.keys, parts.values, strict=True)
        }
    except spans.OtherKind:
        raise bad_body("must be an object with the field `panels`.") from None
    except spans.TooManyParts:
        raise bad_body("must be an object with the field `panels` and no other.") from None
    except (spans.SpanError, ValueError) as error:
        raise bad_body(f"is not {language.name}: {error}.") from None
    if len(begins) < len(parts.keys):
        raise twice()
    problems = [Problem.at((name,), "is not a field of this request.") for name in begins if name != "panels"]
    if "panels" not in begins:
        problems.append(Problem.at(("panels",), "is required, but is absent."))
    if problems:
        raise InvalidRequest(problems)
    try:
        found = language.elements(data, begins["panels"], most)
    except spans.OtherKind:
        raise InvalidRequest([Problem.at(("panels",), "must be a list.")]) from None
    except spans.TooManyParts:
        raise TooLarge(f"`panels` must hold at most {most} panels, but holds more.") from None
    except spans.SpanError as error:
        raise bad_body(f"is not {language.name}: {error}.") from None
    if not found:
        raise InvalidRequest([Problem.at(("panels",), "must hold at least one panel, but is empty.")])
    return found


# Answers --------------------------------------------------------------------------------------------------------------


def document_of(answer: Answer) -> dict[str, Any]:
    """`schema.CalibrateResponse`, or `schema.Problem`."""
    if isinstance(answer.outcome, ServiceError):
        return problem_document(answer.outcome)
    assert answer.echo is not None
    return calibration_document(answer.echo, answer.outcome, answer.stages)


class JsonWriter:
    """`{"results": [...]}` in the order of the request."""

    media_type = JSON.media_type

    def part(self, answer: Answer) -> bytes:
        return JSON.encode(document_of(answer))

    def whole(self, parts: Sequence[bytes]) -> bytes:
        pieces = [piece for part in parts for piece in (b",", part)]
        # Joined once: a copy of megabytes holds up every other thread.
        return b"".join((b'{"results":[', *pieces[1:], b"]}"))


class MsgpackWriter:
    """The same in MessagePack."""

    media_type = MSGPACK.media_type

    def part(self, answer: Answer) -> bytes:
        return MSGPACK.encode(document_of(answer))

    def whole(self, parts: Sequence[bytes]) -> bytes:
        # A map of one key, whose value is an array with its length in four bytes.
        head = b"\x81" + MSGPACK.encode("results") + b"\xdd" + len(parts).to_bytes(4, "big")
        return b"".join((head, *parts))


class LineWriter:
    """A line of JSON for each panel, with `index`, so that they may be sent in any order."""

    media_type = "application/x-ndjson"

    def part(self, answer: Answer) -> bytes:
        return JSON.encode({"index": answer.index, **document_of(answer)}) + b"\n"

    def whole(self, parts: Sequence[bytes]) -> bytes:
        return b"".join(parts)
