"""Touches in closed form."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from calibrant.slv.touch import Direction, double_no_touch, one_touch
from tests.shared import needs_shared, published_values
from tests.slv.reference import given, rows

DIRECTIONS: tuple[Direction, ...] = ("up", "down")


def drawn(seed: int) -> tuple[float, float, float, float, float]:
    """Spot, expiry, vol, domestic and foreign rate."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 150.0), rng.uniform(0.02, 5.0), rng.uniform(0.04, 0.6), *rng.uniform(-0.03, 0.12, 2)


@needs_shared
def test_published_values_of_payments_at_the_hit() -> None:
    published = published_values()["one_touch_bs_at_hit"]
    for _, level, spot, q, r, t, vol, value in published["rows"]:
        price = one_touch(spot, level, "up" if spot < level else "down", t, vol, r, q, at_hit=True)
        assert published["cash"] * price == pytest.approx(value, abs=5.1e-5)


@needs_shared
def test_the_references_theoretical_values() -> None:
    vols = {"EURUSD_CLARK_1Y": (1.0, 0.18428777131890675), "EURUSD_SYN18_6M": (182 / 365, 0.07334405569861188)}
    for row in rows("one_touch.csv"):
        if row["case"] in vols:
            entry = given(row["case"].rsplit("_", 1)[0])
            t, vol = vols[row["case"]]
            direction: Direction = "up" if row["side"] == "up" else "down"
            price = one_touch(entry["S0"], float(row["H"]), direction, t, vol, entry["rd"], entry["rf"])
            assert price == pytest.approx(float(row["TV_BS"]), abs=2e-6)


def first_passage(spot: float, level: float, t: float, vol: float, drift: float, rate: float) -> float:
    """E[exp(-rate tau); tau < t] by the density of the first passage."""
    d = abs(math.log(level / spot))
    mu = drift if level > spot else -drift

    def density(tau: float) -> float:
        away = (d - mu * tau) ** 2 / (2.0 * vol**2 * tau)
        return d / (vol * math.sqrt(2.0 * math.pi * tau) * tau) * math.exp(-away)

    return float(quad(lambda tau: math.exp(-rate * tau) * density(tau), 0.0, t, epsabs=1e-12, limit=200)[0])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_a_touch_is_the_integral_over_its_first_passage(seed: int, direction: Direction, foreign: bool) -> None:
    spot, t, vol, rd, rf = drawn(seed)
    level = spot * math.exp((1.0 if direction == "up" else -1.0) * 0.7 * vol * math.sqrt(t))
    drift = rd - rf + (0.5 if foreign else -0.5) * vol**2
    rate, scale = (rf, spot) if foreign else (rd, 1.0)
    at_hit = one_touch(spot, level, direction, t, vol, rd, rf, at_hit=True, foreign=foreign)
    assert at_hit == pytest.approx(scale * first_passage(spot, level, t, vol, drift, rate), rel=1e-7)
    late = one_touch(spot, level, direction, t, vol, rd, rf, foreign=foreign)
    assert late == pytest.approx(scale * math.exp(-rate * t) * first_passage(spot, level, t, vol, drift, 0.0), rel=1e-7)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_a_double_no_touch_with_one_level_far_away_is_a_no_touch(seed: int, direction: Direction) -> None:
    spot, t, vol, rd, rf = drawn(seed)
    sign = 1.0 if direction == "up" else -1.0
    near, far = (spot * math.exp(sign * z * vol * math.sqrt(t)) for z in (1.0, -14.0))
    no_touch = math.exp(-rd * t) - one_touch(spot, near, direction, t, vol, rd, rf)
    assert double_no_touch(spot, min(near, far), max(near, far), t, vol, rd, rf) == pytest.approx(no_touch, abs=1e-9)


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_a_double_no_touch_is_its_fourier_series(seed: int, foreign: bool) -> None:
    spot, t, vol, rd, rf = drawn(seed)
    half = 1.2 * vol * math.sqrt(t)
    low, high = spot * math.exp(-half), spot * math.exp(1.3 * half)
    drift = rd - rf + (0.5 if foreign else -0.5) * vol**2
    ratio, width, place = drift / vol**2, math.log(high / low), math.log(spot / low)
    total = 0.0
    for n in range(1, 60):
        wave = n * math.pi / width
        ends = 1.0 - (-1.0) ** n * math.exp(ratio * width)
        decay = math.exp(-0.5 * t * (vol**2 * wave**2 + drift**2 / vol**2))
        total += 2.0 / width * wave / (wave**2 + ratio**2) * ends * math.sin(wave * place) * decay
    total *= math.exp(-ratio * place)
    rate, scale = (rf, spot) if foreign else (rd, 1.0)
    price = double_no_touch(spot, low, high, t, vol, rd, rf, foreign=foreign)
    assert price == pytest.approx(scale * math.exp(-rate * t) * total, rel=1e-9)


@pytest.mark.parametrize("at_hit", [False, True])
def test_what_is_touched_already_is_paid(at_hit: bool) -> None:
    assert one_touch(1.0, 0.9, "up", 0.5, 0.1, 0.04, 0.01, at_hit=at_hit) == (1.0 if at_hit else math.exp(-0.02))
    assert double_no_touch(1.0, 1.0, 1.2, 0.5, 0.1, 0.04, 0.01) == 0.0
