"""Parameters of training panels, of models with any number of variances and jumps."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from calibrant.layout import VARIANCE
from calibrant.models import HESTON, MODELS
from tests.declared_domains import DECLARED
from training.domain import DOMAINS, PAPER, Domain, Range
from training.panels import panel_parameters
from training.samplers import fastest_first, uniform


@pytest.mark.parametrize("domain", DECLARED, ids=lambda domain: f"{domain.n_params}-{domain.standardised}")
def test_any_range_of_any_model_can_be_made_anywhere_and_lies_in_the_box(domain: Domain) -> None:
    whole = panel_parameters(domain, 1, 0, 200)
    assert whole.shape == (200, domain.model.n_params)
    for start, stop in ((0, 1), (17, 23), (199, 200), (30, 30)):
        np.testing.assert_array_equal(panel_parameters(domain, 1, start, stop), whole[start:stop])
    low, high = domain.sampled_box()
    assert ((low <= whole) & (whole <= high)).all()


@pytest.mark.parametrize(
    "domain", [d for d in DECLARED if d.sampler is uniform], ids=lambda domain: str(domain.n_params)
)
def test_every_parameter_has_draws_of_its_own(domain: Domain) -> None:
    params = panel_parameters(domain, 1, 0, 20_000)
    # Standard error of a correlation: 0.007.
    assert np.abs(np.corrcoef(params.T) - np.eye(domain.n_params)).max() < 0.04


def test_of_two_variances_the_faster_is_the_first() -> None:
    for domain in DECLARED:
        if domain.sampler is uniform or domain.n_params < 10:
            continue
        params = panel_parameters(domain, 2, 0, 2000)
        fast, slow = params[:, :5], params[:, 5:10]
        assert (fast[:, 0] >= slow[:, 0]).all()
        for one in (fast, slow):
            kappa, theta, xi, _, v0 = one.T
            inside = (xi > 0.02) & (xi < 12.0) & (v0 > 4e-4) & (v0 < 3.0)
            feller = 2.0 * kappa * theta / xi**2
            assert np.all((feller[inside] > 0.0199) & (feller[inside] < 30.1)), "each keeps its own xi"
            ratio = v0[inside] / theta[inside]
            assert np.all((ratio > 0.99 / 15.0) & (ratio < 15.1)), "each keeps its own v0"


def test_ordering_variances_changes_nothing_but_their_order() -> None:
    params = np.random.default_rng(3).random((500, 13))
    ordered = fastest_first(params, (0, 5))
    swapped = params[:, 0] < params[:, 5]
    assert 0.3 < swapped.mean() < 0.7
    np.testing.assert_array_equal(ordered[~swapped], params[~swapped])
    np.testing.assert_array_equal(ordered[swapped][:, [5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 10, 11, 12]], params[swapped])
    np.testing.assert_array_equal(fastest_first(ordered, (0, 5)), ordered)


OF_FACTORS = [domain for domain in DOMAINS.values() if domain.model is not HESTON]


def test_each_model_has_a_domain_on_the_grid_and_one_for_markets() -> None:
    for model in MODELS.values():
        kinds = sorted(domain.standardised for domain in DOMAINS.values() if domain.model is model)
        assert kinds == [False, True], model.name


@pytest.mark.parametrize("domain", OF_FACTORS, ids=lambda domain: domain.name)
def test_factors_are_drawn_so_that_a_surface_tells_them_apart(domain: Domain) -> None:
    params = panel_parameters(domain, 7, 0, 5000)
    low, high = domain.sampled_box()
    assert ((low <= params) & (params <= high)).all()
    variances = [
        params[:, own]
        for own, factor in zip(domain.model.slices, domain.model.factors, strict=True)
        if (factor.kind == VARIANCE)
    ]
    now, long_run = (np.sum([variance[:, at] for variance in variances], axis=0) for at in (4, 1))
    for faster, slower in pairwise(variances):
        assert (faster[:, 0] >= 2.5 * slower[:, 0] * (1.0 - 1e-12)).all()
        for at in (1, 4):
            odds = faster[:, at] / slower[:, at]
            cut = (faster[:, at] == high[at]) | (faster[:, at] == low[at]) | (slower[:, at] == high[at + 5])
            assert np.abs(np.log(odds[~cut])).max() < np.log(9.01)
            assert 0.4 < np.mean(odds > 1.0) < 0.6
    cut = np.any([(variance[:, 4] == high[4]) | (variance[:, 4] == low[4]) for variance in variances], axis=0)
    assert np.abs(np.log((now / long_run)[~cut])).max() < np.log(15.1)
    if domain.n_params % 5:
        lam, mu_j, sigma_j = params[:, -3:].T
        assert 0.6 < np.mean(mu_j < 0.0) < 0.9
        share = lam * (mu_j**2 + sigma_j**2) / long_run
        assert np.all((share < 2.01) | (lam == low[-3]))
        assert np.all((share > 0.0199) | (lam == high[-3]))


def test_a_domain_is_refused_that_does_not_fit_its_model() -> None:
    with pytest.raises(ValueError, match="`log_scaled` must have an entry for each of kappa, theta, xi, rho, v0"):
        replace(PAPER, log_scaled=(False,) * 4)
    beyond = (Range(0.5, 8.0), Range(0.02, 0.5), Range(0.1, 1.5), Range(-1.0, -0.05), Range(0.01, 0.4))
    with pytest.raises(ValueError, match=r"must be inside `output` and the bounds of heston"):
        replace(PAPER, sampled=beyond)
