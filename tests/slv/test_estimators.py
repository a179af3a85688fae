"""Estimators of E[v | S]: what they must give on data whose conditional mean is known."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.errors import InvalidInput
from calibrant.slv.estimators import (
    ESTIMATORS,
    BinnedLocalLinear,
    Bins,
    KernelRegression,
    RadialBasis,
    conditional_variance,
)
from calibrant.slv.estimators.by_name import estimator_named
from calibrant.slv.estimators.kernel_regression import in_order
from calibrant.slv.estimators.kernels import KERNELS, KernelName, silverman

NODES = np.linspace(-2.5, 2.5, 41)
EVERY = sorted(ESTIMATORS)


def mean_at(x: Vector) -> Vector:
    """A smile with a skew, as leverages divide by."""
    curve: Vector = 0.04 * np.exp(-0.2 * x + 0.1 * x * x)
    return curve


def particles(n: int, seed: int) -> tuple[Vector, Vector]:
    """Gamma variances, half as wide as they are large, around `mean_at`."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    x = (x - x.mean()) / x.std()
    return x, mean_at(x) * rng.gamma(4.0, 0.25, n)


@pytest.mark.parametrize("name", EVERY)
def test_every_estimator_finds_a_known_mean(name: str) -> None:
    x, v = particles(8192, 3)
    error = ESTIMATORS[name](x, v, NODES) / mean_at(NODES) - 1.0
    weight = np.exp(-0.5 * NODES**2)
    # Of 8,192 responses of half their mean's spread, a fortieth each: 0.5 / sqrt(8192 / 40) = 3.5 %.
    assert np.sqrt(np.sum(weight * error**2) / weight.sum()) < 0.035


