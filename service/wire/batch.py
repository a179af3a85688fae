"""Batches: a body as panels, each decoded for itself, and their results as one answer or a line each.

A body that is no batch at all is refused as a whole. What is wrong with one panel is that panel's problem and points to
it from the root of the request: `/panels/7/quotes/expiry/17`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from calibrant.errors import InvalidInput, Problem
from calibrant.pipeline import Assessment

from ..engine import CalibrationJob
from ..errors import InvalidRequest, ServiceError, TooLarge, problem_document
from . import schema
from .cutting import panels_of
from .documents import Echoed, calibration_document
from .formats import JSON, MSGPACK, Format
from .jobs import calibration_job
from .validation import beneath

Part = TypeVar("Part")
Deadline = Callable[[float | None], float | None]
"""From a panel's `budget_ms` to when its answer is due, on the clock of `time.perf_counter`."""


def _unlimited(n_bytes: int) -> None:
    pass


class BatchLimits(NamedTuple):
    """What one batch may hold."""

    panels: int
    panel_bytes: int
    """Largest body of one panel."""
    reserve: Callable[[int], None] = _unlimited
    """Called with the bytes that reading a batch will take, before they are taken.

    raises  TooLarge, Overloaded
    """


class PanelRequest(NamedTuple):
    """One panel of a batch, decoded."""

    job: CalibrationJob
    echo: Echoed


@dataclass(frozen=True, slots=True)
class PanelAnswer:
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

    def part(self, answer: PanelAnswer) -> Part: ...

    def whole(self, parts: Sequence[Part]) -> bytes: ...


# Bodies ---------------------------------------------------------------------------------------------------------------


_BYTES_PER_PANEL = 384
"""Memory that a panel takes while the panels are looked for."""
_BYTES_PER_QUOTE = 30
"""Three numbers: 27 in MessagePack, 30 or more in JSON."""


class DocumentBatch:
    """`{"panels": [request, ...]}` in JSON or MessagePack."""

    def __init__(self, body: bytes | memoryview, wire: Format, limits: BatchLimits) -> None:
        """raises  InvalidRequest if the body is no batch, TooLarge if it holds too many panels"""
        self._wire = wire
        self._limits = limits
        # Two bytes a panel at least.
        limits.reserve(_BYTES_PER_PANEL * min(limits.panels, len(body) // 2))
        self._panels = panels_of(memoryview(body), wire, limits.panels)

    @property
    def n_panels(self) -> int:
        return len(self._panels)

    @property
    def largest_panel(self) -> int:
        return max(map(len, self._panels))

    def n_quotes(self, i: int) -> int:
        return len(self._panels[i]) // _BYTES_PER_QUOTE

    def panel(self, i: int, deadline: Deadline) -> PanelRequest:
        panel, most = self._panels[i], self._limits.panel_bytes
        if len(panel) > most:
            raise TooLarge(f"`panels[{i}]` must have at most {most} bytes, but has {len(panel)}.")
        try:
            asked = self._wire.decode(bytes(panel), schema.CalibrateRequest)
            return PanelRequest(calibration_job(asked, deadline(asked.budget_ms)), asked)
        except (InvalidInput, InvalidRequest) as error:
            raise self.refusal(i, error.problems) from None

    def refusal(self, i: int, problems: Sequence[Problem]) -> InvalidRequest:
        return beneath(("panels", i), problems)


# Answers --------------------------------------------------------------------------------------------------------------


def document_of(answer: PanelAnswer) -> dict[str, Any]:
    """`schema.CalibrateResponse`, or `schema.ProblemDocument`."""
    if isinstance(answer.outcome, ServiceError):
        return problem_document(answer.outcome)
    assert answer.echo is not None
    return calibration_document(answer.echo, answer.outcome, answer.stages)


class JsonWriter:
    """`{"results": [...]}` in the order of the request."""

    media_type = JSON.media_type

    def part(self, answer: PanelAnswer) -> bytes:
        return JSON.encode(document_of(answer))

    def whole(self, parts: Sequence[bytes]) -> bytes:
        pieces = [piece for part in parts for piece in (b",", part)]
        # Joined once: a copy of megabytes holds up every other thread.
        return b"".join((b'{"results":[', *pieces[1:], b"]}"))


class MsgpackWriter:
    """The same in MessagePack."""

    media_type = MSGPACK.media_type

    def part(self, answer: PanelAnswer) -> bytes:
        return MSGPACK.encode(document_of(answer))

    def whole(self, parts: Sequence[bytes]) -> bytes:
        # A map of one key, whose value is an array with its length in four bytes.
        head = b"\x81" + MSGPACK.encode("results") + b"\xdd" + len(parts).to_bytes(4, "big")
        return b"".join((head, *parts))


class LineWriter:
    """A line of JSON for each panel, with `index`, so that they may be sent in any order."""

    media_type = "application/x-ndjson"

    def part(self, answer: PanelAnswer) -> bytes:
        return JSON.encode({"index": answer.index, **document_of(answer)}) + b"\n"

    def whole(self, parts: Sequence[bytes]) -> bytes:
        return b"".join(parts)
