"""The folder of finished units: a Parquet file each, whole from the moment that it has its name.

What it was made with lies beside them, in a file that readers of such folders pass over, and again in each part.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, Problem, shown
from ..models.model import Model
from .plan import AS_OF, UNDERLYING, Unit

if TYPE_CHECKING:
    import pyarrow

DESCRIPTION = "_backfill.json"
METADATA = b"calibrant.backfill"
"""Key of a part's schema: the same document, of the run, and which unit it is."""
_READABLE = 40
"""Characters of an underlying in a file's name; the digest behind tells all apart."""


def schema_of(model: Model, named: "pyarrow.Schema") -> "pyarrow.Schema":
    """Columns of a part; docs/backfill.md says what each holds.

    named  `as_of` and `panel` as the source has them
    """
    import pyarrow

    text, number, whole, truth = pyarrow.string(), pyarrow.float64(), pyarrow.int32(), pyarrow.bool_()
    fields = {UNDERLYING: text, **{field.name: field.type for field in named}, "status": text, "model": text}
    fields |= dict.fromkeys(model.parameters, number)
    fields |= dict.fromkeys((f"{name}_error" for name in model.parameters), number)
    fields |= dict.fromkeys(("rmse_bp", "max_abs_bp", "mape_pct"), number)
    fields |= {
        "n_quotes": whole,
        "n_excluded": whole,
        "feller_ratio": number,
        "quotes_free": truth,
        "surface_free": truth,
    }
    fields |= {"start": text, "iterations": whole, "out_of_domain": truth, "at_bounds": text, "warnings": text}
    fields |= {"message": text, "model_version": text}
    needed = (UNDERLYING, AS_OF, "status")
    return pyarrow.schema([pyarrow.field(name, kind, name not in needed) for name, kind in fields.items()])


def encoded(table: "pyarrow.Table", document: Mapping[str, Any], unit: Unit) -> bytes:
    """The content of a part."""
    import pyarrow
    from pyarrow import parquet

    of_unit = {**document, "unit": {"underlying": unit.underlying, "dates": unit.block, "n_quotes": unit.n_quotes}}
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table.replace_schema_metadata({METADATA: json.dumps(of_unit)}), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def name_of_part(unit: Unit) -> str:
    """Safe on any file system, the same for no two units."""
    readable = re.sub(r"[^A-Za-z0-9]+", "_", unit.underlying)[:_READABLE]
    return f"part-{readable}-{sha256(unit.underlying.encode()).hexdigest()[:10]}-{unit.block}.parquet"


class Folder:
    """A folder of parts, this run's alone while `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, unit: Unit) -> bool:
        return (self.path / name_of_part(unit)).exists()

    def write(self, unit: Unit, content: bytes) -> None:
        _write_whole(self.path / name_of_part(unit), content)


@contextmanager
def opened(path: Path, document: Mapping[str, Any]) -> Iterator[Folder]:
    """The folder, made if it is not there.

    raises  InvalidInput if it holds something else, parts made with other settings or from other quotes, or is another
            run's at the moment; OSError
    """
    if path.exists() and not path.is_dir():
        raise InvalidInput(Problem.at(("--out",), f"must be a folder, but {path} is a file."))
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            # Freed by the system when the process ends, however it does.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(Problem.at(("--out",), f"is {path}, where another run is at work.")) from None
        description = path / DESCRIPTION
        if description.exists():
            _require_same(json.loads(description.read_text()), document, path)
        elif any(path.glob("*.parquet")):
            needed = f"must be empty or a folder of this command's, but {path} holds other Parquet files."
            raise InvalidInput(Problem.at(("--out",), needed))
        else:
            _write_whole(description, (json.dumps(document, indent=2) + "\n").encode())
        yield Folder(path)
    finally:
        os.close(handle)


def _require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    other = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    if other:
        told = "; ".join(f"{name} was {shown(found.get(name))}, now {shown(wanted.get(name))}" for name in other)
        needed = f"holds parts made otherwise, and must be another folder for other settings: {told} ({path})."
        raise InvalidInput(Problem.at(("--out",), needed))


def _write_whole(path: Path, content: bytes) -> None:
    """Under its name there is nothing or all of it, whatever happens meanwhile."""
    # A name that readers pass over, and that the next attempt takes again.
    temporary = path.with_name(f".{path.name}.unfinished")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
