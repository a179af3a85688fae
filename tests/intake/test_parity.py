"""Forward and discount by parity: exact where quotes are, robust where some are not, with the errors that are made."""

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.black import call_price, put_price
from calibrant.intake.parity import by_parity


def chain(rng: np.random.Generator) -> tuple[Vector, Vector, Vector, float, float]:
    """Strikes, calls and puts to two digits, and the truth: forward and discount."""
    level, expiry = float(np.exp(rng.uniform(3.0, 9.0))), float(rng.uniform(0.02, 2.0))
    discount = float(np.exp(-rng.uniform(-0.01, 0.08) * expiry))
    vol = rng.uniform(0.1, 0.6)
    n = int(rng.integers(20, 120))
    k = np.linspace(-2.5, 2.5, n) * vol * np.sqrt(expiry)
    digits = 2 if level > 200.0 else 4
    price = discount * level
    calls, puts = price * call_price(k, expiry, vol), price * put_price(k, expiry, vol)
    return level * np.exp(k), np.round(calls, digits), np.round(puts, digits), level, discount


def test_the_forward_is_within_a_basis_point_with_one_quote_in_twenty_bad() -> None:
    rng = np.random.default_rng(1)
    worst = 0.0
    for _ in range(300):
        strike, calls, puts, level, discount = chain(rng)
        # Stale by a tenth of a per cent of the forward to ten of it, calls and puts, all to one side: the worst case.
        for prices in (calls, puts):
            bad = rng.random(strike.size) < 0.05
            prices[bad] += level * 10.0 ** rng.uniform(-3.0, -1.0, int(bad.sum())) * rng.choice([-1.0, 1.0])
        found = by_parity(strike, calls - puts, np.ones(strike.size), rounding=0.005)
        worst = max(worst, abs(found.forward / level - 1.0))
        assert abs(found.discount / discount - 1.0) < 5e-3
    assert worst < 1e-4


def test_a_third_of_the_pairs_may_lie_on_another_line() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        strike, calls, puts, level, discount = chain(rng)
        old = rng.random(strike.size) < 0.3
        difference = np.where(old, discount * (0.98 * level - strike), calls - puts)
        found = by_parity(strike, difference, np.ones(strike.size), rounding=0.005)
        assert abs(found.forward / level - 1.0) < 1e-4


def test_errors_stated_are_those_made() -> None:
    rng = np.random.default_rng(3)
    strike = np.linspace(80.0, 120.0, 40)
    noise = rng.uniform(0.02, 0.2, strike.size)
    z = []
    for _ in range(400):
        difference = 0.97 * (101.0 - strike) + noise * rng.standard_normal(strike.size)
        found = by_parity(strike, difference, noise)
        assert found.forward_error is not None
        assert found.discount_error is not None
        z.append([(found.forward - 101.0) / found.forward_error, (found.discount - 0.97) / found.discount_error])
    assert np.all(np.abs(np.mean(z, axis=0)) < 0.15)
    assert np.all(np.abs(np.std(z, axis=0) - 1.0) < 0.15)


@pytest.mark.parametrize("held", [{"discount": 0.97}, {"forward": 101.0}])
def test_what_is_given_is_held(held: dict[str, float]) -> None:
    strike = np.array([95.0, 100.0, 105.0])
    found = by_parity(strike, 0.97 * (101.0 - strike), np.ones(3), **held)
    assert found.forward == pytest.approx(101.0, rel=1e-14)
    assert found.discount == pytest.approx(0.97, rel=1e-14)
    assert (found.discount_error is None) == ("discount" in held)


def test_one_pair_tells_the_forward_of_a_discount_given_and_no_error() -> None:
    found = by_parity(np.array([100.0]), np.array([0.97]), np.ones(1), discount=0.97)
    assert found.forward == pytest.approx(101.0)
    assert found.forward_error is None
