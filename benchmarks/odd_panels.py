"""Panels that no Heston surface fits, and on which searches are known to end in the wrong place.

Five kinds, as they were met in real data and by adversarial search: a smile of each expiry's own making, an overnight
tenor beside long ones, one quote at a multiple of its vol, slices of a smooth surface of another shape (SVI), and
Heston surfaces from all over the admissible parameters with a little noise. Every panel is a function of the seed
alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Vector
from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.panel import OptionPanel, identifiable
from training.exact_panels import model_vols

_TENORS = np.array([7, 14, 30, 61, 91, 182, 274, 365, 730, 1095, 1825]) / 365.0
_LOWER = np.array([0.1, 0.002, 0.05, -0.95, 0.002])
_UPPER = np.array([40.0, 0.4, 4.0, 0.7, 0.4])


class OddPanel(NamedTuple):
    kind: str
    panel: OptionPanel


def odd_panels(n: int, seed: int) -> Iterator[OddPanel]:
    """n panels, the kinds in turn."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < n:
        kind, make = _KINDS[made % len(_KINDS)]
        expiry, k, iv = make(rng)
        sound = np.isfinite(iv) & (iv > 0.01) & (iv < 4.9)
        if sound.sum() < 10:
            continue
        try:
            panel = identifiable(OptionPanel.from_quotes(expiry=expiry[sound], log_moneyness=k[sound], iv=iv[sound]))
        except InvalidInput:
            continue
        if panel.n_quotes < 10:
            continue
        made += 1
        yield OddPanel(kind, panel)


def _expiries(rng: np.random.Generator, least: int = 2, most: int = 3) -> Vector:
    return np.sort(rng.choice(_TENORS, int(rng.integers(least, most + 1)), replace=False))


def _strikes(
    rng: np.random.Generator, expiry: Vector, level: Vector, n_strikes: int | None = None
) -> tuple[Vector, Vector, Vector]:
    """Expiry, log-moneyness and their standard deviations, each (n_quotes,)."""
    n = int(rng.integers(5, 10)) if n_strikes is None else n_strikes
    low, high = rng.uniform(-2.5, -0.8), rng.uniform(0.7, 2.0)
    z = np.tile(np.linspace(low, high, n), expiry.size)
    sd = np.repeat(level * np.sqrt(expiry), n)
    return np.repeat(expiry, n), z * sd, z


def _own_smiles(rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    expiry = _expiries(rng)
    level = np.exp(rng.uniform(np.log(0.05), np.log(0.5))) * np.exp(rng.normal(0.0, 0.25, expiry.size))
    t, k, z = _strikes(rng, expiry, level)
    n = t.size // expiry.size
    slope = np.repeat(rng.normal(-0.05, 0.08, expiry.size), n)
    bend = np.repeat(np.abs(rng.normal(0.02, 0.03, expiry.size)) * rng.choice([1.0, 1.0, -0.2]), n)
    return t, k, np.repeat(level, n) * (1.0 + slope * z + bend * z * z)


def _overnight(rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    expiry = np.concatenate(([1.0 / 365.0], _expiries(rng, 2, 5)))
    level = np.exp(rng.uniform(np.log(0.05), np.log(0.25))) * np.exp(np.cumsum(rng.normal(0.0, 0.12, expiry.size)))
    level[0] *= np.exp(rng.normal(0.1, 0.4))
    t, k, z = _strikes(rng, expiry, level)
    n = t.size // expiry.size
    slope = np.repeat(rng.normal(0.0, 0.05, expiry.size), n)
    bend = np.repeat(np.abs(rng.normal(0.02, 0.02, expiry.size)), n)
    return t, k, np.repeat(level, n) * (1.0 + slope * z + bend * z * z)


def _draw(rng: np.random.Generator) -> Vector:
    share = rng.random(5)
    positive = _LOWER > 0.0
    low, high = np.where(positive, _LOWER, 1.0), np.where(positive, _UPPER, 2.0)
    drawn: Vector = np.where(positive, low * (high / low) ** share, _LOWER + share * (_UPPER - _LOWER))
    return drawn


def _heston(rng: np.random.Generator, noise: float) -> tuple[Vector, Vector, Vector]:
    expiry, params = _expiries(rng, 2, 4), _draw(rng)
    level = np.sqrt([HESTON.expected_variance(float(years), params) / years for years in expiry])
    t, k, _ = _strikes(rng, expiry, level)
    vol = model_vols(HESTON, k, t, params)
    return t, k, vol * (1.0 + noise * rng.normal(size=t.size))


def _outlier(rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    t, k, vol = _heston(rng, 0.003)
    vol = vol.copy()
    vol[rng.integers(vol.size)] *= rng.choice([0.5, 1.5, 2.0, 4.0])
    return t, k, vol


def _noisy(rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    return _heston(rng, float(rng.choice([0.0, 0.001, 0.02])))


def _svi(rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    return svi_quotes(rng, _expiries(rng, 3, 6))


def svi_quotes(rng: np.random.Generator, expiry: Vector, n_strikes: int | None = None) -> tuple[Vector, Vector, Vector]:
    """Expiry, log-moneyness and vol of the quotes of a smooth surface that is not Heston's, (n_quotes,) each.

    n_strikes  of each expiry; None draws it
    """
    level = np.exp(rng.uniform(np.log(0.1), np.log(0.6))) * np.exp(np.cumsum(rng.normal(0.0, 0.08, expiry.size)))
    t, k, _ = _strikes(rng, expiry, level, n_strikes)
    variance = np.repeat(level * level * expiry, t.size // expiry.size)
    rho, eta, gamma = rng.uniform(-0.9, 0.2), rng.uniform(0.4, 1.6), rng.uniform(0.2, 0.6)
    phi = eta * variance**-gamma
    total = 0.5 * variance * (1.0 + rho * phi * k + np.sqrt((phi * k + rho) ** 2 + 1.0 - rho * rho))
    return t, k, np.sqrt(total / t)


_KINDS = (
    ("own smiles", _own_smiles),
    ("overnight", _overnight),
    ("outlier", _outlier),
    ("svi", _svi),
    ("heston", _noisy),
)
