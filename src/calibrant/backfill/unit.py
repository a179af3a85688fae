"""A unit of the backlog, calibrated: a row a panel, set aside with the reason where there is no answer."""

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..arrays import Vector
from ..errors import InvalidInput
from ..models.model import Model
from ..options import CalibrationOptions
from ..panel import OptionPanel
from ..pipeline import Begun, assess, begin_all
from ..release import Release
from ..report import row_of
from .parts import schema_of
from .plan import UNDERLYING, Source, Unit
from .reading import PanelRows, read_unit
from .settings import Settings

if TYPE_CHECKING:
    import pyarrow

_TOGETHER = 64
"""Panels that a network is asked about at once."""


class Calibrated(NamedTuple):
    """The panels of a unit."""

    table: "pyarrow.Table"
    set_aside: Counter[str]
    """Panels without an answer, by reason; what numbers it had is in the table."""


def calibrated(source: Source, unit: Unit, settings: Settings, release: Release | None) -> Calibrated:
    """Every panel of the unit. The answer before is a start of the next where `settings.warm`; the first has none."""
    import pyarrow

    panels = read_unit(source, unit, settings.block)
    series = _Series(settings.of_model(), settings.options, release, settings.warm)
    rows: list[dict[str, Any]] = []
    for first in range(0, panels.named.num_rows, _TOGETHER):
        rows += series.answers(panels, range(first, min(first + _TOGETHER, panels.named.num_rows)))
    schema = schema_of(settings.of_model(), panels.named.schema)
    names = {
        UNDERLYING: [unit.underlying] * len(rows),
        **{name: panels.named.column(name) for name in panels.named.column_names},
    }
    answers = {name: [row.get(name) for row in rows] for name in schema.names if name not in names}
    table = pyarrow.table({name: names[name] if name in names else answers[name] for name in schema.names}, schema)
    return Calibrated(table, Counter(_kind(row["message"]) for row in rows if row["status"] in SET_ASIDE))


SET_ASIDE = ("invalid_input", "engine_failed")
"""Status of a panel without an answer, by the service's names: its quotes allow none, or none was found."""


def _kind(reason: str) -> str:
    """Of a million bad panels each has numbers of its own, and few kinds of faults."""
    return re.sub(r"\d[\d.e+-]*", "#", reason)


class _Series:
    """Panels one after the other, each started from the last that converged as well."""

    def __init__(self, model: Model, options: CalibrationOptions, release: Release | None, warm: bool) -> None:
        self._model, self._options, self._release, self._warm = model, options, release, warm
        self._last: Vector | None = None

    def answers(self, panels: PanelRows, which: range) -> list[dict[str, Any]]:
        read = [self._read(panels.quotes(i)) for i in which]
        sound = [panel for panel in read if isinstance(panel, OptionPanel)]
        begun = iter(self._begun(sound))
        return [self._answer(each, next(begun)) if isinstance(each, OptionPanel) else each for each in read]

    def _read(self, quotes: dict[str, Any]) -> OptionPanel | dict[str, Any]:
        try:
            return OptionPanel.from_quotes(**quotes, path=())
        except InvalidInput as error:
            return _refusal(error)

    def _begun(self, panels: list[OptionPanel]) -> list[Begun] | list[None]:
        if self._release is None or not panels:
            return [None] * len(panels)
        options, given = [self._options] * len(panels), [None] * len(panels)
        # What a panel starts from is known when the one before is done: only the networks can be asked beforehand.
        refine = not self._warm and self._options.refine != "none"
        return begin_all(panels, self._model, self._release, options, given, refine)

    def _answer(self, panel: OptionPanel, begun: Begun | None) -> dict[str, Any]:
        try:
            assessment = assess(panel, self._model, self._release, self._options, self._last, begun)
        except InvalidInput as error:
            return _refusal(error)
        except ArithmeticError as error:
            return {"status": "engine_failed", "message": str(error)}
        if self._warm and assessment.calibration.status == "converged":
            self._last = assessment.calibration.parameters
        return row_of(assessment)


def _refusal(error: InvalidInput) -> dict[str, Any]:
    more = len(error.problems) - 1
    return {"status": "invalid_input", "message": f"{error}{f' (and {more} more)' if more else ''}"}
