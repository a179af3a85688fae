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
    ask_iv: QuoteColumn | None = Field(None, description="With `bid_iv`; below it the quote is left out.")
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


_MODEL = "`heston`, `bates`, `double_heston` or `double_heston_jump`; `/v1/models` has their parameters and bounds."


class CalibrateRequest(Request):
    """A panel, and how a model is to be calibrated to it."""

    model: str = Field("heston", description=_MODEL)
    quotes: Quotes = Field(description="The panel.")
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
    prior: Prior | None = Field(None, description="What is known of the parameters beside the quotes.")
    detail: bool = Field(False, description="Adds `parameter_correlation` and `model_iv`, one per quote.")
    budget_ms: float | None = Field(None, gt=0, description="Milliseconds from the first byte received.")
    id: str | None = Field(None, description="Echoed.")
    as_of: str | None = Field(None, description="Echoed.")


_Years = Annotated[float, Field(gt=0.0, le=LONGEST_EXPIRY)]
_Moneyness = Annotated[float, Field(ge=-LARGEST_LOG_MONEYNESS, le=LARGEST_LOG_MONEYNESS)]


class BatchRequest(Request):
    """Panels that have nothing to do with each other: each gets its own result or problem."""

    panels: list[CalibrateRequest] = Field(min_length=1, description="As `/v1/calibrate` takes them.")


class PriceRequest(Request):
    """Options, and the model that prices them; a list per field, both of one length."""

    model: str = Field("heston", description=_MODEL)
    parameters: dict[str, float] = Field(description="All of the model's.")
    expiry: list[_Years] = Field(fail_fast=True, min_length=1, description="Years.")
    log_moneyness: list[_Moneyness] = Field(fail_fast=True, description="log(strike / forward).")
    gradient: bool = Field(False, description="Adds the derivatives of the calls by each parameter.")


class Described(BaseModel):
    """A request that the library reads by name (`calibrant.slv.requests_by_name`), as the document describes it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid", frozen=True)


_Rate = float | list[float] | dict[str, list[float]]
_RATE = "A year, continuously compounded: a number, one for each expiry, or a curve `{expiry, zero}`."
_Vols = Annotated[list[float | None], Field(fail_fast=True)]
_RATES = {"domestic_rate": 0.02, "foreign_rate": 0.01}
_PARAMETERS = {"kappa": 1.5, "theta": 0.01, "xi": 0.3, "rho": -0.3, "v0": 0.008}
_HESTON_SURFACE: Any = {"kind": "heston", "spot": 1.1, **_RATES, "parameters": _PARAMETERS}
_PILLARS: Any = {
    "kind": "fx_pillars", "pair": "EURUSD", "spot": 1.1, **_RATES, "expiry": [0.25, 0.5, 1.0],
    "atm": [0.072, 0.075, 0.08], "rr25": [-0.006, -0.008, -0.01], "bf25": [0.002, 0.0022, 0.0025],
    "rr10": [-0.011, -0.015, -0.018], "bf10": [0.006, 0.007, 0.0085],
}  # fmt: skip


class FxConventions(Described):
    """How a pair's options are quoted; what is not said is the market's for the pair."""

    premium_adjusted: bool | None = Field(
        None, description="Whether a delta counts the premium, paid in foreign currency."
    )
    delta: Literal["spot", "forward"] | None = Field(
        None, description="Of the spot or of the forward; see `spot_delta_until`."
    )
    spot_delta_until: float | None = Field(None, description="Years up to which deltas are spot deltas.")
    atm: Literal["delta_neutral", "forward", "spot"] | None = Field(None, description="Which strike is at the money.")
    butterfly: Literal["market_strangle", "smile"] | None = Field(
        None, description="How it is quoted: a market strangle is one vol for both options."
    )


class QuoteColumns(Described):
    """Vanillas, a list per field: by `strike`, `log_moneyness` or `delta`."""

    expiry: list[float] = Field(description="Years, > 0.")
    strike: list[float] | None = Field(None, description="In units of the spot.")
    log_moneyness: list[float] | None = Field(None, description="log(strike / forward).")
    delta: list[float] | None = Field(None, description="Of puts negative, or unsigned with `type`.")
    type: list[str] | None = Field(None, description="`call`, `put` or `atm`, beside `delta`.")
    forward: float | list[float] | None = Field(None, description="In place of the surface's `foreign_rate`.")
    iv: _Vols = Field(description="Decimal; null is a missing quote.")


class QuotesSurface(Described):
    """Vanillas, from which a surface is made."""

    kind: Literal["quotes"] = Field(description="Vanillas by strike, log-moneyness or delta.")
    spot: float = Field(description="Domestic currency for one unit of the foreign.")
    domestic_rate: _Rate = Field(description=_RATE)
    foreign_rate: _Rate | None = Field(None, description=_RATE)
    quotes: QuoteColumns = Field(description="Columns of one length.")
    pair: str | None = Field(None, description="`EURUSD`: whose conventions hold for deltas where none are given.")
    conventions: FxConventions | None = Field(None, description="In place of the pair's.")
    butterfly: Literal["market_strangle", "smile"] | None = Field(None, description="Short for that of `conventions`.")


class PillarsSurface(Described):
    """Quotes by delta as desks write them; other deltas by names like `rr15` and `call35`."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [_PILLARS]})

    kind: Literal["fx_pillars"] = Field(description="Quotes by delta.")
    pair: str | None = Field(None, description="`EURUSD`: its market's conventions hold where none are given.")
    spot: float = Field(description="Domestic currency for one unit of the foreign.")
    domestic_rate: _Rate = Field(description=_RATE)
    foreign_rate: _Rate = Field(description=_RATE)
    expiry: list[float] = Field(description="Years, > 0.")
    atm: _Vols = Field(description="Decimal, like all that follow; null is a missing quote.")
    rr25: _Vols | None = Field(None, description="Risk reversal, call less put.")
    bf25: _Vols | None = Field(None, description="Butterfly, by the convention `butterfly`.")
    rr10: _Vols | None = Field(None, description="Risk reversal of 10 delta.")
    bf10: _Vols | None = Field(None, description="Butterfly of 10 delta.")
    call25: _Vols | None = Field(None, description="Wing vols, in place of risk reversals and butterflies.")
    put25: _Vols | None = Field(None, description="Vol of the 25-delta put.")
    call10: _Vols | None = Field(None, description="Vol of the 10-delta call.")
    put10: _Vols | None = Field(None, description="Vol of the 10-delta put.")
    conventions: FxConventions | None = Field(None, description="In place of the pair's.")
    butterfly: Literal["market_strangle", "smile"] | None = Field(None, description="Short for that of `conventions`.")


