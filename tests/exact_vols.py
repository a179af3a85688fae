"""Panels for the tests of the fit: vols by the accurate pricer, never by the kernel that is tested."""

import numpy as np

from benchmarks import paper_box
from calibrant.arrays import Matrix, Vector
from calibrant.black import implied_volatility_from_time_value
from calibrant.models import HESTON
from calibrant.panel import OptionPanel
from calibrant.pricing.fourier import otm_values


def exact_vols(log_moneyness: Vector, expiry: Vector, params: Vector) -> Vector:
    """Heston vols, (n_quotes,)."""
    values = otm_values(HESTON, log_moneyness, expiry, params)
    return implied_volatility_from_time_value(values, log_moneyness, expiry).volatility


def exact_panel(params: Vector) -> OptionPanel:
    """A noiseless panel on the paper's grid."""
    vols = exact_vols(paper_box.LOG_MONEYNESS, paper_box.EXPIRY, params)
    return OptionPanel.from_quotes(expiry=paper_box.EXPIRY, log_moneyness=paper_box.LOG_MONEYNESS, iv=vols)


def noisy_panel(params: Vector, seed: int, noise_bp: float, weight: Vector | None = None) -> OptionPanel:
    """The same with Gaussian noise."""
    vols = exact_vols(paper_box.LOG_MONEYNESS, paper_box.EXPIRY, params)
    vols = vols + 1e-4 * noise_bp * np.random.default_rng(seed).standard_normal(vols.size)
    return OptionPanel.from_quotes(
        expiry=paper_box.EXPIRY, log_moneyness=paper_box.LOG_MONEYNESS, iv=vols, weight=weight
    )


def starts_nearby(truth: Matrix, seed: int, share: float = 0.1) -> Matrix:
    """Each parameter off by up to `share` of itself."""
    return truth * (1.0 + share * np.random.default_rng(seed).uniform(-1.0, 1.0, truth.shape))
