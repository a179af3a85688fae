"""The core of the service: the released networks and what is done with them. Knows no HTTP and no wire format.

Its methods are called on one thread, `owner.OwnerThread`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.black import implied_volatility
from calibrant.calibrate import CalibrationOptions
from calibrant.models import MODELS
from calibrant.models.model import Model
from calibrant.network import Network, released
from calibrant.panel import OptionPanel
from calibrant.pipeline import Assessment, NetworkTooLate, assess, require_network_of
from calibrant.pricing.fourier import PricingError, call_prices_and_gradient, otm_values

from .errors import DeadlineExpired, EngineFailed


@dataclass(frozen=True, kw_only=True)
class CalibrationJob:
    """One panel to calibrate."""

    model: Model
    panel: OptionPanel
    options: CalibrationOptions
    given: Vector | None = None
    """Parameters to start from as well as the network's."""


@dataclass(frozen=True, kw_only=True)
class PriceJob:
    """Options to price with given parameters."""

    model: Model
    params: Vector
    expiry: Vector
    log_moneyness: Vector
    gradient: bool


PRICE_ERROR = 1e-13
"""What the accurate pricer states of itself, in units of the forward: a price near it carries no volatility."""


class Prices(NamedTuple):
    """Undiscounted, in units of the forward."""

    call: Vector
    put: Vector
    implied_vol: Vector
    """NaN where the price carries none."""
    gradient: Matrix | None
    """(n_params, n_quotes), of the call."""


class Engine:
    """The networks of the models served, verified and warm."""

    def __init__(self, networks: Mapping[str, Network]) -> None:
        self.networks = networks

    @classmethod
    def load(cls, folder: Path) -> "Engine":
        """Verify the released networks under `folder` and run everything once, so that no request compiles anything.

        raises  RuntimeError if a network is missing or not what its manifest says, or the installation is not sound
        """
        _refuse_two_runtimes()
        engine = cls({name: require_network_of(model, released(folder, name)) for name, model in MODELS.items()})
        for name in engine.networks:
            engine.warm(MODELS[name])
        return engine

    def warm(self, model: Model) -> None:
        """Every path a request can take, on the panel that the network's artefact carries for its own verification."""
        network = self.networks[model.name]
        expiry, log_moneyness = np.meshgrid(network.grid.expiry, network.grid.log_moneyness, indexing="ij")
        iv = network.manifest.golden_iv[0]
        quoted = np.isfinite(iv)
        panel = OptionPanel.from_quotes(expiry=expiry[quoted], log_moneyness=log_moneyness[quoted], iv=iv[quoted])
        for refine in ("lm", "lbfgs", "none"):
            job = CalibrationJob(model=model, panel=panel, options=CalibrationOptions(refine=refine))
            params = self.calibrate(job).calibration.parameters
        price = PriceJob(
            model=model, params=params, expiry=panel.expiry, log_moneyness=panel.log_moneyness, gradient=True
        )
        self.price(price)

    def calibrate(self, job: CalibrationJob) -> Assessment:
        """The network's start, the refinement, and both arbitrage verdicts of one panel.

        raises  DeadlineExpired if the deadline passes before the network has answered,
                EngineFailed if the result holds a number that is not finite
        """
        try:
            return assess(job.panel, job.model, self.networks[job.model.name], job.options, job.given)
        except NetworkTooLate as error:
            raise DeadlineExpired(str(error)) from None
        except ArithmeticError as error:
            raise EngineFailed(str(error)) from error

    def price(self, job: PriceJob) -> Prices:
        """Calls and puts by the accurate pricer.

        raises  EngineFailed if the pricer does not settle or a number is not finite
        """
        asked = job.model, job.log_moneyness, job.expiry, job.params
        # Out-of-the-money values, so that the cheap side keeps its digits.
        try:
            values = otm_values(*asked)
            gradient = call_prices_and_gradient(*asked)[1] if job.gradient else None
        except PricingError as error:
            raise EngineFailed(str(error)) from error
        rise = np.expm1(job.log_moneyness)
        call, put = values + np.maximum(-rise, 0.0), values + np.maximum(rise, 0.0)
        if not all(np.isfinite(result).all() for result in (call, put, 0.0 if gradient is None else gradient)):
            raise EngineFailed("The prices hold a number that is not finite.")
        # By symmetry a put at k is e^k times a call at -k: all of them as out-of-the-money calls, with their error.
        scale = np.exp(np.maximum(-job.log_moneyness, 0.0))
        vols = implied_volatility(
            scale * values, np.abs(job.log_moneyness), job.expiry, price_error=scale * PRICE_ERROR
        ).volatility
        return Prices(call, put, vols, gradient)


def _refuse_two_runtimes() -> None:
    """onnxruntime and onnxruntime-gpu install the same files: with both, which one runs is an accident."""
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found.append(distribution(name).name)
        except PackageNotFoundError:
            continue
    if len(found) > 1:
        raise RuntimeError(
            f"{' and '.join(found)} are both installed and overwrite each other: uninstall both, then install one."
        )
