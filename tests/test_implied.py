import numpy as np

from calibrant.black import time_value
from calibrant.pricing.implied import refresh_implied_sd


def test_vols_are_found_to_1e_12_from_guesses_near_and_far() -> None:
    generator = np.random.default_rng(1)
    n = 5000
    sd = np.exp(generator.uniform(np.log(0.01), np.log(2.0), n))
    k = generator.uniform(-5.0, 5.0, n) * sd
    value = np.asarray(time_value(k, sd))
    for distance in (1e-6, 0.03, 0.5, 3.0):
        guess = sd * np.exp(generator.uniform(-distance, distance, n))
        density = np.empty(n)
        refresh_implied_sd(k, value, guess, density)
        np.testing.assert_allclose(guess, sd, rtol=1e-11)
        expected = np.exp(-0.5 * (sd / 2.0 - k / sd) ** 2) / np.sqrt(2.0 * np.pi)
        np.testing.assert_allclose(density, expected, rtol=1e-9)


def test_a_price_at_its_upper_bound_gets_a_large_vol_and_no_nonsense() -> None:
    sd, density = np.array([0.2]), np.empty(1)
    refresh_implied_sd(np.array([0.1]), np.array([1.0]), sd, density)
    assert sd[0] >= 10.0
    assert np.isfinite(density[0])
