"""The accurate pricer: any model, from its log characteristic function alone, each option with the error it has.

With s = iu and M(s) = E[(S_T/F)^s], an undiscounted option is an integral up the complex plane,

    I(a) = 1/(2 pi i) int_{a - i inf}^{a + i inf} M(s) e^{(1-s)k} / (s (s - 1)) ds,

the call for a > 1, the put for a < 0, and the call less one for 0 < a < 1 (Lewis 2001). Three choices make it accurate:

* Tilt. On the real axis the logarithm of the integrand is convex between its poles. At its minimum the path crosses a
  saddle: nothing oscillates there, the integral is as large as its integrand, and a far option keeps its digits however
  small it is (Lord & Kahl 2007). The minimum is looked for on a fixed ladder of tilts for each expiry.
* Bend. The path s(y) = a + b (sin w (cosh y - 1) + i cos w sinh y) leaves the saddle upwards and turns by the angle w
  to the side on which the integrand decays, so that what would oscillate dies out exponentially (Boyarchenko &
  Levendorskii 2019), or goes straight on where it would grow.
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
from ..errors import InvalidInput, Problem
from ..models.model import Model
from ..steps import Progress, Steps, finish

UNSETTLED = 1e-10
"""Of the forward: an option known less well has no price."""

_EPSILON = 2.220446049250313e-16
# Tilts: distances from the pole in units of 1 / (standard deviation of the log-price), and those between the poles.
_RATIO = 1.16
_DISTANCES: Vector = 0.05 * np.array([_RATIO**i for i in range(64)])
_BETWEEN = 1.0 / (1.0 + np.exp(np.linspace(6.0, -6.0, 13)))
# An option leaves a rounder rung only for one that is this many e-folds better, so that neighbours share their nodes.
_SHARING = 1.0
# What the last rung before the end of the strip costs, in e-folds, and the scale of a path in distances from that end.
_LAST_RUNG = 3.0
_CLEARANCE = 2.0
_REFINEMENTS = 4
# What a formula's rounding may be of a log-moment, relative to one plus its size, before it is no moment.
_MOMENT_ROUNDING = 1e-11
# Below these the tilts would overflow, and a time value is no number.
_LEAST_VARIANCE = 1e-200
_UNDERFLOW = -746.0
# Path: the scale in units of the saddle's, the angles in radians, the lengths in y, and the logarithm of what may be
# left at its end, of the saddle's height.
_WIDTH = 0.8
_ANGLES = (-0.3, 0.3, 0.0)
# Straight on, jumps of nearly one size neither grow nor fall; what turns does not die out, which costs nodes.
_DEARER = np.array([0.0, 0.0, 1.0])
_ENDS = np.array([3.5, 4.5, 6.0, 8.0, 11.0, 16.0, 25.0, 40.0])
_N_BENDS = len(_ANGLES) * _ENDS.size
_NEGLIGIBLE = -41.0
# Rule: the first step in y, how often it is tried, and what agreement counts, of the integrand's absolute integral.
_FIRST_STEP = 1.0 / 16.0
_HALVINGS = 8
_AGREEMENT = 1e-13
_GRADIENT_AGREEMENT = 1e-9
_STALLED = 1e-8
# Of the saddle: what the integrand's absolute integral may be, since its rounding is lost.
_GROWN = 1e6
# Radians from node to node; aliases turn by 2 pi. Looked at where the integrand is above e^-34 of its peak.
_RESOLVED = 2.5
_SEEN = -34.0
# A step of the work: options looked at together, nodes, and nodes times options.
_BLOCK_OPTIONS = 256
_CHUNK_NODES = 256
_CHUNK_TERMS = 4096


def _rank(n: int, middle: int = 0) -> Vector:
    """What an option pays for a rung: nothing for every eighth, going outward from `middle`."""
    index = np.arange(n) - middle
    rank: Vector = _SHARING * ((index % 2 != 0).astype(float) + (index % 4 != 0) + (index % 8 != 0))
    return rank


_RANKS = np.concatenate((_rank(_DISTANCES.size), _rank(_DISTANCES.size), _rank(_BETWEEN.size, _BETWEEN.size // 2)))


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
    error          < 1e-14 over the admissible bounds, and as a rule < 1e-12 of a small value; `Values.error` states
                   each option's (test_every_value_is_as_good_as_its_stated_error)
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
    if not np.all(values.error <= UNSETTLED):
        worst = int(np.argmax(values.error))
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
    values = Values(np.zeros(k.size), np.zeros(k.size), np.zeros((model.n_params if with_gradient else 0, k.size)))
    order = np.argsort(t, kind="stable")
    ends = np.flatnonzero(np.diff(t[order], append=np.inf)) + 1
    first = 0
    for end in ends.tolist():
        for done in _price_expiry(model, float(t[order[first]]), p, k, order[first:end], values):
            yield Progress(first + done, k.size)
        first = end
    return values


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
    """What turns the logarithm of the height M e^{(1-a)k} into that of the area of the integrand's saddle."""
    width: Vector
    """Scale of the paths, b."""
    rank: Vector
    """What an option pays for the rung: less for rounder ones."""
    open: tuple[float, float]
    """The nearest tilts looked at that lie outside the strip, below and above."""


