"""Units of vols and expiries where names do not tell them: the certain are converted, and said; the others asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Vector
from ..caution import Caution
from ..panel import LARGEST_VOL, LONGEST_EXPIRY
from ..quote_cautions import LONG_EXPIRY, YEAR
from .names import DAYS, YEARS, Column
from .numbers import is_missing
from .settings import Settings, question
from .table import Cell

_LARGEST_DAYS = 25_000.0
"""Beyond, a number of a column of expiries is a date: see `dates.moment_of`."""
_STRATEGIES = ("rr", "bf")
_SAME = 3.0
"""Factor within which columns of vols, of bids, mids and asks, have one unit."""


@dataclass(frozen=True, kw_only=True)
class Vols:
    """Columns of vols as decimals."""

    values: Mapping[str, Vector]
    cautions: Sequence[Caution] = ()


def decimal_vols(values: Mapping[str, Vector], stated: Mapping[str, bool], settings: Settings) -> Vols:
    """Vols as decimals, each column by itself: one may be in percent beside another that is not.

    values  columns of vols by field, (n,) each, NaN where there is none
    stated  whether the name of a column, or a percent sign in its cells, has said its unit already
    """
    scaled, percent = dict(values), []
    for name, column in values.items():
        known = column[np.isfinite(column) & (column > 0.0)]
        if stated[name] or not known.size or settings.vol_unit == "decimal":
            continue
        if name[:2] in _STRATEGIES:
            # Differences of vols: of the unit of the vols that they stand beside.
            continue
        # Beyond the largest vol that any quote may have, a median can only be percent.
        if settings.vol_unit == "percent" or float(np.median(known)) > LARGEST_VOL:
            scaled[name] = 0.01 * column
            if settings.vol_unit is None:
                percent.append(name)
    strategies = {name: column for name, column in values.items() if name[:2] in _STRATEGIES and not stated[name]}
    if strategies and (settings.vol_unit == "percent" or "atm" in percent):
        scaled.update({name: 0.01 * column for name, column in strategies.items()})
    scaled, more = _alike(scaled, settings)
    percent = sorted({*percent, *more})
    if not percent:
        return Vols(values=scaled)
    detail = (
        f"The columns of {', '.join(percent)} were taken as percent: their vols are above {LARGEST_VOL:g} as decimals."
    )
    return Vols(values=scaled, cautions=(Caution("vols_look_like_percent", detail),))


def _alike(scaled: dict[str, Vector], settings: Settings) -> tuple[dict[str, Vector], list[str]]:
    """Where one column is a hundred times another, the larger is percent: bid and ask of a quote are of one size."""
    medians = {
        name: float(np.median(column[column > 0.0]))
        for name, column in scaled.items()
        if (column > 0.0).any() and name[:2] not in _STRATEGIES
    }
    least = min(medians.values(), default=1.0)
    moved = [name for name, median in medians.items() if 100.0 / _SAME < median / least < 100.0 * _SAME]
    if settings.vol_unit is not None:
        return scaled, []
    return {name: 0.01 * column if name in moved else column for name, column in scaled.items()}, moved


def years_of(numbers: Vector, cells: Sequence[Cell], column: Column, source: str, settings: Settings) -> Vector:
    """Expiries that are plain numbers, as years.

    raises  InvalidInput, asking for `expiry_unit`, if they may be days
    """
    unit = settings.expiry_unit or ("days" if column.said in DAYS else None)
    if unit is not None:
        return numbers / 365.0 if unit == "days" else numbers
    known = numbers[np.isfinite(numbers) & (numbers > 0.0)]
    if not known.size:
        return numbers
    least, most = float(known.min()), float(known.max())
    whole = bool((known == np.round(known)).all())
    doubtful = most > LONGEST_EXPIRY or (least >= YEAR and most >= LONG_EXPIRY and (whole or column.said not in YEARS))
    if doubtful:
        shown = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        needed = f"must be years or days, since the expiries in `{column.name}` of {source} run from {shown}"
        raise question("expiry_unit", f"{needed} and look like days.")
    return numbers


def has_percent_signs(cells: Sequence[Cell]) -> bool:
    first = next((cell for cell in cells if not is_missing(cell)), None)
    return isinstance(first, str) and first.rstrip().endswith("%")
