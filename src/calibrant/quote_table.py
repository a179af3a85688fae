"""Tables of quotes as Arrow has them, a row a quote: the columns known and what they hold.

Shared by what reads many panels at once, the service's batches and the backlog. pyarrow is an extra: it is imported by
those who bring a table.
"""

from typing import TYPE_CHECKING

import numpy as np

from .arrays import Vector
from .errors import Problem, shown

if TYPE_CHECKING:
    import pyarrow

KEY = "panel"
COLUMNS = ("expiry", "strike", "forward", "log_moneyness", "iv", "bid_iv", "ask_iv", "weight")


def key_problems(name: str, kind: "pyarrow.DataType") -> list[Problem]:
    """What keeps a column of this type from telling panels apart."""
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_integer(value) or types.is_string(value) or types.is_large_string(value):
        return []
    return [Problem.at((name,), f"must hold integers or strings, but is of the type {shown(kind)}.")]


def number_problems(name: str, kind: "pyarrow.DataType") -> list[Problem]:
    """What keeps a column of this type from being one of `COLUMNS`."""
    from pyarrow import types

    if types.is_null(kind) and name == "expiry":
        return [Problem.at((name,), "is required, but holds nothing but null.")]
    if types.is_integer(kind) or types.is_null(kind) or types.is_float32(kind) or types.is_float64(kind):
        return []
    return [Problem.at((name,), f"must hold numbers, but is of the type {shown(kind)}.")]


def numbers(table: "pyarrow.Table") -> dict[str, Vector]:
    """The columns as float64, with NaN for null; without those of no type, which hold nothing but null."""
    from pyarrow import float64, types

    columns: dict[str, Vector] = {}
    for name in COLUMNS:
        if name in table.column_names and not types.is_null(table.column(name).type):
            columns[name] = np.ascontiguousarray(table.column(name).cast(float64(), safe=False).to_numpy())
    return columns
