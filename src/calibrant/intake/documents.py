"""Tables from JSON: columns, records, and the bodies of the service's own requests."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInput, Problem
from .names import column_named
from .settings import NAMES
from .table import Table, cell_of

_SIDES = (("calls", "call"), ("puts", "put"))
_DEEPEST = 4
_CONSTANTS = ("as_of", "spot", "rate", "dividend_yield", "forward", "underlying")
"""Fields that may stand once, beside the quotes."""


def json_tables(content: bytes, source: str) -> list[Table]:
    """The tables of a JSON document, or of lines of them.

    raises  InvalidInput if it is no JSON or holds no quotes
    """
    try:
        documents = [json.loads(content, parse_constant=lambda _: None)]
    except ValueError as whole:
        try:
            documents = [
                json.loads(line, parse_constant=lambda _: None) for line in content.splitlines() if line.strip()
            ]
        except ValueError:
            raise InvalidInput(Problem((source,), f"{source} is not JSON: {whole}.")) from None
        if all(isinstance(each, Mapping) and not _is_body(each) for each in documents):
            documents = [documents]
    tables = [table for document in documents for table in tables_of(document, source)]
    if not tables:
        needed = "must hold columns of quotes, a list of quotes, or a body of `POST /v1/panel`, but holds none"
        raise InvalidInput(Problem((source,), f"{source} {needed}."))
    return tables


def tables_of(document: Any, source: str) -> list[Table]:
    """Every table of a document."""
    return list(_found(document, source, {}, 0))


def _is_body(document: Mapping[str, Any]) -> bool:
    return isinstance(document.get("quotes"), Mapping) or isinstance(document.get("panels"), list)


def _found(value: Any, source: str, constants: dict[str, Any], depth: int) -> list[Table]:
    if isinstance(value, list):
        records = [record for record in value if isinstance(record, Mapping)]
        if records and len(records) == len(value):
            if all(_is_body(record) for record in records):
                return [table for record in records for table in _found(record, source, constants, depth + 1)]
            return [_of_records(records, source, constants)]
        return []
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return []
    constants = {**constants, **_constants(value)}
    if isinstance(value.get("panels"), list):
        return _found(value["panels"], source, constants, depth + 1)
    if isinstance(value.get("quotes"), Mapping):
        return [_of_columns(value["quotes"], source, constants)]
    columns = {
        name: column for name, column in value.items() if isinstance(column, list) and not _holds_records(column)
    }
    if sum(column_named(name, 0) is not None for name in columns) > 1:
        return [_of_columns(value, source, constants)]
    if all(isinstance(value.get(side), list) for side, _ in _SIDES):
        return [_of_records(_both_sides(value), source, constants)]
    return [table for inner in value.values() for table in _found(inner, source, constants, depth + 1)]


def _holds_records(column: Sequence[Any]) -> bool:
    return bool(column) and isinstance(column[0], Mapping)


def _constants(document: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the quotes and is known: settings by their names, and single values of a quote's fields."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, list | Mapping) and name not in ("convention", "columns", "holidays"):
            continue
        column = column_named(name, 0)
        if name in NAMES:
            found[name] = value
        elif column is not None and column.field in _CONSTANTS and column.scale == 1.0:
            found.setdefault(column.field, value)
    if isinstance(document.get("id"), str):
        found.setdefault("underlying", document["id"])
    return {name: value for name, value in found.items() if value is not None}


def _both_sides(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        {"type": side, **record} for name, side in _SIDES for record in document[name] if isinstance(record, Mapping)
    ]


def _of_records(records: Sequence[Mapping[str, Any]], source: str, constants: Mapping[str, Any]) -> Table:
    names = list(dict.fromkeys(name for record in records for name in record))
    rows = [[cell_of(record.get(name)) for name in names] for record in records]
    return Table(
        source=source, names=names, rows=rows, lines=range(1, len(rows) + 1), constants=constants, of_body=True
    )


def _of_columns(columns: Mapping[str, Any], source: str, constants: Mapping[str, Any]) -> Table:
    """One value stands for all quotes; columns have one length.

    raises  InvalidInput if they have not
    """
    listed = {name: column for name, column in columns.items() if isinstance(column, list)}
    n = max(map(len, listed.values()), default=0)
    problems = [
        Problem.at(("quotes", name), f"must have as many values as the longest column ({n}), but has {len(column)}.")
        for name, column in listed.items()
        if len(column) != n
    ]
    if problems:
        raise InvalidInput(*problems)
    single = {
        name: [value] * n
        for name, value in columns.items()
        if not isinstance(value, list | Mapping) and value is not None and column_named(name, 0) is not None
    }
    every = {**single, **listed}
    rows = [[cell_of(cell) for cell in row] for row in zip(*every.values(), strict=True)]
    return Table(source=source, names=list(every), rows=rows, lines=range(1, n + 1), constants=constants, of_body=True)
