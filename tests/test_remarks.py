"""What is said of a fit: the quotes it names, and the sentences of its message."""

from itertools import combinations

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import Vector
from calibrant.calibration import Calibration, calibrate
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions, Prior, Start
from calibrant.panel import OptionPanel, identifiable
from tests.exact_vols import exact_vols

NAMES = HESTON.parameters
TRUTH = np.array([2.0, 0.09, 0.6, -0.6, 0.05])
EXPIRIES = np.array([14, 30, 61, 91, 182, 365, 730]) / 365.0


def _named(fit: Calibration) -> tuple[int, ...]:
    """The quotes suspected, by their place in the request."""
    found = [caution.indices for caution in fit.cautions if caution.code == "stale_quotes_suspected"]
    return found[0] if found else ()


def _grid(generator: np.random.Generator) -> tuple[Vector, Vector]:
    """Log-moneyness and expiry of three to six expiries of seven to twelve strikes each."""
    expiries = np.sort(generator.choice(EXPIRIES, generator.integers(3, 7), replace=False))
    sd = np.linspace(-generator.uniform(1.0, 2.0), generator.uniform(0.8, 1.5), generator.integers(7, 13))
    return np.concatenate([0.3 * np.sqrt(t) * sd for t in expiries]), np.repeat(expiries, sd.size)


def _heston(generator: np.random.Generator, k: Vector, t: Vector) -> Vector:
    params = paper_box.LOWER + (paper_box.UPPER - paper_box.LOWER) * generator.random(5)
    return exact_vols(k, t, params)


def _svi(generator: np.random.Generator, k: Vector, t: Vector) -> Vector:
    """A smooth surface that Heston misses: Gatheral & Jacquier's (2014) SSVI with a power law."""
    variance = generator.uniform(0.15, 0.45) ** 2 * t ** generator.uniform(0.8, 1.1)
    rho, eta, gamma = generator.uniform(-0.8, 0.1), generator.uniform(0.4, 1.2), generator.uniform(0.3, 0.5)
    phi = eta * variance**-gamma
    return np.sqrt(0.5 * variance * (1.0 + rho * phi * k + np.sqrt((phi * k + rho) ** 2 + 1.0 - rho**2)) / t)


SURFACES = {"heston": _heston, "svi": _svi}


def _noisy(kind: str, seed: int) -> tuple[Vector, Vector, Vector]:
    """Log-moneyness, expiry and vols with noise of up to 0.5 % of them, of quotes that are all used."""
    generator = np.random.default_rng([151, seed])
    k, t = _grid(generator)
    vols = SURFACES[kind](generator, k, t)
    vols = vols * (1.0 + generator.uniform(0.0, 0.005) * generator.standard_normal(k.size))
    sound = np.isfinite(vols)
    kept = identifiable(OptionPanel.from_quotes(expiry=t[sound], log_moneyness=k[sound], iv=vols[sound]))
    return kept.log_moneyness, kept.expiry, kept.mid


def _calibrated(k: Vector, t: Vector, vols: Vector) -> Calibration:
    return calibrate(OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=vols), HESTON, [])


@pytest.mark.parametrize("kind", SURFACES)
def test_a_quote_at_a_multiple_of_its_vol_is_named_and_no_other(kind: str) -> None:
    unnamed, others = [], []
    for seed in range(150):
        k, t, vols = _noisy(kind, seed)
        generator = np.random.default_rng([152, seed])
        which = int(generator.integers(k.size))
        factor = float(generator.choice([0.5, 2.0, 4.0]))
        vols[which] *= factor
        fit = _calibrated(k, t, vols)
        # At half its vol a wing may have too little vega to be used at all.
        if which in fit.panel.index and which not in _named(fit):
            unnamed.append((seed, which, factor))
        if set(_named(fit)) - {which}:
            others.append((seed, which, factor, _named(fit)))
    assert others == []
    # The last strike of the shortest smile can drag the fit so far that nothing looks odd any more.
    assert len(unnamed) <= 4


@pytest.mark.parametrize("kind", SURFACES)
def test_no_quote_of_a_sound_noisy_panel_is_named(kind: str) -> None:
    named = {seed: indices for seed in range(150) if (indices := _named(_calibrated(*_noisy(kind, seed))))}
    assert named == {}


HOLDABLE = [names for n in range(6) for names in combinations(NAMES, n)]


@pytest.mark.parametrize("n_expiries", [1, 2])
@pytest.mark.parametrize("with_prior", [False, True])
@pytest.mark.parametrize("noise_bp", [0.0, 200.0])
def test_a_message_never_advises_what_the_request_already_does(
    n_expiries: int, with_prior: bool, noise_bp: float
) -> None:
    generator = np.random.default_rng(153)
    prior = Prior(parameters=TRUTH, standard_deviations=0.5 * np.abs(TRUTH)) if with_prior else None
    for held in HOLDABLE:
        for n_quotes in (max(5 - len(held), 1), max(6 - len(held), 1), 14):
            t = np.repeat(np.array([0.25, 1.0])[:n_expiries], -(-n_quotes // n_expiries))[:n_quotes]
            k = np.tile(np.linspace(-0.2, 0.2, -(-n_quotes // n_expiries)), n_expiries)[:n_quotes]
            vols = exact_vols(k, t, TRUTH) + 1e-4 * noise_bp * generator.uniform(-1.0, 1.0, n_quotes)
            panel = OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=vols)
            fixed = {name: float(TRUTH[NAMES.index(name)]) for name in held}
            options = CalibrationOptions(fixed=fixed, prior=prior)
            message = calibrate(panel, HESTON, [Start("network", TRUTH)], options).message or ""
            if held:
                assert "`fixed`" not in message, (held, n_quotes, message)
            if with_prior:
                assert "`prior`" not in message, (held, n_quotes, message)
            if held or with_prior:
                assert "kappa and theta apart" not in message or not ({"kappa", "theta", "v0"} & set(held))
