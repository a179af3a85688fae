"""The panels of a unit: of the row groups that hold it only its own rows are kept, and one group for the next unit."""

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arrays import IntVector, Vector
from ..quote_table import KEY, numbers
from .plan import AS_OF, UNDERLYING, Labelled, Source, Unit, coded, instants, labelled
from .settings import Block

if TYPE_CHECKING:
    import pyarrow


_KEPT = 1 << 21
"""Rows of a row group that is kept for the next unit, which often lies in the same: twice what pyarrow writes."""


class PanelRows(NamedTuple):
    """The panels of a unit, by date and key."""

    named: "pyarrow.Table"
    """A row a panel: `as_of`, and `panel` where the source has it, as the source says them."""
    columns: dict[str, Vector]
    """By panel, and within one in the order of the source."""
    ends: IntVector
    """(n_panels + 1,): the rows of panel i are ends[i] to ends[i + 1]."""

    def quotes(self, i: int) -> dict[str, Any]:
        """What `OptionPanel.from_quotes` takes."""
        return {name: column[self.ends[i] : self.ends[i + 1]] for name, column in self.columns.items()}


def read_unit(source: Source, unit: Unit, block: Block) -> PanelRows:
    """raises  OSError if a file has gone"""
    import pyarrow
    from pyarrow import compute

    parts = []
    for first, last in unit.groups:
        for group in range(first, last + 1):
            for part in _parts(source, group, block):
                if unit.underlying in part.underlyings:
                    code = part.underlyings.index(unit.underlying)
                    ours = pyarrow.array((part.codes == code) & (part.blocks == unit.number))
                    parts.append(part.rows.drop_columns([UNDERLYING]).filter(ours))
    table = pyarrow.concat_tables(parts, promote_options="permissive")
    named = {name: _plain(table.column(name)) for name in (AS_OF, KEY) if name in table.column_names}
    told = [instants(named[AS_OF], "").view(np.int64)]
    if KEY in named:
        codes, values = coded(named[KEY])
        told.append(compute.rank(values).to_numpy().astype(np.int64)[codes])
    order = np.lexsort(told[::-1])
    begins = np.concatenate([[True], np.any([np.diff(each[order]) != 0 for each in told], axis=0)])
    firsts = np.flatnonzero(begins)
    return PanelRows(
        pyarrow.table({name: column.take(pyarrow.array(order[firsts])) for name, column in named.items()}),
        {name: column[order] for name, column in numbers(table).items()},
        np.append(firsts, order.size),
    )


def _plain(column: "pyarrow.ChunkedArray") -> "pyarrow.Array":
    from pyarrow import types

    return (column.cast(column.type.value_type) if types.is_dictionary(column.type) else column).combine_chunks()


def _parts(source: Source, group: int, block: Block) -> Iterable[Labelled]:
    if source.rows[group] <= _KEPT:
        return _kept(source, group, block)
    return labelled(source, group, block, tuple(field for field, _ in source.columns))


@lru_cache(maxsize=1)
def _kept(source: Source, group: int, block: Block) -> list[Labelled]:
    return list(labelled(source, group, block, tuple(field for field, _ in source.columns)))
