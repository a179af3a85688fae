"""Vols of a panel that states them: its forwards, and whether columns or units look mistaken."""

import math
from itertools import pairwise

import numpy as np

from ..caution import Caution
from ..errors import InvalidInput, Problem
from ..panel import OptionPanel
from .built import Built
from .quotes import Quotes
from .settings import Settings, question

_FIELDS = ("strike", "forward", "log_moneyness", "iv", "bid_iv", "ask_iv", "weight")
_WEEK = 7.0
_NARROW = 0.25
"""Half the range of the strikes in standard deviations: of listed chains it is 0.5 at least, and 0.05 where days are
taken for years."""
_FAR = math.log(5.0)
"""Log-moneyness of a median quote beyond which strike and forward are of two units: panels are quoted around it."""


def panel_of_vols(quotes: Quotes, settings: Settings) -> Built:
    """The panel of quoted vols.

    raises  InvalidInput, as a question where the forward must be known, or where strikes and forwards look exchanged
            or expiries like days
    """
    columns = {"expiry": quotes.expiry, **{name: quotes.values[name] for name in _FIELDS if name in quotes.values}}
    cautions = list(quotes.cautions)
    if "log_moneyness" in columns:
        columns.pop("forward", None)
        columns.pop("strike", None)
    elif "forward" not in columns:
        columns["forward"] = _carried(quotes, settings, cautions)
    if not (np.isfinite(quotes.value("bid_iv")) & np.isfinite(quotes.value("ask_iv"))).any():
        for name in ("bid_iv", "ask_iv"):
            if name in columns and "iv" in columns:
                del columns[name]
    built = Built(
        label=quotes.label,
        underlying=quotes.underlying,
        as_of=quotes.as_of,
        columns=columns,
        index=quotes.index,
        excluded=quotes.excluded,
        cautions=cautions,
    )
    try:
        panel = built.panel()
    except InvalidInput as error:
        raise InvalidInput(*(_in_file(problem, quotes) for problem in error.problems)) from None
    _require_sense(panel, quotes, settings)
    return built


def _carried(
    quotes: Quotes, settings: Settings, cautions: list[Caution]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Forwards from the spot, the rate and the dividends."""
    if not quotes.has("rate"):
        needed = (
            "must be given (continuously compounded), or a forward in a column or by `forward`, since the quotes state "
            "the spot alone"
        )
        raise question("rate", f"{needed}.")
    q = quotes.value("dividend_yield")
    if not quotes.has("dividend_yield"):
        detail = "Forwards are the spot carried at the rate, without dividends: `dividend_yield` says otherwise."
        cautions.append(Caution("dividend_yield_assumed_zero", detail))
        q = np.zeros(q.size)
    forward = quotes.value("spot") * np.exp((quotes.value("rate") - q) * quotes.expiry)
    return np.where(np.isfinite(quotes.expiry), forward, quotes.value("spot"))


def _require_sense(panel: OptionPanel, quotes: Quotes, settings: Settings) -> None:
    """raises  InvalidInput, as a question, for what is a warning to programs that state columns and units themselves"""
    codes = {caution.code: caution.detail for caution in panel.cautions}
    mapped = settings.columns or {}
    exchanged = codes.get("strike_and_forward_look_exchanged")
    if exchanged and not {"strike", "forward"} <= set(mapped):
        needed = (
            "must say which column is which (strike=forward,forward=strike to exchange them, "
            "strike=strike,forward=forward to keep them)"
        )
        raise question("columns", f"{needed}: {exchanged}")
    if settings.expiry_unit is None and _whole_and_narrow(panel):
        shown = ", ".join(f"{expiry:g}" for expiry in panel.expiries[:5])
        needed = f"must be years or days: the expiries ({shown}) are whole numbers, too long for strikes so near"
        raise question("expiry_unit", f"{needed} to the forward.")
    if "expiries_look_like_days" in codes and settings.expiry_unit is None:
        raise question("expiry_unit", f"must be years or days: {codes['expiries_look_like_days']}")
    doubt = next(
        (c for c in panel.cautions if c.code == "vols_look_like_percent" and not c.detail.startswith("The columns")),
        None,
    )
    if doubt is not None and settings.vol_unit is None:
        raise question("vol_unit", f"must be decimal or percent: {doubt.detail}")
    middle = float(np.median(panel.log_moneyness))
    if abs(middle) > _FAR and settings.strike_unit is None and panel.forward is not None:
        ratio = math.exp(middle)
        needed = (
            "must be given (0.01 for cents, 1 for the unit of the forward), since strikes are about "
            f"{ratio:.3g} times the forward"
        )
        raise question("strike_unit", f"{needed}.")


def _whole_and_narrow(panel: OptionPanel) -> bool:
    """Whether expiries are whole numbers of a week, and strikes within a quarter of their standard deviations."""
    expiry = panel.expiries
    if not ((expiry == np.round(expiry)).all() and expiry[-1] <= _WEEK):
        return False
    smiles = [slice(a, b) for a, b in pairwise(panel.offsets.tolist()) if b - a > 2]
    ranges = [
        float(np.ptp(panel.log_moneyness[s]) / np.median(panel.mid[s]) / math.sqrt(panel.expiry[s.start]))
        for s in smiles
    ]
    return bool(ranges) and float(np.median(ranges)) < 2.0 * _NARROW


def _in_file(problem: Problem, quotes: Quotes) -> Problem:
    """A problem of a panel, said in terms of the file."""
    needed = problem.detail.split("` ", 1)[1]
    if len(problem.path) == 2 and isinstance(problem.path[1], int):
        return quotes.problem(problem.path[1], str(problem.path[0]), needed)
    return Problem((quotes.source, quotes.label), f"Panel {quotes.label} of {quotes.source} {needed}")
