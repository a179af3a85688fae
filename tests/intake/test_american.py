"""American prices against a binomial tree of 2,000 steps, which knows nothing of the engine used."""

import math

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.errors import InvalidInput
from calibrant.intake import read_quotes
from calibrant.intake.american import American, american_forward_steps
from calibrant.steps import finish
from tests.intake.chains import AS_OF, EXPIRATIONS, years

pytest.importorskip("QuantLib")
STEPS = 2000


def tree_values(spot: float, strike: float, side: int, rate: float, q: float, vol: float, expiry: float) -> float:
    """A Leisen-Reimer tree's value (1996), whose error is of second order in the steps; their number is odd."""
    n = STEPS + 1
    dt = expiry / n
    d1 = (math.log(spot / strike) + (rate - q + 0.5 * vol * vol) * expiry) / (vol * math.sqrt(expiry))

    def probability(z: float) -> float:
        inner = (z / (n + 1.0 / 3.0 + 0.1 / (n + 1.0))) ** 2 * (n + 1.0 / 6.0)
        return 0.5 + math.copysign(0.5 * math.sqrt(1.0 - math.exp(-inner)), z)

    p, p_up = probability(d1 - vol * math.sqrt(expiry)), probability(d1)
    grow = math.exp((rate - q) * dt)
    up, down = grow * p_up / p, grow * (1.0 - p_up) / (1.0 - p)
    discount = math.exp(-rate * dt)
    j = np.arange(n + 1)
    prices = spot * np.exp(j * math.log(up) + (n - j) * math.log(down))
    values = np.maximum(side * (prices - strike), 0.0)
    for step in range(n - 1, -1, -1):
        prices = prices[: step + 1] / down
        values = np.maximum(
            discount * (p * values[1 : step + 2] + (1.0 - p) * values[: step + 1]), side * (prices - strike)
        )
    return float(values[0])


def european(
    spot: float, strike: float, side: int, rate: float, q: float, vol: float, expiry: float
) -> tuple[float, float]:
    """Value and vega."""
    from calibrant.black import call_price, put_price, vega

    forward, discount = spot * math.exp((rate - q) * expiry), math.exp(-rate * expiry)
    k = math.log(strike / forward)
    price = (call_price if side > 0 else put_price)(k, expiry, vol)
    return float(discount * forward * price), float(discount * forward * vega(k, expiry, vol))


def test_vols_are_within_two_basis_points_of_a_tree() -> None:
    rng = np.random.default_rng(1)
    n, worst = 0, 0.0
    while n < 200:
        expiry, vol = float(np.exp(rng.uniform(np.log(0.03), np.log(2.0)))), float(rng.uniform(0.1, 0.8))
        rate, q = float(rng.uniform(0.0, 0.08)), float(rng.uniform(0.0, 0.08))
        strike = 100.0 * math.exp(rng.uniform(-1.5, 1.5) * vol * math.sqrt(expiry))
        side = int(rng.choice([-1, 1]))
        price = tree_values(100.0, strike, side, rate, q, vol, expiry)
        # Away from exercise: something moves with the vol, and something is worth more than exercising.
        _, vega = european(100.0, strike, side, rate, q, vol, expiry)
        if vega < 0.5 or price - max(side * (100.0 - strike), 0.0) < 0.001 * 100.0:
            continue
        found = American(100.0, rate, q, expiry).vol_steps(np.array([price]), np.array([strike]), np.array([side]))
        worst = max(worst, abs(finish(found)[0] - vol))
        n += 1
    assert worst < 2e-4


def american_prices(
    spot: float, rate: float, q: float, expiry: float, vol: float, strike: Vector
) -> tuple[Vector, Vector]:
    return tuple(  # type: ignore[return-value]
        np.array([tree_values(spot, k, side, rate, q, vol, expiry) for k in strike.tolist()]) for side in (1, -1)
    )


@pytest.mark.parametrize(("rate", "q"), [(0.05, 0.0), (0.05, 0.02), (0.01, 0.06)])
def test_the_forward_of_american_pairs_is_that_of_the_market_they_were_priced_in(rate: float, q: float) -> None:
    strike = np.linspace(80.0, 125.0, 10)
    calls, puts = american_prices(100.0, rate, q, 0.75, 0.3, strike)
    pairs = calls, puts, strike, np.ones(10)
    found = finish(american_forward_steps(*pairs, spot=100.0, rate=rate, expiry=0.75, start=None))
    assert found is not None
    assert found.settled
    assert found.parity.forward == pytest.approx(100.0 * math.exp((rate - q) * 0.75), rel=1e-4)


def american_file(folder: object, spot: float = 100.0, rate: float = 0.05, q: float = 0.02, vol: float = 0.35) -> str:
    strike = np.arange(70.0, 141.0, 10.0)
    lines = ["contractSymbol,bid,ask"]
    for expiration in EXPIRATIONS[1:2]:
        calls, puts = american_prices(spot, rate, q, years(expiration), vol, strike)
        for side, prices in (("C", calls), ("P", puts)):
            for k, price in zip(strike.tolist(), prices.tolist(), strict=True):
                lines.append(
                    f"ACME{expiration:%y%m%d}{side}{round(1000 * k):08d},{price - 0.005:.6f},{price + 0.005:.6f}"
                )
    path = f"{folder}/acme.csv"
    with open(path, "w") as file:
        file.write("\n".join(lines))
    return path


def test_a_file_of_american_options_asks_and_then_shows_its_correction(tmp_path: object) -> None:
    path = american_file(tmp_path)
    asked: list[set[str | int]] = []
    for settings in ({}, {"exercise": "american"}, {"exercise": "american", "spot": 100.0}):
        with pytest.raises(InvalidInput) as refused:
            read_quotes(path, as_of=AS_OF.isoformat(), **settings)
        asked.append({problem.path[0] for problem in refused.value.problems})
    assert asked == [{"exercise"}, {"spot", "rate"}, {"rate"}]
    (found,) = read_quotes(path, as_of=AS_OF.isoformat(), exercise="american", spot=100.0, rate=0.05)
    np.testing.assert_allclose(found.columns["iv"], 0.35, atol=2e-4)
    (expiry,) = found.expiries
    assert expiry.forward == pytest.approx(100.0 * math.exp(0.03 * years(EXPIRATIONS[1])), rel=1e-4)
    assert expiry.early_exercise is not None
    assert expiry.early_exercise.dividend_yield == pytest.approx(0.02, abs=1e-3)
    assert expiry.early_exercise.max_bp > 20.0
    (european_one,) = read_quotes(path, as_of=AS_OF.isoformat(), exercise="european")
    assert abs(european_one.columns["iv"] - 0.35).max() > 2e-3


def test_without_pairs_the_dividends_are_asked_for(tmp_path: object) -> None:
    path = american_file(tmp_path)
    with open(path) as file:
        calls = [line for line in file.read().splitlines() if "P0" not in line]
    with open(path, "w") as file:
        file.write("\n".join(calls))
    given = {"as_of": AS_OF.isoformat(), "exercise": "american", "spot": 100.0, "rate": 0.05}
    with pytest.raises(InvalidInput, match="`dividend_yield` must be given"):
        read_quotes(path, **given)
    (found,) = read_quotes(path, **given, dividend_yield=0.02)
    np.testing.assert_allclose(found.columns["iv"], 0.35, atol=2e-4)
