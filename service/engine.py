"""The core of the service: the models, the released networks, and what is done with them. Knows no HTTP and no format.

Its methods are called on the threads of `scheduler`, one call at a time on each.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from calibrant.arbitrage.accurate_look import accurate_look
from calibrant.arbitrage.surface import price_grid, surface_expiries, verdict_on
from calibrant.arrays import Vector
from calibrant.calibration import calibrate
from calibrant.fit_problem import fit_problem
from calibrant.fits import refined, room_again
from calibrant.models import MODELS
from calibrant.models.model import Model
from calibrant.network import CPU_PROVIDER, ArtefactError
from calibrant.optimisers.newton import polish
from calibrant.options import MAX_WORK, CalibrationOptions, Effort, Refine
from calibrant.panel import OptionPanel
from calibrant.pipeline import Assessment, Begun, NetworkTooLate, assessment_steps, begin_all
from calibrant.prices import Prices, price_steps
from calibrant.release import Release, is_released, released, require_release_of
from calibrant.starts import surface_starts
from calibrant.steps import Steps, finish

from .errors import DeadlineExpired, EngineFailed
from .gpu.owned import owned
from .gpu.refinement import refines, require_gpu, sharpened

log = logging.getLogger("calibrant.service")


class CalibrationJob(NamedTuple):
    """One panel to calibrate."""

    model: Model
    panel: OptionPanel
    options: CalibrationOptions
    given: Vector | None = None
    """Parameters to start from as well as the network's."""
    deadline: float | None = None
    """That the client gave, on the clock of `time.perf_counter`: then refinement ends with the best so far."""


@dataclass(frozen=True, kw_only=True)
class PriceJob:
    """Options to price with given parameters."""

    model: Model
    params: Vector
    expiry: Vector
    log_moneyness: Vector
    gradient: bool


NO_NETWORK = "0"
"""Version of a model that has none: the first release is 1."""
REFINEMENTS: tuple[Refine, ...] = ("lm", "lbfgs", "none")


