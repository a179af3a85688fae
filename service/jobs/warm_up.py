"""Small leverages and prices that between them take every path of the larger ones."""

from dataclasses import replace
from typing import Any

from calibrant.slv.estimators import ESTIMATORS
from calibrant.slv.requests import leverage_work, touch_work
from calibrant.slv.requests_by_name import leverage_named, touches_named
from calibrant.steps import finish

_RATES = {"spot": 1.1, "domestic_rate": 0.02, "foreign_rate": 0.01}
_HESTON = {"kappa": 1.5, "theta": 0.01, "xi": 0.3, "rho": -0.3, "v0": 0.008}
_PILLARS = {
    "kind": "fx_pillars",
    "pair": "EURUSD",
    **_RATES,
    "expiry": [0.05, 0.1],
    "atm": [0.08, 0.08],
    "rr25": [-0.005, -0.006],
    "bf25": [0.002, 0.002],
}
_CLOSED = {"s0": 0.08, "sinf": 0.1, "b": 1.5, "r0": -0.1, "rinf": -0.3, "a": 1.0, "eta": 1.2, "gam": 0.5, "th0": 0.01}
_MODEL = {"kind": "ssvi", **_RATES, "parameters": _CLOSED}
_SMALL = {"maturity": 0.05, "n_particles": 100, "n_paths": 32, "step_days": 10.0}
_BARRIERS = [{"level": 1.15, "direction": "up", "expiry": 0.05}, {"levels": [1.0, 1.2], "expiry": 0.05}]


def warm_up() -> None:
    """Run all of it once, so that no request compiles anything."""
    given: dict[str, Any] = {"heston": _HESTON, **_SMALL}
    for estimator in ESTIMATORS:
        request = leverage_named({"surface": _MODEL, "estimator": estimator, **given}).request
        finish(leverage_work(replace(request, reprice=False)))
    left_out = {"surface": _MODEL, "estimator": "local_linear_quartic", "bandwidth": "leave_one_out", **given}
    finish(leverage_work(leverage_named(left_out).request))
    paper = {"surface": _PILLARS, "scheme": "euler", "numbers": "antithetic", **_SMALL}
    finish(leverage_work(leverage_named(paper).request))
    for model in ("bs", "lv", "slv"):
        touches = {"surface": _MODEL, "barriers": _BARRIERS, "model": model, "greeks": True, **given}
        finish(touch_work(touches_named(touches).request))
