"""One step of the simulation, against the moments that it must have."""

import numpy as np
import pytest
from scipy.special import ndtri

from calibrant.arrays import Vector
from calibrant.compiled import kernel
from calibrant.slv.heston_step import StepConstants, full_truncation, quadratic_exponential, step_constants
from calibrant.slv.numbers import inverse_normal, mixed, uniform

N_UNIFORM, N_NORMAL = 20_000, 24


@kernel
def _normals(u: Vector, out: Vector) -> None:
    for i in range(u.size):
        out[i] = inverse_normal(u[i])


@kernel
def _uniforms(first: int, out: Vector) -> None:
    for i in range(out.size):
        out[i] = uniform(mixed(np.uint64(first) + np.uint64(i)))


@kernel
def _steps(
    v: float,
    leverage: float,
    u: Vector,
    z_v: Vector,
    z: Vector,
    c: StepConstants,
    euler: bool,
    new: Vector,
    change: Vector,
    variation: Vector,
) -> None:
    for i in range(u.size):
        if euler:
            new[i], change[i], variation[i] = full_truncation(v, leverage, z_v[i], z[i], c)
        else:
            new[i], change[i], variation[i] = quadratic_exponential(v, leverage, u[i], z_v[i], z[i], c)


def step(v: float, leverage: float, c: StepConstants, euler: bool) -> tuple[Vector, Vector, Vector, Vector]:
    """Outcomes of a step over a product rule, and their weights."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NORMAL)
    u = (np.arange(N_UNIFORM) + 0.5) / N_UNIFORM
    wide_u, z = np.repeat(u, N_NORMAL), np.tile(nodes, N_UNIFORM)
    out = np.empty((3, u.size * N_NORMAL))
    _steps(v, leverage, wide_u, ndtri(wide_u), z, c, euler, *out)
    return (*out, np.tile(weights / weights.sum(), N_UNIFORM) / N_UNIFORM)


def test_inverse_normal_is_the_quantile_function() -> None:
    for least, error in ((3e-8, 3e-7), (1e-9, 1e-4), (1e-12, 0.01)):
        lower = np.concatenate((np.logspace(np.log10(least), -2, 400), np.linspace(0.01, 0.5, 500)))
        for u in (lower, 1.0 - lower):
            out = np.empty(u.size)
            _normals(u, out)
            np.testing.assert_allclose(out, ndtri(u), rtol=error, atol=1e-7)


def test_uniform_numbers_have_no_gaps_and_no_correlation() -> None:
    out = np.empty(2**17)
    _uniforms(12345, out)
    counts = np.histogram(out, 64, (0.0, 1.0))[0]
    # Chi squared of 63 degrees of freedom exceeds 120 once in 50,000 times.
    assert np.sum((counts - out.size / 64) ** 2) / (out.size / 64) < 120.0
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 4.0 / np.sqrt(out.size)


def drawn(seed: int) -> tuple[float, float, StepConstants]:
    """A variance, a leverage and a step, Feller's condition violated in most."""
    rng = np.random.default_rng(seed)
    kappa, theta, xi, rho = (
        rng.uniform(0.2, 6.0),
        rng.uniform(0.005, 0.2),
        rng.uniform(0.05, 1.2),
        rng.uniform(-0.9, 0.9),
    )
    v = theta * rng.choice([0.0, 0.01, 0.3, 1.0, 4.0])
    return v, rng.uniform(0.4, 2.0), step_constants(kappa, theta, xi, rho, rng.uniform(0.2, 8.0) / 365.0)


@pytest.mark.parametrize("seed", range(20))
def test_the_variance_has_hestons_mean_and_variance(seed: int) -> None:
    v, leverage, c = drawn(seed)
    new, _, _, weight = step(v, leverage, c, euler=False)
    mean = c.theta + (v - c.theta) * c.decay
    variance = c.by_variance * v + c.by_level
    assert weight @ new == pytest.approx(mean, rel=1e-3)
    assert weight @ new**2 - (weight @ new) ** 2 == pytest.approx(variance, rel=0.02)
    assert new.min() >= 0.0


@pytest.mark.parametrize("euler", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_spot_is_a_martingale_whatever_the_leverage(seed: int, euler: bool) -> None:
    v, leverage, c = drawn(seed)
    _, change, variation, weight = step(v, leverage, c, euler)
    # What the rule of 20,000 points leaves out of the tail.
    assert weight @ np.exp(change) - 1.0 == pytest.approx(0.0, abs=2e-4 * float(np.sqrt(weight @ variation)) + 1e-12)


def test_the_correlation_of_spot_and_variance_is_rho() -> None:
    c = step_constants(2.0, 0.04, 0.3, -0.6, 1.0 / 365.0)
    new, change, _, weight = step(0.04, 1.3, c, euler=False)
    covariance = weight @ (new * change) - (weight @ new) * (weight @ change)
    spread = [np.sqrt(weight @ x**2 - (weight @ x) ** 2) for x in (new, change)]
    assert covariance / (spread[0] * spread[1]) == pytest.approx(-0.6, abs=0.005)


def test_without_vol_of_variance_the_spot_is_lognormal() -> None:
    c = step_constants(2.0, 0.04, 0.0, -0.6, 5.0 / 365.0)
    new, change, _, weight = step(0.04, 1.5, c, euler=False)
    np.testing.assert_allclose(new, 0.04, rtol=1e-3)
    assert weight @ change**2 - (weight @ change) ** 2 == pytest.approx(1.5**2 * 0.04 * c.dt, rel=1e-3)
