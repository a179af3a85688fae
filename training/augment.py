"""The paper's augmentation (section 4.4), on the fly on batches: spread, microstructure noise, masking."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BASIS_POINT = 1e-4


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """How quotes are disturbed, and what share of the panels is."""

    half_spread_bp: float = 15.0
    """Upper end of the uniform half spread of a quote."""
    noise_bp: float = 0.5
    """Standard deviation of the microstructure noise on a mid."""
    masked: float = 0.05
    """Probability that a quote is missing."""
    clean: float = 0.5
    """Share of panels left as they are."""
    cropped: float = 0.0
    """Share of panels that also lose whole outer expiries or strikes; not in the paper."""


class Quotes(NamedTuple):
    """A batch of quoted panels, (b, n_expiries, n_strikes) each, NaN where missing."""

    mid: Tensor
    bid: Tensor
    ask: Tensor


def quote(iv: Tensor, generator: torch.Generator, options: AugmentOptions) -> Quotes:
    """Every panel noisy and masked; a uniform half spread sets bid and ask around the noisy mid.

    iv  (b, n_expiries, n_strikes), exact
    """
    mid = iv + options.noise_bp * BASIS_POINT * torch.randn(iv.shape, generator=generator, dtype=iv.dtype)
    half = options.half_spread_bp * BASIS_POINT * torch.rand(iv.shape, generator=generator, dtype=iv.dtype)
    missing = torch.rand(iv.shape, generator=generator) < options.masked
    mid = mid.masked_fill(missing, torch.nan)
    return Quotes(mid, mid - half, mid + half)


def augment(iv: Tensor, generator: torch.Generator, options: AugmentOptions) -> Tensor:
    """A training batch: a share of the panels stays clean, the others are quoted, and some of those cropped.

    returns  mids (b, n_expiries, n_strikes), NaN where missing; at least half of the expiries and strikes stay
    """
    n, n_expiries, n_strikes = iv.shape
    kind = torch.rand(n, generator=generator)[:, None, None]
    mids = torch.where(kind < options.clean, iv, quote(iv, generator, options).mid)
    rows = _window(n, n_expiries, generator)[:, :, None]
    columns = _window(n, n_strikes, generator)[:, None, :]
    return mids.masked_fill((kind >= 1.0 - options.cropped) & ~(rows & columns), torch.nan)


def _window(n: int, size: int, generator: torch.Generator) -> Tensor:
    """(n, size) booleans: a random contiguous window of half to all of the places in each row."""
    length = torch.randint(size // 2, size + 1, (n, 1), generator=generator)
    start = (torch.rand(n, 1, generator=generator) * (size - length + 1)).floor()
    place = torch.arange(size)[None]
    return (place >= start) & (place < start + length)
