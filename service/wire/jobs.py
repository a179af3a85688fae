"""The schema to the library's types, with every complaint pointing at its field."""

from typing import Any

import numpy as np

from calibrant.arrays import column_of
from calibrant.by_name import bounds_of, held_of, model_named, parameters_of, prior_of
from calibrant.errors import Path
from calibrant.models.model import Model
from calibrant.options import CalibrationOptions, Prior
from calibrant.panel import OptionPanel
from calibrant.prices import require_options

from ..engine import CalibrationJob, PriceJob
from ..errors import InvalidRequest
from . import schema
from .json import decode
from .validation import beneath

_COLUMNS = tuple(schema.Quotes.model_fields)


def calibration_job(request: schema.CalibrateRequest, deadline: float | None) -> CalibrationJob:
    """What the engine is asked to do; `deadline` on the clock of `time.perf_counter`."""
    model = model_named(request.model)
    quotes: dict[str, Any] = {
        name: column_of(values) if isinstance(values, list) else values
        for name in _COLUMNS
        if (values := getattr(request.quotes, name)) is not None
    }
    panel = OptionPanel.from_quotes(**quotes, exclude=request.exclude)
    bounds = None if request.bounds is None else bounds_of(model, request.bounds, ("bounds",))
    fixed = None if request.fixed is None else held_of(model, request.fixed, ("fixed",))
    prior = None if request.prior is None else prior_of(model, _named(request.prior), ("prior",))
    options = CalibrationOptions(refine=request.refine, bounds=bounds, fixed=fixed, prior=prior, loss=request.loss)
    given = None if request.start is None else parameters_of(model, request.start, ("start",))
    return CalibrationJob(model=model, panel=panel, options=options, given=given, deadline=deadline)


def price_job(request: schema.PriceRequest) -> PriceJob:
    model = model_named(request.model)
    expiry, log_moneyness = np.array(request.expiry), np.array(request.log_moneyness)
    require_options(expiry, log_moneyness)
    return PriceJob(
        model=model,
        params=parameters_of(model, request.parameters, ("parameters",)),
        expiry=expiry,
        log_moneyness=log_moneyness,
        gradient=request.gradient,
    )


def _named(given: schema.Prior) -> dict[str, Any]:
    return {name: getattr(given, name) for name in schema.Prior.model_fields}


def prior_in_text(model: Model, text: str, path: Path) -> Prior:
    """A `schema.Prior` as a string of JSON, for formats whose options are plain strings and numbers."""
    try:
        given = decode(text.encode(errors="replace"), schema.Prior)
    except InvalidRequest as error:
        raise beneath(path, error.problems) from None
    return prior_of(model, _named(given), path)
