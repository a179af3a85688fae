"""Static arbitrage: in quotes, on fitted surfaces, on any grid of prices; and the paper's penalties, named as such."""

from .price_surface import check_price_surface
from .quotes import check_quotes
from .surface import check_sampled_surface, check_surface, check_surface_steps
from .violations import KINDS, Kind, Verdict, Violation, surface_caution

__all__ = [
    "KINDS",
    "Kind",
    "Verdict",
    "Violation",
    "check_price_surface",
    "check_quotes",
    "check_sampled_surface",
    "check_surface",
    "check_surface_steps",
    "surface_caution",
]
