"""The accurate pricer: any model, from its log characteristic function alone, each option with the error it has.

With s = iu and M(s) = E[(S_T/F)^s], an undiscounted option is an integral up the complex plane,

    I(a) = 1/(2 pi i) int_{a - i inf}^{a + i inf} M(s) e^{(1-s)k} / (s (s - 1)) ds,

the call for a > 1, the put for a < 0, and the call less one for 0 < a < 1 (Lewis 2001). Three choices make it accurate:

* Tilt. On the real axis the logarithm of the integrand is convex between its poles. At its minimum the path crosses a
  saddle: nothing oscillates there, the integral is as large as its integrand, and a far option keeps its digits however
  small it is (Lord & Kahl 2007). The minimum is looked for on a fixed ladder of tilts for each expiry.
* Bend. The path s(y) = a + b (sin w (cosh y - 1) + i cos w sinh y) leaves the saddle upwards and turns by the angle w to
  the side on which the integrand decays, so that what would oscillate dies out exponentially (Boyarchenko &
  Levendorskii 2019).
* Halving. The trapezoidal rule in y converges exponentially. Its step is halved until two results agree, and agreement
  counts only where the step resolves the integrand's turning, since aliases of two rules may coincide.

Tilt, angle, length and step of an option follow from the model, the expiry and its own strike: options that arrive at
the same ones share the characteristic function, and no option's price depends on the others in the request.

This is the transparent, slow twin of the compiled fit kernels: it answers `/v1/price` and is the judge of the tests.
"""

import math
from collections.abc import Generator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..arrays import BoolVector, ComplexMatrix, ComplexVector, IntVector, Matrix, Vector
from ..black import time_value
from ..errors import InvalidInput, Problem
from ..models.model import Model
from ..steps import Progress, Steps, finish

_EPSILON = 2.220446049250313e-16
_ANGLES = (-0.3, 0.3)
# Distances of the tilts from the pole, in units of 1 / (standard deviation of the log-price).
_DISTANCES = 0.05 * 1.16 ** np.arange(64)
_BETWEEN = 1.0 / (1.0 + np.exp(np.linspace(-6.0, 6.0, 13)))
# An option takes a rounder rung unless its own is better by this many e-folds, so that neighbours share their nodes.
_SHARING = 0.7
_REFINEMENTS = 4
_WIDTH = 0.8
_ENDS = np.array([1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 14.0, 17.0, 20.0, 24.0, 28.0, 34.0, 40.0])
_NEGLIGIBLE = -41.0
_FIRST_STEP = 1.0 / 16.0
_HALVINGS = 7
_RESOLVED = 2.5
_AGREEMENT = 1e-13
_GRADIENT_AGREEMENT = 1e-9
_STALLED = 1e-8
_UNDERFLOW = -746.0
_CHUNK_NODES = 256
_CHUNK_TERMS = 4096
_LEAST_VARIANCE = 1e-200
UNSETTLED = 1e-10


class PricingError(ArithmeticError):
    """The integral did not settle: no price is better than a wrong one."""


class Values(NamedTuple):
    """Options priced, undiscounted, in units of the forward."""

    time_value: Vector
    """(n_quotes,) of the out-of-the-money option: the put where log_moneyness < 0, else the call; 0 to min(1, e^k)."""
    error: Vector
    """(n_quotes,) what `time_value` may be off by: how far the last two rules differ, and the rounding."""
    gradient: Matrix
    """(n_params, n_quotes) derivatives by the parameters, the same for call and put; (0, n_quotes) where not asked."""


def otm_values(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector) -> Vector:
    """Values of the out-of-the-money options: the put where log_moneyness < 0, else the call.

    log_moneyness  (n_quotes,), log(strike / forward)
    expiry         (n_quotes,), years, > 0
    params         (n_params,)
    returns        (n_quotes,), undiscounted, in units of the forward, from 0 to min(1, strike / forward)
    error          < 1e-13 over the admissible bounds, and relative to a small value: `Values.error` has each option's
    raises         InvalidInput for a shape or value that is no option; PricingError if an integral does not settle
    """
    return _settled(model, log_moneyness, expiry, params, with_gradient=False).time_value


