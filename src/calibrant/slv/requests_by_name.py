"""Requests for a leverage and for touches from what is said by name: the bodies of `/v1/leverage` and `/v1/one-touch`.

The command line reads its files by the same functions. What is wrong is refused as in `calibrant.by_name`:
`InvalidInput` with every problem found, in every field, each under its name.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from ..by_name import parameters_of
from ..errors import InvalidInput, Path, Problem, shown
from ..fx import Conventions
from ..models import HESTON
from .barriers import Barrier, require_barrier
from .estimators import DEFAULT, ESTIMATORS, Estimator
from .estimators.by_name import estimator_document, estimator_named
from .particles import Heston, ParticleOptions
from .paths import PathOptions
from .requests import (
    MIXING,
    CalibratedLeverage,
    LeverageRequest,
    QuotedTouch,
    TouchRequest,
    require_leverage,
    require_touches,
    setting_problems,
)
from .surfaces_by_name import NamedSurface, surface_named

T = TypeVar("T")

LEVERAGE_FIELDS = (
    *("surface", "heston", "kappa", "mixing", "maturity", "pillars", "n_particles", "step_days", "estimator"),
    *("scheme", "numbers", "seed", "n_paths"),
)
TOUCH_FIELDS = ("barriers", "model", "leverage", "greeks", *LEVERAGE_FIELDS)
_BARRIER_FIELDS = ("level", "levels", "direction", "expiry", "paid", "kind", "payout")
_OF_A_LEVERAGE = tuple(name for name in LEVERAGE_FIELDS if name not in ("seed", "n_paths"))
"""Fields that the id of a leverage stands for."""
_OPTIONS = frozenset(option for each in ESTIMATORS.values() for option in estimator_document(each) if option != "kind")
"""Of any estimator: they may stand beside its name."""
MOST_BARRIERS = 1000
_MOST_PILLARS = 200
_LARGEST_SEED = 2**63 - 1
_MODELS = ("bs", "lv", "heston", "slv")


class NamedLeverage(NamedTuple):
    """A leverage that is asked for."""

    request: LeverageRequest
    surface: NamedSurface


class NamedTouches(NamedTuple):
    """Prices that are asked for."""

    request: TouchRequest
    surface: NamedSurface | None
    """None where a leverage that was calibrated before has its own."""


class KeptLeverage(NamedTuple):
    """A leverage that was calibrated, with what prices under it are to say of the surface."""

    calibrated: CalibratedLeverage
    conventions: Conventions | None


def leverage_named(given: object) -> NamedLeverage:
    """The request that a mapping says, with the fields and the defaults of `POST /v1/leverage`.

    raises  InvalidInput
    """
    fields = _Fields(given, (), (*LEVERAGE_FIELDS, *_OPTIONS))
    surface = _surface(fields)
    request = _leverage(fields, surface, None)
    fields.require()
    assert surface is not None
    assert request is not None
    return NamedLeverage(request, surface)


def touches_named(given: object, find: Callable[[str], KeptLeverage] | None = None) -> NamedTouches:
    """The same of `POST /v1/one-touch`.

    find    what was calibrated under an id, for which it may raise InvalidInput; None where no id means anything
    raises  InvalidInput
    """
    fields = _Fields(given, (), (*TOUCH_FIELDS, *_OPTIONS))
    kept = _kept(fields, find)
    model: Any = fields.choice("model", "slv", _MODELS)
    greeks = fields.flag("greeks", False)
    seed = fields.whole("seed", 0, 0, _LARGEST_SEED)
    paths = PathOptions(n_paths=fields.whole("n_paths", PathOptions().n_paths, 2, 100_000_000), seed=seed)
    barriers = _barriers(fields)
    calibration = None
    if kept is not None:
        surface = None
        market = kept.calibrated.request.surface.market
        spot = market.spot
    elif fields.get("leverage") is not None:
        surface, spot = None, math.nan
    else:
        surface = _surface(fields)
        spot = _spot(fields, surface)
        last = max((each.expiry for each in barriers if each is not None and each.expiry > 0.0), default=1.0)
        settings = _leverage(fields, surface, last)
        calibration = settings if model in ("heston", "slv") else None
    if spot > 0.0:
        for i, barrier in enumerate(barriers):
            if barrier is not None:
                fields.caught(lambda each=barrier, at=i: require_barrier(each, spot, ("barriers", at)))  # type: ignore[misc]
    fields.require()
    request = TouchRequest(
        surface=surface.surface if surface is not None else kept.calibrated.request.surface,  # type: ignore[union-attr]
        barriers=tuple(barrier for barrier in barriers if barrier is not None),
        model=model,
        calibrated=None if kept is None else kept.calibrated,
        calibration=calibration,
        paths=paths,
        greeks=greeks,
        conventions=surface.conventions if surface is not None else kept.conventions,  # type: ignore[union-attr]
    )
    require_touches(request)
    return NamedTouches(request, surface)


class _Fields:
    """The fields of a mapping, and all that is found wrong with them."""

    def __init__(self, given: object, path: Path, known: Sequence[str]) -> None:
        """`known` names are fields here; null is as good as absent."""
        self.path = path
        self.problems: list[Problem] = []
        if not isinstance(given, Mapping):
            if not path:
                raise InvalidInput(Problem((), f"The request must be a mapping by name, but is {shown(given)!r}."))
            raise InvalidInput(Problem.at(path, f"must be a mapping by name, but is {shown(given)!r}."))
        self.given: Mapping[str, Any] = given
        for name in given:
            if name not in known:
                self.wrong(str(name), "is not a field of this request.")

    def wrong(self, name: str, needed: str) -> None:
        problem = Problem.at((*self.path, name), needed)
        # A field of two uses is read twice.
        if problem not in self.problems:
            self.problems.append(problem)

    def require(self) -> None:
        """raises  InvalidInput if anything was wrong"""
        if self.problems:
            raise InvalidInput(*self.problems)

    def caught(self, make: Callable[[], T]) -> T | None:
        """What is made; None where that is refused, whose problems are kept."""
        try:
            return make()
        except InvalidInput as refused:
            self.problems += refused.problems
            return None

    def get(self, name: str) -> Any:
        return self.given.get(name)

    def number(self, name: str, default: float | None) -> float:
        """A finite number; NaN where it is none, or absent without a default."""
        value = self.get(name)
        if value is None:
            if default is None:
                self.wrong(name, "is required, but is absent.")
            return math.nan if default is None else default
        number = _finite(value)
        if number is None:
            self.wrong(name, f"must be a finite number, but is {shown(value)!r}.")
            return math.nan
        return number

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        value = self.get(name)
        if value is None:
            return default
        number = _finite(value)
        if number is None or number != int(number):
            self.wrong(name, f"must be a whole number, but is {shown(value)!r}.")
        elif not least <= int(value) <= most:
            self.wrong(name, f"must lie within [{least:,}, {most:,}], but is {shown(value)}.")
        else:
            return int(value)
        return default

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
        value = self.get(name)
        if value is None or value in allowed:
            return default if value is None else str(value)
        self.wrong(name, f"must be one of {', '.join(allowed)}, but is {shown(value)!r}.")
        return default

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, f"must be true or false, but is {shown(value)!r}.")
        return value if isinstance(value, bool) else default


def _surface(fields: _Fields) -> NamedSurface | None:
    if fields.get("surface") is None:
        fields.wrong("surface", "is required, but is absent.")
        return None
    maturity = _finite(fields.get("maturity"))
    years = maturity if maturity is not None and maturity > 0.0 else None
    return fields.caught(lambda: surface_named(fields.get("surface"), maturity=years))


def _leverage(fields: _Fields, surface: NamedSurface | None, maturity: float | None) -> LeverageRequest | None:
    """`maturity` where none is given: else it is the last expiry of a surface that has one."""
    if maturity is None and surface is not None and surface.surface.last_expiry < math.inf:
        maturity = surface.surface.last_expiry
    n_wrong = len(fields.problems)
    until = fields.number("maturity", maturity if surface is not None or maturity is not None else 1.0)
    mixing = _mixing(fields, surface)
    kappa = None if fields.get("kappa") is None else fields.number("kappa", None)
    given = fields.get("heston")
    heston = None
    if given is not None:
        params = fields.caught(lambda: parameters_of(HESTON, given, ("heston",)))
        heston = None if params is None else Heston(**dict(zip(HESTON.parameters, params.tolist(), strict=True)))
        if kappa is not None:
            fields.wrong("kappa", "must be left out where `heston` is given.")
    seed = fields.whole("seed", 0, 0, _LARGEST_SEED)
    scheme: Any = fields.choice("scheme", "qe", ("qe", "euler"))
    numbers: Any = fields.choice("numbers", "ranked", ("ranked", "antithetic"))
    particles = ParticleOptions(
        n_particles=fields.whole("n_particles", ParticleOptions().n_particles, 100, 10_000_000),
        step_days=fields.number("step_days", ParticleOptions().step_days),
        estimator=_estimator(fields) or ESTIMATORS[DEFAULT],
        scheme=scheme,
        numbers=numbers,
        seed=seed,
    )
    paths = PathOptions(n_paths=fields.whole("n_paths", PathOptions().n_paths, 2, 100_000_000), seed=seed)
    pillars = _pillars(fields)
    said = {problem.path for problem in fields.problems[n_wrong:]}
    fields.problems += [
        problem
        for problem in setting_problems(until, 0.0 if mixing is None else mixing, kappa, particles, paths)
        if problem.path not in said
    ]
    if surface is None or len(fields.problems) > n_wrong or mixing is None:
        return None
    request = LeverageRequest(
        surface=surface.surface,
        maturity=until,
        heston=heston,
        kappa=kappa,
        mixing=mixing,
        pillars=pillars,
        particles=particles,
        paths=paths,
    )
    fields.caught(lambda: require_leverage(request))
    return request


def _mixing(fields: _Fields, surface: NamedSurface | None) -> float | QuotedTouch | None:
    """None where it is wrong."""
    given = fields.get("mixing")
    if not isinstance(given, Mapping):
        if given is not None and _finite(given) is None:
            needed = (
                f'must be a number within [0, 1] or {{"fit_to": a barrier with its `price`}}, but is {shown(given)!r}.'
            )
            fields.wrong("mixing", needed)
            return None
        return fields.number("mixing", MIXING)

    def quoted() -> QuotedTouch:
        around = _Fields(given, ("mixing",), ("fit_to",))
        if around.get("fit_to") is None:
            around.wrong("fit_to", "is required, but is absent.")
            around.require()
        inner = _Fields(around.get("fit_to"), ("mixing", "fit_to"), (*_BARRIER_FIELDS, "price"))
        barrier = _barrier(inner)
        price = inner.number("price", None)
        if price <= 0.0:
            inner.wrong("price", f"must be > 0, but is {price:g}.")
        if barrier is not None:
            spot = _spot(fields, surface)
            if spot > 0.0:
                inner.caught(lambda: require_barrier(barrier, spot, inner.path))
        inner.problems += around.problems
        inner.require()
        assert barrier is not None
        return QuotedTouch(barrier=barrier, price=price)

    return fields.caught(quoted)


def _estimator(fields: _Fields) -> Estimator | None:
    """By its name, its options beside it or, as `{"kind": name}`, with it; None where it is wrong."""
    given = fields.get("estimator")
    beside = {name: fields.get(name) for name in _OPTIONS if name in fields.given}
    if not isinstance(given, Mapping):
        return fields.caught(lambda: estimator_named(DEFAULT if given is None else given, beside))
    for name in beside:
        fields.wrong(name, "must stand within `estimator`, which is an object.")
    inside = {name: value for name, value in given.items() if name != "kind"}
    return fields.caught(lambda: estimator_named(given.get("kind"), inside, ("estimator", "kind")))


def _pillars(fields: _Fields) -> tuple[float, ...] | None:
    given = fields.get("pillars")
    if given is None:
        return None
    years = [_finite(each) for each in given] if isinstance(given, list | tuple) else []
    if not years or len(years) > _MOST_PILLARS:
        needed = f"must be a list of 1 to {_MOST_PILLARS} years, but is {shown(given)!r}."
        fields.wrong("pillars", needed)
        return None
    for i, (value, year) in enumerate(zip(given, years, strict=True)):
        if year is None or not year > 0.0:
            needed = f"must be a finite number of years > 0, but is {shown(value)!r}."
            fields.problems.append(Problem.at((*fields.path, "pillars", i), needed))
    return tuple(year for year in years if year is not None)


def _barriers(fields: _Fields) -> list[Barrier | None]:
    """None in the place of one that is wrong."""
    given = fields.get("barriers")
    if given is None:
        fields.wrong("barriers", "is required, but is absent.")
        return []
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= MOST_BARRIERS:
        fields.wrong("barriers", f"must be a list of 1 to {MOST_BARRIERS} barriers, but is {shown(given)!r}.")
        return []
    found: list[Barrier | None] = []
    for i, each in enumerate(given):
        found.append(fields.caught(lambda each=each, at=i: _required_barrier(each, ("barriers", at))))  # type: ignore[misc]
    return found


def _required_barrier(given: object, path: Path) -> Barrier:
    fields = _Fields(given, path, _BARRIER_FIELDS)
    barrier = _barrier(fields)
    fields.require()
    assert barrier is not None
    return barrier


def _barrier(fields: _Fields) -> Barrier | None:
    """Whose fields are of the right types; `require_barrier` says whether they make a contract."""
    n_wrong = len(fields.problems)
    expiry = fields.number("expiry", None)
    level = None if fields.get("level") is None else fields.number("level", None)
    given = fields.get("levels")
    levels = None
    if given is not None:
        pair = [_finite(each) for each in given] if isinstance(given, list | tuple) else []
        if len(pair) != 2 or pair[0] is None or pair[1] is None:
            fields.wrong("levels", f"must be a pair of finite numbers, but is {shown(given)!r}.")
        else:
            levels = pair[0], pair[1]
    if len(fields.problems) > n_wrong:
        return None
    said = {name: fields.get(name) for name in ("direction", "kind", "paid", "payout") if fields.get(name) is not None}
    # There is no other with two levels.
    said = {"kind": "no_touch", **said} if levels is not None else said
    return Barrier(expiry=expiry, level=level, levels=levels, **said)


def _kept(fields: _Fields, find: Callable[[str], KeptLeverage] | None) -> KeptLeverage | None:
    given = fields.get("leverage")
    if given is None:
        return None
    if find is None:
        fields.wrong("leverage", "must be left out here: no leverage has an id.")
        return None
    for name in (*_OF_A_LEVERAGE, *_OPTIONS):
        if fields.get(name) is not None:
            fields.wrong(name, "must be left out where `leverage` is given, which has its own.")
    if not isinstance(given, str):
        fields.wrong("leverage", f"must be the id of an answer of /v1/leverage, but is {shown(given)!r}.")
        return None
    return fields.caught(lambda: find(given))


def _spot(fields: _Fields, surface: NamedSurface | None) -> float:
    """Also of a surface that is wrong elsewhere; NaN where there is none."""
    if surface is not None:
        return surface.surface.market.spot
    given = fields.get("surface")
    spot = _finite(given.get("spot")) if isinstance(given, Mapping) else None
    return math.nan if spot is None else spot


def _finite(value: object) -> float | None:
    """As a float; None of what is no finite number. True is none: it is a slip for a value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
