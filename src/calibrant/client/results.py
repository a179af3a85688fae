"""The service's answers as frozen dataclasses, field for field.

Fields that a newer service adds are passed over, and strings that it may add values to are plain strings.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import Matrix, Vector
from .errors import CalibrantError


@dataclass(frozen=True)
class Excluded:
    """A quote that was left out."""

    index: int
    """In the request."""
    reason: str


@dataclass(frozen=True)
class Fit:
    """How near the model comes to the quotes used, in volatility."""

    rmse_bp: float
    max_abs_bp: float
    mape_pct: float
    n_quotes: int
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True)
class Violation:
    """One static arbitrage."""

    kind: str
    """`butterfly`, `calendar`, `vertical` or `bounds`."""
    expiry: float
    strike: float
    """In the unit of the request; K/F where log-moneyness was given."""
    size: float
    """In units of the forward."""


@dataclass(frozen=True)
class Verdict:
    free: bool
    n_violations: int
    violations: tuple[Violation, ...]


@dataclass(frozen=True)
class Arbitrage:
    quotes: Verdict
    surface: Verdict
    """The fitted one."""

    @property
    def free(self) -> bool:
        return self.quotes.free and self.surface.free


@dataclass(frozen=True)
class Caution:
    """What a desk should look at although the request was valid."""

    code: str
    """`poor_fit`, `vols_look_like_percent`, `many_quotes_excluded`, ..."""
    detail: str
    indices: tuple[int, ...] = ()
    """The quotes it is about, by their position in the request."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated panel."""

    model: str
    parameters: dict[str, float]
    standard_errors: dict[str, float | None]
    """None where there is none; `message` says why."""
    fit: Fit
    feller_ratio: float | None
    arbitrage: Arbitrage
    status: str
    """`converged`, `network_only`, `budget_exhausted` or `not_converged`."""
    start: str
    """Which start led to the answer: `network`, `fallback` or `given`."""
    iterations: int
    out_of_domain: bool
    at_bounds: tuple[str, ...]
    timing_us: dict[str, float]
    """Microseconds in each stage, and `total`."""
    model_version: str | None
    message: str | None = None
    warnings: tuple[Caution, ...] = ()
    noise_bp: float | None = None
    """Standard deviation of a quote of weight one that a prior was weighed against, in basis points of vol."""
    id: str | None = None
    as_of: str | None = None
    parameter_correlation: Matrix | None = None
    """(n_params, n_params), NaN where there is none; with `detail`."""
    model_iv: Vector | None = None
    """(n_quotes,) in the order of the request, NaN for a quote left out; with `detail`."""
    request_id: str | None = None


@dataclass(frozen=True, eq=False)
class Prices:
    """Undiscounted, in units of the forward."""

    model: str
    call: Vector
    put: Vector
    implied_vol: Vector
    """NaN where the price carries none."""
    gradient: dict[str, Vector] | None = None
    """Of the call, by parameter; where it was asked for."""
    request_id: str | None = None


@dataclass(frozen=True)
class EarlyExercise:
    """What being able to exercise early was worth: by how much vols and forward would be wrong without it."""

    median_bp: float
    max_bp: float
    forward_bp: float
    dividend_yield: float
    """That the forward implies."""


@dataclass(frozen=True)
class PanelExpiry:
    """How the forward of an expiry was found."""

    expiration: str
    expiry: float
    forward: float
    forward_from: str
    """`parity`, `given` or `spot`."""
    forward_error: float | None
    """Standard error; None where it is not by parity."""
    discount: float | None
    discount_error: float | None
    n_pairs: int
    n_pairs_rejected: int
    n_quotes: int
    early_exercise: EarlyExercise | None = None


@dataclass(frozen=True, eq=False)
class Panel:
    """A panel made of a chain: `quotes` is what `calibrate` takes."""

    quotes: dict[str, Vector]
    index: tuple[int, ...]
    """Of each quote, its position among those given."""
    expiries: tuple[PanelExpiry, ...]
    excluded: tuple[Excluded, ...]
    warnings: tuple[Caution, ...] = ()
    exercise: str | None = None
    id: str | None = None
    as_of: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, eq=False)
class GridInfo:
    """The nodes that a network reads."""

    expiry: Vector
    log_moneyness: Vector
    standardised: bool
    """Whether log-moneyness counts at-the-money standard deviations."""


