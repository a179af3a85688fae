"""Arrow IPC streams: a table of quotes in, a row per quote, keyed by `panel`; a table of results out, a row per panel.

Read as untrusted. Compressed buffers are refused before they are inflated, since each says itself how long it will be;
every batch is validated in full (Arrow itself checks no offsets); a dictionary is never spread out, since a long string
in it may be named by a million rows. Files (with a footer) are refused: their footer may name one batch many times.
pandas' index, which comes along as a column of its own name where it is none by number, is passed over.

What all panels share goes with the schema, as its metadata `calibrant.model`, `calibrant.refine`, `calibrant.loss` and
`calibrant.prior`, a string of JSON; other metadata is the client's own. Columns that are integers or floats of any
width are read as float64; null and NaN are missing.
"""

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import IntVector
from calibrant.by_name import model_named
from calibrant.errors import InvalidInput, Path, Problem, shown
from calibrant.models import HESTON, MODELS
from calibrant.models.model import Model
from calibrant.options import CalibrationOptions, Loss, Refine
from calibrant.panel import OptionPanel
from calibrant.quote_table import COLUMNS, KEY, key_problems, number_problems, numbers
from calibrant.report import warnings

from ..engine import CalibrationJob
from ..errors import InvalidRequest, ServiceError, TooLarge, UnsupportedMediaType
from .batch import BatchLimits, Deadline, PanelAnswer, PanelRequest
from .documents import Echo
from .jobs import prior_in_text
from .validation import bad_body

if TYPE_CHECKING:
    import pyarrow

MEDIA_TYPE = "application/vnd.apache.arrow.stream"

_PREFIX = b"calibrant."
_FILE = b"ARROW1"
"""With which a file begins, and no stream."""
_INDEX = re.compile(r"__index_level_\d+__")
_BESIDE_NUMBERS = 4
"""Numbers of eight bytes that a row takes beside its columns while panels are made of rows."""
_BYTES_PER_COLUMN = 1024
"""Of a record batch, whatever it holds."""
_MOST_COLUMNS = 64
"""Looked at one by one, to name those that are not known."""


def library() -> Any:
    """pyarrow, which is an extra: forty megabytes that only batches in this format need.

    raises  UnsupportedMediaType if it is not installed
    """
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise UnsupportedMediaType(
            "Arrow needs pyarrow, which this installation has not: pip install 'calibrant[arrow]'."
        ) from None
    return pyarrow


class ArrowBatch:
    """The panels of a table of quotes, in the order in which their keys first come."""

    def __init__(self, body: bytes | memoryview, limits: BatchLimits) -> None:
        """raises  InvalidRequest if the body is no such table, TooLarge if it holds too many panels"""
        table = _read(body, limits.reserve)
        self.model, self._options = _options(table.schema.metadata or {})
        # Whatever the stream takes: nothing keeps all of its columns from being one buffer of small numbers.
        keys = table.column(KEY)
        limits.reserve(8 * table.num_rows * (table.num_columns + _BESIDE_NUMBERS) + keys.nbytes)
        self._panel_bytes = limits.panel_bytes
        codes, self.keys = _coded(keys, limits.panels)
        self._columns = numbers(table)
        order = np.argsort(codes, kind="stable")
        self._rows: list[IntVector] = np.split(order, np.cumsum(np.bincount(codes))[:-1])

    @property
    def n_panels(self) -> int:
        return len(self._rows)

    @property
    def largest_panel(self) -> int:
        return 8 * max(rows.size for rows in self._rows) * len(self._columns)

    def n_quotes(self, i: int) -> int:
        return int(self._rows[i].size)

    def panel(self, i: int, deadline: Deadline) -> PanelRequest:
        rows = self._rows[i]
        size = 8 * rows.size * len(self._columns)
        if size > self._panel_bytes:
            raise TooLarge(f"A panel must have at most {self._panel_bytes} bytes of numbers, but has {size}.")
        quotes: dict[str, Any] = {name: column[rows] for name, column in self._columns.items()}
        try:
            panel = OptionPanel.from_quotes(**quotes, path=())
        except InvalidInput as error:
            raise self.refusal(i, error.problems) from None
        panel = panel.renumbered(rows)
        job = CalibrationJob(model=self.model, panel=panel, options=self._options, deadline=deadline(None))
        return PanelRequest(job, Echo(id=str(self.keys[i])))

    def refusal(self, i: int, problems: Sequence[Problem]) -> InvalidRequest:
        return InvalidRequest([_in_table(problem, self._rows[i]) for problem in problems])


def _in_table(problem: Problem, rows: IntVector) -> Problem:
    """A problem of a panel by the rows of the table."""
    path = problem.path
    if not path or not isinstance(path[-1], int):
        return problem
    place: Path = (*path[:-1], int(rows[path[-1]]))
    return Problem.at(place, problem.detail.split("` ", 1)[1])


