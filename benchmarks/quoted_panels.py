"""Panels as they are quoted to the service: the paper's grid of 80 quotes, exact vols with a little noise."""

import json
from typing import Any, NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.models import HESTON
from calibrant.panel import OptionPanel
from reporting.machine import CACHE
from training.domain import DOMAINS
from training.exact_panels import grid_quotes, model_vols
from training.panels import panel_parameters

SEED, NOISE_SEED = 41, 42
"""The training, validation and held-out panels have seeds 1, 2 and 3, the recovery's 11 to 13."""
NOISE_BP = 0.5
"""On every mid, as the paper has it."""
DOMAIN = DOMAINS["paper"]


class QuotedPanels(NamedTuple):
    expiry: Vector
    """(80,), years."""
    log_moneyness: Vector
    """(80,)."""
    iv: Matrix
    """(n_panels, 80)."""

    def quotes(self, i: int) -> dict[str, list[float]]:
        return {
            "expiry": self.expiry.tolist(),
            "log_moneyness": self.log_moneyness.tolist(),
            "iv": self.iv[i % len(self.iv)].tolist(),
        }

    def request(self, i: int, **options: Any) -> dict[str, Any]:
        return {"model": HESTON.name, "quotes": self.quotes(i), **options}

    def bodies(self, **options: Any) -> list[bytes]:
        """A request in JSON for each panel."""
        return [json.dumps(self.request(i, **options)).encode() for i in range(len(self.iv))]

    def panels(self) -> list[OptionPanel]:
        return [
            OptionPanel.from_quotes(expiry=self.expiry, log_moneyness=self.log_moneyness, iv=row) for row in self.iv
        ]


def quoted_panels(n: int, noise_bp: float = NOISE_BP) -> QuotedPanels:
    """Parameters uniform in the paper's box, vols of the accurate pricer, Gaussian noise."""
    expiry, log_moneyness = grid_quotes(DOMAIN)
    kept = CACHE / f"quoted_panels_{SEED}_{n}.npy"
    if kept.exists():
        vols = np.load(kept)
    else:
        params = panel_parameters(DOMAIN, SEED, 0, n)
        vols = np.stack([model_vols(HESTON, log_moneyness, expiry, row) for row in params])
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, vols)
    noise = np.random.default_rng(NOISE_SEED).standard_normal(vols.shape)
    return QuotedPanels(expiry, log_moneyness, vols + 1e-4 * noise_bp * noise)
