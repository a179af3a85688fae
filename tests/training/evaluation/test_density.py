"""Probabilities of strike bins, and the distance of two densities."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import norm

from calibrant.black import call_price
from training.domain import PAPER
from training.evaluation.density import BIN, SMALLEST_MASS, STRIKES, bin_masses, chi_squared, masses
from training.panels import panel_parameters


def lognormal_masses(sd: float) -> NDArray[np.float64]:
    """The bins of a lognormal density of mean one, by integrating hats and tails over it."""
    price = np.exp(np.linspace(-12.0 * sd, 12.0 * sd, 40_001) - 0.5 * sd * sd)
    density = norm.pdf((np.log(price) + 0.5 * sd * sd) / sd) / (price * sd)
    hats = np.maximum(1.0 - np.abs(price - STRIKES[:, None]) / BIN, 0.0)
    hats[0, price < STRIKES[0]] = 1.0
    hats[-1, price > STRIKES[-1]] = 1.0
    return np.array([trapezoid(hat * density, price) for hat in hats])


def black_masses(sd: float) -> NDArray[np.float64]:
    return masses(call_price(np.log(STRIKES), 1.0, sd))


def test_the_bins_are_expectations_of_hats_and_of_the_two_tails() -> None:
    np.testing.assert_allclose(black_masses(0.15), lognormal_masses(0.15), rtol=0.0, atol=1e-6)


def test_the_bins_of_a_surface_are_probabilities() -> None:
    found = bin_masses(PAPER.model, panel_parameters(PAPER, 91, 0, 40), PAPER.grid()[1])
    assert found.shape == (40, 8, 41)
    np.testing.assert_allclose(found.sum(2), 1.0, rtol=0.0, atol=1e-12)
    assert found.min() > -1e-9


def test_equal_densities_are_at_no_distance() -> None:
    one = bin_masses(PAPER.model, panel_parameters(PAPER, 92, 0, 3), PAPER.grid()[1])
    assert np.abs(chi_squared(one, one)).max() == 0.0


def test_the_distance_of_two_lognormal_densities_is_that_of_their_integrals() -> None:
    p, q = lognormal_masses(0.21), lognormal_masses(0.20)
    expected = float(((p - q) ** 2 / q).sum())
    found = chi_squared(black_masses(0.21)[None, None], black_masses(0.20)[None, None])
    assert found.shape == (1, 1)
    assert float(found[0, 0]) == pytest.approx(expected, rel=1e-5)


def test_a_bin_without_density_counts_with_the_smallest_mass() -> None:
    exact, found = np.array([[[0.0, 1.0]]]), np.array([[[1e-4, 1.0 - 1e-4]]])
    assert float(chi_squared(found, exact)[0, 0]) == pytest.approx(1e-8 / SMALLEST_MASS + 1e-8)