def _read(body: bytes | memoryview, reserve: Callable[[int], None]) -> "pyarrow.Table":
    """The table that a stream holds, with every offset checked."""
    arrow = library()
    if body[: len(_FILE)] == _FILE:
        raise bad_body("is an Arrow file, and must be a stream: as `pyarrow.ipc.new_stream` writes it, not `new_file`.")
    buffer = arrow.py_buffer(body)
    try:
        source = arrow.BufferReader(buffer)
        for message in arrow.ipc.MessageReader.open_stream(source):
            if message.type in ("record batch", "dictionary") and _is_compressed(message.metadata.to_pybytes()):
                raise bad_body("must hold no compressed buffers.")
        if source.tell() != source.size():
            raise bad_body("goes on after the end of its Arrow stream.")
        with arrow.ipc.open_stream(buffer) as reader:
            _require_columns(reader.schema)
            batches = []
            for batch in reader:
                # Of no rows or many: there may be a batch for every 200 bytes.
                reserve(_BYTES_PER_COLUMN * (batch.num_columns + 1))
                batch.validate(full=True)
                batches.append(batch)
            table = arrow.Table.from_batches(batches, reader.schema)
    except (arrow.ArrowException, OSError, ValueError, struct.error) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise bad_body(f"is not an Arrow IPC stream: {shown(said, 200).rstrip('.')}.") from None
    if table.num_rows == 0:
        raise InvalidRequest([Problem.at((KEY,), "must hold at least one quote, but is empty.")])
    return table


_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def _is_compressed(message: bytes) -> bool:
    """Whether the buffers of a message are compressed: a field of its flatbuffer that no library shows.

    Arrow's Message.fbs: a Message holds the kind (1) and the offset (2) of its header, a DictionaryBatch its
    RecordBatch (1), and a RecordBatch its compression (3).
    """
    table = _offset(message, 0)
    kind = _field(message, table, 1)
    header = _table(message, table, 2)
    if header and message[kind] == _DICTIONARY_BATCH:
        header = _table(message, header, 1)
    return bool(header) and _field(message, header, 3) != 0


def _offset(data: bytes, place: int) -> int:
    """Where the offset at a place leads."""
    return place + int(struct.unpack_from("<I", data, place)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """The place of a table's field; 0 if it has none."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + offset if offset else 0


def _table(data: bytes, table: int, number: int) -> int:
    """The place of the table in a table's field; 0 if it has none."""
    field = _field(data, table, number)
    return _offset(data, field) if field else 0


def _require_columns(schema: "pyarrow.Schema") -> None:
    """Nothing but the columns known, of types that numbers and keys have."""
    types = library().types
    if len(schema) > _MOST_COLUMNS:
        raise bad_body(f"must have at most {_MOST_COLUMNS} columns, but has {len(schema)}.")
    problems = []
    for field in schema:
        name, kind = field.name, field.type
        if name == KEY:
            problems += key_problems(name, kind)
        elif _INDEX.fullmatch(name):
            if not (types.is_primitive(kind) or types.is_string(kind) or types.is_large_string(kind)):
                needed = f"must be left out (`preserve_index=False`): it is an index of the type {shown(kind)}."
                problems.append(Problem.at((name,), needed))
        elif name not in COLUMNS:
            needed = f"is not a column of this request, which are {', '.join((KEY, *COLUMNS))}."
            problems.append(Problem.at((name,), needed))
        else:
            problems += number_problems(name, kind)
        if schema.names.count(name) > 1:
            problems.append(Problem.at((name,), "must not be there twice."))
    absent = [name for name in (KEY, "expiry") if name not in schema.names]
    problems += [Problem.at((name,), "is required, but is absent.") for name in absent]
    if problems:
        raise InvalidRequest(problems)


def _options(metadata: Mapping[bytes, bytes]) -> tuple[Model, CalibrationOptions]:
    """The model and the options that a schema's metadata name."""
    given = {
        key[len(_PREFIX) :].decode(errors="replace"): value.decode(errors="replace")
        for key, value in metadata.items()
        if key.startswith(_PREFIX)
    }
    model = model_named(given.pop("model", "heston"))
    options: dict[str, Any] = {}
    for name, choice in (("refine", Refine), ("loss", Loss)):
        if name in given:
            options[name] = given.pop(name)
            if options[name] not in get_args(choice):
                needed = f"must be one of {', '.join(get_args(choice))}, but is {shown(options[name])!r}."
                raise InvalidInput(Problem.at((name,), needed))
    if "prior" in given:
        options["prior"] = prior_in_text(model, given.pop("prior"), ("prior",))
    if given:
        raise InvalidInput(*(Problem.at((name,), "is not a field of this request's metadata.") for name in given))
    return model, CalibrationOptions(**options)


def _coded(column: "pyarrow.ChunkedArray", most: int) -> tuple[NDArray[np.int32], "pyarrow.Array"]:
    """For each row the number of its panel, and the keys of the panels by that number."""
    arrow = library()
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise InvalidRequest([Problem.at((KEY, row), "must be a key, but is null.")])
    if arrow.types.is_dictionary(column.type):
        encoded = column.unify_dictionaries().combine_chunks()
        # Nothing keeps a dictionary from holding a value twice, or null.
        values = encoded.dictionary.dictionary_encode()
        codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False)[encoded.indices.to_numpy()]
        if codes.min() < 0:
            raise InvalidRequest([Problem.at((KEY, int(codes.argmin())), "must be a key, but is null.")])
        keys = values.dictionary
    else:
        encoded = column.combine_chunks().dictionary_encode()
        codes, keys = encoded.indices.to_numpy(), encoded.dictionary
    # The row in which each code comes first. Of several for one place the last one stands.
    first = np.full(len(keys), codes.size, np.int64)
    first[codes[::-1]] = np.arange(codes.size - 1, -1, -1, dtype=np.int32)
    n_used = int((first < codes.size).sum())
    if n_used > most:
        raise TooLarge(f"`{KEY}` must name at most {most} panels, but names {n_used}.")
    by_first = np.argsort(first, kind="stable")[:n_used]
    place = np.empty(len(keys), np.int32)
    place[by_first] = np.arange(n_used, dtype=np.int32)
    return place[codes], keys.take(arrow.array(by_first))


