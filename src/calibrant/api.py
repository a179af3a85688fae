"""What `calibrant` exports: quotes and names in, results out; every argument is checked here, and refused by its name.

The arguments are those of `POST /v1/calibrate` and `POST /v1/price`, with their names and meanings.
"""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from .arrays import IntVector, Vector
from .by_name import bounds_of, held_of, model_named, parameters_of, prior_of
from .errors import InvalidInput, Problem, shown
from .models.model import Model
from .options import CalibrationOptions, Loss, Refine
from .panel import OptionPanel
from .pipeline import assess
from .prices import Prices, price_steps, require_options
from .quote_columns import Quotes, column, panel_of
from .release import release_in_reach
from .result import CalibrationResult
from .steps import finish


def calibrate(
    quotes: OptionPanel | Quotes,
    model: str | Model = "heston",
    *,
    exclude: Sequence[int] | IntVector | None = None,
    refine: Refine = "lm",
    loss: Loss = "squared",
    start: Mapping[str, float] | None = None,
    bounds: Mapping[str, Sequence[float]] | None = None,
    fixed: Mapping[str, float] | None = None,
    prior: Mapping[str, Any] | None = None,
) -> CalibrationResult:
    """Fit a model to a panel of option quotes, and check both for static arbitrage.

    quotes   an OptionPanel, a mapping of columns or a data frame: `expiry` in years; `strike` with `forward` (a number
             or one per quote), or `log_moneyness` = log(strike / forward) alone; `iv` in decimals, or `bid_iv` and
             `ask_iv`; optionally `weight`, which multiplies the squared residual. NaN and None are missing vols
    model    by its name, or one of `calibrant.models`
    exclude  positions of quotes to leave out, from 0
    refine   `lm` (Levenberg-Marquardt), `lbfgs` before it, or `none` for the network's own answer
    loss     `squared`, or `huber`, which counts large residuals by their size and not by its square
    start    all parameters, to start from as well as the network's
    bounds   a pair for any of the parameters, inside the admissible ones
    fixed    parameters held at a value
    prior    Gaussian: `parameters` and `standard_deviations` of any of the parameters, and optionally `noise_bp`, the
             standard deviation of a quote of weight one
    returns  the fit; a fit that fails is its `status` and `message`, never an exception
    raises   InvalidInput, a ValueError, naming every argument, and every quote, that no calibration can be run on
    """
    began = perf_counter()
    model = model_named(model)
    panel = panel_of(quotes, exclude)
    reading = perf_counter() - began
    options = CalibrationOptions(
        refine=_one_of("refine", refine, get_args(Refine)),
        loss=_one_of("loss", loss, get_args(Loss)),
        bounds=None if bounds is None else bounds_of(model, bounds, ("bounds",)),
        fixed=None if fixed is None else held_of(model, fixed, ("fixed",)),
        prior=None if prior is None else prior_of(model, prior, ("prior",)),
    )
    given = None if start is None else parameters_of(model, start, ("start",))
    return CalibrationResult(assess(panel, model, release_in_reach(model), options, given), reading)


def price(
    model: str | Model,
    parameters: Mapping[str, float],
    expiry: ArrayLike,
    log_moneyness: ArrayLike | None = None,
    *,
    strike: ArrayLike | None = None,
    forward: ArrayLike | None = None,
    gradient: bool = False,
) -> Prices:
    """Calls and puts by the accurate pricer, each correct to 1e-10 of the forward.

    model          by its name, or one of `calibrant.models`
    parameters     all of them
    expiry         years, > 0
    log_moneyness  log(strike / forward); or instead
    strike         with `forward`, in one unit. Numbers and arrays are broadcast against each other
    gradient       whether the derivatives of the call by each parameter are wanted too
    returns        undiscounted, in units of the forward, whichever way the strikes were given
    raises         InvalidInput, a ValueError, naming every argument that cannot be priced
    """
    model = model_named(model)
    params = parameters_of(model, parameters, ("parameters",))
    if not isinstance(gradient, bool):
        raise InvalidInput(Problem.at(("gradient",), f"must be True or False, but is {shown(gradient)!r}."))
    t, k = _broadcast(expiry=column(expiry, ("expiry",)), log_moneyness=_moneyness(log_moneyness, strike, forward))
    shape = t.shape
    t, k = t.reshape(-1), k.reshape(-1)
    require_options(t, k)
    prices = finish(price_steps(model, params, k, t, gradient=gradient))
    by_parameter = prices.gradient and {name: by.reshape(shape) for name, by in prices.gradient.items()}
    call, put, implied_vol = (values.reshape(shape) for values in prices[:3])
    return Prices(call, put, implied_vol, by_parameter)


def _moneyness(log_moneyness: ArrayLike | None, strike: ArrayLike | None, forward: ArrayLike | None) -> Vector:
    if log_moneyness is not None:
        if strike is not None or forward is not None:
            needed = "must be given alone, or left out beside `strike` and `forward`."
            raise InvalidInput(Problem.at(("log_moneyness",), needed))
        return column(log_moneyness, ("log_moneyness",))
    if strike is None or forward is None:
        missing = "strike" if strike is None else "forward"
        needed = "must be given: `strike` with `forward`, or `log_moneyness` instead of both."
        raise InvalidInput(Problem.at((missing,), needed))
    k, f = _broadcast(strike=column(strike, ("strike",)), forward=column(forward, ("forward",)))
    for name, values in (("strike", k), ("forward", f)):
        bad = values[~((values > 0.0) & (values < np.inf))]
        if bad.size:
            raise InvalidInput(Problem.at((name,), f"must be finite numbers > 0, but holds {bad[0]:g}."))
    return np.asarray(np.log(k / f))


def _broadcast(**given: Vector) -> list[Vector]:
    try:
        return [np.array(values) for values in np.broadcast_arrays(*given.values())]
    except ValueError:
        listed = " and ".join(f"`{name}` {values.shape}" for name, values in given.items())
        raise InvalidInput(Problem((next(iter(given)),), f"The shapes of {listed} must broadcast.")) from None


def _one_of(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    if value not in allowed:
        listed = ", ".join(repr(choice) for choice in allowed)
        raise InvalidInput(Problem.at((name,), f"must be one of {listed}, but is {shown(value)!r}."))
    return value