class HestonParameters(Described):
    """A Heston model."""

    kappa: float = Field(description="Speed of mean reversion, a year.")
    theta: float = Field(description="Long-run variance.")
    xi: float = Field(description="Before mixing.")
    rho: float = Field(description="Correlation of spot and variance.")
    v0: float = Field(description="Variance today.")


class ModelSurface(Described):
    """The surface of a Heston model."""

    kind: Literal["heston"] = Field(description="That of a Heston model.")
    spot: float = Field(description="Domestic currency for one unit of the foreign.")
    domestic_rate: _Rate = Field(description=_RATE)
    foreign_rate: _Rate = Field(description=_RATE)
    parameters: HestonParameters = Field(description="Of the model.")


class ClosedFormParameters(Described):
    """w = th/2 (1 + rho phi k + sqrt(phi^2 k^2 + 2 rho phi k + 1)), k = log(strike / forward)."""

    s0: float = Field(description="At-the-money vol at once.")
    sinf: float = Field(description="At-the-money vol in the long run.")
    b: float = Field(description="Speed at which it gets there, a year.")
    r0: float = Field(description="rho at once.")
    rinf: float = Field(description="rho in the long run.")
    a: float = Field(description="Speed at which it gets there, a year.")
    eta: float = Field(description="phi = eta (th + th0)^-gam.")
    gam: float = Field(description="The power in phi.")
    th0: float = Field(description="Added to the total variance in phi.")


class ClosedFormSurface(Described):
    """Slices of SSVI whose parameters are closed forms of the expiry."""

    kind: Literal["ssvi"] = Field(description="SSVI.")
    spot: float = Field(description="Domestic currency for one unit of the foreign.")
    domestic_rate: _Rate = Field(description=_RATE)
    foreign_rate: _Rate = Field(description=_RATE)
    parameters: ClosedFormParameters = Field(description="Of the closed forms.")