class ArrowWriter:
    """A row per panel, in the order of the request: `panel`, `status`, the parameters, `rmse_bp`, `message`, `excluded`
    and `warnings`.

    The status of a panel that was refused is its problem's code; its numbers and lists are null. Quotes are named by
    their rows in a table of quotes, by their position in a request of another format.
    """

    media_type = MEDIA_TYPE

    def __init__(self, batch: ArrowBatch | None = None) -> None:
        """`batch`: what is answered, if it came as a table too; else panels are named by their numbers."""
        self._arrow = library()
        self._batch = batch

    def part(self, answer: PanelAnswer) -> dict[str, Any]:
        return _row(answer)

    def whole(self, parts: Sequence[dict[str, Any]]) -> bytes:
        arrow = self._arrow
        batch = self._batch
        answered = {row["model"] for row in parts if "model" in row} if batch is None else {batch.model.name}
        # Of no model but those asked for: what a table of one model looks like is not another's to change.
        models = [MODELS[name] for name in MODELS if name in answered] or [HESTON]
        names = dict.fromkeys(name for model in models for name in model.parameters)
        keys = arrow.array(range(len(parts))) if batch is None else batch.keys
        columns = {KEY: keys, "status": arrow.array([row["status"] for row in parts], arrow.string())}
        for name in (*names, "rmse_bp"):
            columns[name] = arrow.array([row.get(name) for row in parts], arrow.float64())
        columns["message"] = arrow.array([row["message"] for row in parts], arrow.string())
        columns["excluded"] = self._excluded(parts)
        caution = arrow.struct(
            [("code", arrow.string()), ("detail", arrow.string()), ("indices", arrow.list_(arrow.int32()))]
        )
        columns["warnings"] = arrow.array([row.get("warnings") for row in parts], arrow.list_(caution))
        record = arrow.record_batch(columns)
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, record.schema) as stream:
            stream.write_batch(record)
        written: bytes = sink.getvalue().to_pybytes()
        return written

    def _excluded(self, parts: Sequence[dict[str, Any]]) -> "pyarrow.Array":
        """Column by column: a request can hold millions of quotes to leave out, and an object for each is too much."""
        arrow = self._arrow
        indices = [part["excluded"] for part in parts if "excluded" in part]
        reasons = [reason for part in parts for reason in part.get("reasons", ())]
        ends = [0, *accumulate(part["excluded"].size if "excluded" in part else 0 for part in parts)]
        begins = [end if "excluded" in part else None for end, part in zip(ends[:-1], parts, strict=True)]
        fields = {
            "index": arrow.array(np.concatenate(indices) if indices else [], arrow.int32()),
            "reason": arrow.array(reasons, arrow.dictionary(arrow.int32(), arrow.string())),
        }
        exclusions = arrow.StructArray.from_arrays(list(fields.values()), list(fields))
        return arrow.ListArray.from_arrays(arrow.array([*begins, ends[-1]], arrow.int32()), exclusions)


def _row(answer: PanelAnswer) -> dict[str, Any]:
    outcome = answer.outcome
    if isinstance(outcome, ServiceError):
        return {"status": outcome.code, "message": outcome.detail}
    calibration = outcome.calibration
    return {
        "model": calibration.model.name,
        "status": calibration.status,
        **dict(zip(calibration.model.parameters, calibration.parameters.tolist(), strict=True)),
        "rmse_bp": calibration.rmse_bp,
        "message": calibration.message,
        "excluded": np.array([exclusion.index for exclusion in calibration.excluded], np.int32),
        "reasons": [exclusion.reason for exclusion in calibration.excluded],
        "warnings": warnings(outcome),
    }