def _log_moments(model: Model, tilt: Vector, expiry: float, params: Vector) -> ComplexVector:
    with np.errstate(all="ignore"):
        return model.log_characteristic(-1j * tilt, expiry, params)


def _inside(distance: Vector, log_moment: ComplexMatrix) -> IntVector:
    """How many tilts, going outward, lie inside the strip; (n_sides,).

    distance    (n,) from where the line begins, which is inside
    log_moment  (n_sides, n), less its value there

    Beyond the strip a formula gives numbers that are no moments: not real, or their logarithms not convex.
    """
    value: Matrix = log_moment.real.astype(np.float64)
    rounding = _MOMENT_ROUNDING * (1.0 + np.abs(value))
    with np.errstate(all="ignore"):
        good = np.isfinite(log_moment) & (np.abs(log_moment.imag) <= rounding)
        step: Vector = np.diff(distance, prepend=0.0)
        slope = np.diff(value, axis=1, prepend=0.0) / step
        slack = 2.0 * rounding / step
        good[:, 1:] &= slope[:, 1:] >= slope[:, :-1] - slack[:, 1:] - slack[:, :-1]
    return np.where(good.all(axis=1), distance.size, np.argmin(good, axis=1))


def _with_scale(tilt: Vector, log_moment: Vector, rank: Vector, outside: tuple[float, float]) -> _Rungs:
    """Rungs with the integrand's scale from the curvature of its logarithm: M's by differences, the poles' exactly."""
    slope = np.diff(log_moment) / np.diff(tilt)
    bend = np.empty(tilt.size)
    bend[1:-1] = 2.0 * np.diff(slope) / (tilt[2:] - tilt[:-2])
    bend[0], bend[-1] = bend[1], bend[-2]
    poles = tilt * (tilt - 1.0)
    # The poles' share is 1 / a^2 + 1 / (a - 1)^2.
    width = _WIDTH / np.sqrt(np.maximum(bend, 0.0) + (1.0 / poles + 2.0) / poles)
    log_width = np.log(width / np.abs(poles))
    # The end of the strip, where M is singular, shows in no curvature before it is near: it may lie just beyond the
    # last rung, which is therefore dear, and the scale stays within what is known to be clear.
    rank = rank.copy()
    for last, end in ((0, outside[0]), (-1, outside[1])):
        if math.isfinite(end):
            clear = np.abs(tilt - tilt[last])
            clear[last] = 0.25 * abs(end - tilt[last])
            width = np.minimum(width, _CLEARANCE * clear)
            rank[last] += _LAST_RUNG
    return _Rungs(tilt, log_moment, log_width, width, rank, outside)


def _ladder(model: Model, expiry: float, params: Vector, sd: float) -> _Rungs:
    """The tilts that every option of the expiry may choose from."""
    far = _DISTANCES / sd
    n = far.size
    tilt = np.concatenate((-far, 1.0 + far, _BETWEEN))
    moment = _log_moments(model, tilt, expiry, params)
    below, above = _inside(far, moment[: 2 * n].reshape(2, n)).tolist()
    kept = np.concatenate((np.arange(below - 1, -1, -1), np.arange(2 * n, tilt.size), np.arange(n, n + above)))
    outside = (-far[below] if below < n else -math.inf, 1.0 + far[above] if above < n else math.inf)
    return _with_scale(tilt[kept], moment.real[kept].astype(np.float64), _RANKS[kept], outside)


