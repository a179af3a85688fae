"""A smooth surface without arbitrage from the quotes of a market, with what it misses each of them by.

eSSVI slices fit most smiles to a few basis points and are smooth by construction. Where they miss a quote by more
than a stated limit, the surface is that of a diffusion fitted to the quotes (`andreasen_huge`), and a warning says so.
Quotes that no surface can have, since total variance falls with the expiry or no density has such a smile, are refused.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from ..arrays import IntVector, Vector
from ..black import vega
from ..caution import Caution
from ..errors import InvalidInput, Path, Problem
from ..fx.smile import Smile
from ..market import Market
from .andreasen_huge import AndreasenHuge, fit_andreasen_huge
from .essvi import Essvi, Slice, fit_essvi
from .surface import implied_vol

_FULL_WEIGHT = 0.25
"""Of the vega at the money: quotes of less, beyond the 5-delta or so, count by their vega."""
_SAME_SMILE = 9
"""Up to so many strikes a smile is interpolated smoothly; more are dense enough for straight lines."""
_NEAR = 0.1
"""Standard deviations by which a strike may lie beyond the quotes of another expiry and still be compared."""
_BESIDE = np.array([-1.3, -0.7, 0.7, 1.3])
"""Standard deviations from the forward where an expiry of few quotes takes its smile from the slices of the others."""
_BORROWED = 0.01
"""The weight of what is borrowed."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    essvi_limit_bp: float = 10.0
    """Of vol: where the slices miss a quote by more, the surface is `andreasen_huge`'s."""
    calendar_limit_bp: float = 10.0
    """Of vol, weighed by vega: a fall of total variance beyond this is refused, a smaller one is evened out."""
    misfit_limit_bp: float = 100.0
    """Of vol, weighed by vega: quotes that the surface misses by more have none without arbitrage."""
    outlier_share: float = 0.1
    """Of an expiry's quotes, how many that break a limit are left out as stale and not refused."""


DEFAULT = FitOptions()


class SurfaceQuotes(NamedTuple):
    """Quotes in any order; each column (n,)."""

    expiry: Vector
    """Years > 0."""
    log_moneyness: Vector
    vol: Vector
    """> 0."""
    name: tuple[str, ...]
    """As people call them: `25P`, or the strike."""
    place: tuple[int, ...]
    """Position in the request: of the quote, or of its expiry."""


class Misfit(NamedTuple):
    expiry: float
    name: str
    log_moneyness: float
    quoted_vol: float
    fitted_vol: float
    error_bp: float
    """Fitted less quoted, in basis points of vol."""


class CalendarArbitrage(NamedTuple):
    """Total variance that is lower at a later expiry."""

    sooner: float
    later: float
    log_moneyness: float
    size_bp: float
    """By how much vol the later quote is too low, in basis points, times its vega over that at the money."""
    share: float
    """Of the strikes compared, those where it is beyond the limit."""

    def __str__(self) -> str:
        return (
            f"from {self.sooner:g} to {self.later:g} years total variance falls at log-moneyness "
            f"{self.log_moneyness:.3g}: the later vol is {self.size_bp:.3g} bp too low"
        )


@dataclass(frozen=True, kw_only=True)
class FittedSurface:
    """A surface and how it was made."""

    surface: Essvi | AndreasenHuge
    method: Literal["essvi", "andreasen_huge"]
    misfits: tuple[Misfit, ...]
    """By expiry and strike."""
    warnings: tuple[Caution, ...]

    @property
    def rmse_bp(self) -> float:
        return float(np.sqrt(np.mean([each.error_bp**2 for each in self.misfits])))

    @property
    def max_abs_bp(self) -> float:
        return max(abs(each.error_bp) for each in self.misfits)


