"""The wire schema: one set of models decodes the raw body and describes it in the OpenAPI document.

Columns, not rows: a list per field costs a fifth of an object per quote to decode. Strict: no number in a string, no
NaN or infinity, no field that is not listed. What needs the model or more than one field to judge (signs, lengths,
parameter names) is checked by the library, which the command line and other wire formats call too.

The response models are documentation: responses are built by `calibrant.report` and encoded without validation;
`tests/service` holds real responses against these models.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Strict, Tag

from calibrant.intake.settings import (
    DateOrder,
    DayCount,
    Decimal,
    Exercise,
    ExpiryUnit,
    PriceUnit,
    Settlement,
    Use,
    VolUnit,
)
from calibrant.panel import LARGEST_LOG_MONEYNESS, LONGEST_EXPIRY

NUMBER_TAG = "<number>"
LIST_TAG = "<list>"
"""Branches of a union, named so that no field can be: they are taken out of the pointers of errors."""


def _number_or_list(value: Any) -> str:
    return LIST_TAG if isinstance(value, list) else NUMBER_TAG


class Request(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid", frozen=True)


# A column stops at its first bad cell: a body of a million nulls must not become a million error messages.
Column = Annotated[list[float], Field(fail_fast=True)]
QuoteColumn = Annotated[list[float | None], Field(fail_fast=True)]
NumberOrColumn = Annotated[
    Annotated[float | None, Tag(NUMBER_TAG)] | Annotated[Column, Tag(LIST_TAG)], Discriminator(_number_or_list)
]
Position = Annotated[int, Field(ge=0, le=2**31)]
# Not strict about the pair itself, its numbers are: MessagePack has no tuples, and a list would be none.
Pair = Annotated[tuple[float, float], Strict(False)]


class Quotes(Request):
    """One panel of quotes, a list per field, all of one length."""

    expiry: Column = Field(description="Years; a quote that has expired (<= 0) is left out.")
    strike: Column | None = Field(None, description="With `forward`; in the same unit.")
    forward: NumberOrColumn = Field(None, description="A number, or one per quote.")
    log_moneyness: Column | None = Field(None, description="log(strike / forward), instead of `strike` and `forward`.")
    iv: QuoteColumn | None = Field(None, description="Mid implied volatility, decimal; null is a missing quote.")
    bid_iv: QuoteColumn | None = Field(None, description="0 is no bid, and leaves the quote out unless `iv` is given.")
    ask_iv: QuoteColumn | None = None
    weight: Column | None = Field(None, description="Multiplies the squared residual of its quote.")


class Prior(Request):
    """Gaussian prior of some or all parameters: adds ((parameter - mean) / standard deviation)^2 to the objective."""

    parameters: dict[str, float] = Field(description="Means, inside the admissible bounds.")
    standard_deviations: dict[str, float] = Field(description="Of the same parameters.")
    # Between the rounding of a model vol and a hundred whole vols, so that the objective stays a number.
    noise_bp: float | None = Field(
        None,
        ge=1e-6,
        le=1e6,
        description="Standard deviation of a quote of weight one (the mean weight), in basis points of vol. By default "
        "half the spread where the weights come from spreads, else 10.",
    )


class CalibrateRequest(Request):
    model: str = "heston"
    quotes: Quotes
    exclude: list[Position] | None = Field(
        None, description="Quotes to leave out, by their position in the columns, from 0."
    )
    refine: Literal["lm", "lbfgs", "none"] = Field("lm", description="`none` answers with the network's parameters.")
    loss: Literal["squared", "huber"] = Field(
        "squared", description="`huber` counts large residuals by their size and not by its square."
    )
    start: dict[str, float] | None = Field(None, description="Parameters to start from as well as the network's.")
    bounds: dict[str, Pair] | None = Field(
        None, description="Lower and upper bound of any of the parameters, inside the admissible ones."
    )
    fixed: dict[str, float] | None = Field(None, description="Parameters held at a value.")
    prior: Prior | None = None
    detail: bool = Field(False, description="Adds `parameter_correlation` and `model_iv`, one per quote.")
    budget_ms: float | None = Field(None, gt=0, description="Milliseconds from the first byte received.")
    id: str | None = Field(None, description="Echoed.")
    as_of: str | None = Field(None, description="Echoed.")


_Years = Annotated[float, Field(gt=0.0, le=LONGEST_EXPIRY)]
_Moneyness = Annotated[float, Field(ge=-LARGEST_LOG_MONEYNESS, le=LARGEST_LOG_MONEYNESS)]


class BatchRequest(Request):
    """Panels that have nothing to do with each other: each gets its own result or problem."""

    panels: list[CalibrateRequest] = Field(min_length=1)


class PriceRequest(Request):
    model: str = "heston"
    parameters: dict[str, float]
    expiry: list[_Years] = Field(fail_fast=True, min_length=1, description="Years.")
    log_moneyness: list[_Moneyness] = Field(fail_fast=True, description="log(strike / forward).")
    gradient: bool = False


Cells = Annotated[list[float | str | None], Field(fail_fast=True)]
_Vols = Annotated[list[float | None], Field(fail_fast=True)]


class PanelSettings(Request):
    """What may be said of quotes beside them: what they leave open, and no more."""

    as_of: str | None = Field(None, description="Date, or date and time, of the quotes: 2025-11-28.")
    underlying: str | None = Field(None, description="Which panel, where there are several; else its name.")
    expiration: str | None = Field(None, description="Of all quotes, where no column says it.")
    spot: float | None = Field(None, gt=0.0)
    forward: float | None = Field(None, gt=0.0, description="Of all quotes, which are then of one expiry.")
    rate: float | None = Field(None, description="Continuously compounded, per year.")
    dividend_yield: float | None = Field(None, description="Continuous, per year.")
    exercise: Exercise | None = Field(
        None, description="Of prices. By default European, but for options of American exchanges on what is no index."
    )
    day_count: DayCount | None = Field(None, description="By default act/365.")
    holidays: list[str] | None = Field(None, description="That `business/252` does not count, beside weekends.")
    settlement: Settlement | None = Field(
        None, description="At the `close` (default), the `open`, or as the `exchange` has it for each index."
    )
    time_zone: str | None = Field(None, description="Of settlement and of times without a zone: America/New_York.")
    expiry_unit: ExpiryUnit | None = None
    vol_unit: VolUnit | None = None
    strike_unit: float | None = Field(None, gt=0.0, description="One of a strike in the unit of prices: 0.01, cents.")
    price_unit: PriceUnit | None = Field(None, description="`underlying` for options quoted in coin.")
    date_order: DateOrder | None = Field(None, description="Of dates such as 03/04/2026.")
    decimal: Decimal | None = Field(None, description="What parts whole numbers from decimals in text.")
    use: Use | None = Field(None, description="Of quotes that have both.")
    sheet: str | None = Field(None, description="Of a workbook.")
    pair: str | None = Field(None, description="Of vols by delta: EURUSD. It decides the convention.")
    domestic_rate: float | None = None
    foreign_rate: float | None = Field(None, description="By which spot deltas are discounted.")


class PanelRequest(PanelSettings):
    """Quotes as people have them, columns by any usual name; or vols by delta, in the columns named here."""

    quotes: dict[str, Cells | float | str | None] | None = Field(
        None,
        description="`expiration` (dates, years or tenors), `type` (C or P), `strike`, and `bid` and `ask` or `mid` "
        "(prices); or `iv`, or `bid_iv` and `ask_iv`, with `forward`; or columns by delta.",
    )
    columns: dict[str, str] | None = Field(None, description="The column of a field, where its name does not tell.")
    convention: dict[str, bool | float | str | None] | None = Field(
        None, description="Of vols by delta, what the pair's own does not say: `premium_adjusted`, `delta`, `atm`, ..."
    )
    tenor: Cells | None = Field(None, description="1W, 3M, 1Y: of vols by delta.")
    atm: _Vols | None = None
    rr25: _Vols | None = None
    bf25: _Vols | None = None
    rr10: _Vols | None = None
    bf10: _Vols | None = None
    call25: _Vols | None = None
    put25: _Vols | None = None
    call10: _Vols | None = None
    put10: _Vols | None = None


class Response(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


class Excluded(Response):
    index: int
    reason: str


class Fit(Response):
    """How near the model comes to the quotes used."""

    rmse_bp: float
    max_abs_bp: float
    mape_pct: float
    n_quotes: int
    excluded: list[Excluded]


class Violation(Response):
    kind: Literal["butterfly", "calendar", "vertical", "bounds"]
    expiry: float
    strike: float = Field(description="In the request's unit; K/F where `log_moneyness` was given.")
    size: float = Field(description="In units of the forward.")


class Verdict(Response):
    free: bool = Field(
        description="No violation was found, and the numbers are known well enough to say so. False without violations "
        "is a surface that could not be verified: the warning `surface_not_verified` says why."
    )
    n_violations: int
    violations: list[Violation]


class Caution(Response):
    """What a desk should look at although the request is valid."""

    code: str = Field(description="`poor_fit`, `vols_look_like_percent`, `many_quotes_excluded`, ...")
    detail: str
    indices: list[int] | None = Field(None, description="The quotes it is about, by their position in the request.")


class Arbitrage(Response):
    quotes: Verdict
    surface: Verdict


class CalibrateResponse(Response):
    model: str
    id: str | None = None
    as_of: str | None = None
    parameters: dict[str, float]
    standard_errors: dict[str, float | None]
    fit: Fit
    feller_ratio: float | None
    arbitrage: Arbitrage
    status: Literal["converged", "network_only", "budget_exhausted", "not_converged"]
    message: str | None = None
    start: Literal["network", "fallback", "given"]
    iterations: int
    out_of_domain: bool
    at_bounds: list[str]
    noise_bp: float | None = Field(None, description="That a `prior` was weighed against.")
    warnings: list[Caution]
    parameter_correlation: list[list[float | None]] | None = None
    model_iv: list[float | None] | None = None
    timing_us: dict[str, float]
    model_version: str | None


class EarlyExercise(Response):
    """What being able to exercise early was worth: by how much vols and forward would be wrong without it."""

    median_bp: float = Field(description="Of vol, over the quotes used.")
    max_bp: float
    forward_bp: float
    dividend_yield: float = Field(description="That the forward implies.")


class PanelExpiry(Response):
    """How the forward of an expiry was found."""

    expiration: str = Field(description="As it was given.")
    expiry: float = Field(description="Years.")
    forward: float
    forward_from: Literal["parity", "given", "spot"]
    forward_error: float | None = Field(description="Standard error; null where it is not by parity.")
    discount: float | None
    discount_error: float | None
    n_pairs: int = Field(description="Of a call and a put that agree on the forward.")
    n_pairs_rejected: int
    n_quotes: int = Field(description="Used.")
    early_exercise: EarlyExercise | None = None


class PanelResponse(Response):
    """A panel as `/v1/calibrate` takes it (`id`, `as_of` and `quotes`), and how it was made."""

    id: str | None = Field(None, description="The underlying.")
    as_of: str | None = None
    quotes: dict[str, list[float | None]]
    index: list[int] = Field(description="Of each quote of the panel, its position among those given.")
    exercise: Exercise | None = Field(None, description="Where prices were inverted.")
    expiries: list[PanelExpiry] = Field(description="Empty where forwards and vols were given.")
    excluded: list[Excluded]
    warnings: list[Caution]


class PriceResponse(Response):
    model: str
    call: list[float]
    put: list[float]
    implied_vol: list[float | None]
    gradient: dict[str, list[float]] | None = None


class Job(Response):
    """Work that goes on after the request that asked for it was answered."""

    id: str
    kind: str = Field(description="`batch`.")
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float = Field(description="Share of the work that is done.")
    eta_s: float | None = Field(description="Seconds until it is done, by its progress so far.")
    problem: "ProblemDocument | None" = Field(None, description="Why it failed.")


class FieldProblem(Response):
    pointer: str
    detail: str


class ProblemDocument(Response):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldProblem] | None = None
    request_id: str | None = None
    error: str | None = Field(None, description="`detail` once more, under `/v2`: its clients read no other field.")


class BatchResponse(Response):
    """In the order of the request."""

    results: list[CalibrateResponse | ProblemDocument]