class Barrier(Described):
    """One unit of currency paid if a level is touched before expiry, or if none is; monitored continuously."""

    level: float | None = Field(None, description="Of the spot; or instead")
    levels: Pair | None = Field(None, description="a lower and an upper one, of a double no-touch.")
    direction: Literal["up", "down"] | None = Field(None, description="On which side of the spot `level` lies.")
    expiry: float = Field(description="Years.")
    paid: Literal["at_expiry", "at_hit"] | None = Field(None, description="`at_expiry` where it is not said.")
    kind: Literal["one_touch", "no_touch"] | None = Field(
        None, description="`one_touch` where it is not said, and `no_touch` with two levels."
    )
    payout: Literal["domestic", "foreign"] | None = Field(None, description="Currency; `domestic` by default.")


class QuotedBarrier(Barrier):
    """A barrier and its market price."""

    price: float = Field(description="In domestic currency, for one unit of payout currency.")


class FitTo(Described):
    """The mixing at which a barrier has its price."""

    fit_to: QuotedBarrier = Field(description="The barrier and its price.")


class _Simulation(Described):
    # Options of the estimator stand beside its name.
    model_config = ConfigDict(extra="allow")

    heston: HestonParameters | None = Field(None, description="Null to fit them to the surface.")
    kappa: float | None = Field(None, description="A year: held while Heston is fitted.")
    mixing: float | FitTo | None = Field(
        None, description="Share of xi in [0, 1], 0.66 by default, from local to stochastic vol; or a price to meet."
    )
    pillars: list[float] | None = Field(
        None, description="Years of the expiries fitted and repriced; by default the usual tenors up to the maturity."
    )
    n_particles: int | None = Field(None, description="2048 by default.")
    step_days: float | None = Field(None, description="Largest time step, 5 by default; the first month has less.")
    estimator: str | dict[str, Any] | None = Field(
        None,
        description="Of E[V|S]: `binned_local_linear` (default), `bins`, `nw_gaussian|quartic|epanechnikov|sigmoid`, "
        "`local_linear_...` with the same kernels, `rbf`, `purbf`. Its options stand beside it (`n_bins`, `bandwidth`, "
        "`n_units`, `n_neighbours`, `width`, `pruning`, `ridge`, `n_cells`, `least_mass`), or `{kind, option: value}`.",
    )
    scheme: Literal["qe", "euler"] | None = Field(None, description="`qe` (Andersen) by default, or full truncation.")
    numbers: Literal["ranked", "antithetic"] | None = Field(None, description="Of the particles.")
    n_paths: int | None = Field(None, description="For prices, 32768 by default; rounded up to a power of two.")
    seed: int | None = Field(None, description="0 by default.")


_Surface = QuotesSurface | PillarsSurface | ModelSurface | ClosedFormSurface


class LeverageRequest(_Simulation):
    """A surface, and how its leverage is calibrated."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"surface": _PILLARS, "maturity": 0.5}, {"surface": _HESTON_SURFACE, "maturity": 1.0}]
        }
    )

    surface: _Surface = Field(description="Of vanillas, that the leverage reprices.")
    maturity: float | None = Field(None, description="Years; by default the last expiry of a surface of quotes.")


class TouchRequest(_Simulation):
    """Barriers, and the leverage, or the surface and settings, to price them under."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "surface": _HESTON_SURFACE,
                    "barriers": [{"level": 1.15, "direction": "up", "expiry": 0.5}],
                    "model": "slv",
                    "greeks": True,
                }
            ]
        }
    )

    leverage: str | None = Field(None, description="`id` of an answer of `/v1/leverage`; or instead")
    surface: _Surface | None = Field(None, description="a surface, and the settings of `/v1/leverage`.")
    maturity: float | None = Field(None, description="Years; by default the last barrier's expiry.")
    barriers: list[Barrier] = Field(min_length=1, max_length=1000, description="To be priced under one model.")
    model: Literal["bs", "lv", "heston", "slv"] | None = Field(None, description="`slv` by default.")
    greeks: bool | None = Field(None, description="Whether delta and gamma are wanted.")


Cells = Annotated[list[float | str | None], Field(fail_fast=True)]


