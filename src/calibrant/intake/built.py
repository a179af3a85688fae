"""What comes of a chain: the columns of a panel, and how they were made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..arrays import IntVector, Vector
from ..caution import Caution
from ..panel import Exclusion, OptionPanel

ForwardFrom = Literal["parity", "given", "spot"]


class EarlyExercise(NamedTuple):
    """What it was worth to be able to exercise early: by how much vols, and the forward, would be wrong without it."""

    median_bp: float
    """Of vol, over the quotes used."""
    max_bp: float
    forward_bp: float
    """Forward by parity of the American prices as they are, less the one found, in basis points of it."""
    dividend_yield: float
    """That the forward implies."""

    def document(self) -> dict[str, Any]:
        return self._asdict()


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """Forward and discount of one expiry, and where they are from."""

    expiration: str
    """The day as found, or the years."""
    expiry: float
    """Years."""
    forward: float
    forward_from: ForwardFrom
    forward_error: float | None = None
    """Standard error of the forward by parity; None where it is not by parity, or of too few pairs."""
    discount: float | None = None
    """None where nothing was to be discounted."""
    discount_error: float | None = None
    """The same of the discount."""
    n_pairs: int = 0
    """Of a call and a put that agree on the forward."""
    n_pairs_rejected: int = 0
    n_quotes: int = 0
    """Used."""
    early_exercise: EarlyExercise | None = None

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: getattr(self, name) for name in _EXPIRY_FIELDS}
        if self.early_exercise is not None:
            found["early_exercise"] = self.early_exercise.document()
        return found


_EXPIRY_FIELDS = (
    *("expiration", "expiry", "forward", "forward_error", "forward_from", "discount", "discount_error"),
    *("n_pairs", "n_pairs_rejected", "n_quotes"),
)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A panel made from quotes as they were found."""

    label: str
    underlying: str | None
    as_of: str | None
    columns: dict[str, Vector]
    """As `OptionPanel.from_quotes` takes them."""
    index: IntVector
    """(n_quotes,) Position of each among the quotes found."""
    expiries: Sequence[Expiry] = ()
    """Empty where the file stated forwards and vols."""
    excluded: Sequence[Exclusion] = ()
    """The quotes left out on the way, by their position among the quotes found."""
    cautions: Sequence[Caution] = ()
    exercise: str | None = None
    """Where prices were inverted."""

    def panel(self) -> OptionPanel:
        """raises  InvalidInput as `OptionPanel.from_quotes`"""
        panel = OptionPanel.from_quotes(**self.columns, path=())
        if self.excluded or not np.array_equal(self.index, np.arange(self.index.size)):
            panel = panel.renumbered(self.index, self.excluded)
        if self.cautions:
            object.__setattr__(panel, "cautions", (*self.cautions, *panel.cautions))
        return panel

    def used(self) -> dict[str, Vector]:
        """The columns of the quotes that a panel can use, and no others."""
        used = np.isin(self.index, self.panel().index)
        return {name: column[used] for name, column in self.columns.items()}

    def document(self) -> dict[str, Any]:
        """The answer of `POST /v1/panel`."""
        panel = self.panel()
        used = np.isin(self.index, panel.index)
        quotes = {name: _listed(column) for name, column in self.used().items()}
        document: dict[str, Any] = {}
        if self.underlying is not None:
            document["id"] = self.underlying
        if self.as_of is not None:
            document["as_of"] = self.as_of
        document["quotes"] = quotes
        document["index"] = self.index[used].tolist()
        if self.exercise is not None:
            document["exercise"] = self.exercise
        document["expiries"] = [expiry.document() for expiry in self.expiries]
        document["excluded"] = [{"index": int(x.index), "reason": x.reason} for x in panel.excluded]
        document["warnings"] = [caution.document() for caution in panel.cautions]
        return document


def _listed(column: Vector) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in column.tolist()]
