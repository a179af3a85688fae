"""A unit of the backlog, calibrated: a row a panel, set aside with the reason where there is no answer."""

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..arrays import Vector
from ..attempts import in_doubt
from ..errors import InvalidInput
from ..fits import Fit
from ..models.model import Model
from ..optimisers.objective import CONVERGED
from ..options import CalibrationOptions
from ..panel import OptionPanel, identifiable
from ..pipeline import Begun, assess, begin_all, starting_from
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
    """Every panel of the unit, by date."""
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
    """Panels one after the other: where a network's start leads to no answer beyond doubt, the last that converged is a
    start as well."""

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
        # A network starts one factor as well as the answer before does, and many panels refined at once cost two thirds
        # of as many in turns; what starts a model of several factors is known when the one before is done.
        refine = self._options.refine != "none" and (not self._warm or len(self._model.factors) == 1)
        return begin_all(panels, self._model, self._release, options, given, refine)

    def _answer(self, panel: OptionPanel, begun: Begun | None) -> dict[str, Any]:
        try:
            given = self._last
            if begun is not None and begun.fit is not None and given is not None:
                if _beyond_doubt(panel, begun.fit, begun):
                    given = None
                else:
                    begun = begun._replace(fit=None)
            assessment = assess(panel, self._model, self._release, self._options, given, begun)
        except InvalidInput as error:
            return _refusal(error)
        except MemoryError:
            raise
        except Exception as error:
            # Whatever it is, the next run would meet it again, and never come to the end of the unit.
            return {"status": "engine_failed", "message": f"{type(error).__name__}: {error}"}
        if self._warm and assessment.calibration.status == "converged":
            self._last = assessment.calibration.parameters
        return row_of(assessment)


def _beyond_doubt(panel: OptionPanel, fit: Fit, begun: Begun) -> bool:
    """Whether no other start could change the answer.

    raises  InvalidInput if no quote says anything
    """
    starts = starting_from(begun.proposals)
    return fit.outcome == CONVERGED and not in_doubt(fit, starts, identifiable(panel).scales.offsets)


def _refusal(error: InvalidInput) -> dict[str, Any]:
    more = len(error.problems) - 1
    return {"status": "invalid_input", "message": f"{error}{f' (and {more} more)' if more else ''}"}
