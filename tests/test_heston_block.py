import numpy as np

from calibrant.models import HESTON
from calibrant.pricing.heston_block import N_PARTS, heston_parts, heston_phi
from tests import paper_box


def test_vectorised_characteristic_function_equals_the_readable_one() -> None:
    n = 64
    for params in paper_box.draws(30, seed=1):
        nodes = np.stack([np.linspace(0.01, 60.0, n), np.ones(n)])
        real, imag = np.empty((1, n)), np.empty((1, n))
        heston_phi(nodes, 0, n, 0.4, params, real, imag)
        expected = np.exp(HESTON.log_characteristic(nodes[0] - 0.5j, 0.4, params))
        np.testing.assert_allclose(real[0] + 1j * imag[0], expected, rtol=0.0, atol=2e-14)


def test_parts_compose_to_the_readable_gradient() -> None:
    n = 40
    for params in paper_box.draws(30, seed=2):
        kappa, theta, xi, rho, _ = params
        nodes = np.stack([np.linspace(0.01, 40.0, n), np.linspace(1.0, 2.0, n)])
        real, imag = np.empty((N_PARTS, n)), np.empty((N_PARTS, n))
        heston_parts(nodes, 0, n, 0.9, params, real, imag)
        phi, by_d, by_g, m, xm, an = real + 1j * imag
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
        log_phi, log_gradient = HESTON.log_characteristic_gradient(nodes[0] - 0.5j, 0.9, params)
        np.testing.assert_allclose(phi, np.exp(log_phi) * nodes[1], atol=2e-14)
        expected = np.exp(log_phi) * nodes[1] * log_gradient
        np.testing.assert_allclose(composed, expected, atol=1e-12 * np.abs(expected).max())


def test_a_block_leaves_the_other_nodes_alone() -> None:
    nodes = np.ones((2, 24))
    real, imag = np.full((N_PARTS, 24), 7.0), np.full((N_PARTS, 24), 7.0)
    heston_parts(nodes, 8, 16, 1.0, paper_box.draws(1, seed=3)[0], real, imag)
    assert np.all(real[:, :8] == 7.0) and np.all(real[:, 16:] == 7.0)
    assert np.all(imag[:, :8] == 7.0) and np.all(imag[:, 16:] == 7.0)
    assert np.all(real[:, 8:16] != 7.0)
