"""The dates that particles and paths step through."""

from collections.abc import Iterable

import numpy as np

from ..arrays import Vector

_FIRST_DAYS = 0.25
_GROWTH = 0.2
_SAME = 1e-9
"""Years: two dates nearer than this are one."""


def time_grid(maturity: float, pillars: Iterable[float] = (), step_days: float = 5.0) -> Vector:
    """Dates from 0 to `maturity`, every pillar between among them, in steps of at most `step_days`.

    While the spot's law widens from a point, within the first month, the steps are short: a quarter of a day at first,
    and then a fifth of the time gone by.

    maturity, pillars  years
    returns            (n_steps + 1,) years, ascending
    """
    stops = [pillar for pillar in sorted({*pillars, maturity}) if _SAME < pillar < maturity + _SAME]
    largest = step_days / 365.0
    dates = [0.0]
    for stop in stops:
        while dates[-1] < stop - _SAME:
            now = dates[-1]
            step = min(largest, max(_FIRST_DAYS / 365.0, _GROWTH * now))
            n_left = np.ceil((stop - now) / step - 0.2)
            # The last two before a stop are alike, so that none is a sliver.
            dates.append(stop if n_left <= 1 else now + (0.5 * (stop - now) if n_left == 2 else step))
    return np.array(dates)
