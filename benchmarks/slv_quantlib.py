"""QuantLib's leverage by Monte Carlo, `HestonSLVMCModel`, on a case of ours."""

import numpy as np
import QuantLib as ql

from calibrant.arrays import Vector
from calibrant.slv.leverage import Leverage
from calibrant.slv.requests import MIXING

from .slv_cases import Case

TODAY = ql.Date(1, 1, 2025)
N_BINS = 201
"""Its default."""


class QuantLibLeverage:
    """The case in QuantLib's terms, its local vols tabulated beforehand."""

    def __init__(self, case: Case, step_days: int = 5, *, shifted: bool = False) -> None:
        """shifted  whether the local vols are handed over a step early, which undoes that it takes each a step late"""
        ql.Settings.instance().evaluationDate = TODAY
        days = ql.Actual365Fixed()
        self.case = case
        self.steps_a_year = 365 // step_days
        self.end = TODAY + round(365.0 * case.maturity)
        self.n_steps = int(np.ceil(case.maturity * self.steps_a_year - 1e-9))
        market, heston = case.surface.market, case.heston
        domestic, foreign = (float(curve.integral(1.0)) for curve in (market.domestic, market.foreign))
        rates = [ql.YieldTermStructureHandle(ql.FlatForward(TODAY, rate, days)) for rate in (domestic, foreign)]
        spot = ql.QuoteHandle(ql.SimpleQuote(market.spot))
        self.model = ql.HestonModel(
            ql.HestonProcess(*rates, spot, heston.v0, heston.kappa, heston.theta, heston.xi, heston.rho)
        )
        dates = np.arange(self.n_steps + 2) * (case.maturity / self.n_steps)
        deviation = float(np.sqrt(case.surface.total_variance(0.0, case.maturity).w))
        strikes = market.spot * np.exp(np.linspace(-7.0, 7.0, 401) * deviation)
        late = dates[1] if shifted else 0.0
        vols = case.local_vol(np.log(strikes), (dates + late)[:, np.newaxis])
        table = ql.Matrix(strikes.size, dates.size)
        for i in range(strikes.size):
            for j in range(dates.size):
                table[i][j] = float(vols[j, i])
        self.local_vol = ql.FixedLocalVolSurface(TODAY, dates.tolist(), strikes.tolist(), table, days)
        self.dates: Vector = dates[:-1].astype(np.float64)

    def calibrated(self, n_particles: int, seed: int = 1234, *, sobol: bool = False) -> ql.LocalVolTermStructure:
        """sobol  whether its numbers are those of its own tests, which know no seed"""
        if sobol:
            ordering = ql.SobolBrownianGenerator.Diagonal
            numbers = ql.SobolBrownianGeneratorFactory(ordering, seed, ql.SobolRsg.JoeKuoD7)
        else:
            numbers = ql.MTBrownianGeneratorFactory(seed)
        return ql.HestonSLVMCModel(
            self.local_vol,
            self.model,
            numbers,
            self.end,
            self.steps_a_year,
            N_BINS,
            n_particles,
            ql.DateVector(),
            MIXING,
        ).leverageFunction()

    def as_ours(self, leverage: ql.LocalVolTermStructure) -> Leverage:
        """Sampled over the range of its own nodes at each date."""
        surface = self.case.surface
        deviation: Vector = np.sqrt(surface.total_variance(0.0, np.maximum(self.dates, 1.0 / 365.0)).w)
        start = surface.market.log_forward(self.dates) - 4.0 * deviation
        step = 8.0 * deviation / 160.0
        nodes = start[:, np.newaxis] + step[:, np.newaxis] * np.arange(161)
        value = np.array(
            [
                [leverage.localVol(min(float(t), leverage.maxTime()), float(s), True) for s in np.exp(row)]
                for t, row in zip(self.dates, nodes, strict=True)
            ]
        )
        return Leverage(expiry=self.dates, start=start, step=step, value=value)