def _refined(model: Model, expiry: float, params: Vector, rungs: _Rungs, up: bool) -> _Rungs:
    """More rungs beyond the last one: nearer to the end of the strip, or further out where none was met."""
    for _ in range(_REFINEMENTS):
        last, inner, pole = (-1, -2, 1.0) if up else (0, 1, 0.0)
        start, outside = float(rungs.tilt[last]), rungs.open[up]
        if math.isinf(outside):
            more = pole + (start - pole) * _RATIO ** np.arange(1.0, 33.0)
        else:
            more = start + (outside - start) * np.arange(1.0, 16.0) / 16.0
        moment = _log_moments(model, more, expiry, params)
        # The last rung goes with the new ones, so that they are held against the slope that leads to it.
        distance: Vector = np.abs(np.concatenate(([start], more)) - rungs.tilt[inner])
        risen = np.concatenate(([rungs.log_moment[last]], moment)) - rungs.log_moment[inner]
        n = max(int(_inside(distance, risen[np.newaxis])[0]) - 1, 0)
        ends = [*rungs.open]
        if n < more.size:
            ends[up] = float(more[n])
        added, value, rank = more[:n], moment.real[:n].astype(np.float64), _rank(n)
        if up:
            tilt, log_moment = np.concatenate((rungs.tilt, added)), np.concatenate((rungs.log_moment, value))
            ranks = np.concatenate((rungs.rank, rank))
        else:
            tilt = np.concatenate((added[::-1], rungs.tilt))
            log_moment = np.concatenate((value[::-1], rungs.log_moment))
            ranks = np.concatenate((rank[::-1], rungs.rank))
        rungs = _with_scale(tilt, log_moment, ranks, (ends[0], ends[1]))
    return rungs


class _Path(NamedTuple):
    """Where an option is integrated: options with the same path share the nodes."""

    tilt: float
    log_moment: float
    log_width: float
    width: float
    angle: int
    end: float


def _path(rungs: _Rungs, rung: int, bend: int) -> _Path:
    tilt, log_moment, log_width, width = (
        float(of_rungs[rung]) for of_rungs in (rungs.tilt, rungs.log_moment, rungs.log_width, rungs.width)
    )
    angle, end = divmod(bend, _ENDS.size)
    return _Path(tilt, log_moment, log_width, width, angle, float(_ENDS[end]))


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
    model: Model, expiry: float, params: Vector, log_moneyness: Vector, chosen: IntVector, values: Values
) -> Generator[int, None, None]:
    """Fill the options `chosen`, which have one expiry; yields how many are done, after each step."""
    variance = model.expected_variance(expiry, params)
    if not variance >= _LEAST_VARIANCE:
        # Time values lie between zero and the deviation.
        values.error[chosen] = math.sqrt(max(variance, 0.0))
        yield chosen.size
        return
    rungs = _ladder(model, expiry, params, math.sqrt(variance))
    ladders: dict[bool | None, _Rungs] = {None: rungs}
    yield 0
    for first in range(0, chosen.size, _BLOCK_OPTIONS):
        block = chosen[first : first + _BLOCK_OPTIONS]
        k = log_moneyness[block]
        heights = _heights(rungs, k)
        # Where the integrand still falls by an e-fold at the last rung, its minimum is worth a closer look.
        best = heights.argmin(axis=1)
        above = (best == rungs.tilt.size - 1) & (rungs.tilt[-1] > 1.0) & (heights[:, -1] < heights[:, -2] - 1.0)
        below = (best == 0) & (rungs.tilt[0] < 0.0) & (heights[:, 0] < heights[:, 1] - 1.0)
        for up, those in ((None, ~(above | below)), (True, above), (False, below)):
            if those.any():
                if up is not None and up not in ladders:
                    ladders[up] = _refined(model, expiry, params, rungs, up)
                    yield first
                for _ in _price_block(model, expiry, params, ladders[up], k[those], block[those], values):
                    yield first
        yield first + block.size