@dataclass(frozen=True, eq=False)
class NetworkInfo:
    domain: str
    training_domain: dict[str, tuple[float, float]]
    grid: GridInfo


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """A model that the service calibrates."""

    model: str
    model_version: str | None
    """None where it has no network."""
    parameters: tuple[str, ...]
    admissible_bounds: dict[str, tuple[float, float]]
    training_domain: dict[str, tuple[float, float]] | None
    networks: tuple[NetworkInfo, ...] = ()


Outcome = Calibration | CalibrantError
"""What became of one panel of a batch: its result, or the error that it alone would have raised."""


@dataclass(frozen=True, eq=False)
class BatchItem:
    """A panel's result as it came."""

    index: int
    """In the batch."""
    outcome: Outcome


@dataclass(frozen=True)
class Job:
    """Work that the service goes on with after it has answered, as it was when it was asked about."""

    id: str
    kind: str
    state: str
    """`queued`, `running`, `done`, `failed` or `cancelled`."""
    progress: float
    """Share of the work that is done."""
    eta_s: float | None = None
    """Seconds until it is done, where that can be told."""

    @property
    def ended(self) -> bool:
        return self.state not in ("queued", "running")


@dataclass(frozen=True, eq=False)
class LeverageGrid:
    """L over dates and spots: linear in the date and in log(spot) between the nodes, flat beyond them."""

    expiry: Vector
    """(n_dates,) years, from 0 on."""
    spot: Matrix
    """(n_dates, n_nodes)."""
    value: Matrix
    """(n_dates, n_nodes)."""


@dataclass(frozen=True)
class RepricedVanilla:
    """A vanilla priced by paths of its own."""

    expiry: float
    strike: float
    target_iv: float
    model_iv: float | None
    error_bp: float | None
    se_bp: float | None


@dataclass(frozen=True)
class MartingaleError:
    """E[S] / forward - 1 at a date."""

    expiry: float
    error: float
    se: float


@dataclass(frozen=True, eq=False)
class Leverage:
    """A calibrated leverage function."""

    id: str
    """For `one_touch`: the service knows it for an hour."""
    leverage: LeverageGrid
    repricing: tuple[RepricedVanilla, ...]
    martingale: tuple[MartingaleError, ...]
    n_clipped: int
    heston: dict[str, Any]
    """Parameters before mixing, `mixing`, `rmse_bp` and `fitted`."""
    settings: dict[str, Any]
    """Seed and all else that the numbers depend on."""
    timing_ms: dict[str, float]
    surface: dict[str, Any] | None = None
    """How it was made of quotes, the misfit of each."""
    warnings: tuple[Caution, ...] = ()
    request_id: str | None = None


@dataclass(frozen=True)
class TouchPrice:
    """In domestic currency, for one unit of payout currency."""

    price: float
    se: float
    """Standard error; 0 of a closed form."""
    tv: float
    """The Black-Scholes value at the at-the-money vol."""
    delta: float | None = None
    """None, as what follows, where greeks were not asked for."""
    delta_se: float | None = None
    gamma: float | None = None
    gamma_se: float | None = None


@dataclass(frozen=True, eq=False)
class Touches:
    """Prices of barriers, in the order of the request."""

    prices: tuple[TouchPrice, ...]
    model: str
    settings: dict[str, Any]
    timing_ms: dict[str, float]
    calibration: dict[str, Any] | None = None
    """Of the leverage that they were priced under."""
    surface: dict[str, Any] | None = None
    warnings: tuple[Caution, ...] = ()
    request_id: str | None = None


# On the wire --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelList:
    models: tuple[ModelInfo, ...]


@dataclass(frozen=True)
class ProblemDocument:
    """RFC 9457; everything may be absent where not the service wrote it, but a proxy."""

    code: str | None = None
    detail: str | None = None
    status: int | None = None
    request_id: str | None = None
    errors: list[dict[str, str]] | None = field(default=None)


@dataclass(frozen=True)
class Place:
    """What of a batch's result says what kind it is and where it belongs."""

    index: int | None = None
    code: str | None = None


def array_of(kind: Any, value: Any) -> Any:
    """Lists of numbers as arrays, null as NaN: for the fields whose type the decoder does not know."""
    if getattr(kind, "__origin__", kind) is not np.ndarray:
        raise NotImplementedError(f"{kind} is no field of an answer.")
    return np.array(value, dtype=np.float64)