def warm_up_panels(release: Release) -> list[OptionPanel]:
    """Panels that between them reach everything: the one an artefact carries for its own verification, on a network's
    grid and trusted; the same with one quote that is plainly wrong; and the same moved off the grid, with spreads, gaps
    and duplicates, as log-moneyness and as strikes, too noisy to be fitted or free of arbitrage, and with a quote so
    far out that it says nothing.
    """
    # The first network is the one with fixed strikes, if any is.
    grid, iv = release.networks[0].grid, release.networks[0].manifest.golden_iv[0]
    on_grid = OptionPanel.from_grid(expiry=grid.expiry, log_moneyness=grid.log_moneyness, iv=iv)
    wrong = np.where(np.arange(on_grid.n_quotes) == on_grid.n_quotes // 2, 1.5, 1.0) * on_grid.mid
    stale = OptionPanel.from_quotes(expiry=on_grid.expiry, log_moneyness=on_grid.log_moneyness, iv=wrong)
    noise = 0.02 * np.where(np.arange(on_grid.n_quotes) % 2 == 0, 1.0, -1.0) * on_grid.mid
    expiry = np.concatenate((on_grid.expiry, on_grid.expiry[:3], on_grid.expiry[:1]))
    k = 0.97 * np.concatenate((on_grid.log_moneyness, on_grid.log_moneyness[:3], [2.0]))
    mid = np.concatenate((on_grid.mid + noise, on_grid.mid[:3], on_grid.mid[:1]))
    irregular = OptionPanel.from_quotes(expiry=expiry, strike=100.0 * np.exp(k), forward=100.0, iv=mid)
    gap = np.where(np.arange(mid.size) == 1, np.nan, mid)
    spread = OptionPanel.from_quotes(
        expiry=expiry[::-1], log_moneyness=k[::-1], bid_iv=gap[::-1], ask_iv=1.01 * mid[::-1]
    )
    return [on_grid, stale, irregular, spread]


class Engine:
    """The models served, their networks verified, everything warm."""

    def __init__(
        self,
        releases: Mapping[str, Release],
        provider: str = CPU_PROVIDER,
        gpu_refinement: bool = False,
        max_work: float = MAX_WORK,
    ) -> None:
        self.releases = releases
        """By model. One that is not here starts from the shape of the surface."""
        self.without: Mapping[str, str] = {}
        """Why, by model."""
        self.max_work = max_work
        """Budget of every calibration: see `calibrant.options.Effort`."""
        self.gpu_refinement = gpu_refinement
        """Whether batches of the model that the GPU can refine are refined there."""
        self.provider = provider
        """Of ONNX Runtime, as asked for; each release says what it runs on."""

    @classmethod
    def load(
        cls,
        folder: Path,
        provider: str = CPU_PROVIDER,
        precision: str = "fp32",
        gpu_refinement: bool = False,
        compiled: bool = False,
        max_work: float = MAX_WORK,
    ) -> "Engine":
        """Verify the released networks under `folder` and run everything once, so that no request compiles anything.
        A model without a released network is served from the shape of the surface.

        provider, precision  as `Network.load`
        gpu_refinement       whether batches are refined on the GPU, whatever runs the networks
        compiled             an engine was loaded in this process before: what is still cold is the networks
        max_work             budget of every calibration
        raises  ArtefactError if no model has a network, or one is not what its manifest says; RuntimeError if the
                installation is not sound, or if the GPU is to refine and there is none
        """
        _refuse_two_runtimes()
        if gpu_refinement:
            require_gpu()
        releases: dict[str, Release] = {}
        without: dict[str, ArtefactError] = {}
        for name, model in MODELS.items():
            load = partial(released, folder, name, provider, precision)
            try:
                # A GPU's graphs belong to the thread that made them.
                releases[name] = require_release_of(model, load() if provider == CPU_PROVIDER else owned(load))
            except ArtefactError as error:
                if is_released(folder, name):
                    # Damaged, not missing: whoever put it there is to be told, and an upgrade to stop.
                    raise
                log.info("%s is served without a network: %s", name, error)
                without[name] = error
        if not releases:
            raise next(iter(without.values()))
        engine = cls(releases, provider, gpu_refinement, max_work)
        engine.without = {name: str(error) for name, error in without.items()}
        for name, release in releases.items():
            engine.warm_networks(MODELS[name], warm_up_panels(release))
        if not compiled:
            first = next(iter(releases))
            panels = warm_up_panels(releases[first])
            for name, model in MODELS.items():
                # The kernels are those of all models: the others have only their own way of starting to be warmed.
                engine.warm_kernels(model, panels if name == first else panels[:1])
        return engine

    def warm_networks(self, model: Model, panels: Sequence[OptionPanel]) -> None:
        """Ask the networks for panels together and for each alone."""
        jobs = [CalibrationJob(model=model, panel=panel, options=CalibrationOptions()) for panel in panels]
        for job in jobs:
            self.begin(model.name, [job])
        begun = self.begin(model.name, jobs)
        if self.refines_on_gpu(model.name):
            self.sharpen(model.name, jobs, begun)

    def warm_kernels(self, model: Model, panels: Sequence[OptionPanel]) -> None:
        """Take every path that a request can take, so that everything is compiled before the first one arrives."""
        for panel in panels:
            for refine in REFINEMENTS if model.name in self.releases else ("lm",):
                job = CalibrationJob(model=model, panel=panel, options=CalibrationOptions(refine=refine))
                params = self.calibrate(job).calibration.parameters
        on_grid = panels[0]
        # Where there is no network, or its start leaves doubt, starts are looked for.
        calibrate(on_grid, model, [])
        # For a fit that stops before its last digits, as none of these panels does.
        problem = fit_problem(on_grid, model, CalibrationOptions())
        polish(params.copy(), problem, *room_again(refined(problem, params)))
        # What an audit begins with.
        surface_starts(problem)
        self.price(
            PriceJob(
                model=model, params=params, expiry=on_grid.expiry, log_moneyness=on_grid.log_moneyness, gradient=True
            )
        )
        # The list of the violations of a fitted surface: none of these panels has any.
        expiry = surface_expiries(on_grid.expiries)
        verdict_on(price_grid(model, params, expiry))
        # The accurate pricer, which decides where the check's own numbers say nothing.
        finish(accurate_look(model, params, expiry, math.inf))

    def network_version(self, model: str) -> str:
        """Of the network that serves a model, without its hash."""
        release = self.releases.get(model)
        return NO_NETWORK if release is None else str(release.networks[0].manifest.version)

    def refines_on_gpu(self, model: str) -> bool:
        """Whether batches of a model are refined on the GPU."""
        return self.gpu_refinement and model in self.releases and refines(MODELS[model])

    def begin(self, model: str, jobs: Sequence[CalibrationJob]) -> list[Begun]:
        """What is done for panels of one model together: for a thread's part of a batch."""
        release = self.releases.get(model)
        if release is None:
            return [Begun([], None, 0.0, 0.0) for _ in jobs]
        panels, options = [job.panel for job in jobs], [job.options for job in jobs]
        given = [job.given for job in jobs]
        # Where the GPU refines, it is asked for more panels at a time than the networks: see `sharpen`.
        return begin_all(panels, MODELS[model], release, options, given, refine=not self.refines_on_gpu(model))

    def sharpen(self, model: str, jobs: Sequence[CalibrationJob], begun: Sequence[Begun]) -> list[Begun]:
        """The networks' proposals moved to their optima on the GPU."""
        return sharpened(MODELS[model], [job.panel for job in jobs], begun, [job.options for job in jobs])

    def calibrate(self, job: CalibrationJob, begun: Begun | None = None) -> Assessment:
        """The network's start, the refinement, and both arbitrage verdicts of one panel.

        begun   of `begin` or `sharpen`, where the panel is one of a batch
        raises  DeadlineExpired if the deadline passes before the network has answered,
                EngineFailed if the result holds a number that is not finite
        """
        due = job.deadline
        return finish(self.calibration_steps(job, begun), None if due is None else lambda: perf_counter() >= due)

    def calibration_steps(self, job: CalibrationJob, begun: Begun | None = None) -> Steps[Assessment]:
        """`calibrate`, a step at a time and without a look at the clock."""
        release = self.releases.get(job.model.name)
        effort = Effort(max_work=self.max_work)
        try:
            return (yield from assessment_steps(job.panel, job.model, release, job.options, job.given, begun, effort))
        except NetworkTooLate as error:
            raise DeadlineExpired(str(error)) from None
        except ArithmeticError as error:
            raise EngineFailed(str(error)) from error

    def price_steps(self, job: PriceJob) -> Steps[Prices]:
        """Calls and puts by the accurate pricer, in steps of about a millisecond.

        raises  InvalidInput if an option has no settled price, EngineFailed if a number is not finite
        """
        try:
            return (yield from price_steps(job.model, job.params, job.log_moneyness, job.expiry, gradient=job.gradient))
        except ArithmeticError as error:
            raise EngineFailed(str(error)) from error

    def price(self, job: PriceJob) -> Prices:
        """All the steps of `price_steps`."""
        return finish(self.price_steps(job))


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
