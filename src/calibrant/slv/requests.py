"""Leverage and touches as they are asked for and answered: surface in, everything done, a dictionary out.

    answer = finish(leverage_work(LeverageRequest(surface=surface, maturity=0.5)))
    answer.to_dict()
    prices = finish(touch_work(TouchRequest(surface=surface, barriers=barriers, calibrated=answer)))

Both are steps (`calibrant.steps`), a date or a replicate each; the dictionaries are those of the wire.
"""

from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..caution import Caution
from ..errors import InvalidInput, Problem
from ..fx.conventions import Conventions
from ..steps import Progress, Steps
from .barriers import Barrier, require_barrier
from .estimators.by_name import estimator_document
from .heston_fit import HestonFit, delta_quotes, fit_heston, pillars_up_to
from .leverage import Leverage
from .local_vol import LocalVolatility
from .particles import Heston, ParticleLeverage, ParticleOptions, leverage_steps
from .paths import Dynamics, PathOptions
from .pricing import (
    Martingale,
    ModelName,
    Repriced,
    TouchPrice,
    black_scholes_price,
    local,
    stochastic,
    touch_steps,
    vanilla_steps,
)
from .surface import Surface

T = TypeVar("T")
MIXING = 0.66
"""Share of the calibrated vol of variance that is left stochastic, Hakala's (2019)."""
_MIXING_ACCURACY, _PRICE_ACCURACY = 1e-3, 2e-5
_POOR_BP = 25.0
"""Of vol."""


@dataclass(frozen=True, kw_only=True)
class QuotedTouch:
    """A barrier whose market price the mixing is to meet."""

    barrier: Barrier
    price: float
    """In domestic currency, for one unit of payout currency."""


@dataclass(frozen=True, kw_only=True)
class LeverageRequest:
    """What a leverage is calibrated to, and how."""

    surface: Surface
    maturity: float
    """Years."""
    heston: Heston | None = None
    """Before mixing; None to fit it to the surface."""
    kappa: float | None = None
    """Held while fitting; None to fit it too."""
    mixing: float | QuotedTouch = MIXING
    """Share of xi in [0, 1], from local vol to the whole of Heston's; or a price from which to find it."""
    pillars: tuple[float, ...] | None = None
    """Years of the expiries fitted and repriced; None for the usual tenors and the maturity."""
    particles: ParticleOptions = field(default_factory=ParticleOptions)
    paths: PathOptions = field(default_factory=PathOptions)
    reprice: bool = True
    """Whether the vanillas are priced under it: that takes longer than few particles do."""


class CalibratedLeverage(NamedTuple):
    """The answer to a `LeverageRequest`."""

    request: LeverageRequest
    fit: HestonFit
    mixing: float
    leverage: Leverage
    n_clipped: int
    repriced: Repriced | None
    martingale: Martingale | None
    """None, as `repriced`, where that was not asked for."""
    timing_ms: dict[str, float]

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(heston=self.fit.heston.mixed(self.mixing), leverage=self.leverage)

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """Whether the vanillas are missed by more than noise explains: then so are prices of anything else."""
        if self.repriced is None:
            return ()
        error, beyond = self.repriced.error_bp, _POOR_BP + 3.0 * self.repriced.se_bp
        missed = np.flatnonzero(~(np.abs(error) <= beyond))
        if not missed.size:
            return ()
        worst = missed[np.argmax(np.nan_to_num(np.abs(error[missed]), nan=np.inf))]
        where = (
            f"{error[worst]:.0f} bp at {self.repriced.expiry[worst]:.3g} years and {self.repriced.strike[worst]:.5g}"
        )
        detail = (
            f"Vanillas are missed by more than {_POOR_BP:g} bp of vol and the noise: {missed.size} of {error.size}, "
        )
        detail += f"by {where}. More particles may help, or leaving out expiries that others contradict."
        return (Caution("poor_repricing", detail),)

    def to_dict(self) -> dict[str, Any]:
        """As `POST /v1/leverage` answers, but for the `id`."""
        repricing = [] if self.repriced is None else _rows(self.repriced.columns())
        martingale = [] if self.martingale is None else _rows(self.martingale._asdict())
        return {
            "leverage": self.leverage.to_dict(),
            "repricing": repricing,
            "martingale": martingale,
            **self.summary(),
            "timing_ms": self.timing_ms,
        }

    def summary(self) -> dict[str, Any]:
        """What was calibrated and how, without the leverage itself."""
        fit = self.fit
        return {
            "n_clipped": self.n_clipped,
            "heston": {
                **asdict(fit.heston),
                "mixing": self.mixing,
                "rmse_bp": fit.rmse_bp,
                "fitted": fit.rmse_bp is not None,
            },
            "settings": settings_of(self.request),
        }


