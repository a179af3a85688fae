"""A source of quotes, and the units that it falls into: an underlying's block of dates each.

Of the rows only the underlying and the date are read, a batch at a time, and what is kept is where each unit lies. Rows
may be in any order; where those of an underlying lie together, each is later read once.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arrays import IntVector
from ..errors import InvalidInput, Problem, shown
from ..quote_table import COLUMNS, KEY, key_problems, number_problems
from ..quotes_csv import COLUMNS as NAMES_IN_CSV
from .settings import Block

if TYPE_CHECKING:
    import pyarrow

UNDERLYING, AS_OF = "underlying", "as_of"
_BATCH = 1 << 17
"""Rows that are looked at together."""
_CODES = {"day": "D", "month": "M", "year": "Y"}
_FOOTER = 8
"""Bytes at the end of a Parquet file: the length of its metadata, and its mark."""


class Source(NamedTuple):
    """The files of a table of quotes."""

    files: tuple[str, ...]
    groups: tuple[int, ...]
    """(n_files + 1,): the row groups of file i are groups[i] to groups[i + 1] of all."""
    rows: tuple[int, ...]
    """(n_groups,), in each row group."""
    columns: tuple[tuple[str, str], ...]
    """Field and column of the file: `underlying`, `as_of`, `panel` where it is there, and those of `quote_table`."""
    ignored: tuple[str, ...]
    """Columns that are none of these."""
    digest: str
    """Of the files' names and metadata, which say where each column lies and how many bytes it takes."""

    @property
    def n_quotes(self) -> int:
        return sum(self.rows)

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields that tell panels apart."""
        return tuple(field for field, _ in self.columns if field in (UNDERLYING, AS_OF, KEY))


class Unit(NamedTuple):
    """What is done at once, and is done once it is written."""

    underlying: str
    block: str
    """Its dates: `2024-03`, or a day or year likewise; of those with a time zone, in UTC."""
    number: int
    """Of the block, counted from 1970."""
    n_quotes: int
    groups: tuple[tuple[int, int], ...]
    """First and last of the row groups that hold it."""


class Labelled(NamedTuple):
    """Rows with what tells units apart."""

    rows: "pyarrow.Table"
    """Its columns are named by the fields."""
    codes: IntVector
    """(n_rows,), of the underlying in `underlyings`."""
    underlyings: list[str]
    blocks: IntVector
    """(n_rows,), the numbers of their dates' blocks."""


