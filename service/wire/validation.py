"""What a decoder found wrong, in the words and with the pointers of the rest of the product."""

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json

from calibrant.errors import Path, Problem, shown

from ..errors import MAX_PROBLEMS, InvalidRequest
from .schema import LIST_TAG, NUMBER_TAG

_THE_BODY = "The body "


def n_members(value: Any) -> int:
    """Fields of all objects that a validated body was read from, each counted once however often it stood there."""
    if isinstance(value, BaseModel):
        given = value.model_fields_set
        return len(given) + sum(n_members(getattr(value, name)) for name in given)
    if isinstance(value, dict):
        return len(value) + sum(map(n_members, value.values()))
    # All elements of a list are of one kind, and most lists are columns.
    if isinstance(value, list) and value and isinstance(value[0], BaseModel | dict):
        return sum(map(n_members, value))
    return 0


def twice(name: str | None = None) -> InvalidRequest:
    """A body with two fields of one name, which two readers may read in two ways."""
    which = "a field" if name is None else f"`{shown(name)}`"
    return bad_body(f"must not hold {which} twice in one object.")


def from_validation(error: ValidationError) -> InvalidRequest:
    """The problems of a body that is not as the schema says."""
    return InvalidRequest([_problem(details) for details in error.errors(include_url=False)[:MAX_PROBLEMS]])


def bad_body(needed: str) -> InvalidRequest:
    """A body refused as a whole: `bad_body("is not JSON.")`."""
    return InvalidRequest([Problem((), _THE_BODY + needed)])


def beneath(root: Path, problems: Sequence[Problem]) -> InvalidRequest:
    """The problems of one part of a request, such as a panel of a batch, as those of the request."""
    return InvalidRequest([_moved(root, problem) for problem in problems[:MAX_PROBLEMS]])


def _moved(root: Path, problem: Problem) -> Problem:
    # Either the part as a whole is refused or a field, whose name stands first, in backticks.
    said = problem.detail.split("` ", 1)[1] if problem.path else problem.detail.removeprefix(_THE_BODY)
    return Problem.at((*root, *problem.path), said)


_NEEDED = {
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "tuple_type": "must be a pair of numbers",
    "too_short": "must hold at least one value",
    "too_long": "must be a pair of numbers",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
}


def _problem(error: ErrorDetails) -> Problem:
    path = tuple(part for part in error["loc"] if part not in (NUMBER_TAG, LIST_TAG))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "json_invalid":
        return Problem((), f"{_THE_BODY}is not JSON: {context['error']}.")
    if kind == "invalid_key" or path[-1:] == ("[key]",):
        return Problem((), f"{_THE_BODY}must have no key that is not a string.")
    if not path:
        return Problem(path, f"{_THE_BODY}must be an object, but is {_shown(error['input'])}.")
    if kind == "missing":
        return Problem.at(path, "is required, but is absent.")
    if kind == "extra_forbidden":
        return Problem.at(path, "is not a field of this request.")
    if kind == "literal_error":
        needed = f"must be one of {context['expected']}"
    elif kind == "greater_than":
        needed = f"must be > {context['gt']:g}"
    elif kind == "greater_than_equal":
        needed = f"must be >= {context['ge']:g}"
    elif kind == "less_than_equal":
        needed = f"must be <= {context['le']:g}"
    else:
        needed = _NEEDED.get(kind) or f"is not valid ({shown(error['msg'])})"
    return Problem.at(path, f"{needed}, but is {_shown(error['input'])}.")


def _shown(value: Any) -> str:
    """A value in a sentence, in JSON's words: whole when short, else its kind."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, bytes):
        return "binary data"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    return shown(to_json(value).decode(), 40)