def fit_surface(
    market: Market,
    quotes: SurfaceQuotes,
    *,
    maturity: float | None = None,
    options: FitOptions = DEFAULT,
    path: Path = (),
) -> FittedSurface:
    """The surface of the quotes, to the first expiry that is not before `maturity`, years, or to the last.

    path    where the quotes' expiries stand in the request
    raises  InvalidInput if no surface without arbitrage has the quotes, or none of them reaches `maturity`
    """
    expiries = np.unique(quotes.expiry)
    if maturity is not None and expiries[-1] < maturity * (1.0 - 1e-9):
        needed = f"must reach the maturity of {maturity:g} years, but ends at {expiries[-1]:g}."
        raise InvalidInput(Problem.at((*path, "expiry"), needed))
    last = expiries[-1] if maturity is None else expiries[np.searchsorted(expiries, maturity * (1.0 - 1e-9))]
    slices = [_slice(quotes, t) for t in expiries.tolist()]
    warnings = _calendar_cautions(slices, quotes, last, options, path)
    slices = [each for each in slices if each.expiry <= last]
    left_out: list[int] = []
    room = [int(options.outlier_share * each.vol.size) for each in slices]
    while True:
        surface, method, misfit = _nearest(market, slices, options)
        outliers = []
        for i, each in enumerate(slices):
            off = 1e4 * np.sqrt(each.weight) * np.abs(_errors(surface, each))
            out = _peaks(off, options.misfit_limit_bp)
            room[i] -= out.size
            if room[i] < 0:
                worst = int(np.argmax(off))
                needed = f"must be of quotes that some surface without arbitrage has: at {each.expiry:g} years and "
                needed += f"log-moneyness {each.log_moneyness[worst]:.3g} the nearest one found misses a vol by "
                needed += f"{off[worst]:.3g} bp, weighed by vega."
                raise InvalidInput(Problem.at((*path, "expiry", _place(quotes, each.expiry)), needed))
            outliers.append(out)
        if not any(out.size for out in outliers):
            break
        left_out += [quotes.place[j] for each, out in zip(slices, outliers, strict=True) for j in each.row[out]]
        slices = [each.without(out) for each, out in zip(slices, outliers, strict=True)]
    if method == "andreasen_huge":
        detail = f"eSSVI slices miss a quote by {misfit:.3g} bp of vol, more than {options.essvi_limit_bp:g}: the "
        warnings.append(
            Caution("essvi_misfit", f"{detail}surface is that of a diffusion fitted to the quotes instead.")
        )
    if left_out:
        detail = (
            f"{len(left_out)} quotes are further than {options.misfit_limit_bp:g} bp of vol from a surface through "
        )
        detail += "the others, and are left out."
        warnings.append(Caution("quotes_left_out", detail, tuple(sorted(left_out))))
    misfits = _misfits(surface, quotes, [each.row for each in slices])
    return FittedSurface(surface=surface, method=method, misfits=misfits, warnings=tuple(warnings))


def _nearest(
    market: Market, slices: Sequence[Slice], options: FitOptions
) -> tuple[Essvi | AndreasenHuge, Literal["essvi", "andreasen_huge"], float]:
    """The surface, its kind, and what the eSSVI one misses a quote by, in basis points weighed by vega."""
    smooth = fit_essvi(market, slices)
    worst = max(float(np.max(1e4 * np.sqrt(each.weight) * np.abs(_errors(smooth, each)))) for each in slices)
    if worst <= options.essvi_limit_bp:
        return smooth, "essvi", worst
    return fit_andreasen_huge(market, _completed(slices, smooth)), "andreasen_huge", worst


def _peaks(off: Vector, limit: float) -> IntVector:
    """Where the misfit is beyond the limit and no less than that of the neighbours, which the quote may have spoilt."""
    around = np.concatenate(([0.0], off, [0.0]))
    return np.flatnonzero((off > limit) & (off >= around[:-2]) & (off >= around[2:]))


def _errors(surface: Essvi | AndreasenHuge, each: Slice) -> Vector:
    return implied_vol(surface, each.log_moneyness, each.expiry) - each.vol


def _place(quotes: SurfaceQuotes, expiry: float) -> int:
    return quotes.place[int(np.flatnonzero(quotes.expiry == expiry)[0])]


def _calendar_cautions(
    slices: Sequence[Slice], quotes: SurfaceQuotes, last: float, options: FitOptions, path: Path
) -> list[Caution]:
    """raises  InvalidInput for calendar arbitrage beyond the limit among the expiries used"""
    cautions = []
    for each in _calendar(slices, options.calendar_limit_bp):
        place = _place(quotes, each.later)
        if each.later > last:
            detail = f"Calendar arbitrage in the quotes beyond those used: {each}."
        elif each.size_bp > options.calendar_limit_bp and each.share >= options.outlier_share:
            needed = f"must not carry calendar arbitrage, but {each}. Up to {each.sooner:g} years it can be used."
            raise InvalidInput(Problem.at((*path, "expiry", place), needed))
        else:
            detail = f"Calendar arbitrage in the quotes, evened out: {each}."
        cautions.append(Caution("calendar_arbitrage", detail, (place,)))
    return cautions