def call_prices(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector) -> Vector:
    """Call prices; arguments, units and errors as `otm_values`."""
    return otm_values(model, log_moneyness, expiry, params) + np.maximum(-np.expm1(log_moneyness), 0.0)


def call_prices_and_gradient(
    model: Model, log_moneyness: Vector, expiry: Vector, params: Vector
) -> tuple[Vector, Matrix]:
    """Call prices and their derivatives by the parameters, (n_params, n_quotes); by parity those of the puts too."""
    values = _settled(model, log_moneyness, expiry, params, with_gradient=True)
    return values.time_value + np.maximum(-np.expm1(log_moneyness), 0.0), values.gradient


def _settled(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector, *, with_gradient: bool) -> Values:
    values = finish(value_steps(model, log_moneyness, expiry, params, with_gradient=with_gradient))
    worst = int(np.argmax(values.error)) if values.error.size else 0
    if values.error.size and not values.error[worst] <= UNSETTLED:
        raise PricingError(
            f"The price of {model.name} with {dict(zip(model.parameters, np.asarray(params).tolist(), strict=True))} "
            f"at log-moneyness {log_moneyness[worst]} and expiry {expiry[worst]} is known to "
            f"{values.error[worst]:.1e} of the forward only."
        )
    return values


def value_steps(
    model: Model, log_moneyness: Vector, expiry: Vector, params: Vector, *, with_gradient: bool = False
) -> Steps[Values]:
    """Time values, their errors and gradient, in steps of about a millisecond: `Progress` counts options priced.

    Arguments as `otm_values`; nothing is raised for an option that does not settle: its error says so.
    """
    k, t, p = (np.asarray(x, dtype=np.float64) for x in (log_moneyness, expiry, params))
    _require_options(model, k, t, p)
    n_parts = 1 + (model.n_params if with_gradient else 0)
    out, error, gradient = np.zeros(k.size), np.zeros(k.size), np.zeros((n_parts - 1, k.size))
    order = np.argsort(t, kind="stable")
    done = 0
    for of_expiry in np.split(order, np.flatnonzero(np.diff(t[order])) + 1) if k.size else []:
        years = float(t[of_expiry[0]])
        for _ in _price_expiry(model, years, p, k, of_expiry, out, error, gradient):
            yield Progress(done, k.size)
        done += of_expiry.size
        yield Progress(done, k.size)
    return Values(out, error, gradient)


def _require_options(model: Model, k: Vector, t: Vector, p: Vector) -> None:
    if k.ndim != 1 or k.shape != t.shape:
        raise InvalidInput(Problem.at(("expiry",), f"must be as long as `log_moneyness` {k.shape}, but is {t.shape}."))
    for name, values, good in (
        ("log_moneyness", k, np.isfinite(k)),
        ("expiry", t, np.isfinite(t) & (t > 0.0)),
    ):
        if not good.all():
            i = int(np.argmin(good))
            raise InvalidInput(
                Problem.at((name, i), f"must be a finite number, and an expiry > 0, but is {values[i]}.")
            )
    if p.shape != (model.n_params,) or not np.isfinite(p).all():
        raise InvalidInput(
            Problem.at(("parameters",), f"must be {model.n_params} finite numbers, but is {p.tolist()}.")
        )


class _Rungs(NamedTuple):
    """Tilts a of one expiry inside the strip of finite moments, ascending, and what is known of M there."""

    tilt: Vector
    log_moment: Vector
    log_width: Vector
    """log of the scale on which the integrand changes at the tilt, over a(a-1): what turns its height into an area."""
    width: Vector
    rank: Vector
    """What an option pays for the rung: less for rounder ones."""
    open: tuple[float, float]
    """The nearest tilts looked at that lie outside the strip, below and above."""