@dataclass(frozen=True, kw_only=True)
class TouchRequest:
    """Barriers to be priced under one model."""

    surface: Surface
    barriers: tuple[Barrier, ...]
    model: ModelName = "slv"
    calibrated: CalibratedLeverage | None = None
    """Of the same surface, to as late as the last barrier; `heston` takes its parameters from it."""
    calibration: LeverageRequest | None = None
    """What is calibrated first by a model that needs it, where `calibrated` is None."""
    paths: PathOptions = field(default_factory=PathOptions)
    greeks: bool = False
    conventions: Conventions | None = None
    """What at the money means for the theoretical value; None: delta-neutral, the premium not counted."""


class TouchAnswer(NamedTuple):
    """The answer to a `TouchRequest`."""

    request: TouchRequest
    """With what was calibrated first."""
    prices: list[TouchPrice]
    timing_ms: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As `POST /v1/one-touch` answers."""
        request, paths = self.request, self.request.paths
        conventions = None if request.conventions is None else asdict(request.conventions)
        calibrated = request.calibrated if request.model == "slv" else None
        return {
            "prices": [price._asdict() for price in self.prices],
            "model": request.model,
            "settings": {
                **asdict(paths),
                "n_paths": 2 * paths.points * paths.n_replicates,
                "greeks": request.greeks,
                "conventions": conventions,
            },
            "calibration": None if calibrated is None else calibrated.summary(),
            "timing_ms": self.timing_ms,
        }


def require_leverage(request: LeverageRequest) -> None:
    """raises  InvalidInput naming every setting that nothing can be calibrated by"""
    problems = setting_problems(request.maturity, request.mixing, request.kappa, request.particles, request.paths)
    last = request.surface.last_expiry
    if last * (1.0 + 1e-9) < request.maturity < np.inf:
        needed = f"must not lie beyond the surface's last expiry, {last:g} years, but is {request.maturity:g}."
        problems.append(Problem.at(("maturity",), needed))
    if isinstance(request.mixing, QuotedTouch):
        try:
            require_barrier(request.mixing.barrier, request.surface.market.spot, ("mixing", "fit_to"))
        except InvalidInput as error:
            problems += error.problems
    if problems:
        raise InvalidInput(*problems)


def setting_problems(
    maturity: float,
    mixing: float | QuotedTouch,
    kappa: float | None,
    particles: ParticleOptions,
    paths: PathOptions,
) -> list[Problem]:
    """What is wrong with the settings of a leverage whatever the surface is."""
    problems = []

    def wrong(path: tuple[str, ...], needed: str) -> None:
        problems.append(Problem.at(path, needed))

    if not 0.0 < maturity < np.inf:
        wrong(("maturity",), f"must be > 0 years, but is {maturity:g}.")
    if isinstance(mixing, QuotedTouch):
        if not mixing.price > 0.0:
            wrong(("mixing", "fit_to", "price"), f"must be > 0, but is {mixing.price:g}.")
        if mixing.barrier.expiry > maturity * (1.0 + 1e-9):
            came = f"{maturity:g} years, but is {mixing.barrier.expiry:g}."
            wrong(("mixing", "fit_to", "expiry"), f"must not lie beyond `maturity`, {came}")
    elif not 0.0 <= mixing <= 1.0:
        wrong(("mixing",), f"must lie within [0, 1], but is {mixing:g}.")
    if kappa is not None and not kappa > 0.0:
        wrong(("kappa",), f"must be > 0 a year, but is {kappa:g}.")
    for name, value, least, most in (
        ("n_particles", particles.n_particles, 100, 10_000_000),
        ("n_paths", paths.n_paths, 2, 100_000_000),
    ):
        if not least <= value <= most:
            wrong((name,), f"must lie within [{least:,}, {most:,}], but is {value}.")
    if not 0.01 <= particles.step_days <= 100.0:
        wrong(("step_days",), f"must lie within [0.01, 100] days, but is {particles.step_days:g}.")
    return problems


def leverage_work(request: LeverageRequest) -> Steps[CalibratedLeverage]:
    """Fit Heston, find the mixing if a price is to be met, calibrate the leverage, reprice by paths of its own.

    raises  InvalidInput naming the setting that nothing can be calibrated by
    """
    require_leverage(request)
    clock = _Clock()
    expiries = _expiries(request)
    fit = _heston(request, expiries)
    clock.lap("heston")
    particles = replace(request.particles, pillars=expiries)
    if isinstance(request.mixing, QuotedTouch):
        mixing, found = yield from _mixing_steps(request, fit.heston, particles, request.mixing)
        clock.lap("mixing")
    else:
        mixing = request.mixing
        share = 0.5 if request.reprice else 1.0
        found = yield from _within(_leverage_at(request, fit.heston, particles, mixing), 0.0, share)
        clock.lap("leverage")
    repriced, martingale = None, None
    if request.reprice:
        dynamics = Dynamics(heston=fit.heston.mixed(mixing), leverage=found.leverage)
        quotes = delta_quotes(request.surface, expiries)
        repriced, martingale = yield from _within(
            vanilla_steps(dynamics, request.surface, quotes.expiry, quotes.log_moneyness, request.paths), 0.5, 0.5
        )
        clock.lap("repricing")
    return CalibratedLeverage(
        request=request,
        fit=fit,
        mixing=mixing,
        leverage=found.leverage,
        n_clipped=found.n_clipped,
        repriced=repriced,
        martingale=martingale,
        timing_ms=clock.laps(),
    )


def touch_work(request: TouchRequest) -> Steps[TouchAnswer]:
    """Price barriers.

    raises  InvalidInput naming the barrier that is none, or what the model lacks
    """
    require_touches(request)
    clock = _Clock()
    if request.model == "bs":
        prices = [
            black_scholes_price(barrier, request.surface, request.conventions, greeks=request.greeks)
            for barrier in request.barriers
        ]
        yield Progress(1.0, 1.0)
    else:
        before = 0.0
        calibration = request.calibration if request.calibrated is None else None
        if request.model == "slv" and calibration is not None:
            before = 0.5
            steps = leverage_work(replace(calibration, reprice=False))
            request = replace(request, calibrated=(yield from _within(steps, 0.0, before)))
            clock.lap("calibration")
        pricing = touch_steps(
            _dynamics(request),
            request.surface,
            request.barriers,
            request.paths,
            conventions=request.conventions,
            greeks=request.greeks,
        )
        prices = yield from _within(pricing, before, 1.0 - before)
    clock.lap("pricing")
    return TouchAnswer(request, prices, clock.laps())


def require_touches(request: TouchRequest) -> None:
    """raises  InvalidInput naming every barrier that cannot be priced"""
    problems: list[Problem] = []
    if not request.barriers:
        problems.append(Problem.at(("barriers",), "must hold at least one barrier, but is empty."))
    last = request.surface.last_expiry
    if request.model == "slv" and request.calibrated is not None:
        last = min(last, float(request.calibrated.leverage.expiry[-1]))
    elif request.model == "slv" and request.calibration is not None:
        last = min(last, request.calibration.maturity)
    for i, barrier in enumerate(request.barriers):
        try:
            require_barrier(barrier, request.surface.market.spot, ("barriers", i))
        except InvalidInput as error:
            problems += error.problems
        if last * (1.0 + 1e-9) < barrier.expiry < np.inf:
            needed = f"must not lie beyond what is calibrated, {last:g} years, but is {barrier.expiry:g}."
            problems.append(Problem.at(("barriers", i, "expiry"), needed))
    if request.model in ("heston", "slv") and request.calibrated is None and request.calibration is None:
        problems.append(Problem.at(("leverage",), f"is required by the model `{request.model}`, but is absent."))
    if problems:
        raise InvalidInput(*problems)


def settings_of(request: LeverageRequest) -> dict[str, Any]:
    """What the answer says of how it was come by: seed and conventions."""
    particles, paths = request.particles, request.paths
    return {
        "maturity": request.maturity,
        "n_particles": particles.n_particles,
        "step_days": particles.step_days,
        "scheme": particles.scheme,
        "numbers": particles.numbers,
        "estimator": estimator_document(particles.estimator),
        "seed": particles.seed,
        "n_paths": 2 * paths.points * paths.n_replicates,
        "paths_seed": paths.seed,
    }


def _dynamics(request: TouchRequest) -> Dynamics:
    if request.model == "lv":
        ends = np.unique([barrier.expiry for barrier in request.barriers])
        return local(LocalVolatility(surface=request.surface), request.paths.dates(ends))
    if request.calibrated is None:
        assert request.calibration is not None
        return stochastic(_heston(request.calibration, _expiries(request.calibration)).heston)
    if request.model == "heston":
        return stochastic(request.calibrated.fit.heston)
    return request.calibrated.dynamics


def _expiries(request: LeverageRequest) -> tuple[float, ...]:
    """Years of the pillars up to the maturity."""
    pillars = request.pillars or pillars_up_to(request.maturity)
    return tuple(sorted({t for t in pillars if 0.0 < t <= request.maturity + 1e-9}))


def _heston(request: LeverageRequest, expiries: tuple[float, ...]) -> HestonFit:
    """As given, or fitted."""
    if request.heston is None:
        return fit_heston(request.surface, expiries, request.kappa)
    return HestonFit(request.heston, None)


def _leverage_at(
    request: LeverageRequest, heston: Heston, particles: ParticleOptions, mixing: float
) -> Steps[ParticleLeverage]:
    local_vol = LocalVolatility(surface=request.surface)
    return leverage_steps(local_vol, heston.mixed(mixing), request.maturity, particles)


def _mixing_steps(
    request: LeverageRequest, heston: Heston, particles: ParticleOptions, quoted: QuotedTouch
) -> Steps[tuple[float, ParticleLeverage]]:
    """The mixing at which the quoted barrier has its price, by regula falsi: of all tried the nearest.

    Ranks change with the mixing, and with them the price by as much as another seed would change it, so that the last
    one tried need not be the nearest.

    raises  InvalidInput if no mixing gives that price
    """
    tries = 0

    def error_at(mixing: float) -> Generator[Progress, bool, tuple[float, ParticleLeverage]]:
        nonlocal tries
        share = 0.5 * 0.5**tries
        found = yield from _within(_leverage_at(request, heston, particles, mixing), 0.5 - share, 0.5 * share)
        dynamics = Dynamics(heston=heston.mixed(mixing), leverage=found.leverage)
        [price] = yield from touch_steps(dynamics, request.surface, (quoted.barrier,), request.paths)
        tries += 1
        return price.price - quoted.price, found

    low, high = 0.0, 1.0
    (at_low, found), (at_high, found_high) = (yield from error_at(low)), (yield from error_at(high))
    if at_low * at_high > 0.0:
        ends = sorted((at_low + quoted.price, at_high + quoted.price))
        reach = f"{ends[0]:.6g} and {ends[1]:.6g}, the prices with no and all mixing"
        needed = f"must lie between {reach}, but is {quoted.price:g}."
        raise InvalidInput(Problem.at(("mixing", "fit_to", "price"), needed))
    best = min((abs(at_low), low, found), (abs(at_high), high, found_high), key=lambda tried: tried[0])
    while high - low > _MIXING_ACCURACY:
        # Regula falsi, Illinois: the end that stays counts half.
        mixing = low + (high - low) * at_low / (at_low - at_high)
        error, found = yield from error_at(mixing)
        best = min(best, (abs(error), mixing, found), key=lambda tried: tried[0])
        if abs(error) < _PRICE_ACCURACY:
            break
        if error * at_high > 0.0:
            high, at_high, at_low = mixing, error, 0.5 * at_low
        else:
            low, at_low, at_high = mixing, error, 0.5 * at_high
    return best[1], best[2]


def _within(steps: Steps[T], before: float, share: float) -> Steps[T]:
    """The same steps, whose progress is a share of a larger work's, of size one."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as ended:
            result: T = ended.value
            return result
        yield Progress(before + share * progress.done / progress.total, 1.0)


def _rows(columns: dict[str, Any]) -> list[dict[str, float | None]]:
    """A dictionary a line, None where a number is missing."""
    listed = {name: [x if np.isfinite(x) else None for x in column.tolist()] for name, column in columns.items()}
    return [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]


class _Clock:
    """Milliseconds of the stages of a work, from when it is made."""

    def __init__(self) -> None:
        self._began = self._last = perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = perf_counter()
        self._laps[name] = 1e3 * (now - self._last)
        self._last = now

    def laps(self) -> dict[str, float]:
        return {**self._laps, "total": 1e3 * (perf_counter() - self._began)}