class PanelSettings(Request):
    """What may be said of quotes beside them: what they leave open, and no more."""

    as_of: str | None = Field(None, description="Date, or date and time, of the quotes: 2025-11-28.")
    underlying: str | None = Field(None, description="Which panel, where there are several; else its name.")
    expiration: str | None = Field(None, description="Of all quotes, where no column says it.")
    spot: float | None = Field(None, gt=0.0, description="Of the underlying.")
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
    expiry_unit: ExpiryUnit | None = Field(None, description="Of expiries that are numbers.")
    vol_unit: VolUnit | None = Field(None, description="Of vols: decimals or percent.")
    strike_unit: float | None = Field(None, gt=0.0, description="One of a strike in the unit of prices: 0.01, cents.")
    price_unit: PriceUnit | None = Field(None, description="`underlying` for options quoted in coin.")
    date_order: DateOrder | None = Field(None, description="Of dates such as 03/04/2026.")
    decimal: Decimal | None = Field(None, description="What parts whole numbers from decimals in text.")
    use: Use | None = Field(None, description="Of quotes that have both.")
    sheet: str | None = Field(None, description="Of a workbook.")
    pair: str | None = Field(None, description="Of vols by delta: EURUSD. It decides the convention.")
    domestic_rate: float | None = Field(None, description="Of the second currency of the pair, per year.")
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
    atm: _Vols | None = Field(None, description="At the money, by tenor.")
    rr25: _Vols | None = Field(None, description="Risk reversal of 25 delta: call less put.")
    bf25: _Vols | None = Field(None, description="Butterfly of 25 delta.")
    rr10: _Vols | None = Field(None, description="Risk reversal of 10 delta.")
    bf10: _Vols | None = Field(None, description="Butterfly of 10 delta.")
    call25: _Vols | None = Field(None, description="Of the call of 25 delta, in place of `rr25` and `bf25`.")
    put25: _Vols | None = Field(None, description="Of the put of 25 delta.")
    call10: _Vols | None = Field(None, description="Of the call of 10 delta.")
    put10: _Vols | None = Field(None, description="Of the put of 10 delta.")