def _log_moments(model: Model, tilt: Vector, expiry: float, params: Vector) -> ComplexVector:
    with np.errstate(all="ignore"):
        return model.log_characteristic(-1j * tilt, expiry, params)


def _valid(tilt: Vector, pole: float, log_moment: ComplexVector) -> int:
    """How many tilts, going outward from the pole, lie inside the strip.

    Beyond it a formula gives numbers that are no moments: not real, negative where Jensen forbids it, or not convex.
    """
    value = log_moment.real
    rounding = 1e-11 * (1.0 + np.abs(value))
    with np.errstate(all="ignore"):
        real = np.isfinite(log_moment) & (np.abs(log_moment.imag) <= rounding) & (value >= -rounding)
        distance = np.abs(np.diff(np.concatenate(([pole], tilt))))
        slope = np.diff(np.concatenate(([0.0], value))) / distance
        slack = (rounding + np.concatenate(([0.0], rounding[:-1]))) / distance
        convex = np.concatenate(([True], slope[1:] >= slope[:-1] - slack[1:] - slack[:-1]))
    good = real & convex
    return int(good.size if good.all() else np.argmin(good))


def _with_scale(tilt: Vector, log_moment: Vector, rank: Vector, outside: tuple[float, float]) -> _Rungs:
    """Rungs with the integrand's scale from the curvature of its logarithm: M's by differences, the poles' exactly."""
    second = np.zeros(tilt.size)
    if tilt.size > 2:
        slope = np.diff(log_moment) / np.diff(tilt)
        second[1:-1] = np.maximum(np.diff(slope) / (0.5 * (tilt[2:] - tilt[:-2])), 0.0)
        second[0], second[-1] = second[1], second[-2]
    width = _WIDTH / np.sqrt(second + 1.0 / (tilt * tilt) + 1.0 / ((tilt - 1.0) * (tilt - 1.0)))
    log_width = np.log(width) - np.log(np.abs(tilt)) - np.log(np.abs(tilt - 1.0))
    return _Rungs(tilt, log_moment, log_width, width, rank, outside)


def _rank(n: int, middle: int) -> Vector:
    index = np.arange(n) - middle
    rounder: Vector = _SHARING * ((index % 2 != 0).astype(float) + (index % 4 != 0) + (index % 8 != 0))
    return rounder


