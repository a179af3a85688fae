"""The paper's simulator: Heston panels from quasi-Monte-Carlo paths, with a standard error for every vol.

2^16 paths a panel in weekly steps, all expiries and strikes from the same paths. The variance takes Andersen's
quadratic-exponential steps. Given the variance path the log of the spot is Gaussian under his scheme, so it is drawn
once an expiry, with the sum of the weekly drifts and variances: the same distribution in 8 dimensions instead of 111.

The points are 16 scrambled Sobol nets of 2^12 points, each moved by a random digital shift that is the panel's own.
The shift alone makes every point uniform and the 16 estimates independent, so that their spread is an honest standard
error; the nets are common to all panels, because to scramble them anew takes 40 % of the time of walking the paths.

Nets are most even in their first dimensions. These go to what moves prices most: the principal components of the two
Brownian motions at the expiries, of their correlations so that a short expiry counts as much as a long one. The weeks
within an interval follow as cosines. Against dimensions in the order of time this halves the error bars from one year
on, and leaves those of the first expiry as they are.

Andersen (2008), "Simple and efficient simulation of the Heston stochastic volatility model", sections 3.2 and 4.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor
from torch.quasirandom import SobolEngine

from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.black import implied_volatility_from_time_value, vega

from .domain import Domain
from .exact import SMALLEST_TIME_VALUE, exact_iv_panels
from .panels import panel_dtype, panel_parameters

WEEK = 7.0 / 365.0
"""Years."""

_SWITCH = 1.5
"""Andersen's psi_c: where variance / mean^2 is above it, the exponential form takes over from the quadratic one."""
_BITS = 30
"""Of a coordinate of torch's Sobol points."""
_CACHED_PATHS = 2**14
"""Walked together on a CPU: a dozen arrays of them stay in its cache."""
_DEVICE_PATHS = 2**23
"""Walked together on a GPU: 128 panels."""
_SQRT_HALF = math.sqrt(0.5)


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """How finely to simulate; the defaults are the paper's."""

    n_scrambles: int = 16
    """Independent estimates, whose spread is the standard error; >= 2."""
    log2_points: int = 12
    """Paths of each scramble, as a power of two."""
    largest_step: float = WEEK
    """Years; every interval between expiries is cut into equal steps no longer than this."""


class SimulatedPanels(NamedTuple):
    """One row a panel."""

    iv: NDArray[np.float64]
    """(n, n_expiries, n_strikes), NaN where the time value is not above `SMALLEST_TIME_VALUE` or no path has any."""
    standard_error: NDArray[np.float64]
    """Of `iv`, same shape: that of the price, over vega."""
    n_reached: NDArray[np.int64]
    """Same shape: paths that end beyond the strike, where the out-of-the-money option pays."""
    forward: Matrix
    """(n, n_expiries) mean of the spot, 1 but for noise."""
    forward_error: Matrix
    """Its standard error."""


def time_steps(expiry: Vector, largest_step: float) -> IntVector:
    """Steps in every interval between expiries, the first from zero: as few as stay within `largest_step`.

    expiry   (n_expiries,) years, > 0, ascending
    returns  (n_expiries,)
    """
    # An interval that is a whole number of steps but for rounding is not cut once more.
    return np.ceil(np.diff(expiry, prepend=0.0) / largest_step * (1.0 - 1e-12)).astype(np.int64)


def simulate_panels(domain: Domain, seed: int, start: int, stop: int, *, device: str = "cpu") -> NDArray[np.void]:
    """Simulated panels start..stop-1 of the seed: parameters and metric as `make_panels` has them, simulated vols.

    returns  (stop - start,) records of `panel_dtype(domain)`
    """
    params = panel_parameters(domain, seed, start, stop)
    panels = np.empty(len(params), panel_dtype(domain))
    panels["params"] = params
    panels["iv"] = simulate_iv_panels(params, domain, seed, start, device=device).iv
    panels["metric"] = exact_iv_panels(params, domain).metric
    return panels


