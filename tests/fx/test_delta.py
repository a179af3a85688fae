import math

import numpy as np
import pytest

from calibrant.fx.conventions import Conventions
from calibrant.fx.delta import DeltaTerms, Sign, delta, log_moneyness_at_the_money, log_moneyness_of_delta

SIGNS: tuple[Sign, Sign] = (-1, 1)


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("sign", SIGNS)
def test_strikes_have_the_deltas_they_are_quoted_by(adjusted: bool, sign: Sign) -> None:
    generator = np.random.default_rng(1)
    for _ in range(300):
        expiry, vol = np.exp(generator.uniform(np.log([0.003, 0.02]), np.log([15.0, 1.0])))
        terms = DeltaTerms(float(expiry), float(generator.uniform(0.8, 1.02)), adjusted)
        size = float(generator.uniform(0.01, 0.45))
        k = log_moneyness_of_delta(terms, sign, size, float(vol))
        if k is None:
            # The largest delta there is, by a search of its own.
            places = np.linspace(-8.0, 8.0, 4001) * vol * math.sqrt(expiry)
            assert adjusted
            assert sign == 1
            assert max(delta(terms, sign, float(x), float(vol)) for x in places) < size * (1.0 + 1e-6)
        else:
            assert delta(terms, sign, k, float(vol)) == pytest.approx(sign * size, rel=1e-10)


def test_of_two_strikes_with_one_premium_adjusted_delta_the_right_one_is_meant() -> None:
    terms = DeltaTerms(5.0, 1.0, True)
    k = log_moneyness_of_delta(terms, 1, 0.25, 0.25)
    assert k is not None
    later = [delta(terms, 1, k + step, 0.25) for step in np.linspace(0.0, 3.0, 50)]
    assert (np.diff(later) < 0.0).all()
    assert delta(terms, 1, -1.38, 0.25) < 0.25 < delta(terms, 1, -1.37, 0.25), "there is another left of the maximum"


@pytest.mark.parametrize("adjusted", [False, True])
def test_the_straddle_at_the_money_has_no_delta(adjusted: bool) -> None:
    terms = DeltaTerms(2.0, 0.97, adjusted)
    k = log_moneyness_at_the_money(Conventions(premium_adjusted=adjusted), 2.0, 0.15, -0.03)
    assert k == pytest.approx(-0.0225 if adjusted else 0.0225)
    assert delta(terms, 1, k, 0.15) + delta(terms, -1, k, 0.15) == pytest.approx(0.0, abs=1e-15)


def test_at_the_money_may_be_the_forward_or_the_spot() -> None:
    for atm, k in (("forward", 0.0), ("spot", -0.03)):
        assert log_moneyness_at_the_money(Conventions(premium_adjusted=False, atm=atm), 2.0, 0.15, -0.03) == k  # type: ignore[arg-type]


def test_an_unadjusted_delta_above_the_discount_factor_has_no_strike() -> None:
    assert log_moneyness_of_delta(DeltaTerms(10.0, 0.2, False), 1, 0.25, 0.1) is None
