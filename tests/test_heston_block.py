import numpy as np

from benchmarks import paper_box
from calibrant.arrays import ComplexMatrix, Vector
from calibrant.models import HESTON
from calibrant.pricing.composed_block import fill_bent, work_size
from calibrant.pricing.heston_block import N_PARTS, N_ROWS, heston_parts, heston_phi, sum_parts
from calibrant.pricing.nodes import IMAG, MAX_NODES, N_SHARED, REAL, sum_first, turn_bent, turn_evenly

N = 64
STEP = 0.6
X = (np.arange(N) + 0.5) * STEP
SCALE = STEP / (X * X + 0.25)


# A hyperbola that bends down from between the critical moments of the paper's box, and its strikes.
BEND, WIDTH, CENTRE, BENT_STEP = -0.3, 1.2, 0.1, 0.05
T = (np.arange(N) + 0.5) * BENT_STEP
BENT_X = 1j * CENTRE + WIDTH * np.sinh(T + 1j * BEND)
BENT_SCALE = BENT_STEP * WIDTH * np.cosh(T + 1j * BEND) / (BENT_X * BENT_X + 0.25)
LOW, HIGH = -0.1, 0.4


# Rows of the six parts: the price's among those that all models have, the others the factor's own.
_REAL_ROWS = [int(REAL) // MAX_NODES, *range(N_SHARED, N_SHARED + N_PARTS - 1)]
_IMAG_ROWS = [int(IMAG) // MAX_NODES, *range(N_SHARED + N_PARTS - 1, N_SHARED + N_ROWS)]


def _workspace() -> Vector:
    return np.full(work_size(HESTON.layout), 7.0)


def _parts(work: Vector, n: int) -> ComplexMatrix:
    rows = work.reshape(-1, MAX_NODES)[:, :n]
    parts: ComplexMatrix = rows[_REAL_ROWS] + 1j * rows[_IMAG_ROWS]
    return parts


def _fill_bent(params: Vector, work: Vector, *, with_gradient: bool) -> None:
    fill_bent(HESTON.layout, 0, N, BENT_STEP, CENTRE, WIDTH, BEND, LOW, HIGH, 0.9, params, with_gradient, work)


def test_vectorised_characteristic_function_equals_the_readable_one() -> None:
    work = _workspace()
    for params in paper_box.draws(30, seed=1):
        heston_phi(0, N, STEP, 0.4, params, 0.05, work)
        black = np.exp(-0.5 * 0.05 * (X * X + 0.25))
        expected = (np.exp(HESTON.log_characteristic(X - 0.5j, 0.4, params)) - black) * SCALE
        np.testing.assert_allclose(_parts(work, N)[0], expected, rtol=0.0, atol=1e-13)


def test_bent_nodes_hold_the_readable_characteristic_function_and_the_worst_strike() -> None:
    work = _workspace()
    worst = np.exp(np.where(BENT_X.imag > -0.5, HIGH, LOW) * BENT_X.imag)
    for params in paper_box.draws(30, seed=5):
        _fill_bent(params, work, with_gradient=False)
        alone = _parts(work, N)[0].copy()
        _fill_bent(params, work, with_gradient=True)
        first, by_d, _, m, xm, _ = _parts(work, N)
        expected = np.exp(HESTON.log_characteristic(BENT_X - 0.5j, 0.9, params)) * BENT_SCALE * worst
        tolerance = 1e-13 * np.abs(expected).max()
        np.testing.assert_allclose(first, expected, rtol=0.0, atol=tolerance)
        np.testing.assert_allclose(first, alone, rtol=0.0, atol=tolerance)
        by_v0 = HESTON.log_characteristic_gradient(BENT_X - 0.5j, 0.9, params)[1][4]
        np.testing.assert_allclose(by_d, expected * by_v0, rtol=1e-10, atol=10.0 * tolerance)
        np.testing.assert_allclose(xm, 1j * BENT_X * m, rtol=1e-10, atol=1e-13 * np.abs(m).max())


def test_bent_sums_are_those_of_the_turned_parts() -> None:
    work = _workspace()
    _fill_bent(paper_box.draws(1, seed=6)[0], work, with_gradient=True)
    worst = np.exp(np.where(BENT_X.imag > -0.5, HIGH, LOW) * BENT_X.imag)
    parts = _parts(work, N) / worst
    for k in (-0.1, 0.0, 0.4):
        turn_bent(k, LOW, HIGH, N, work)
        expected = (np.exp(-1j * BENT_X * k) * parts).real.sum(axis=1)
        np.testing.assert_allclose(sum_parts(N, work), expected, rtol=0.0, atol=1e-12 * np.abs(parts).sum())


def test_parts_compose_to_the_readable_gradient() -> None:
    work = _workspace()
    for params in paper_box.draws(30, seed=2):
        kappa, theta, xi, rho, _ = params
        heston_parts(0, N, STEP, 0.9, params, 0.05, work)
        first, by_d, by_g, m, xm, an = _parts(work, N)
        m_z = 0.5 * m + xm
        composed = np.stack(
            [
                theta / xi**2 * by_g + m,
                kappa / xi**2 * by_g,
                -2.0 * kappa * theta / xi**3 * by_g - rho * m_z + xi * an,
                -xi * m_z,
                by_d,
            ]
        )
        log_phi, log_gradient = HESTON.log_characteristic_gradient(X - 0.5j, 0.9, params)
        black = np.exp(-0.5 * 0.05 * (X * X + 0.25))
        np.testing.assert_allclose(first, (np.exp(log_phi) - black) * SCALE, rtol=0.0, atol=1e-13)
        expected = np.exp(log_phi) * SCALE * log_gradient
        np.testing.assert_allclose(composed, expected, rtol=0.0, atol=1e-10 * np.abs(expected).max())


def test_a_block_leaves_the_other_nodes_alone() -> None:
    work = _workspace()
    heston_parts(8, 16, STEP, 1.0, paper_box.draws(1, seed=3)[0], 0.05, work)
    rows = work.reshape(-1, MAX_NODES)[_REAL_ROWS + _IMAG_ROWS]
    assert np.all(rows[:, :8] == 7.0)
    assert np.all(rows[:, 16:] == 7.0)
    assert np.all(rows[:, 8:16] != 7.0)


def test_sums_are_those_of_the_turned_parts() -> None:
    work = _workspace()
    heston_parts(0, N, STEP, 0.9, paper_box.draws(1, seed=4)[0], 0.05, work)
    parts = _parts(work, N)
    for k in (-0.7, 0.0, 0.01, 1.3):
        turn_evenly(k, STEP, 0.0, N, work)
        expected = (np.exp(-1j * X * k) * parts).real.sum(axis=1)
        np.testing.assert_allclose(sum_parts(N, work), expected, rtol=0.0, atol=1e-13 * np.abs(parts).sum())
        assert abs(sum_first(N, work) - expected[0]) < 1e-14
