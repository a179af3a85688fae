"""One-touches and no-touches in closed form, in the Black-Scholes world of one vol and two rates.

Reflection gives the law of the first passage of a Brownian motion with drift (Reiner & Rubinstein 1991; Haug 2007,
4.19); between two barriers, its Fourier series (Hui 1996). Payments in foreign currency are payments in domestic
currency in the world of the other numeraire: the price is spot times that with the drift raised by vol^2 and discounted
at the foreign rate.
"""

import math
from typing import Literal

import numpy as np
from scipy.special import erfc, log_ndtr, ndtr

Direction = Literal["up", "down"]


def one_touch(
    spot: float,
    level: float,
    direction: Direction,
    expiry: float,
    vol: float,
    domestic_rate: float,
    foreign_rate: float,
    *,
    at_hit: bool = False,
    foreign: bool = False,
) -> float:
    """Price in domestic currency of one unit paid if the spot touches `level` before `expiry`.

    direction  on which side of the spot the level lies; a spot at the level or beyond has touched it
    at_hit     paid when the level is touched rather than at expiry
    foreign    the unit is of foreign currency
    """
    sign = 1.0 if direction == "up" else -1.0
    distance = sign * math.log(level / spot)
    drift = domestic_rate - foreign_rate + (0.5 if foreign else -0.5) * vol * vol
    rate = foreign_rate if foreign else domestic_rate
    scale = spot if foreign else 1.0
    if distance <= 0.0:
        return scale * (1.0 if at_hit else math.exp(-rate * expiry))
    mu = sign * drift
    # Paid at expiry, a unit is a unit; paid at the hit it is discounted from there, which a change of drift takes in.
    if not at_hit:
        return scale * math.exp(-rate * expiry) * _passage(distance, mu, mu, vol, expiry)
    square = mu * mu + 2.0 * rate * vol * vol
    if square >= 0.0:
        return scale * _passage(distance, mu, math.sqrt(square), vol, expiry)
    # Negative rates: the two terms are conjugate.
    root = 1j * math.sqrt(-square)
    tail = 0.5 * erfc((distance - root * expiry) / (vol * math.sqrt(2.0 * expiry)))
    return float(scale * 2.0 * (np.exp((mu - root) * distance / (vol * vol)) * tail).real)


def _passage(distance: float, mu: float, root: float, vol: float, expiry: float) -> float:
    """E[exp(-rate tau); tau < expiry] of the time tau of passing `distance` at drift mu, root^2 = mu^2 + 2 rate vol^2.

    With root = mu the probability of passing. Products of exponentials and tails are taken as sums of logarithms.
    """
    variance, deviation = vol * vol, vol * math.sqrt(expiry)
    first = (mu - root) * distance / variance + log_ndtr((root * expiry - distance) / deviation)
    second = (mu + root) * distance / variance + log_ndtr((-root * expiry - distance) / deviation)
    return float(math.exp(first) + math.exp(second))


def double_no_touch(
    spot: float,
    low: float,
    high: float,
    expiry: float,
    vol: float,
    domestic_rate: float,
    foreign_rate: float,
    *,
    foreign: bool = False,
) -> float:
    """Price in domestic currency of one unit paid at expiry if the spot stays between the levels."""
    if not low < spot < high:
        return 0.0
    drift = domestic_rate - foreign_rate + (0.5 if foreign else -0.5) * vol * vol
    rate = foreign_rate if foreign else domestic_rate
    scale = spot if foreign else 1.0
    deviation = vol * math.sqrt(expiry)
    width, place, mean = math.log(high / low), math.log(spot / low), drift * expiry
    # Images: quick for short expiries, and the series' sum over all of them for long ones takes a few terms more.
    n_images = 3 + int(3.0 * deviation / width)
    total = 0.0
    ratio = drift / (vol * vol)
    for n in range(-n_images, n_images + 1):
        for sign, image, weight in (
            (1.0, place + 2.0 * n * width, 2.0 * n * width * ratio),
            (-1.0, -place + 2.0 * n * width, (2.0 * n * width - 2.0 * place) * ratio),
        ):
            # Started at the image, and weighed as Girsanov has it, the motion ends between the levels.
            within = ndtr((width - image - mean) / deviation) - ndtr((-image - mean) / deviation)
            total += sign * math.exp(weight) * within
    return float(scale * math.exp(-rate * expiry) * total)