def _price_block(
    model: Model, expiry: float, params: Vector, rungs: _Rungs, k: Vector, chosen: IntVector, values: Values
) -> Generator[None, None, None]:
    """Fill the options `chosen`, whose log-moneyness is `k`, on a ladder of their expiry."""
    bound = _log_chernoff(rungs, k)
    alive = bound > _UNDERFLOW
    if not alive.all():
        k, chosen, bound = k[alive], chosen[alive], bound[alive]
    rung = (_heights(rungs, k) + rungs.rank).argmin(axis=1)
    value, off = np.zeros(k.size), np.full(k.size, np.inf)
    used, on = np.unique(rung, return_inverse=True)
    bends = _bends(model, expiry, params, rungs, used, on, k)
    yield
    for choice in bends.T:
        # What a bend looked at in a few points was wrong about is tried on the next.
        left = np.flatnonzero(np.isinf(off))
        for code, at in _grouped((rung * _N_BENDS + choice)[left]):
            those = left[at]
            path = _path(rungs, *divmod(code, _N_BENDS))
            value[those], off[those], values.gradient[:, chosen[those]] = yield from _integrate(
                model, expiry, params, path, k[those], values.gradient.shape[0]
            )
    residue = _residue(rungs.tilt[rung], k)
    off += _EPSILON * np.abs(residue)
    value += residue
    value[~np.isfinite(value)] = 0.0
    # A value outside its bounds by more than its error is none, and the bounds are what is certain.
    ceiling = np.exp(bound)
    inside = np.clip(value, 0.0, ceiling)
    values.time_value[chosen] = inside
    values.error[chosen] = np.where(np.abs(value - inside) <= off, np.minimum(off, ceiling), ceiling)


def _grouped(codes: IntVector) -> list[tuple[int, IntVector]]:
    """The codes that occur, ascending, each with where."""
    return [(code, np.flatnonzero(codes == code)) for code in sorted(set(codes.tolist()))]


def _residue(tilt: Vector, k: Vector) -> Vector:
    """What the out-of-the-money option is more than the integral at its tilt: the poles between its side and there."""
    call = k >= 0.0
    between = np.where(call, 1.0, np.exp(np.minimum(k, 0.0)))
    across = np.where(call, -1.0, 1.0) * np.expm1(k)
    return np.where(tilt > 1.0, np.where(call, 0.0, across), np.where(tilt < 0.0, np.where(call, across, 0.0), between))


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


_ALL_BENDS = tuple(
    np.concatenate([_unit_path(angle, 0.0, -1)[part] for angle in range(len(_ANGLES))]) for part in range(2)
)


def _bends(
    model: Model, expiry: float, params: Vector, rungs: _Rungs, used: IntVector, on: IntVector, k: Vector
) -> IntVector:
    """How each option's path may bend, (n_quotes, n_angles), the best first: the index into `_ANGLES` times the number
    of `_ENDS`, plus the index of the one where its integrand has become negligible.

    used  the rungs that options are on, looked at in one call: each takes a whole number of vector registers, so that
          its numbers do not depend on which others there are
    on    (n_quotes,) each option's place among them

    Which side an option prefers depends on more than its sign, since M itself turns: so all are looked at. What counts
    is the length, and the growth before the decay, for that is lost in rounding.
    """
    n = _ENDS.size
    tilt = rungs.tilt[used][:, np.newaxis]
    ahead = rungs.width[used][:, np.newaxis] * _ALL_BENDS[0]
    s = tilt + ahead
    with np.errstate(all="ignore"):
        log_phi = model.log_characteristic(-1j * s.reshape(-1), expiry, params).reshape(s.shape)
        size = log_phi.real - rungs.log_moment[used][:, np.newaxis]
        size = size + np.log(np.abs(_ALL_BENDS[1] * (tilt * (tilt - 1.0)) / (s * (s - 1.0))))
        size = (size[on] - k[:, np.newaxis] * ahead.real[on]).reshape(k.size, len(_ANGLES), n)
        # What is no number may be anything.
        size = np.where(np.isnan(size), np.inf, size)
    small = size < _NEGLIGIBLE
    # Twice in a row: a zero that the path happens to pass is not the end.
    small[:, :, :-1] &= small[:, :, 1:]
    last = np.where(small.any(axis=2), small.argmax(axis=2), n - 1)
    peak = np.where(np.arange(n) <= last[:, :, np.newaxis], size, -np.inf).max(axis=2)
    order = np.argsort(_ENDS[last] + _DEARER + 3.0 * np.maximum(peak, 0.0), axis=1, kind="stable")
    codes: IntVector = order * n + np.take_along_axis(last, order, axis=1)
    return codes


