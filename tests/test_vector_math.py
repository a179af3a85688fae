import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.compiled import kernel
from calibrant.pricing import vector_math


@kernel
def _apply_exp(x: Vector, out: Vector) -> None:
    for i in range(x.size):
        out[i] = vector_math.exp(x[i])


@kernel
def _apply_log(x: Vector, out: Vector) -> None:
    for i in range(x.size):
        out[i] = vector_math.log(x[i])


@kernel
def _apply_log1p(x: Vector, out: Vector) -> None:
    for i in range(x.size):
        out[i] = vector_math.log1p(x[i])


@kernel
def _apply_cos_sin(x: Vector, cosine: Vector, sine: Vector) -> None:
    for i in range(x.size):
        cosine[i], sine[i] = vector_math.cos_sin(x[i])


@kernel
def _apply_atan2(y: Vector, x: Vector, out: Vector) -> None:
    for i in range(x.size):
        out[i] = vector_math.atan2(y[i], x[i])


def test_exp_is_good_to_two_units_in_the_last_place() -> None:
    x = np.concatenate([np.random.default_rng(1).uniform(-690.0, 690.0, 20000), [0.0, -1e-300, 1e-17]])
    out = np.empty_like(x)
    _apply_exp(x, out)
    np.testing.assert_allclose(out, np.exp(x), rtol=4.5e-16)


def test_exp_far_below_zero_is_nothing_and_not_garbage() -> None:
    x = np.array([-701.0, -1e6, -1e300])
    out = np.empty_like(x)
    _apply_exp(x, out)
    assert np.all((out >= 0.0) & (out < 1e-303))


def test_log_is_good_to_two_units_in_the_last_place() -> None:
    x = np.concatenate([np.exp(np.random.default_rng(2).uniform(-700.0, 700.0, 20000)), [1.0, 1.0 + 1e-15, 0.5]])
    out = np.empty_like(x)
    _apply_log(x, out)
    np.testing.assert_allclose(out, np.log(x), rtol=4.5e-16, atol=2.3e-16)


def test_log1p_keeps_its_digits_however_small_its_argument() -> None:
    random = np.random.default_rng(5)
    small = np.exp(random.uniform(-700.0, 0.0, 20000)) * random.choice([-1.0, 1.0], 20000)
    x = np.concatenate([small, np.exp(random.uniform(0.0, 700.0, 2000)), random.uniform(-0.999, 0.0, 2000), [0.0]])
    out = np.empty_like(x)
    _apply_log1p(x, out)
    np.testing.assert_allclose(out, np.log1p(x), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("reach", [1.0, 100.0, 1e5])
def test_cos_and_sin_are_good_to_a_unit_in_the_last_place_of_one(reach: float) -> None:
    x = np.random.default_rng(3).uniform(-reach, reach, 20000)
    cosine, sine = np.empty_like(x), np.empty_like(x)
    _apply_cos_sin(x, cosine, sine)
    np.testing.assert_allclose(cosine, np.cos(x), rtol=0.0, atol=2.3e-16)
    np.testing.assert_allclose(sine, np.sin(x), rtol=0.0, atol=2.3e-16)


def test_atan2_finds_the_angle_in_every_octant() -> None:
    angle = np.linspace(-np.pi + 1e-9, np.pi - 1e-9, 20001)
    radius = np.exp(np.random.default_rng(4).uniform(-20.0, 20.0, angle.size))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    out = np.empty_like(x)
    _apply_atan2(y, x, out)
    np.testing.assert_allclose(out, np.arctan2(y, x), rtol=4.5e-16, atol=1e-300)
