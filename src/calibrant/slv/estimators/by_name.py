"""Estimators and their options as requests name them."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

from ...errors import InvalidInput, Path, Problem, shown
from . import ESTIMATORS, Estimator
from .binned_local_linear import BinnedLocalLinear
from .bins import Bins
from .kernel_regression import KernelRegression
from .radial import RadialBasis

_NAMED = ("kernel", "local_linear", "partition")
"""Fields that the name decides."""
_OPTIONAL = ("n_cells", "n_neighbours")
"""Options of radial basis functions that may be None though their defaults are not."""
_LARGEST = 1e6


def estimator_named(
    name: object, options: Mapping[str, object] | None = None, path: Path = ("estimator",)
) -> Bins | BinnedLocalLinear | KernelRegression | RadialBasis:
    """The estimator of a name, with options other than its own.

    options  by the names of the fields, numbers, None where that is a default, and for the `bandwidth` of a kernel
             regression also `silverman` and `leave_one_out`
    path     where the name stands in a request; an option is found beside it
    raises   InvalidInput naming the field
    """
    if not isinstance(name, str) or name not in ESTIMATORS:
        needed = ", ".join(f"`{known}`" for known in ESTIMATORS)
        raise InvalidInput(Problem.at(path, f"must be one of {needed}, but is {shown(name)!r}."))
    estimator = ESTIMATORS[name]
    own = {field.name: getattr(estimator, field.name) for field in fields(estimator) if field.name not in _NAMED}
    problems = []
    given: dict[str, Any] = {}
    for option, value in (options or {}).items():
        where = (*path[:-1], option)
        if option not in own:
            problems.append(Problem.at(where, f"is no option of `{name}`, which has {', '.join(own)}."))
        elif option == "bandwidth" and isinstance(own[option], str) and value in ("silverman", "leave_one_out"):
            given[option] = value
        elif value is None and (own[option] is None or (isinstance(estimator, RadialBasis) and option in _OPTIONAL)):
            given[option] = None
        elif isinstance(value, bool) or not isinstance(value, int | float) or not _fits(option, value):
            whole = "a whole number >= 2" if option.startswith("n_") else "a finite number > 0"
            problems.append(Problem.at(where, f"must be {whole}, but is {shown(value)!r}."))
        else:
            given[option] = int(value) if option.startswith("n_") else float(value)
    if problems:
        raise InvalidInput(*problems)
    return replace(estimator, **given)


def estimator_document(estimator: Estimator) -> dict[str, Any]:
    """The name of an estimator and its options, as `estimator_named` takes them; of another's, the name of its type."""
    options: dict[str, Any] = asdict(estimator) if is_dataclass(estimator) and not isinstance(estimator, type) else {}
    decided = {option: value for option, value in options.items() if option in _NAMED}
    for name, known in ESTIMATORS.items():
        if type(estimator) is type(known) and decided.items() <= asdict(known).items():
            return {"kind": name, **{option: value for option, value in options.items() if option not in _NAMED}}
    return {"kind": type(estimator).__name__, **options}


def _fits(option: str, value: float) -> bool:
    if option.startswith("n_"):
        return 2 <= value <= _LARGEST and value == int(value)
    least = 0.0 if option in ("ridge", "pruning", "least_mass") else 1e-3
    return least <= value <= _LARGEST