class _Nodes(NamedTuple):
    """What the options on a path have in common there."""

    ahead: ComplexVector
    """s - a."""
    logarithm: ComplexVector
    """of the integrand without its dependence on the strike, less that of its absolute value at the saddle."""
    phase: Vector
    """of M."""
    by_parameter: ComplexMatrix
    """(n_params, n_nodes) derivatives of log M."""


def _at_nodes(
    model: Model, expiry: float, params: Vector, path: _Path, halving: int, n_params: int
) -> Generator[None, None, _Nodes]:
    pieces = []
    all_ahead, all_slope = _unit_path(path.angle, path.end, halving)
    poles = path.width * math.exp(-path.log_width)
    for first in range(0, all_ahead.size, _CHUNK_NODES):
        ahead = path.width * all_ahead[first : first + _CHUNK_NODES]
        slope = poles * all_slope[first : first + _CHUNK_NODES]
        s = path.tilt + ahead
        with np.errstate(all="ignore"):
            if n_params:
                log_phi, by_parameter = model.log_characteristic_gradient(-1j * s, expiry, params)
            else:
                log_phi = model.log_characteristic(-1j * s, expiry, params)
                by_parameter = np.empty((0, s.size), dtype=np.complex128)
            log_phi = log_phi - path.log_moment
            logarithm = log_phi + np.log(slope / s / (s - 1.0))
        lost = ~np.isfinite(logarithm)
        if n_params:
            lost |= ~np.isfinite(by_parameter).all(axis=0)
        if lost.any():
            # Nothing where it has underflowed. What is no number may be anything: that is never resolved.
            nothing = logarithm.real == -np.inf
            logarithm[lost] = np.where(nothing[lost], -np.inf, 0.0)
            log_phi[lost] = np.where(nothing[lost], 0.0, 1j * np.inf)
            by_parameter[:, lost] = 0.0
        phase: Vector = log_phi.imag.astype(np.float64)
        pieces.append(_Nodes(ahead, logarithm, phase, by_parameter))
        yield
    if len(pieces) == 1:
        return pieces[0]
    return _Nodes(*(np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True)))


class _Sums(NamedTuple):
    """The trapezoidal rule for the options on a path."""

    now: Matrix
    """(1 + n_params, n_quotes)"""
    before: Matrix
    """With twice the step."""
    earlier: Matrix
    """With four times the step."""
    size: Vector
    """(n_quotes,) the rule for the absolute value of the price's integrand."""
    turn: Vector
    """(n_quotes,) radians, the most that the integrand turns between two nodes where it is not negligible."""
    tail: Vector
    """(n_quotes,) the integrand at the last node, for what lies beyond."""

    def of(self, chosen: slice | BoolVector) -> "_Sums":
        return _Sums(*(values[..., chosen] for values in self))


