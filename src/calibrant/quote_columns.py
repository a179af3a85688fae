"""A panel from quotes as people hold them: a mapping of columns, or a data frame."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .arrays import IntVector, Vector
from .errors import InvalidInput, Path, Problem, shown
from .panel import OptionPanel
from .quote_table import COLUMNS as _FIELDS
from .quotes_csv import COLUMNS, PANEL_COLUMNS


class Frame(Protocol):
    """A pandas data frame, or one of its kind."""

    @property
    def columns(self) -> Any: ...

    def __getitem__(self, name: str, /) -> Any: ...


Quotes = Mapping[str, ArrayLike | Sequence[float | None] | None] | Frame

_PATH = ("quotes",)


def panel_of(quotes: OptionPanel | Quotes, exclude: Sequence[int] | IntVector | None = None) -> OptionPanel:
    """The panel, made with `OptionPanel.from_quotes` where it is none yet.

    quotes   a mapping holds columns by the names of `from_quotes` and nothing else. A frame may have other columns, and
             those of a CSV file are known too (`expiry_years`, `mid_iv`)
    exclude  positions of quotes to leave out
    raises   InvalidInput as `from_quotes`, and if a column is unknown, no column of numbers, or there twice
    """
    if isinstance(quotes, OptionPanel):
        if exclude is not None:
            needed = "must be given when a panel is made: `OptionPanel.from_quotes(..., exclude=...)`."
            raise InvalidInput(Problem.at(("exclude",), needed))
        return quotes
    if isinstance(quotes, Mapping):
        unknown = [Problem.at((*_PATH, str(name)), _unknown_column(name)) for name in quotes if name not in _FIELDS]
        if unknown:
            raise InvalidInput(*unknown)
        columns = {name: values for name, values in quotes.items() if values is not None}
    elif hasattr(quotes, "columns"):
        columns = _of_frame(quotes)
    else:
        needed = f"must be an OptionPanel, a mapping of columns or a data frame, but is {shown(quotes)!r}."
        raise InvalidInput(Problem.at(_PATH, needed))
    if "expiry" not in columns:
        raise InvalidInput(Problem.at((*_PATH, "expiry"), "is required, but is absent."))
    numbers = {name: column(values, (*_PATH, name)) for name, values in columns.items()}
    return OptionPanel.from_quotes(**numbers, exclude=exclude, path=_PATH)


def column(values: object, path: Path) -> Vector:
    """As numbers, None as NaN.

    raises  InvalidInput if they are anything else: text, dates, truth values
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind in "iuf":
            return array.astype(np.float64)
        if array.dtype.kind == "O":
            # None, and pandas' own mark for a missing value, which is no number either.
            return np.array([_number(value) for value in array.reshape(-1)], np.float64).reshape(array.shape)
    except (TypeError, ValueError):
        pass
    raise InvalidInput(Problem.at(path, f"must be numbers, but is {shown(values)!r}."))


def _number(value: Any) -> float:
    if value is None or type(value).__name__ == "NAType":
        return np.nan
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise TypeError
    return float(value)


def _of_frame(frame: Frame) -> dict[str, Any]:
    names = list(frame.columns)
    _require_one_panel(frame, names)
    columns: dict[str, Any] = {}
    for field in _FIELDS:
        called = [name for name in dict.fromkeys((field, COLUMNS.get(field, field))) if name in names]
        if len(called) > 1 or any(names.count(name) > 1 for name in called):
            raise InvalidInput(Problem.at((*_PATH, called[0]), f"must be one column, but there are {called}."))
        if called:
            columns[field] = frame[called[0]]
    return columns


def _require_one_panel(frame: Frame, names: Sequence[str]) -> None:
    for name in PANEL_COLUMNS:
        found = list(dict.fromkeys(frame[name])) if name in names else []
        if len(found) > 1:
            needed = f"must be the same for all quotes of a panel, but holds {shown(found)}: see `DataFrame.groupby`."
            raise InvalidInput(Problem.at((*_PATH, name), needed))


def _unknown_column(name: object) -> str:
    if name == "quotes":
        return "is a whole panel: give its columns."
    return f"is not a column of quotes ({', '.join(_FIELDS)})."