def simulate_iv_panels(
    params: Matrix,
    domain: Domain,
    seed: int,
    start: int,
    *,
    options: SimulationOptions | None = None,
    device: str = "cpu",
) -> SimulatedPanels:
    """Simulated Heston panels on the domain's grid.

    params       (n, 5) kappa, theta, xi, rho, v0
    seed, start  panel i has the digital shifts of (seed, start + i), whatever is simulated with it
    device       of torch; between devices a panel differs in its last digits
    error        `standard_error`, and the bias of the steps: docs/results/simulation.md
    raises       ValueError for a domain without fixed strikes, parameters that are not finite, or steps so long that
                 the martingale correction may not exist, which takes rho > 0 and a large xi
    """
    options = options or SimulationOptions()
    if domain.standardised:
        raise ValueError(f"the grid of {domain.name} has no fixed strikes: there is nothing to simulate")
    if not np.isfinite(params).all():
        raise ValueError("`params` must be finite")
    plan = _plan(domain, options, device)
    _require_correction(params, plan.step)
    n, (n_expiries, n_strikes), n_scrambles = len(params), domain.shape, options.n_scrambles
    panels_at_once, scrambles_at_once = _batch_shape(options, device)
    price = np.empty((n, n_expiries, n_strikes, n_scrambles))
    spot = np.empty((n, n_expiries, n_scrambles))
    reached = np.zeros((n, n_expiries, n_strikes), np.int64)
    for first in range(0, n, panels_at_once):
        here = slice(first, min(n, first + panels_at_once))
        # Always a full batch, the last panel repeated: in another shape the last digits may be others.
        rows = np.minimum(np.arange(first, first + panels_at_once), n - 1)
        shift = np.stack([_digital_shift(seed, start + int(row), plan.net.shape[:2]) for row in rows], axis=1)
        for low in range(0, n_scrambles, scrambles_at_once):
            part = slice(low, low + scrambles_at_once)
            sums = _walk(params[rows], shift[:, :, part], plan, part)
            n_here = here.stop - here.start
            price[here, :, :, part] = sums.price[:n_here]
            spot[here, :, part] = sums.spot[:n_here]
            reached[here] += sums.n_reached[:n_here]
    return _as_vols(price, spot, reached, domain)