def _summed(nodes: _Nodes, k: Vector, step: float, last: _Sums | None) -> _Sums:
    """The sums over the first nodes, or with the nodes of a halved step added to the `last`."""
    exponent = nodes.logarithm - np.multiply.outer(k, nodes.ahead)
    log_size = exponent.real
    value = np.exp(exponent)
    real, imag = np.ascontiguousarray(value.real), np.ascontiguousarray(value.imag)
    terms = np.empty((1 + nodes.by_parameter.shape[0], *value.shape))
    terms[0] = real
    if nodes.by_parameter.shape[0]:
        np.multiply(real, nodes.by_parameter.real[:, np.newaxis], out=terms[1:])
        terms[1:] -= imag * nodes.by_parameter.imag[:, np.newaxis]
    seen = log_size > log_size.max(axis=1, keepdims=True) + _SEEN
    phase = nodes.phase - np.multiply.outer(k, nodes.ahead.imag)
    turn = np.where(seen[:, 1:] & seen[:, :-1], np.abs(phase[:, 1:] - phase[:, :-1]), 0.0).max(axis=1)
    size = step * np.abs(real).sum(axis=1)
    if last is None:
        terms[:, :, 0] *= 0.5
        one, two, four = terms.sum(axis=2), terms[:, :, ::2].sum(axis=2), terms[:, :, ::4].sum(axis=2)
        return _Sums(step * one, 2.0 * step * two, 4.0 * step * four, size, turn, np.abs(real[:, -1]))
    now = 0.5 * last.now + step * terms.sum(axis=2)
    return _Sums(now, last.now, last.before, 0.5 * last.size + size, turn, last.tail)


def _judged(sums: _Sums, by_parameter: ComplexMatrix) -> tuple[Vector, BoolVector]:
    """What the integral of each option may be off by, and whether it is good enough, or beyond hope."""
    change, previous = np.abs(sums.now - sums.before), np.abs(sums.before - sums.earlier)
    # Halving the step squares the error, once it has begun to: by as much again as the last time is certain.
    expected = np.minimum(change, change * (change / (previous + 1e-300)))
    allowed = _GRADIENT_AGREEMENT * np.abs(sums.now)
    allowed[1:] += (_GRADIENT_AGREEMENT * np.abs(by_parameter[:, :1].real)) * sums.size
    allowed[0] = _AGREEMENT * sums.size
    settled = expected <= allowed
    # What no longer falls is rounding, and no more nodes will help.
    stalled = change > 0.5 * previous
    stalled[0] &= change[0] <= _STALLED * sums.size
    off = np.where(settled[0] & (change[0] > allowed[0]), expected[0], change[0]) + sums.tail
    good = (sums.turn < _RESOLVED) & (settled[0] | stalled[0])
    grown = ~(sums.size < _GROWN)
    return np.where(good & ~grown, off, np.inf), grown | (good & (settled | stalled).all(axis=0))


def _integrate(
    model: Model, expiry: float, params: Vector, path: _Path, k: Vector, n_params: int
) -> Generator[None, None, tuple[Vector, Vector, Matrix]]:
    """The integral I of options that share a path, its error, and its derivatives (n_params, n_quotes)."""
    result, error = np.empty((1 + n_params, k.size)), np.empty(k.size)
    moneyness = (1.0 - path.tilt) * k
    rounding = _EPSILON * (512.0 + 32.0 * (abs(path.log_moment) + np.abs(moneyness)))
    left, sums = np.arange(k.size), None
    for halving in range(_HALVINGS):
        nodes = yield from _at_nodes(model, expiry, params, path, halving, n_params)
        step = _FIRST_STEP * 0.5**halving
        rows = max(1, _CHUNK_TERMS // nodes.ahead.size)
        pieces = []
        for first in range(0, left.size, rows):
            part = slice(first, first + rows)
            # On a path that bends to the wrong side the sums overflow, and are judged by that.
            with np.errstate(all="ignore"):
                pieces.append(_summed(nodes, k[left[part]], step, None if sums is None else sums.of(part)))
            yield
        sums = (
            pieces[0] if len(pieces) == 1 else _Sums(*(np.concatenate(p, axis=-1) for p in zip(*pieces, strict=True)))
        )
        with np.errstate(all="ignore"):
            off, ended = _judged(sums, nodes.by_parameter)
        if halving == _HALVINGS - 1:
            ended[:] = True
        result[:, left[ended]] = sums.now[:, ended]
        error[left[ended]] = (off + rounding[left] * sums.size)[ended]
        if ended.all():
            break
        left, sums = left[~ended], sums.of(~ended)
    with np.errstate(all="ignore"):
        scale = np.exp(path.log_moment + path.log_width + moneyness) / math.pi
    return scale * result[0], scale * error, scale * result[1:]