@pytest.mark.parametrize("name", EVERY)
def test_equal_responses_give_a_constant(name: str) -> None:
    x, _ = particles(1000, 4)
    np.testing.assert_allclose(ESTIMATORS[name](x, np.full(x.size, 0.09), NODES), 0.09, rtol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_particles_does_not_matter(name: str) -> None:
    x, v = particles(1000, 5)
    shuffled = np.random.default_rng(0).permutation(x.size)
    np.testing.assert_allclose(
        ESTIMATORS[name](x[shuffled], v[shuffled], NODES), ESTIMATORS[name](x, v, NODES), rtol=1e-9
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_local_linear_regression_gives_a_line_back(kernel: KernelName) -> None:
    x, _ = particles(500, 6)
    estimator = KernelRegression(kernel=kernel, local_linear=True)
    np.testing.assert_allclose(estimator(x, 3.0 + 0.5 * x, NODES), 3.0 + 0.5 * NODES, rtol=1e-9)


def test_binning_loses_nothing() -> None:
    x, v = particles(20_000, 7)
    binned = BinnedLocalLinear(bandwidth=1.0, least_mass=0.0)(x, v, NODES)
    every = KernelRegression(kernel="quartic", local_linear=True)(x, v, NODES)
    np.testing.assert_allclose(binned, every, rtol=1e-3)
    np.testing.assert_allclose(RadialBasis()(x, v, NODES), RadialBasis(n_cells=None)(x, v, NODES), rtol=1e-3)


@pytest.mark.parametrize("local_linear", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_closed_form_of_leave_one_out_is_a_fit_without_each(kernel: KernelName, local_linear: bool) -> None:
    x, v = in_order(*particles(60, 8))
    estimator = KernelRegression(kernel=kernel, local_linear=local_linear, bandwidth=1.5)
    bandwidth = estimator.chosen_bandwidth(x, v)
    # The rule depends on the number of data: without one the same bandwidth is another multiple of it.
    without = replace(estimator, bandwidth=bandwidth / silverman(kernel, x.size - 1))
    errors = [v[i] - without(np.delete(x, i), np.delete(v, i), x[i : i + 1])[0] for i in range(x.size)]
    assert estimator.leave_one_out_error(x, v, bandwidth) == pytest.approx(np.mean(np.square(errors)), rel=1e-6)


def test_leave_one_out_widens_where_there_is_no_curve_and_narrows_where_there_is() -> None:
    x, v = particles(1000, 9)
    estimator = KernelRegression(bandwidth="leave_one_out")
    rule = silverman("quartic", x.size)
    assert estimator.chosen_bandwidth(x, v / mean_at(x)) > rule
    assert estimator.chosen_bandwidth(x, 1.0 + np.sin(6.0 * x)) < rule


def test_a_partition_of_unity_holds_far_from_every_centre() -> None:
    x, v = particles(1000, 10)
    far = RadialBasis()(x, v, np.array([-40.0, 40.0]))
    # The outermost unit has it all there, so the value is its weight.
    assert np.all(np.isfinite(far))
    assert np.all((far > 0.3 * v.min()) & (far < 3.0 * v.max()))


def test_pruned_centres_are_apart() -> None:
    x, _ = particles(2048, 11)
    estimator = RadialBasis(pruning=0.8)
    centres, widths = estimator.units(x)
    assert centres.size < estimator.n_units
    assert centres[0] == x.min()
    assert np.all(np.diff(centres) > 0.3 * widths[1:])


def test_a_large_ridge_leaves_the_mean() -> None:
    x, v = particles(1000, 12)
    np.testing.assert_allclose(RadialBasis(ridge=1e12)(x, v, NODES), v.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"n_neighbours": None}, {"pruning": 0.0}, {"ridge": 0.0}, {"ridge": 0.0, "pruning": 0.0}]
)
def test_radial_units_of_every_make_find_the_mean(options: dict[str, Any]) -> None:
    x, v = particles(20_000, 15)
    inside = NODES[10:-10]
    np.testing.assert_allclose(RadialBasis(**options)(x, v, inside), mean_at(inside), rtol=0.15)


def test_bins_hold_the_mean_of_their_particles() -> None:
    x = np.arange(8.0)
    curve = Bins(n_bins=2)(x, np.array([1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0]), np.array([0.0, 1.5, 3.5, 5.5, 9.0]))
    np.testing.assert_allclose(curve, [1.0, 1.0, 2.0, 3.0, 3.0])


@pytest.mark.parametrize("name", EVERY)
def test_no_estimate_is_zero_where_hardly_any_variance_is_left(name: str) -> None:
    rng = np.random.default_rng(13)
    log_spot = rng.standard_normal(2000)
    variance = np.where(log_spot < -1.0, 0.0, np.maximum(log_spot + 1.0, 0.0) ** 2)
    assert np.all(conditional_variance(ESTIMATORS[name], log_spot, variance).value > 0.0)


def test_the_nodes_reach_from_one_quantile_to_the_other() -> None:
    log_spot = np.random.default_rng(14).standard_normal(100_000) * 0.1 + 0.3
    nodes = conditional_variance(ESTIMATORS["bins"], log_spot, np.ones(log_spot.size)).log_spot
    np.testing.assert_allclose(nodes[[0, -1]], np.quantile(log_spot, (5e-4, 1.0 - 5e-4)), atol=0.005)


def test_options_are_named_as_in_requests() -> None:
    assert estimator_named("purbf", {"n_units": 25, "ridge": 0.0, "n_cells": None}) == RadialBasis(
        n_units=25, ridge=0.0, n_cells=None
    )
    assert estimator_named("nw_gaussian", {"bandwidth": "leave_one_out"}) == KernelRegression(
        kernel="gaussian", bandwidth="leave_one_out"
    )
    assert estimator_named("bins", {"n_bins": None}) == Bins()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("splines", {}, "`estimator` must be one of .*`purbf`, but is 'splines'"),
        ("bins", {"n_units": 3}, "`n_units` is no option of `bins`, which has n_bins"),
        ("purbf", {"n_units": 2.5}, "`n_units` must be a whole number >= 2, but is '2.5'"),
        ("purbf", {"ridge": -1.0}, "`ridge` must be a finite number > 0, but is '-1.0'"),
        ("purbf", {"n_units": math.inf}, "`n_units` must be a whole number >= 2, but is 'inf'"),
        ("nw_quartic", {"bandwidth": 0.0}, "`bandwidth` must be a finite number > 0, but is '0.0'"),
        ("nw_quartic", {"bandwidth": "scott"}, "`bandwidth` must be a finite number > 0, but is 'scott'"),
        ("nw_quartic", {"kernel": "gaussian"}, "`kernel` is no option of `nw_quartic`"),
        ("binned_local_linear", {"least_mass": True}, "`least_mass` must be a finite number > 0, but is 'True'"),
    ],
)
def test_an_option_that_is_none_is_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        estimator_named(name, options)