def _batch_shape(options: SimulationOptions, device: str) -> tuple[int, int]:
    """Panels and scrambles that are walked together."""
    if device != "cpu":
        return max(1, _DEVICE_PATHS // (options.n_scrambles << options.log2_points)), options.n_scrambles
    # One panel: the last digits of torch's functions depend on where in an array a number lies.
    return 1, min(options.n_scrambles, max(1, _CACHED_PATHS >> options.log2_points))


class _Plan(NamedTuple):
    """What all panels of a domain share."""

    n_steps: IntVector
    """(n_expiries,) in every interval."""
    step: Vector
    """(n_expiries,) years."""
    strike: Vector
    """(n_strikes,) in units of the forward."""
    net: Tensor
    """(n_dims, n_scrambles, n_points) int32, the bits of the Sobol points."""
    components: Tensor
    """(n_expiries, n_expiries), orthogonal: normals of the principal components to normals of the intervals."""
    cosines: tuple[Tensor, ...]
    """One (n_steps, n_steps) an interval, orthogonal: normals of an interval and of its cosines to those of steps."""


@lru_cache(maxsize=4)
def _plan(domain: Domain, options: SimulationOptions, device: str) -> _Plan:
    log_moneyness, expiry = domain.grid()
    n_steps = time_steps(expiry, options.largest_step)
    n_dims = expiry.size + int(n_steps.sum())
    net = torch.empty(n_dims, options.n_scrambles, 1 << options.log2_points, dtype=torch.int32)
    for scramble in range(options.n_scrambles):
        engine = SobolEngine(n_dims, scramble=True, seed=scramble)  # type: ignore[no-untyped-call]
        # In float64 the 30 bits come out whole; float32 rounds them, now and then up to 1.
        net[:, scramble] = (engine.draw_base2(options.log2_points, dtype=torch.float64).T * 2.0**_BITS).to(torch.int32)
    return _Plan(
        n_steps=n_steps,
        step=np.diff(expiry, prepend=0.0) / n_steps,
        strike=np.exp(log_moneyness),
        net=net.to(device),
        components=torch.from_numpy(_principal_components(expiry)).to(device),
        cosines=tuple(torch.from_numpy(dct(np.eye(n), norm="ortho", axis=0).T.copy()).to(device) for n in n_steps),
    )


def _require_correction(params: Matrix, steps: Vector) -> None:
    """Raise where E exp(A v') may be infinite, so that the spot has no mean to correct."""
    kappa, _, xi, rho, _ = params.T[:, :, None]
    argument = rho / xi + 0.5 * steps * (kappa * rho / xi - 0.5 * rho * rho)  # K2 + K4 / 2
    # The variance of the next v over its mean is at most this; with psi >= 1.5, 1 / beta is at most 5/6 of it, and with
    # psi <= 1.5, 2 a at most 2/3.
    spread = xi * xi * -np.expm1(-kappa * steps) / kappa
    impossible = (argument * spread * 5.0 / 6.0 >= 1.0).any(axis=1)
    if impossible.any():
        first = int(np.argmax(impossible))
        raise ValueError(f"the martingale correction of panel {first}, {params[first]}, needs shorter steps")


def _principal_components(expiry: Vector) -> Matrix:
    """The orthogonal matrix that takes independent normals, the first the most important, to a Brownian motion's
    increments between the expiries, each divided by the root of its interval."""
    deviation = np.sqrt(expiry)
    covariance = np.minimum.outer(expiry, expiry)
    variance, axes = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    motion = deviation[:, None] * (axes * np.sqrt(variance))[:, ::-1]
    return np.asarray(np.diff(motion, axis=0, prepend=0.0) / np.sqrt(np.diff(expiry, prepend=0.0))[:, None])


def _digital_shift(seed: int, index: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Random bits of one panel, of this shape."""
    # Parameters of the seed's panels are drawn at counters below 2^64 (`panel_parameters`): these lie above.
    bits = np.random.Philox(key=seed, counter=(index + 1) << 64).random_raw(math.prod(shape))
    return (bits >> np.uint64(64 - _BITS)).astype(np.int32).reshape(shape)


class _Sums(NamedTuple):
    """What is kept of the paths of a batch."""

    price: NDArray[np.float64]
    """(n, n_expiries, n_strikes, n_scrambles), of the out-of-the-money option."""
    spot: NDArray[np.float64]
    """(n, n_expiries, n_scrambles)."""
    n_reached: NDArray[np.int64]
    """(n, n_expiries, n_strikes)."""


def _walk(params: Matrix, shift: NDArray[np.int32], plan: _Plan, scrambles: slice) -> _Sums:
    """Walk the paths of panels (n, 5) under these scrambles; `shift` (n_dims, n, n_scrambles)."""
    device = plan.net.device
    net, bits = plan.net[:, scrambles], torch.from_numpy(np.ascontiguousarray(shift)).to(device)

    def normals(dimensions: range) -> Tensor:
        """(n_dimensions, n, n_scrambles, n_points)."""
        where = slice(dimensions.start, dimensions.stop, dimensions.step)
        points = torch.bitwise_xor(net[where, None], bits[where, :, :, None]).to(torch.float64)
        # The middle of each cell of 2^-30, so that no point is 0 or 1; the inverse normal is sqrt 2 erfinv(2 u - 1).
        return points.add_(0.5).mul_(2.0 ** (1 - _BITS)).sub_(1.0).erfinv_().mul_(math.sqrt(2.0))

    n_expiries = len(plan.n_steps)
    of_variance = torch.tensordot(plan.components, normals(range(0, 2 * n_expiries, 2)), 1)
    of_spot = torch.tensordot(plan.components, normals(range(1, 2 * n_expiries, 2)), 1)
    kappa, theta, xi, rho, v0 = torch.from_numpy(params).to(device).T[:, :, None, None]  # (n, 1, 1) each
    v = v0.expand(of_spot.shape[1:])
    log_spot = torch.zeros_like(v)
    price, spot, n_reached = [], [], []
    dimension = 2 * n_expiries
    for e in range(n_expiries):
        n_steps, step = int(plan.n_steps[e]), float(plan.step[e])
        details = normals(range(dimension, dimension + n_steps - 1))
        dimension += n_steps - 1
        z = torch.tensordot(plan.cosines[e], torch.cat((of_variance[e : e + 1], details)), 1)
        # Andersen's K's for gamma1 = gamma2 = 1/2; K1 and K0 merge in the martingale correction.
        k2 = 0.5 * step * (kappa * rho / xi - 0.5) + rho / xi
        k3 = 0.5 * step * (1.0 - rho * rho)
        variance_step = _VarianceStep.of(kappa, theta, xi, step, k2 + 0.5 * k3)
        at_start, sum_of_v, sum_of_log_moments = v, torch.zeros_like(v), torch.zeros_like(v)
        for i in range(n_steps):
            sum_of_v += v
            v, log_moment = variance_step(v, z[i])
            sum_of_log_moments += log_moment
        sum_of_next = sum_of_v - at_start + v
        log_spot = log_spot - sum_of_log_moments - 0.5 * k3 * sum_of_v + k2 * sum_of_next
        log_spot += (k3 * (sum_of_v + sum_of_next)).sqrt_() * of_spot[e]
        paths = log_spot.exp()
        spot.append(paths.mean(-1))
        for strike in plan.strike:
            payoff = (paths - strike if strike >= 1.0 else strike - paths).clamp_(min=0.0)
            price.append(payoff.mean(-1))
            n_reached.append(torch.count_nonzero(payoff, (-2, -1)))
    n, n_scrambles = log_spot.shape[:2]
    grid = (n_expiries, len(plan.strike), n)
    return _Sums(
        torch.stack(price).reshape(*grid, n_scrambles).permute(2, 0, 1, 3).cpu().numpy(),
        torch.stack(spot).transpose(0, 1).cpu().numpy(),
        torch.stack(n_reached).reshape(grid).permute(2, 0, 1).cpu().numpy(),
    )


class _VarianceStep(NamedTuple):
    """Andersen's quadratic-exponential step; every field (n, 1, 1)."""

    decay: Tensor
    """The next variance has mean level + decay * v ..."""
    level: Tensor
    slope: Tensor
    """... and variance constant + slope * v."""
    constant: Tensor
    argument: Tensor
    """A in the moment E exp(A v'), by which the martingale correction divides the spot."""

    @classmethod
    def of(cls, kappa: Tensor, theta: Tensor, xi: Tensor, step: float, argument: Tensor) -> "_VarianceStep":
        decay = (-kappa * step).exp()
        spread = xi * xi * (1.0 - decay) / kappa
        return cls(decay, theta * (1.0 - decay), spread * decay, 0.5 * theta * spread * (1.0 - decay), argument)

    def __call__(self, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The next variance from normals z, and the log of E exp(A v') given v."""
        mean = self.level + self.decay * v
        r = 2.0 * mean * mean / (self.constant + self.slope * v)  # 2 / psi
        exponential = r < 2.0 / _SWITCH
        some_exponential = bool(exponential.any())
        bounded = r.clamp(min=1.0) if some_exponential else r
        b_squared = (bounded * (bounded - 1.0)).sqrt_().add_(bounded).sub_(1.0)
        a = mean / (b_squared + 1.0)
        scaled = a * self.argument
        chi = 1.0 - 2.0 * scaled
        quadratic = (b_squared.sqrt() + z).square_().mul_(a)
        if not some_exponential:
            return quadratic, scaled * b_squared / chi - 0.5 * chi.log()
        above = 2.0 * r / (r + 2.0)  # 1 - p, the probability of a variance above zero
        scale = mean / above  # 1 / beta
        tail = torch.erfc(z * _SQRT_HALF)  # 2 (1 - U), accurate where U is near 1
        drawn = (2.0 * above / tail).clamp_(min=1.0).log_().mul_(scale)
        g = scale * self.argument
        moment = 1.0 + above * g / (1.0 - g)
        log = torch.where(exponential, moment, chi).log_()
        return (
            torch.where(exponential, drawn, quadratic),
            torch.where(exponential, log, scaled * b_squared / chi - 0.5 * log),
        )


def _as_vols(
    price: NDArray[np.float64], spot: NDArray[np.float64], n_reached: NDArray[np.int64], domain: Domain
) -> SimulatedPanels:
    """Averages and their errors over the scrambles, the last axis of `price` and `spot`, with prices turned to vols."""
    log_moneyness, expiry = domain.grid()
    root_n = math.sqrt(price.shape[-1])
    value, value_error = price.mean(-1), price.std(-1, ddof=1) / root_n
    k, t = np.broadcast_arrays(log_moneyness, expiry[:, None])
    k, t = np.broadcast_to(k, value.shape), np.broadcast_to(t, value.shape)
    found = (value > SMALLEST_TIME_VALUE) & (n_reached > 0)
    iv, error = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    iv[found] = implied_volatility_from_time_value(value[found], k[found], t[found]).volatility
    found &= np.isfinite(iv)
    error[found] = value_error[found] / vega(k[found], t[found], iv[found])
    return SimulatedPanels(iv, error, n_reached, spot.mean(-1), spot.std(-1, ddof=1) / root_n)
