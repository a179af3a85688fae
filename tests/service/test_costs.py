"""What jobs cost."""

import numpy as np
import pytest

from calibrant.models import HESTON
from calibrant.panel import OptionPanel
from service.costs import Costs, panel_size


def test_the_mean_and_the_quartile_follow_what_is_observed() -> None:
    costs = Costs()
    rng = np.random.default_rng(5)
    # A tenth of all panels costs fifty times as much as the others.
    rates = np.where(rng.random(4000) < 0.1, 5e-4, 1e-5) * rng.uniform(0.8, 1.2, 4000)
    for rate in rates:
        costs.observe(HESTON, "lm", 100, 100 * rate)
    assert costs.mean(HESTON, "lm", 100) == pytest.approx(100 * rates.mean(), rel=0.5)
    # The quartile does not hear of the tenth.
    assert costs.least(HESTON, "lm", 100) == pytest.approx(100 * np.quantile(rates, 0.25), rel=0.2)
    assert costs.least(HESTON, "lm", 200) == 2 * costs.least(HESTON, "lm", 100)


def test_one_pause_of_the_machine_is_no_cost() -> None:
    costs = Costs()
    before = costs.mean(HESTON, "lm", 100)
    costs.observe(HESTON, "lm", 100, 60.0)
    assert costs.mean(HESTON, "lm", 100) < 1.5 * before


def test_kinds_are_apart() -> None:
    costs = Costs()
    before = costs.mean(HESTON, "lbfgs", 100)
    for _ in range(100):
        costs.observe(HESTON, "lm", 100, 1.0)
    assert costs.mean(HESTON, "lbfgs", 100) == before


def test_an_expiry_counts_as_some_quotes() -> None:
    one = OptionPanel.from_quotes(expiry=[1.0] * 4, log_moneyness=[-0.1, 0.0, 0.1, 0.2], iv=[0.2] * 4)
    four = OptionPanel.from_quotes(expiry=[0.5, 1.0, 1.5, 2.0], log_moneyness=[0.0] * 4, iv=[0.2] * 4)
    assert panel_size(four) - panel_size(one) == 3 * (panel_size(one) - 4)
