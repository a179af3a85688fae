"""A surface from what a request says of it, by name: the `surface` of `/v1/leverage`, and of the command line.

What is wrong is refused as in `calibrant.by_name`: `InvalidInput` with every problem found, each under its field.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..arbitrage.surface_twin import durrleman
from ..arrays import BoolVector, Vector
from ..by_name import parameters_of
from ..caution import Caution
from ..errors import InvalidInput, Path, Problem, shown
from ..fx import Conventions, conventions_of, quotes_to_strikes
from ..fx.delta import DeltaTerms, log_moneyness_at_the_money, log_moneyness_of_delta
from ..market import Curve, Market
from ..models import HESTON
from ..quote_columns import column
from .fitted import DEFAULT, FitOptions, FittedSurface, SurfaceQuotes, fit_surface
from .heston_surface import HestonSurface
from .surface import ClosedForm, Surface

LARGEST_VOL = 5.0
LARGEST_RATE = 1.0
_CHECKED_YEARS = 5.0
"""Of a closed form where no maturity is given."""
_CHECKED_DEVIATIONS = 3.0
_ARBITRAGE_SHARE = 0.01
"""Of the places looked at: a closed form with arbitrage in more is refused, one with less is clipped where it is."""
_CLOSED_FORM: dict[str, tuple[float, float]] = {
    "s0": (1e-4, LARGEST_VOL), "sinf": (1e-4, LARGEST_VOL), "b": (1e-6, 1e3), "r0": (-0.9999, 0.9999),
    "rinf": (-0.9999, 0.9999), "a": (0.0, 1e3), "eta": (0.0, 1e3), "gam": (0.0, 1.0), "th0": (1e-12, 10.0),
}  # fmt: skip
_COMMON = ("kind", "spot", "domestic_rate", "foreign_rate")
_TYPES = {"call": 1, "c": 1, "put": -1, "p": -1, "atm": 0}


@dataclass(frozen=True, kw_only=True)
class NamedSurface:
    """A surface and what is to be said of it in an answer."""

    kind: str
    surface: Surface
    fitted: FittedSurface | None = None
    """How it was made of quotes."""
    conventions: Conventions | None = None
    """By which quotes by delta were read."""
    warnings: tuple[Caution, ...] = ()

    def document(self) -> dict[str, Any]:
        """As it goes over the wire, beside what was calibrated to it."""
        about: dict[str, Any] = {"kind": self.kind}
        if self.fitted is not None:
            misfits = [each._asdict() for each in self.fitted.misfits]
            about |= {"method": self.fitted.method, "rmse_bp": self.fitted.rmse_bp}
            about |= {"max_abs_bp": self.fitted.max_abs_bp, "misfits": misfits}
        if self.conventions is not None:
            about["conventions"] = asdict(self.conventions)
        return about


def surface_named(
    given: object, *, path: Path = ("surface",), maturity: float | None = None, options: FitOptions = DEFAULT
) -> NamedSurface:
    """The surface that a mapping says.

    given     `kind` (`quotes`, `fx_pillars`, `heston` or `ssvi`), `spot`, `domestic_rate`, `foreign_rate` and what the
              kind asks for. A rate is a number, one for each expiry, or a curve `{"expiry", "zero"}`, continuously
              compounded
    maturity  years to which quotes are used; all of them where it is None
    raises    InvalidInput
    """
    mapping = _mapping(given, path)
    kind = mapping.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        needed = "is required, but is absent" if kind is None else f"is {shown(kind)!r}, but must be one"
        raise InvalidInput(Problem.at((*path, "kind"), f"{needed}: {', '.join(_KINDS)}."))
    if kind != "fx_pillars":  # whose quotes may be of any delta: it says itself what is none
        fields = ("quotes", "pair", "conventions", "butterfly") if kind == "quotes" else ("parameters",)
        _refuse_others(mapping, (*_COMMON, *fields), path)
    return _KINDS[kind](mapping, path, maturity, options)


def _of_heston(given: Mapping[str, Any], path: Path, maturity: float | None, options: FitOptions) -> NamedSurface:
    market = _market(given, None, path)
    params = parameters_of(HESTON, _required(given, "parameters", path), (*path, "parameters"))
    return NamedSurface(kind="heston", surface=HestonSurface(market=market, params=params))


def _of_closed_form(given: Mapping[str, Any], path: Path, maturity: float | None, options: FitOptions) -> NamedSurface:
    market = _market(given, None, path)
    where = (*path, "parameters")
    parameters = _mapping(_required(given, "parameters", path), where)
    _refuse_others(parameters, tuple(_CLOSED_FORM), where)
    problems, values = [], {}
    for name, (low, high) in _CLOSED_FORM.items():
        if name not in parameters:
            problems.append(Problem.at((*where, name), "is required, but is absent."))
            continue
        value = _number(parameters[name])
        if value is None or not low <= value <= high:
            came = shown(parameters[name])
            problems.append(
                Problem.at((*where, name), f"must be a number within [{low:g}, {high:g}], but is {came!r}.")
            )
        else:
            values[name] = value
    if problems:
        raise InvalidInput(*problems)
    surface = ClosedForm(market=market, **values)
    _require_no_arbitrage(surface, maturity or _CHECKED_YEARS, where)
    return NamedSurface(kind="ssvi", surface=surface)


def _of_pillars(given: Mapping[str, Any], path: Path, maturity: float | None, options: FitOptions) -> NamedSurface:
    conventions = _conventions(given, path)
    expiry = _expiries(given, path)
    market = _market(given, expiry, path)
    others = (*_COMMON, "pair", "expiry", "conventions", "butterfly")
    quotes = {name: values for name, values in given.items() if name not in others}
    pillars = quotes_to_strikes(market, expiry, quotes, conventions, path)
    columns = SurfaceQuotes(pillars.expiry, pillars.log_moneyness, pillars.vol, pillars.name, pillars.row)
    fitted = fit_surface(market, columns, maturity=maturity, options=options, path=path)
    return NamedSurface(
        kind="fx_pillars", surface=fitted.surface, fitted=fitted, conventions=conventions, warnings=fitted.warnings
    )


def _of_quotes(given: Mapping[str, Any], path: Path, maturity: float | None, options: FitOptions) -> NamedSurface:
    where = (*path, "quotes")
    quotes = _mapping(_required(given, "quotes", path), where)
    _refuse_others(quotes, ("expiry", "strike", "log_moneyness", "delta", "type", "forward", "iv"), where)
    expiry = _expiries(quotes, where)
    vol = _column(quotes, "iv", expiry.size, where)
    known = ~np.isnan(vol)
    _require(
        vol, ~known | ((vol > 0.0) & (vol <= LARGEST_VOL)), (*where, "iv"), f"a vol > 0 and at most {LARGEST_VOL:g}"
    )
    if not known.any():
        raise InvalidInput(Problem.at((*where, "iv"), "must hold at least one vol, but all are missing."))
    market = _market(given, expiry, path, quotes)
    said = [name for name in ("strike", "log_moneyness", "delta") if quotes.get(name) is not None]
    if len(said) != 1:
        came = f"there are {said}" if said else "there is none"
        needed = f"must be given, or else one of `log_moneyness` and `delta`; but {came}."
        raise InvalidInput(Problem.at((*where, "strike"), needed))
    place = _column(quotes, said[0], expiry.size, where)
    conventions = None
    if said[0] == "delta":
        conventions = _conventions(given, path)
        k, names = _of_deltas(quotes, expiry, place, vol, market, conventions, where)
    else:
        if said[0] == "strike":
            _require(place, ~known | ((place > 0.0) & np.isfinite(place)), (*where, "strike"), "a finite strike > 0")
            with np.errstate(invalid="ignore"):
                k = np.log(place) - market.log_forward(expiry)
        else:
            _require(place, ~known | (np.abs(place) <= 10.0), (*where, "log_moneyness"), "within +-10")
            k = place
        names = tuple(f"{x:g}" for x in place.tolist())
    used = np.flatnonzero(known)
    columns = SurfaceQuotes(
        expiry[used], k[used], vol[used], tuple(names[j] for j in used.tolist()), tuple(used.tolist())
    )
    fitted = fit_surface(market, columns, maturity=maturity, options=options, path=where)
    return NamedSurface(
        kind="quotes", surface=fitted.surface, fitted=fitted, conventions=conventions, warnings=fitted.warnings
    )


def _of_deltas(
    quotes: Mapping[str, Any],
    expiry: Vector,
    delta: Vector,
    vol: Vector,
    market: Market,
    conventions: Conventions,
    path: Path,
) -> tuple[Vector, tuple[str, ...]]:
    """Log-moneyness and names of options by delta: signed, or unsigned with a `type` (`call`, `put`, `atm`)."""
    types = quotes.get("type")
    if types is not None and (not isinstance(types, list | tuple | np.ndarray) or len(types) != expiry.size):
        needed = f"must be `call`, `put` or `atm`, one for each `expiry` ({expiry.size}), but is {shown(types)!r}."
        raise InvalidInput(Problem.at((*path, "type"), needed))
    k, names, problems = np.full(expiry.size, np.nan), [], []
    for i, (t, size, sigma) in enumerate(zip(expiry.tolist(), delta.tolist(), vol.tolist(), strict=True)):
        side = int(math.copysign(1.0, size)) if types is None else _TYPES.get(str(types[i]).lower())
        names.append("ATM" if side == 0 else f"{100 * abs(size):g}{'C' if side == 1 else 'P'}")
        if side is None:
            needed = f"must be `call`, `put` or `atm`, but is {shown(types[i])!r}."  # type: ignore[index]
            problems.append(Problem.at((*path, "type", i), needed))
        elif math.isnan(sigma):
            continue
        elif side == 0:
            k[i] = log_moneyness_at_the_money(conventions, t, sigma, math.log(market.spot / float(market.forward(t))))
        elif not 0.0 < abs(size) < 1.0 or (side > 0) > (size > 0.0):
            allowed = "0 and 1" if side > 0 else "-1 and 0, or 0 and 1 unsigned"
            problems.append(Problem.at((*path, "delta", i), f"must lie within {allowed}, but is {size:g}."))
        else:
            terms = DeltaTerms.of(conventions, t, float(market.foreign_discount(t)))
            found = log_moneyness_of_delta(terms, 1 if side > 0 else -1, abs(size), sigma)
            if found is None:
                needed = f"must be a delta that some strike has at a vol of {sigma:g}, but is {size:g}."
                problems.append(Problem.at((*path, "delta", i), needed))
            else:
                k[i] = found
    if problems:
        raise InvalidInput(*problems)
    return k, tuple(names)


def _conventions(given: Mapping[str, Any], path: Path) -> Conventions:
    """`butterfly` may stand among the conventions or beside them."""
    settings = given.get("conventions")
    if given.get("butterfly") is not None and (settings is None or isinstance(settings, Mapping)):
        if settings and settings.get("butterfly", given["butterfly"]) != given["butterfly"]:
            needed = "must be said once: `conventions.butterfly` differs."
            raise InvalidInput(Problem.at((*path, "butterfly"), needed))
        settings = {**(settings or {}), "butterfly": given["butterfly"]}
    return conventions_of(given.get("pair"), settings, pair_path=(*path, "pair"), path=(*path, "conventions"))


def _market(
    given: Mapping[str, Any], expiry: Vector | None, path: Path, quotes: Mapping[str, Any] | None = None
) -> Market:
    """Spot and curves; of quotes that say their forwards the foreign curve follows from these."""
    forwards = quotes is not None and quotes.get("forward") is not None and given.get("foreign_rate") is None
    names = ("spot", "domestic_rate") if forwards else ("spot", "domestic_rate", "foreign_rate")
    problems = [Problem.at((*path, name), "is required, but is absent.") for name in names if given.get(name) is None]
    spot = _number(given.get("spot"))
    if given.get("spot") is not None and (spot is None or not spot > 0.0):
        problems.append(Problem.at((*path, "spot"), f"must be a finite number > 0, but is {shown(given['spot'])!r}."))
    curves = {}
    for name in names[1:]:
        if given.get(name) is not None:
            try:
                curves[name] = _curve(given[name], expiry, (*path, name))
            except InvalidInput as refused:
                problems += refused.problems
    if problems or spot is None:
        raise InvalidInput(*problems)
    if forwards and quotes is not None and expiry is not None:
        curves["foreign_rate"] = _implied_curve(quotes, expiry, spot, curves["domestic_rate"], (*path, "quotes"))
    return Market(spot=spot, domestic=curves["domestic_rate"], foreign=curves["foreign_rate"])


def _curve(value: Any, expiry: Vector | None, path: Path) -> Curve:
    rate = _number(value)
    if rate is not None:
        _require(
            np.array([rate]), np.abs([rate]) <= LARGEST_RATE, path, "a rate a year within +-1 (a decimal)", one=True
        )
        return Curve.flat(rate)
    if isinstance(value, Mapping):
        _refuse_others(value, ("expiry", "zero"), path)
        pillars = _expiries(value, path)
        zero = _column(value, "zero", pillars.size, path)
        path = (*path, "zero")
    else:
        zero = _as_column(value, path)
        if expiry is None or zero.ndim != 1:
            raise InvalidInput(
                Problem.at(path, f"must be a number or a curve of `expiry` and `zero`, but is {shown(value)!r}.")
            )
        pillars = np.unique(expiry) if zero.size == np.unique(expiry).size else expiry
        if zero.size != pillars.size:
            needed = f"must be a number, or one for each of the {np.unique(expiry).size} expiries, but has {zero.size}."
            raise InvalidInput(Problem.at(path, needed))
    _require(zero, np.abs(zero) <= LARGEST_RATE, path, "a rate a year within +-1 (a decimal)")
    distinct, first = np.unique(pillars, return_index=True)
    return Curve(expiry=distinct, zero=zero[first])


def _implied_curve(quotes: Mapping[str, Any], expiry: Vector, spot: float, domestic: Curve, path: Path) -> Curve:
    given = quotes["forward"]
    number = _number(given)
    forward = np.full(expiry.size, number) if number is not None else _column(quotes, "forward", expiry.size, path)
    _require(forward, (forward > 0.0) & np.isfinite(forward), (*path, "forward"), "a finite number > 0")
    distinct, first = np.unique(expiry, return_index=True)
    return Curve(expiry=distinct, zero=(domestic.integral(distinct) - np.log(forward[first] / spot)) / distinct)


def _require_no_arbitrage(surface: ClosedForm, years: float, path: Path) -> None:
    t = np.geomspace(years / 100.0, years, 25)[:, np.newaxis]
    k = np.sqrt(surface.total_variance(0.0, t).w) * np.linspace(-_CHECKED_DEVIATIONS, _CHECKED_DEVIATIONS, 61)
    w, w_k, w_kk, w_t = surface.total_variance(k, t)
    for bad, kind in ((w_t < 0.0, "calendar"), (durrleman(k, w, w_k, w_kk) < 0.0, "butterfly")):
        if bad.mean() > _ARBITRAGE_SHARE:
            i, j = np.argwhere(bad)[len(np.argwhere(bad)) // 2]
            needed = (
                f"must be those of a surface without arbitrage, but there is {kind} arbitrage at {bad.mean():.0%} of "
            )
            needed += f"the places looked at, such as {t[i, 0]:.3g} years and log-moneyness {k[i, j]:.3g}."
            raise InvalidInput(Problem.at(path, needed))


def _mapping(given: object, path: Path) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidInput(Problem.at(path, f"must be a mapping by name, but is {shown(given)!r}."))
    return given


def _required(given: Mapping[str, Any], name: str, path: Path) -> Any:
    if given.get(name) is None:
        raise InvalidInput(Problem.at((*path, name), "is required, but is absent."))
    return given[name]


def _refuse_others(given: Mapping[str, Any], known: tuple[str, ...], path: Path) -> None:
    problems = [
        Problem.at((*path, str(name)), f"is not a field here ({', '.join(known)}).")
        for name in given
        if name not in known
    ]
    if problems:
        raise InvalidInput(*problems)


def _expiries(given: Mapping[str, Any], path: Path) -> Vector:
    expiry = _as_column(_required(given, "expiry", path), (*path, "expiry"))
    if expiry.ndim != 1 or not expiry.size:
        raise InvalidInput(Problem.at((*path, "expiry"), "must be a list of years, one at least."))
    _require(expiry, (expiry > 0.0) & np.isfinite(expiry), (*path, "expiry"), "a finite number of years > 0")
    return expiry


def _column(given: Mapping[str, Any], name: str, size: int, path: Path) -> Vector:
    values = _as_column(_required(given, name, path), (*path, name))
    if values.shape != (size,):
        needed = f"must have as many values as `expiry` ({size}), but has {values.size}."
        raise InvalidInput(Problem.at((*path, name), needed))
    return values


def _as_column(values: Any, path: Path) -> Vector:
    """Numbers in a list; a number alone is a list of one."""
    return np.atleast_1d(column(values, path))


def _require(values: Vector, good: BoolVector, path: Path, needed: str, *, one: bool = False) -> None:
    if not good.all():
        raise InvalidInput(
            *(
                Problem.at(path if one else (*path, i), f"must be {needed}, but is {values[i]:g}.")
                for i in np.flatnonzero(~good)[:100].tolist()
            )
        )


def _number(value: object) -> float | None:
    """As a float; None of what is no finite number."""
    if isinstance(value, bool | np.bool_ | str) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return float(value) if math.isfinite(value) else None


_KINDS: dict[str, Callable[[Mapping[str, Any], Path, float | None, FitOptions], NamedSurface]] = {
    "quotes": _of_quotes,
    "fx_pillars": _of_pillars,
    "heston": _of_heston,
    "ssvi": _of_closed_form,
}
