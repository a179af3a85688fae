"""Requests: arrays, lists and mappings in, the documents of the contract out."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Literal, NotRequired, Required, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from ..arrays import IntVector
from .errors import FieldProblem, InvalidInput

Quotes = Mapping[str, ArrayLike | Sequence[float | None] | None]
"""Columns by name: `expiry` in years; `strike` with `forward` (one or one per quote), or `log_moneyness`; `iv`, or
`bid_iv` and `ask_iv`, decimals; `weight`. NaN and None are missing vols."""

Chain = Mapping[str, ArrayLike | Sequence[float | str | date | None] | str | float | None]
"""Columns of quotes by any usual name: `expiration`, `type`, `strike`, `bid`, `ask`, ..., or vols by delta."""

_VOLS = ("iv", "bid_iv", "ask_iv")


class PriorOf(TypedDict):
    """A Gaussian prior of some or all parameters."""

    parameters: Mapping[str, float]
    standard_deviations: Mapping[str, float]
    noise_bp: NotRequired[float | None]
    """Standard deviation of a quote of weight one."""


class Options(TypedDict, total=False):
    """What may be said of a calibration beside its quotes; the service's defaults hold for what is not."""

    model: str
    exclude: Sequence[int] | IntVector | None
    """Quotes to leave out, by their position."""
    refine: Literal["lm", "lbfgs", "none"]
    loss: Literal["squared", "huber"]
    start: Mapping[str, float] | None
    """Parameters to start from as well as the network's."""
    bounds: Mapping[str, tuple[float, float]] | None
    fixed: Mapping[str, float] | None
    prior: PriorOf | None
    detail: bool
    """Adds `parameter_correlation` and `model_iv`."""
    budget_ms: float | None
    """Of this panel, where `deadline_ms` is that of the request."""
    id: str | None
    as_of: str | None


class PanelRequest(Options, total=False):
    """One panel of a batch."""

    quotes: Required[Quotes]


def calibration_document(quotes: Quotes, options: Options, root: str = "") -> dict[str, Any]:
    """raises  InvalidInput if a column is no column of numbers"""
    columns = {
        name: None if column is None else _numbers(column, name, f"{root}/quotes/{name}")
        for name, column in quotes.items()
    }
    return {**options, "quotes": columns}


def batch_document(panels: Iterable[PanelRequest]) -> dict[str, Any]:
    """raises  InvalidInput if a panel has no quotes, or a column is no column of numbers"""
    documents = []
    for i, panel in enumerate(panels):
        options = dict(panel)
        quotes = options.pop("quotes", None)
        if not isinstance(quotes, Mapping):
            raise _invalid(f"/panels/{i}/quotes", f"`panels[{i}].quotes` must be a mapping of columns.")
        documents.append(calibration_document(quotes, options, f"/panels/{i}"))  # type: ignore[arg-type]
    return {"panels": documents}


def price_document(
    model: str, parameters: Mapping[str, float], expiry: ArrayLike, log_moneyness: ArrayLike, gradient: bool
) -> dict[str, Any]:
    """raises  InvalidInput if a column is no column of numbers"""
    return {
        "model": model,
        "parameters": parameters,
        "expiry": _numbers(expiry, "expiry", "/expiry"),
        "log_moneyness": _numbers(log_moneyness, "log_moneyness", "/log_moneyness"),
        "gradient": gradient,
    }


def panel_document(chain: Chain, settings: Mapping[str, Any]) -> dict[str, Any]:
    """raises  InvalidInput if a column holds anything but numbers, text, dates and nothing"""
    columns = {name: _cells(column, name) for name, column in chain.items() if column is not None}
    plain = {name: value.isoformat() if isinstance(value, date) else value for name, value in settings.items()}
    return {**plain, "quotes": columns}


def _cells(column: object, name: str) -> list[Any] | Any:
    """NaN and NaT are missing; dates go as text."""
    if isinstance(column, str | int | float):
        return column
    values = np.asarray(column)
    if values.dtype.kind == "M":
        return [None if text == "NaT" else text for text in np.datetime_as_string(values).tolist()]
    found = [None if value != value else value for value in values.tolist()]
    found = [value.isoformat() if isinstance(value, date) else value for value in found]
    if values.ndim != 1 or any(not isinstance(value, str | int | float | None) for value in found):
        raise _invalid(f"/quotes/{name}", f"`{name}` must be a column of numbers, text or dates.")
    return found


class BarrierOf(TypedDict, total=False):
    """One unit of currency paid if a level is touched before expiry, or if none is."""

    expiry: Required[float]
    """Years."""
    level: float
    levels: tuple[float, float]
    """Of a double no-touch, in place of `level` and `direction`."""
    direction: Literal["up", "down"]
    kind: Literal["one_touch", "no_touch"]
    paid: Literal["at_expiry", "at_hit"]
    payout: Literal["domestic", "foreign"]


class LeverageSettings(TypedDict, total=False):
    """How a leverage is calibrated; the service's defaults hold for what is not said."""

    heston: Mapping[str, float] | None
    """Parameters before mixing; None to fit them."""
    kappa: float | None
    """Held while they are fitted."""
    mixing: float | Mapping[str, Any]
    """A share in [0, 1], or `{"fit_to": a barrier with its price}`."""
    maturity: float
    """Years."""
    pillars: Sequence[float]
    n_particles: int
    step_days: float
    estimator: str | Mapping[str, Any]
    """Its name, or `{"kind": name, option: value}`."""
    scheme: Literal["qe", "euler"]
    numbers: Literal["ranked", "antithetic"]
    n_paths: int
    seed: int


class TouchSettings(LeverageSettings, total=False):
    """How barriers are priced."""

    leverage: str
    """`id` of a leverage, in place of a surface and how it is calibrated."""
    surface: Mapping[str, Any]
    model: Literal["bs", "lv", "heston", "slv"]
    greeks: bool


def _numbers(column: ArrayLike | Sequence[float | None], name: str, pointer: str) -> list[float | None] | float:
    try:
        values = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        raise _invalid(pointer, f"`{name}` must be a column of numbers.") from None
    if values.ndim > 1 or (values.ndim == 0 and name != "forward"):
        raise _invalid(pointer, f"`{name}` must have one dimension, but has {values.ndim}.")
    listed: list[float | None] | float = values.tolist()
    # In the other columns NaN is a mistake, and the service's to name.
    if name in _VOLS and isinstance(listed, list) and np.isnan(values).any():
        return [None if value != value else value for value in listed]
    return listed


def _invalid(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput(detail, code="invalid_input", errors=(FieldProblem(pointer, detail),))


def plain(value: Any) -> Any:
    """What the encoders do not know: numpy's scalars and arrays, mappings that are no dicts."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise InvalidInput(f"{type(value).__name__} is nothing that a request can hold.", code="invalid_input")
