"""American options as European ones: the vol at which an American option has its price, and the forward of such pairs.

Early exercise is worth something, so that put-call parity is a bound only. The vols of both options of a pair, found
with the American option's own value, give the prices that European ones would have, and for those parity holds; their
forward gives a dividend yield, with which the values are found anew, until nothing moves.

Values are QuantLib's (`QdFpAmericanEngine`: Andersen, Lake & Offengenden 2016). They depend on rate, yield and vol by
r T, q T and vol sqrt(T) alone, so every option is valued over one year: QuantLib counts whole days.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import IntVector, Vector
from ..black import call_price, put_price
from ..steps import Progress, Steps
from .parity import Parity, by_parity

_LARGEST_SD = 8.0
_NEAR_SD = 1.5
"""Standard deviations from the forward within which pairs say where it is: beyond, one of the two is all exercise."""
_MOST_PAIRS = 30
_SETTLED = 1e-8
_ROUNDS = 30
_AT_A_TIME = 10
_ACCURACY = 1e-10
"""Of the forward: where a search for a vol ends."""


class AmericanForward(NamedTuple):
    parity: Parity
    dividend_yield: float
    settled: bool


class American:
    """Values of American options of one expiry.

    raises  ImportError without QuantLib
    """

    def __init__(self, spot: float, rate: float, dividend_yield: float, expiry: float) -> None:
        try:
            import QuantLib as ql
        except ImportError as error:
            raise ImportError("American exercise needs QuantLib: pip install 'calibrant[american]'.") from error
        self._ql = ql
        self.spot, self.rate, self.dividend_yield, self.expiry = spot, rate, dividend_yield, expiry
        today = ql.Date(1, 1, 2021)
        days = ql.Actual365Fixed()
        ql.Settings.instance().evaluationDate = today
        self._vol = ql.SimpleQuote(0.2)

        def flat(value: float) -> Any:
            return ql.YieldTermStructureHandle(ql.FlatForward(today, value * expiry, days))

        self._process = ql.GeneralizedBlackScholesProcess(
            ql.QuoteHandle(ql.SimpleQuote(1.0)),
            flat(dividend_yield),
            flat(rate),
            ql.BlackVolTermStructureHandle(
                ql.BlackConstantVol(today, ql.NullCalendar(), ql.QuoteHandle(self._vol), days)
            ),
        )
        # The fast scheme is within 0.1 bp of vol and takes a tenth of the time: it searches, and the accurate one takes
        # the last step.
        self._fast = ql.QdFpAmericanEngine(self._process, ql.QdFpAmericanEngine.fastScheme())
        self._accurate = ql.QdFpAmericanEngine(self._process, ql.QdFpAmericanEngine.accurateScheme())
        self._exercise = ql.AmericanExercise(today, today + 365)

    @property
    def forward(self) -> float:
        return self.spot * math.exp((self.rate - self.dividend_yield) * self.expiry)

    @property
    def discount(self) -> float:
        return math.exp(-self.rate * self.expiry)

    def vol_steps(self, price: Vector, strike: Vector, side: IntVector) -> Steps[Vector]:
        """(n,) The vol at which each option has its price; NaN where none gives it. In steps of a few milliseconds.

        price  (n,) NaN where there is none
        side   (n,) 1 of a call, -1 of a put
        """
        found = np.full(price.size, np.nan)
        for i in range(price.size):
            if i % _AT_A_TIME == _AT_A_TIME - 1:
                yield Progress(i, price.size)
            if math.isfinite(price[i]):
                found[i] = self._vol_of(float(price[i]) / self.spot, float(strike[i]) / self.spot, int(side[i]))
        return found / math.sqrt(self.expiry)

    def european(self, vol: Vector, strike: Vector, side: IntVector) -> Vector:
        """(n,) Prices of European options at these vols."""
        k = np.log(strike / self.forward)
        known = np.isfinite(vol)
        safe = np.where(known, vol, 1.0)
        price = np.where(side > 0, call_price(k, self.expiry, safe), put_price(k, self.expiry, safe))
        return np.where(known, self.discount * self.forward * price, np.nan)

    def _vol_of(self, price: float, strike: float, side: int) -> float:
        from scipy.optimize import brentq

        fast = self._option(strike, side, self._fast)

        def excess(sd: float) -> float:
            self._vol.setValue(sd)
            return float(fast.NPV()) - price

        intrinsic = max(side * (1.0 - strike), 0.0)
        bound = 1.0 if side > 0 else strike
        if not intrinsic + _ACCURACY < price < bound:
            return math.nan
        low, high = 1e-3, 0.5
        while excess(high) < 0.0:
            low, high = high, 2.0 * high
            if high > _LARGEST_SD:
                return math.nan
        if excess(low) > 0.0:
            return math.nan
        root = float(brentq(excess, low, high, xtol=1e-8, rtol=1e-8))
        step = 1e-3 * root
        slope = (excess(root + step) - excess(root - step)) / (2.0 * step)
        if not slope > _ACCURACY:
            return math.nan
        accurate = self._option(strike, side, self._accurate)
        self._vol.setValue(root)
        return root - (float(accurate.NPV()) - price) / slope

    def _option(self, strike: float, side: int, engine: Any) -> Any:
        ql = self._ql
        kind = ql.Option.Call if side > 0 else ql.Option.Put
        option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, strike), self._exercise)
        option.setPricingEngine(engine)
        return option


def american_forward_steps(
    call: Vector,
    put: Vector,
    strike: Vector,
    noise: Vector,
    *,
    spot: float,
    rate: float,
    expiry: float,
    start: float | None,
) -> Steps[AmericanForward | None]:
    """The forward that pairs of American options agree on; None where no pair has two vols.

    call, put, strike, noise  (n_pairs,) as in `by_parity`
    start                     a dividend yield to begin with
    """
    q = 0.0 if start is None else start
    ones = np.ones(call.size, np.int64)
    found: Parity | None = None
    settled = False
    for _ in range(_ROUNDS):
        american = American(spot, rate, q, expiry)
        near = _near(american, call, put, strike)
        of_calls = yield from american.vol_steps(call[near], strike[near], ones[near])
        of_puts = yield from american.vol_steps(put[near], strike[near], -ones[near])
        known = np.isfinite(of_calls) & np.isfinite(of_puts)
        if not known.any():
            return None
        at = near[known]
        difference = american.european(of_calls[known], strike[at], ones[at]) - american.european(
            of_puts[known], strike[at], -ones[at]
        )
        residual = np.full(call.size, np.nan)
        before = american.forward
        found = by_parity(strike[at], difference, noise[at], discount=american.discount)
        residual[at] = found.residual
        tolerance = np.full(call.size, np.inf)
        tolerance[at] = found.tolerance
        found = found._replace(residual=residual, tolerance=tolerance)
        q = rate - math.log(found.forward / spot) / expiry
        settled = abs(found.forward / before - 1.0) < _SETTLED
        if settled:
            break
    assert found is not None
    return AmericanForward(found, q, settled)


def _near(american: American, call: Vector, put: Vector, strike: Vector) -> IntVector:
    """Pairs whose strikes are nearest to the forward, of those whose prices are more than intrinsic."""
    alive = (call > np.maximum(american.spot - strike, 0.0)) & (put > np.maximum(strike - american.spot, 0.0))
    distance = np.abs(np.log(strike / american.forward))
    order = np.argsort(distance, kind="stable")
    order = order[alive[order]]
    if not order.size:
        return np.array(order, np.int64)
    # A first idea of the standard deviation, by the pair at the money.
    straddle = float(call[order[0]] + put[order[0]]) / american.spot
    within = order[distance[order] <= _NEAR_SD * max(straddle / 0.8, 1e-3)]
    return np.array(within[:_MOST_PAIRS] if within.size >= 3 else order[:3], np.int64)