def _ladder(model: Model, expiry: float, params: Vector, sd: float) -> _Rungs:
    """The tilts that every option of the expiry may choose from."""
    far = _DISTANCES / sd
    n = far.size
    tilt = np.concatenate((-far[::-1], _BETWEEN[::-1], 1.0 + far))
    moment = _log_moments(model, tilt, expiry, params)
    below = _valid(tilt[:n][::-1], 0.0, moment[:n][::-1])
    above = _valid(tilt[-n:], 1.0, moment[-n:])
    kept = slice(n - below, tilt.size - n + above)
    rank = np.concatenate((_rank(n, 0)[::-1], _rank(_BETWEEN.size, _BETWEEN.size // 2), _rank(n, 0)))
    outside = (-far[below] if below < n else -math.inf, 1.0 + far[above] if above < n else math.inf)
    return _with_scale(tilt[kept], moment.real[kept], rank[kept], outside)


def _refined(model: Model, expiry: float, params: Vector, rungs: _Rungs, up: bool) -> _Rungs:
    """More rungs beyond the last one: nearer to the end of the strip, or further out where none was met."""
    for _ in range(_REFINEMENTS):
        last, outside = (rungs.tilt[-1], rungs.open[1]) if up else (rungs.tilt[0], rungs.open[0])
        pole = 1.0 if up else 0.0
        if math.isinf(outside):
            more = pole + (last - pole) * 1.16 ** np.arange(1, 33)
        else:
            more = last + (outside - last) * np.arange(1, 16) / 16.0
        line = np.concatenate(([last], more))
        moment = _log_moments(model, line, expiry, params)
        inner = rungs.log_moment[-2] if up else rungs.log_moment[1]
        n = _valid_beyond(line, moment, rungs.tilt[-2] if up else rungs.tilt[1], inner)
        outside = more[n] if n < more.size else outside
        added, value, rank = more[:n], moment.real[1 : n + 1], _rank(n, 0)
        if up:
            rungs = _with_scale(
                np.concatenate((rungs.tilt, added)),
                np.concatenate((rungs.log_moment, value)),
                np.concatenate((rungs.rank, rank)),
                (rungs.open[0], outside),
            )
        else:
            rungs = _with_scale(
                np.concatenate((added[::-1], rungs.tilt)),
                np.concatenate((value[::-1], rungs.log_moment)),
                np.concatenate((rank[::-1], rungs.rank)),
                (outside, rungs.open[1]),
            )
    return rungs


def _valid_beyond(line: Vector, log_moment: ComplexVector, inner_tilt: float, inner: float) -> int:
    """As `_valid`, for tilts line[1:] beyond a rung line[0] and the one inside it."""
    value = np.concatenate(([inner], log_moment.real))
    rounding = 1e-11 * (1.0 + np.abs(value))
    with np.errstate(all="ignore"):
        distance = np.abs(np.diff(np.concatenate(([inner_tilt], line))))
        slope = np.diff(value) / distance
        slack = (rounding[1:] + rounding[:-1]) / distance
        good = (
            np.isfinite(log_moment[1:])
            & (np.abs(log_moment.imag[1:]) <= rounding[2:])
            & (slope[1:] >= slope[:-1] - slack[1:] - slack[:-1])
        )
    return int(good.size if good.all() else np.argmin(good))


class _Path(NamedTuple):
    """Where an option is integrated: options with the same path share the nodes."""

    tilt: float
    log_moment: float
    width: float
    angle: int
    end: float


def _heights(rungs: _Rungs, k: Vector) -> Matrix:
    """(n_quotes, n_rungs) logarithm of what the integral's terms add up to: its rounding is that times 1e-16."""
    heights: Matrix = rungs.log_moment + rungs.log_width + np.multiply.outer(k, 1.0 - rungs.tilt)
    return heights


def _log_chernoff(rungs: _Rungs, k: Vector) -> Vector:
    """Logarithm of an upper bound of each time value, from moments alone.

    The call is below M(a) e^{(1-a)k} (a-1)^{a-1} / a^a for every a > 1; the put likewise with 1 - a for a.
    """
    result = np.minimum(k, 0.0)
    for side, chosen in ((rungs.tilt > 1.0, k >= 0.0), (rungs.tilt < 0.0, k < 0.0)):
        if side.any() and chosen.any():
            a = rungs.tilt[side]
            longer, shorter = np.maximum(np.abs(a), np.abs(a - 1.0)), np.minimum(np.abs(a), np.abs(a - 1.0))
            constant = rungs.log_moment[side] - np.log(longer) + shorter * np.log1p(-1.0 / longer)
            bounds = constant + np.multiply.outer(k[chosen], 1.0 - a)
            result[chosen] = np.minimum(result[chosen], bounds.min(axis=1))
    return result


def _price_expiry(
    model: Model,
    expiry: float,
    params: Vector,
    log_moneyness: Vector,
    chosen: IntVector,
    out: Vector,
    error: Vector,
    gradient: Matrix,
) -> Generator[None, None, None]:
    """Fill the options `chosen`, which have one expiry."""
    k = log_moneyness[chosen]
    variance = model.expected_variance(expiry, params)
    if not variance >= _LEAST_VARIANCE:
        # Time values lie between zero and the deviation, which no arithmetic tells apart here.
        sd = math.sqrt(max(variance, 0.0))
        out[chosen], error[chosen] = time_value(k, sd), sd
        return
    sd = math.sqrt(variance)
    rungs = _ladder(model, expiry, params, sd)
    yield
    heights = _heights(rungs, k)
    # Where the integrand still falls by an e-fold at the last rung, its minimum is worth a closer look.
    best = heights.argmin(axis=1)
    up = (best == rungs.tilt.size - 1) & (rungs.tilt[-1] > 1.0) & (heights[:, -1] < heights[:, -2] - 1.0)
    down = (best == 0) & (rungs.tilt[0] < 0.0) & (heights[:, 0] < heights[:, 1] - 1.0)
    for those in (~(up | down), up, down):
        if not those.any():
            continue
        table = rungs
        if (those & (up | down)).any():
            table = _refined(model, expiry, params, rungs, up=those is up)
            yield
        yield from _price_on(model, expiry, params, table, k[those], chosen[those], out, error, gradient)


def _price_on(
    model: Model,
    expiry: float,
    params: Vector,
    rungs: _Rungs,
    k: Vector,
    chosen: IntVector,
    out: Vector,
    error: Vector,
    gradient: Matrix,
) -> Generator[None, None, None]:
    bound = _log_chernoff(rungs, k)
    alive = bound > _UNDERFLOW
    k, chosen, bound = k[alive], chosen[alive], bound[alive]
    rung = (_heights(rungs, k) + rungs.rank).argmin(axis=1)
    for i in np.unique(rung):
        on_rung = np.flatnonzero(rung == i)
        tilt, log_moment, width = float(rungs.tilt[i]), float(rungs.log_moment[i]), float(rungs.width[i])
        side, end = _bends(model, expiry, params, tilt, log_moment, width, k[on_rung])
        yield
        code = side * _ENDS.size + end
        for c in np.unique(code):
            those = on_rung[code == c]
            path = _Path(tilt, log_moment, width, int(c) // _ENDS.size, float(_ENDS[int(c) % _ENDS.size]))
            n_params = gradient.shape[0]
            value, off, slopes = yield from _integrate(model, expiry, params, path, k[those], n_params)
            residue = _residue(tilt, k[those])
            ceiling = np.exp(bound[those])
            off += _EPSILON * np.abs(residue)
            value = value + residue
            # Outside its bounds a value is wrong by at least as much.
            inside = np.clip(value, 0.0, ceiling)
            off = np.where(np.abs(value - inside) <= off, np.minimum(off, ceiling), ceiling)
            at = chosen[those]
            out[at], error[at], gradient[:, at] = inside, off, slopes


def _residue(tilt: float, k: Vector) -> Vector:
    """What the out-of-the-money option is more than the integral at this tilt."""
    if tilt > 1.0:
        return np.where(k >= 0.0, 0.0, np.expm1(k))
    if tilt < 0.0:
        return np.where(k < 0.0, 0.0, -np.expm1(k))
    return np.where(k >= 0.0, 1.0, np.exp(k))


@lru_cache(maxsize=256)
def _unit_path(angle: int, end: float, halving: int) -> tuple[ComplexVector, ComplexVector]:
    """(s(y) - a) / b and (ds/dy / i) / b at the nodes that a halving of the step adds, at all for the first.

    angle     index into `_ANGLES`
    halving   0 for the first step; -1 for the points of `_ENDS`
    """
    step = _FIRST_STEP * 0.5**halving
    if halving < 0:
        y = _ENDS
    elif halving == 0:
        y = step * np.arange(round(end / step) + 1)
    else:
        y = step * np.arange(1, round(end / step), 2)
    sine, cosine = math.sin(_ANGLES[angle]), math.cos(_ANGLES[angle])
    half, sinh, cosh = np.sinh(0.5 * y), np.sinh(y), np.cosh(y)
    return 2.0 * sine * half * half + 1j * cosine * sinh, cosine * cosh - 1j * sine * sinh


_BOTH_BENDS = tuple(
    np.concatenate([_unit_path(angle, 0.0, -1)[part] for angle in range(len(_ANGLES))]) for part in range(2)
)


def _bends(
    model: Model, expiry: float, params: Vector, tilt: float, log_moment: float, width: float, k: Vector
) -> tuple[IntVector, IntVector]:
    """The side to which each option's path bends, and where on `_ENDS` its integrand has become negligible.

    Which side an option prefers depends on more than its sign, since M itself turns: so both sides are looked at. What
    counts is the length, and the growth before the decay, for that is lost in rounding.
    """
    n = _ENDS.size
    ahead = width * _BOTH_BENDS[0]
    s = tilt + ahead
    with np.errstate(all="ignore"):
        log_phi = model.log_characteristic(-1j * s, expiry, params) - log_moment
        size = log_phi.real + np.log(np.abs(_BOTH_BENDS[1] * (tilt * (tilt - 1.0)) / (s * (s - 1.0))))
        size = np.nan_to_num(size - np.multiply.outer(k, ahead.real), nan=-np.inf).reshape(k.size, 2, n)
    small = size < _NEGLIGIBLE
    # Twice in a row: a zero that the path happens to pass is not the end.
    small[:, :, :-1] &= small[:, :, 1:]
    last = np.where(small.any(axis=2), small.argmax(axis=2), n - 1)
    peak = np.where(np.arange(n) <= last[:, :, np.newaxis], size, -np.inf).max(axis=2)
    angle = np.argmin(_ENDS[last] + 3.0 * np.maximum(peak, 0.0), axis=1)
    return angle, last[np.arange(k.size), angle]


class _Nodes(NamedTuple):
    """What the options on a path have in common there."""

    ahead: ComplexVector
    """s - a."""
    logarithm: ComplexVector
    """of the integrand without its dependence on the strike, over M(a)."""
    phase: Vector
    """of M."""
    by_parameter: ComplexMatrix
    """(n_params, n_nodes) derivatives of log M."""


def _at_nodes(
    model: Model, expiry: float, params: Vector, path: _Path, halving: int, n_params: int
) -> Generator[None, None, _Nodes]:
    pieces = []
    all_ahead, all_slope = _unit_path(path.angle, path.end, halving)
    for first in range(0, all_ahead.size, _CHUNK_NODES):
        ahead = path.width * all_ahead[first : first + _CHUNK_NODES]
        slope = path.width * all_slope[first : first + _CHUNK_NODES]
        s = path.tilt + ahead
        with np.errstate(all="ignore"):
            if n_params:
                log_phi, by_parameter = model.log_characteristic_gradient(-1j * s, expiry, params)
            else:
                log_phi = model.log_characteristic(-1j * s, expiry, params)
                by_parameter = np.empty((0, s.size), dtype=np.complex128)
            log_phi = log_phi - path.log_moment
            logarithm = log_phi + np.log(slope / s / (s - 1.0))
        # Beyond double precision's reach the integrand is nothing.
        lost = ~np.isfinite(logarithm)
        if n_params:
            lost |= ~np.isfinite(by_parameter).all(axis=0)
        if lost.any():
            logarithm[lost] = -np.inf
            log_phi[lost] = 0.0
            by_parameter[:, lost] = 0.0
        pieces.append(_Nodes(ahead, logarithm, log_phi.imag, by_parameter))
        yield
    if len(pieces) == 1:
        return pieces[0]
    return _Nodes(*(np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True)))


class _Sums(NamedTuple):
    """Sums over nodes for the options on a path, each row of the last axis one node's."""

    terms: Matrix
    """(1 + n_params, n_quotes, n_nodes)"""
    size: Vector
    """(n_quotes,) of absolute values, prices alone."""
    turn: Vector
    """(n_quotes,) the largest turn between nodes, where the integrand is not negligible."""


def _terms(nodes: _Nodes, k: Vector) -> _Sums:
    exponent = nodes.logarithm - np.multiply.outer(k, nodes.ahead)
    log_size = exponent.real
    value = np.exp(exponent)
    terms = np.empty((1 + nodes.by_parameter.shape[0], *value.shape))
    terms[0] = value.real
    for i, of_parameter in enumerate(nodes.by_parameter):
        terms[1 + i] = value.real * of_parameter.real - value.imag * of_parameter.imag
    seen = log_size > log_size.max(axis=1, keepdims=True) - 34.0
    phase = nodes.phase - np.multiply.outer(k, nodes.ahead.imag)
    turn = np.abs(np.diff(phase, axis=1)) * (seen[:, 1:] & seen[:, :-1])
    return _Sums(terms, np.abs(terms[0]).sum(axis=1), turn.max(axis=1, initial=0.0))


def _integrate(
    model: Model, expiry: float, params: Vector, path: _Path, k: Vector, n_params: int
) -> Generator[None, None, tuple[Vector, Vector, Matrix]]:
    """The integral I of options that share a path, its error, and its derivatives (n_params, n_quotes)."""
    result, error = np.empty((1 + n_params, k.size)), np.full(k.size, np.inf)
    now, before, earlier = np.zeros((3, 1 + n_params, k.size))
    size, turn, tail = np.zeros((3, k.size))
    level = np.zeros((1 + n_params, k.size))
    rounding = _EPSILON * (64.0 + 4.0 * (abs(path.log_moment) + np.abs((1.0 - path.tilt) * k)))
    left = np.arange(k.size)
    for halving in range(_HALVINGS):
        step = _FIRST_STEP * 0.5**halving
        nodes = yield from _at_nodes(model, expiry, params, path, halving, n_params)
        rows = max(1, _CHUNK_TERMS // nodes.ahead.size)
        for first in range(0, left.size, rows):
            q = left[first : first + rows]
            terms, of_size, turn[q] = _terms(nodes, k[q])
            if halving == 0:
                terms[:, :, 0] *= 0.5
                now[:, q] = step * terms.sum(axis=2)
                before[:, q] = 2.0 * step * terms[:, :, ::2].sum(axis=2)
                earlier[:, q] = 4.0 * step * terms[:, :, ::4].sum(axis=2)
                size[q] = step * of_size
                tail[q] = np.abs(terms[0, :, -1])
                level[1:, q] = np.abs(nodes.by_parameter[:, :1].real)
            else:
                earlier[:, q], before[:, q] = before[:, q], now[:, q]
                now[:, q] = 0.5 * before[:, q] + step * terms.sum(axis=2)
                size[q] = 0.5 * size[q] + step * of_size
            yield
        change, previous = np.abs(now - before), np.abs(before - earlier)
        # Halving the step squares the error, if it has begun to: then by as much as the last time is certain.
        with np.errstate(all="ignore"):
            expected = np.where(change < previous, change * (change / previous), change)
        allowed = _GRADIENT_AGREEMENT * (np.abs(now) + size * level)
        allowed[0] = _AGREEMENT * size
        resolved = turn < _RESOLVED
        settled = resolved & (expected <= allowed).all(axis=0)
        # What no longer falls is rounding, and no more nodes will help.
        stalled = resolved & (change[0] > 0.1 * previous[0]) & (change[0] <= _STALLED * size)
        ended = left[(settled | stalled)[left]]
        result[:, ended] = now[:, ended]
        off = np.where(settled & (change[0] > allowed[0]), expected[0], change[0])
        error[ended] = (off + rounding * size + tail)[ended]
        left = left[~(settled | stalled)[left]]
        if left.size == 0:
            break
    result[:, left] = now[:, left]
    with np.errstate(all="ignore"):
        scale = np.exp(path.log_moment + (1.0 - path.tilt) * k) / math.pi
    return scale * result[0], scale * error, scale * result[1:]
