"""Doubts about quotes: each kind of slip is found wherever it is made, and none where nothing is wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from calibrant.errors import InvalidInput
from calibrant.panel import OptionPanel
from calibrant.quotes_csv import read_csv
from tests.shared import market_files, needs_shared
from tests.test_quotes_csv import has_strikes

Quotes = dict[str, Any]


def codes(quotes: Quotes) -> set[str]:
    return {caution.code for caution in OptionPanel.from_quotes(**quotes).cautions}


def panel(
    rng: np.random.Generator, expiries: list[float], vol: float, deviations: tuple[float, float] = (0.7, 4.0)
) -> Quotes:
    """A chain of the usual shape: a skewed and curved smile an expiry, over strikes of so many standard deviations."""
    skew, curvature = rng.uniform(-0.15, 0.05), rng.uniform(0.0, 0.03)
    rate = rng.uniform(-0.02, 0.05)
    columns: dict[str, list[float]] = {name: [] for name in ("expiry", "strike", "forward", "iv")}
    for expiry in expiries:
        n = int(rng.integers(3, 15))
        z = np.linspace(-1.0, 1.0, n) * rng.uniform(*deviations)
        at_the_money = vol * rng.uniform(0.9, 1.1)
        forward = 100.0 * np.exp(rate * expiry)
        columns["expiry"] += [expiry] * n
        columns["strike"] += (forward * np.exp(z * at_the_money * np.sqrt(expiry))).tolist()
        columns["forward"] += [forward] * n
        # Flat beyond three deviations, so that no vol is below zero.
        bent = np.clip(z, -3.0, 3.0)
        columns["iv"] += (at_the_money * (1.0 + skew * bent + curvature * bent**2)).tolist()
    return {name: np.array(column) for name, column in columns.items()}


def some_of(rng: np.random.Generator, choices: list[float]) -> list[float]:
    return sorted(rng.choice(choices, int(rng.integers(1, len(choices) + 1)), replace=False).tolist())


LISTED = [1 / 365, 7 / 365, 30 / 365, 0.25, 0.5, 1.0, 2.0, 3.0]
LONG_DATED = [1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0]
SOUND: dict[str, Callable[[np.random.Generator], Quotes]] = {
    "listed options": lambda rng: panel(rng, some_of(rng, LISTED), rng.uniform(0.05, 0.9)),
    "a coin": lambda rng: panel(rng, some_of(rng, LISTED[:6]), rng.uniform(0.6, 1.7)),
    "a panic": lambda rng: panel(rng, some_of(rng, LISTED[:3]), rng.uniform(1.5, 3.5)),
    "long-dated foreign exchange": lambda rng: panel(rng, some_of(rng, LONG_DATED), rng.uniform(0.05, 0.2), (0.6, 1.4)),
    "long-dated equity": lambda rng: panel(rng, some_of(rng, LONG_DATED[:6]), rng.uniform(0.15, 0.4), (0.5, 2.0)),
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_panel_raises_no_doubt(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(400):
        quotes = SOUND[kind](rng)
        assert codes(quotes) == set(), quotes


@pytest.mark.parametrize("factor", [1.0, 1000.0, 0.013])
def test_vols_in_percent_are_suspected(factor: float) -> None:
    # Those that the largest vol admitted lets through, the vols of calm currencies, in any unit of the forward.
    rng = np.random.default_rng(2)
    for _ in range(400):
        quotes = panel(rng, some_of(rng, LISTED[1:]), rng.uniform(0.018, 0.045))
        given = quotes | {name: factor * quotes[name] for name in ("strike", "forward")}
        assert codes(given | {"iv": 100.0 * quotes["iv"]}) & {"vols_look_like_percent", "many_quotes_excluded"}
        assert "vols_look_like_percent" in codes(given | {"iv": np.clip(100.0 * quotes["iv"], 1.2, 5.0)})
        assert codes(given) == set()


def test_percents_of_which_most_are_too_large_for_any_vol_are_suspected() -> None:
    rng = np.random.default_rng(3)
    n_mixed = 0
    for _ in range(400):
        quotes = panel(rng, some_of(rng, LISTED[1:]), rng.uniform(0.045, 0.09))
        percent = 100.0 * quotes["iv"]
        if 0 < np.count_nonzero(percent <= 5.0) <= np.count_nonzero(percent > 5.0):
            assert "vols_look_like_percent" in codes(quotes | {"iv": percent})
            n_mixed += 1
    assert n_mixed > 50


def test_expiries_in_days_are_suspected() -> None:
    rng = np.random.default_rng(4)
    for _ in range(400):
        days = some_of(rng, [7.0, 14.0, 30.0, 60.0, 90.0])
        quotes = panel(rng, [day / 365.0 for day in days], rng.uniform(0.22, 0.9))
        assert codes(quotes) == set()
        slipped = quotes | {"expiry": np.round(365.0 * quotes["expiry"])}
        if days[-1] > 14.0:
            assert "expiries_look_like_days" in codes(slipped), slipped


def test_forwards_that_differ_at_one_expiry_are_named() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        quotes = panel(rng, some_of(rng, LISTED), rng.uniform(0.1, 0.5))
        i = int(rng.integers(quotes["expiry"].size))
        forward = quotes["forward"].copy()
        forward[i] *= 1.0 + rng.choice([-1.0, 1.0]) * rng.uniform(2e-4, 0.02)
        order = rng.permutation(forward.size)
        moved = {name: column[order] for name, column in (quotes | {"forward": forward}).items()}
        (caution,) = OptionPanel.from_quotes(**moved).cautions
        assert caution.code == "forward_varies_within_expiry"
        assert f"the expiry {quotes['expiry'][i]:g} " in caution.detail
        rounded = quotes | {"forward": quotes["forward"] * rng.uniform(1.0 - 4e-5, 1.0 + 4e-5, forward.size)}
        assert codes(rounded) == set()


def test_strikes_and_forwards_in_each_others_place_are_suspected() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        quotes = panel(rng, some_of(rng, LISTED), rng.uniform(0.1, 0.5))
        exchanged = quotes | {"strike": quotes["forward"], "forward": quotes["strike"]}
        assert codes(exchanged) == {"strike_and_forward_look_exchanged"}


def test_a_feed_of_which_most_is_broken_is_named_and_nulls_do_not_count() -> None:
    sides = {"bid_iv": [0.2, 0.2, 0.0, 0.0, 0.0, None], "ask_iv": [0.21, 0.21, 5.0, 5.0, 5.0, None]}
    quotes: Quotes = {"expiry": [0.5] * 6, "log_moneyness": [-0.2, -0.1, 0.0, 0.1, 0.2, 0.3], **sides}
    (caution,) = OptionPanel.from_quotes(**quotes).cautions
    assert caution.code == "many_quotes_excluded"
    assert caution.detail.startswith("3 of the 5 quotes that are there cannot be used (3 no bid")
    assert codes(quotes | {"bid_iv": [0.2, 0.2, None, None, None, None]}) == set()
    assert codes(quotes | {"exclude": [2, 3, 4]}) == set()
    assert codes(quotes | {"weight": [1.0, 1.0, 0.0, 0.0, 0.0, 1.0], "iv": [0.2] * 6}) == set()


def test_extreme_numbers_are_judged_or_refused_without_a_warning_of_arithmetic() -> None:
    rng = np.random.default_rng(7)
    numbers = [5e-324, 1e-308, 1e-12, 0.01, 0.5, 1.0, 2.5, 4.999, 5.0, 30.0, 99.9, 1e12, 1e308]
    raised: set[str] = set()
    for _ in range(5000):
        n = int(rng.integers(1, 8))
        scale = rng.choice(numbers)
        quotes: Quotes = {
            "expiry": rng.choice(numbers[:11], n),
            "strike": scale * rng.uniform(0.5, 1.0, n),
            "forward": scale * rng.uniform(0.5, 1.0, n) if rng.random() < 0.5 else rng.choice(numbers, n),
            "iv": rng.choice(numbers[:9], n),
        }
        try:
            raised |= codes(quotes)
        except InvalidInput:
            raised.add("refused")
    assert raised >= {"refused", "forward_varies_within_expiry", "vols_look_like_percent", "expiries_look_like_days"}


@needs_shared
def test_no_market_panel_raises_a_doubt_and_each_does_with_its_expiries_in_days() -> None:
    n_slipped = 0
    for path in filter(has_strikes, market_files()):
        for label, found in read_csv(path):
            assert {caution.code for caution in found.cautions} <= {"columns_ignored"}, (path.name, label)
            days = np.round(365.0 * found.expiry)
            # What is longer is refused, and what is shorter could be years.
            short = (days >= 1.0) & (days <= 100.0)
            if short.any() and days[short].max() > 7.0:
                columns = {"expiry": days[short], "log_moneyness": found.log_moneyness[short], "iv": found.mid[short]}
                assert "expiries_look_like_days" in codes(columns), (path.name, label)
                n_slipped += 1
    assert n_slipped > 70