def open_source(path: Path) -> Source:
    """The Parquet file, or all those of a folder, in the order of their names.

    raises  InvalidInput naming every column that is missing, of a wrong type or not the same in all files; OSError
    """
    from pyarrow import ArrowInvalid, parquet

    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.parquet") if file.is_file() and file.name[0] not in "_.")
    if not files:
        raise InvalidInput(Problem.at((str(path),), "must hold Parquet files, but holds none."))
    digest = hashlib.sha256()
    counts: list[int] = []
    rows: list[int] = []
    columns: dict[str, str] = {}
    types: dict[str, Any] = {}
    ignored: dict[str, None] = {}
    for file in files:
        try:
            with parquet.ParquetFile(file) as opened:
                schema, metadata = opened.schema_arrow, opened.metadata
        except ArrowInvalid as error:
            raise InvalidInput(Problem.at((str(file),), f"is no Parquet file: {shown(error)}")) from None
        found = _columns_of(schema, file)
        kinds = {field: schema.field(name).type for field, name in found.items() if field in (UNDERLYING, AS_OF, KEY)}
        if types and (found, kinds) != (columns, types):
            needed = f"must have the columns and types of {files[0].name}, but has {shown({**found, **kinds}, 300)}."
            raise InvalidInput(Problem.at((str(file),), needed))
        columns, types = found, kinds
        ignored |= dict.fromkeys(name for name in schema.names if name not in found.values())
        counts.append(metadata.num_row_groups)
        rows += [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        digest.update((file.relative_to(path).as_posix() if path.is_dir() else "").encode() + b"\0" + _footer(file))
    if not any(rows):
        raise InvalidInput(Problem.at((str(path),), "must hold at least one quote, but is empty."))
    return Source(
        tuple(str(file.absolute()) for file in files),
        tuple(accumulate(counts, initial=0)),
        tuple(rows),
        tuple(columns.items()),
        tuple(ignored),
        digest.hexdigest(),
    )


def plan_of(source: Source, block: Block) -> list[Unit]:
    """The units, by underlying and date.

    raises  InvalidInput if a row has no underlying or date
    """
    sizes: dict[tuple[str, int], int] = {}
    groups: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for group in range(source.groups[-1]):
        for part in labelled(source, group, block, source.keys):
            changes = np.flatnonzero((np.diff(part.codes) != 0) | (np.diff(part.blocks) != 0)) + 1
            starts = np.concatenate([[0], changes])
            lengths = np.diff(starts, append=part.codes.size).tolist()
            found = zip(part.codes[starts].tolist(), part.blocks[starts].tolist(), lengths, strict=True)
            for code, number, length in found:
                unit = part.underlyings[code], number
                sizes[unit] = sizes.get(unit, 0) + length
                runs = groups.setdefault(unit, [])
                if not runs or runs[-1][1] < group - 1:
                    runs.append((group, group))
                else:
                    runs[-1] = runs[-1][0], group
    return [
        Unit(
            name,
            str(np.array(number, f"M8[{_CODES[block]}]")),
            number,
            sizes[name, number],
            tuple(groups[name, number]),
        )
        for name, number in sorted(sizes)
    ]


def reads_of(units: list[Unit], source: Source) -> float:
    """How often a row group is read, on average, by units in this order: each keeps the last for the next."""
    n_reads, kept = 0, -1
    for unit in units:
        for first, last in unit.groups:
            n_reads += last - first + (first != kept)
            kept = last
    return n_reads / max(source.groups[-1], 1)


def labelled(source: Source, group: int, block: Block, fields: tuple[str, ...]) -> Iterator[Labelled]:
    """The rows of a row group, some at a time.

    fields  `underlying`, `as_of` and what else is wanted
    raises  InvalidInput if a row has no underlying, date or key
    """
    import pyarrow

    i = int(np.searchsorted(source.groups, group, side="right")) - 1
    file, place = source.files[i], group - source.groups[i]
    columns = dict(source.columns)
    names = [columns[field] for field in fields]
    opened = _opened(file, columns[UNDERLYING], source.digest)
    for batch in opened.iter_batches(_BATCH, row_groups=[place], columns=names, use_threads=False):
        rows = pyarrow.table({field: batch.column(columns[field]) for field in fields})
        for field in source.keys:
            if n_null := rows.column(field).null_count:
                needed = f"must say something in every row, but in {n_null} it says nothing ({file})."
                raise InvalidInput(Problem.at((columns[field],), needed))
        codes, underlyings = coded(batch.column(columns[UNDERLYING]))
        numbers = instants(batch.column(columns[AS_OF]), file).astype(f"M8[{_CODES[block]}]").astype(np.int64)
        yield Labelled(rows, codes, underlyings.to_pylist(), numbers)


def instants(dates: "pyarrow.Array", file: str) -> np.ndarray[Any, np.dtype[np.datetime64]]:
    """Dates of any kind in microseconds, of those with a time zone in UTC.

    raises  InvalidInput if one is missing, or a string that says no date
    """
    import pyarrow

    codes, values = coded(dates)
    kind = values.type
    try:
        if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            try:
                values = values.cast(pyarrow.timestamp("us"))
            except pyarrow.ArrowInvalid:
                values = values.cast(pyarrow.timestamp("us", "UTC"))
        else:
            values = values.cast(pyarrow.timestamp("us", getattr(kind, "tz", None)), safe=False)
    except pyarrow.ArrowInvalid as error:
        needed = f"must hold dates such as 2025-11-28 or 2025-11-28T15:30:00: {shown(error, 120)} ({file})."
        raise InvalidInput(Problem.at((AS_OF,), needed)) from None
    found: np.ndarray[Any, np.dtype[np.datetime64]] = values.cast(pyarrow.int64()).to_numpy().view("M8[us]")[codes]
    return found


def coded(column: "pyarrow.Array") -> tuple[IntVector, "pyarrow.Array"]:
    """For each row the number of its value, and the values."""
    import pyarrow

    if not pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return column.indices.to_numpy().astype(np.int64), column.dictionary


def _columns_of(schema: "pyarrow.Schema", file: Path) -> dict[str, str]:
    """The column of each field.

    raises  InvalidInput with every problem
    """
    from pyarrow import types

    problems: list[Problem] = []
    found: dict[str, str] = {}
    for field in (UNDERLYING, AS_OF, KEY, *COLUMNS):
        called = [name for name in schema.names if name in (field, NAMES_IN_CSV.get(field))]
        if len(called) > 1:
            problems.append(Problem.at((called[0],), f"must be one column, but there are {called} ({file})."))
        if not called:
            continue
        found[field] = name = called[0]
        kind = schema.field(name).type
        value = kind.value_type if types.is_dictionary(kind) else kind
        if field in (UNDERLYING, AS_OF):
            is_text = types.is_string(value) or types.is_large_string(value)
            if not is_text and (field == UNDERLYING or not (types.is_date(value) or types.is_timestamp(value))):
                needed = "strings" if field == UNDERLYING else "dates, timestamps or strings that say them"
                problems.append(Problem.at((name,), f"must hold {needed}, but is of the type {shown(kind)} ({file})."))
        else:
            problems += key_problems(name, kind) if field == KEY else number_problems(name, kind)
    absent = [field for field in (UNDERLYING, AS_OF, "expiry") if field not in found]
    if not {"strike", "log_moneyness"} & found.keys():
        absent.append("strike")
    if not {"iv", "bid_iv", "ask_iv"} & found.keys():
        absent.append("iv")
    there = shown(", ".join(schema.names), 200)
    problems += [Problem.at((field,), f"is required, but the columns are {there} ({file}).") for field in absent]
    if problems:
        raise InvalidInput(*problems)
    return found


@lru_cache(maxsize=1)
def _opened(file: str, text: str, digest: str) -> Any:
    """One row group after another is read: the metadata of many need not be read again for each.

    text    the column whose few strings are read as a dictionary
    digest  of the source, since a file of this name may be another one later
    """
    from pyarrow import parquet

    return parquet.ParquetFile(file, read_dictionary=[text])


def _footer(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(-_FOOTER, 2) + _FOOTER
        length = int.from_bytes(opened.read(4), "little")
        opened.seek(size - _FOOTER - length)
        return opened.read()