class Response(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


class Excluded(Response):
    """A quote that was left out."""

    index: int = Field(description="Its position in the request, from 0.")
    reason: str = Field(description="Why.")


class Fit(Response):
    """How near the model comes to the quotes used."""

    rmse_bp: float = Field(description="Unweighted root mean square of model vol less mid, in basis points of vol.")
    max_abs_bp: float = Field(description="The largest of them.")
    mape_pct: float = Field(description="Mean of |model vol / mid - 1|, in percent.")
    n_quotes: int = Field(description="Quotes used.")
    excluded: list[Excluded] = Field(description="The others, missing ones included.")


class Violation(Response):
    """Of static arbitrage: where, and by how much."""

    kind: Literal["butterfly", "calendar", "vertical", "bounds"] = Field(
        description="Not convex in strike, falling in expiry, not monotone in strike, or beyond what any price can be."
    )
    expiry: float = Field(description="Years.")
    strike: float = Field(description="In the request's unit; K/F where `log_moneyness` was given.")
    size: float = Field(description="In units of the forward.")


class Verdict(Response):
    """Whether something is free of static arbitrage."""

    free: bool = Field(
        description="No violation was found, and the numbers are known well enough to say so. False without violations "
        "is a surface that could not be verified: the warning `surface_not_verified` says why."
    )
    n_violations: int = Field(description="All that were found.")
    violations: list[Violation] = Field(description="The largest of them.")


class Caution(Response):
    """What a desk should look at although the request is valid."""

    code: str = Field(description="`poor_fit`, `vols_look_like_percent`, `many_quotes_excluded`, ...")
    detail: str = Field(description="A sentence.")
    indices: list[int] | None = Field(None, description="The quotes it is about, by their position in the request.")


class Arbitrage(Response):
    """Two verdicts."""

    quotes: Verdict = Field(description="On the quotes used.")
    surface: Verdict = Field(description="On the fitted surface.")


class CalibrateResponse(Response):
    """The calibrated model, and how good it is."""

    model: str = Field(description="That was calibrated.")
    id: str | None = Field(None, description="The request's.")
    as_of: str | None = Field(None, description="The request's.")
    parameters: dict[str, float] = Field(description="The estimates.")
    standard_errors: dict[str, float | None] = Field(
        description="Of each parameter; null where the quotes say nothing of it, or are too few."
    )
    fit: Fit = Field(description="Its errors.")
    feller_ratio: float | None = Field(description="2 kappa theta / xi^2, the smaller one of two factors.")
    arbitrage: Arbitrage = Field(description="Static arbitrage.")
    status: Literal["converged", "network_only", "budget_exhausted", "not_converged"] = Field(
        description="`network_only` without refinement; `budget_exhausted` is the best so far when time was up."
    )
    message: str | None = Field(None, description="What to know of the fit, and what to try.")
    start: Literal["network", "fallback", "given"] = Field(
        description="The start that led to the answer: the network's, one read off the surface, or the request's."
    )
    iterations: int = Field(description="Of the refinement.")
    out_of_domain: bool = Field(description="Whether the answer lies outside what the network was trained on.")
    at_bounds: list[str] = Field(description="Parameters on one of their bounds.")
    noise_bp: float | None = Field(None, description="That a `prior` was weighed against.")
    warnings: list[Caution] = Field(description="What a desk should look at.")
    parameter_correlation: list[list[float | None]] | None = Field(
        None, description="With `detail`: of the estimates, in the order of `parameters`."
    )
    model_iv: list[float | None] | None = Field(
        None, description="With `detail`: the model's vol for each quote of the request."
    )
    timing_us: dict[str, float] = Field(
        description="Microseconds of each stage; the header `Server-Timing` has `encode` too."
    )
    model_version: str | None = Field(description="Of the network, with its hash; null where the model has none.")


class EarlyExercise(Response):
    """What being able to exercise early was worth: by how much vols and forward would be wrong without it."""

    median_bp: float = Field(description="Of vol, over the quotes used.")
    max_bp: float = Field(description="The most of any quote.")
    forward_bp: float = Field(description="Of the forward.")
    dividend_yield: float = Field(description="That the forward implies.")


class PanelExpiry(Response):
    """How the forward of an expiry was found."""

    expiration: str = Field(description="As it was given.")
    expiry: float = Field(description="Years.")
    forward: float = Field(description="In the unit of strikes.")
    forward_from: Literal["parity", "given", "spot"] = Field(description="By put-call parity, as given, or by carry.")
    forward_error: float | None = Field(description="Standard error; null where it is not by parity.")
    discount: float | None = Field(description="Null where prices were not needed.")
    discount_error: float | None = Field(description="Standard error.")
    n_pairs: int = Field(description="Of a call and a put that agree on the forward.")
    n_pairs_rejected: int = Field(description="That do not agree.")
    n_quotes: int = Field(description="Used.")
    early_exercise: EarlyExercise | None = Field(None, description="For American options.")


class PanelResponse(Response):
    """A panel as `/v1/calibrate` takes it (`id`, `as_of` and `quotes`), and how it was made."""

    id: str | None = Field(None, description="The underlying.")
    as_of: str | None = Field(None, description="Date of the quotes.")
    quotes: dict[str, list[float | None]] = Field(description="The columns.")
    index: list[int] = Field(description="Of each quote of the panel, its position among those given.")
    exercise: Exercise | None = Field(None, description="Where prices were inverted.")
    expiries: list[PanelExpiry] = Field(description="Empty where forwards and vols were given.")
    excluded: list[Excluded] = Field(description="Quotes that were left out, by their position among those given.")
    warnings: list[Caution] = Field(description="What a desk should look at.")


class PriceResponse(Response):
    """Undiscounted prices, in units of the forward."""

    model: str = Field(description="That priced them.")
    call: list[float] = Field(description="Of each option as a call.")
    put: list[float] = Field(description="As a put.")
    implied_vol: list[float | None] = Field(description="Null where the price is too near its bound to carry one.")
    gradient: dict[str, list[float]] | None = Field(None, description="Of the calls, by each parameter.")


class LeverageGrid(Response):
    """Linear in the date and in log(spot) between the nodes, flat beyond them."""

    expiry: list[float] = Field(description="Years, from 0 on.")
    spot: list[list[float]] = Field(description="A row for each date.")
    value: list[list[float]] = Field(description="Of the leverage, beside `spot`.")


class Repriced(Response):
    """A vanilla priced by paths of its own."""

    expiry: float = Field(description="Years.")
    strike: float = Field(description="In units of the spot.")
    target_iv: float = Field(description="Of the surface.")
    model_iv: float | None = Field(description="Null where the price carries none.")
    error_bp: float | None = Field(description="`model_iv` less `target_iv`.")
    se_bp: float | None = Field(description="Standard error of `model_iv`.")


class MartingaleError(Response):
    """How far the mean of the spot is from the forward."""

    expiry: float = Field(description="Years.")
    error: float = Field(description="E[S] / forward - 1.")
    se: float = Field(description="Standard error of `error`.")


class HestonUsed(Response):
    """The Heston model of a leverage."""

    kappa: float = Field(description="Speed of mean reversion, a year.")
    theta: float = Field(description="Long-run variance.")
    xi: float = Field(description="Before mixing.")
    rho: float = Field(description="Correlation of spot and variance.")
    v0: float = Field(description="Variance today.")
    mixing: float = Field(description="Share of xi that is left stochastic.")
    rmse_bp: float | None = Field(description="Of the fit; null where the parameters were given.")
    fitted: bool = Field(description="Whether to the surface, or given.")


class Calibrated(Response):
    """What a leverage was calibrated with."""

    n_clipped: int = Field(description="Local vols that were raised to the floor or lowered to the cap.")
    heston: HestonUsed = Field(description="That the leverage goes with.")
    settings: dict[str, Any] = Field(description="Seed and all else that the numbers depend on.")


class LeverageResponse(Calibrated):
    """The leverage function and how well it reprices."""

    id: str = Field(description="For `/v1/one-touch`: known for an hour to the key that it came with.")
    leverage: LeverageGrid = Field(description="L(t, S) on a grid.")
    repricing: list[Repriced] = Field(description="Vanillas of the surface, under the leverage.")
    martingale: list[MartingaleError] = Field(description="Of the forward, by expiry.")
    surface: dict[str, Any] | None = Field(description="How the surface was made, the misfit of each quote.")
    warnings: list[Caution] = Field(description="What a desk should look at.")
    timing_ms: dict[str, float] = Field(description="By stage.")


class TouchPrice(Response):
    """In domestic currency, for one unit of payout currency."""

    price: float = Field(description="Present value.")
    se: float = Field(description="Standard error; 0 of a closed form.")
    tv: float = Field(description="The Black-Scholes value at that expiry's at-the-money vol.")
    delta: float | None = Field(description="Derivative by the spot; null where `greeks` is false.")
    delta_se: float | None = Field(description="Its standard error.")
    gamma: float | None = Field(description="Second derivative by the spot.")
    gamma_se: float | None = Field(description="Its standard error.")


class TouchResponse(Response):
    """Prices of barriers."""

    prices: list[TouchPrice] = Field(description="In the order of `barriers`.")
    model: Literal["bs", "lv", "heston", "slv"] = Field(description="That priced them.")
    settings: dict[str, Any] = Field(description="Seed, paths and conventions.")
    calibration: Calibrated | None = Field(description="Of the leverage they were priced under.")
    surface: dict[str, Any] | None = Field(description="How the surface was made; null where a leverage was named.")
    warnings: list[Caution] = Field(description="What a desk should look at.")
    timing_ms: dict[str, float] = Field(description="By stage.")


class Job(Response):
    """Work that goes on after the request that asked for it was answered."""

    id: str = Field(description="That nobody can guess.")
    kind: str = Field(description="`batch`, `leverage` or `one_touch`.")
    state: Literal["queued", "running", "done", "failed", "cancelled"] = Field(description="`done` has a result.")
    progress: float = Field(description="Share of the work that is done.")
    eta_s: float | None = Field(description="Seconds until it is done, by its progress so far.")
    problem: "ProblemDocument | None" = Field(None, description="Why it failed.")


class FieldProblem(Response):
    """What is wrong with one field."""

    pointer: str = Field(description="JSON pointer into the body.")
    detail: str = Field(description="A sentence.")


class ProblemDocument(Response):
    """RFC 9457 problem details."""

    type: str = Field(description="`about:blank`: `code` says which problem it is.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="For programs: `invalid_input`, `too_large`, `overloaded`, `deadline_expired`, ...")
    detail: str = Field(description="For people.")
    errors: list[FieldProblem] | None = Field(None, description="The fields that are wrong.")
    request_id: str | None = Field(None, description="Under which the service logs it; the header `X-Request-Id`.")
    error: str | None = Field(None, description="`detail` once more, under `/v2`: its clients read no other field.")


class BatchResponse(Response):
    """In the order of the request."""

    results: list[CalibrateResponse | ProblemDocument] = Field(
        description="For each panel its answer, or why it has none."
    )