def _slice(quotes: SurfaceQuotes, expiry: float) -> Slice:
    here = np.flatnonzero(quotes.expiry == expiry)
    here = here[np.argsort(quotes.log_moneyness[here], kind="stable")]
    k, vol = quotes.log_moneyness[here], quotes.vol[here]
    at_the_money = float(np.interp(0.0, k, vol))
    share = vega(k, expiry, vol) / float(vega(0.0, expiry, at_the_money))
    return Slice(expiry, k, vol, np.minimum(share / _FULL_WEIGHT, 1.0) ** 2, here)


def _misfits(surface: Essvi | AndreasenHuge, quotes: SurfaceQuotes, rows: Sequence[IntVector]) -> tuple[Misfit, ...]:
    used = np.concatenate(rows)
    expiry, k, quoted = quotes.expiry[used], quotes.log_moneyness[used], quotes.vol[used]
    fitted = implied_vol(surface, k, expiry)
    columns = (expiry, k, quoted, fitted, 1e4 * (fitted - quoted))
    numbers = zip(*(column.tolist() for column in columns), strict=True)
    return tuple(
        Misfit(t, quotes.name[j], x, vol, of_surface, error)
        for j, (t, x, vol, of_surface, error) in zip(used.tolist(), numbers, strict=True)
    )


def _calendar(slices: Sequence[Slice], limit_bp: float) -> list[CalendarArbitrage]:
    """The largest fall of total variance between neighbouring expiries, at the strikes that both have quotes about."""
    found = []
    for sooner, later in itertools.pairwise(slices):
        near = _NEAR * float(np.median(sooner.vol)) * np.sqrt(sooner.expiry)
        low = max(sooner.log_moneyness[0], later.log_moneyness[0]) - near
        high = min(sooner.log_moneyness[-1], later.log_moneyness[-1]) + near
        k = np.concatenate((sooner.log_moneyness, later.log_moneyness))
        k = k[(k >= low) & (k <= high)]
        if not k.size:
            continue
        before, after = _interpolated(sooner, k), _interpolated(later, k)
        needed = before * np.sqrt(sooner.expiry / later.expiry)
        size = 1e4 * (needed - after) * vega(k, later.expiry, after) / float(vega(0.0, later.expiry, np.median(after)))
        j = int(np.argmax(size))
        if size[j] > 1e-6:
            found.append(
                CalendarArbitrage(
                    sooner.expiry, later.expiry, float(k[j]), float(size[j]), float(np.mean(size > limit_bp))
                )
            )
    return found


def _interpolated(each: Slice, k: Vector) -> Vector:
    """Vols between the quotes, and flat beyond them."""
    places, first = np.unique(each.log_moneyness, return_index=True)
    inside = np.clip(k, places[0], places[-1])
    if places.size <= _SAME_SMILE:
        return Smile.through(each.expiry, places, each.vol[first]).vol(inside)
    # A stale quote among many is no calendar arbitrage.
    return np.interp(inside, places, median_filter(each.vol[first], 5, mode="nearest"))


def _completed(slices: Sequence[Slice], shape: Essvi) -> list[Slice]:
    """Expiries of one or two strikes with a smile about them of the slices fitted to all."""
    completed = []
    for each in slices:
        if np.unique(each.log_moneyness).size < 3:
            k = _BESIDE * float(np.mean(each.vol)) * np.sqrt(each.expiry)
            k = k[(k < each.log_moneyness[0]) | (k > each.log_moneyness[-1])]
            lift = float(np.mean(each.vol - implied_vol(shape, each.log_moneyness, each.expiry)))
            places = np.concatenate((each.log_moneyness, k))
            order = np.argsort(places)
            vol = np.concatenate((each.vol, implied_vol(shape, k, each.expiry) + lift))
            weight = np.concatenate((each.weight, np.full(k.size, _BORROWED)))
            row = np.concatenate((each.row, np.full(k.size, -1)))
            each = Slice(each.expiry, places[order], vol[order], weight[order], row[order])
        completed.append(each)
    return completed
