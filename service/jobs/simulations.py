"""Leverages and the touches priced under them: answered at once where that is expected to be short, else as jobs.

Every one of them is a job of the store; what is answered at once is one that somebody waits for. The id of a leverage
is that of its job, so it is known for as long and to the same key.
"""

import asyncio
import pickle
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np

from calibrant.caution import Caution
from calibrant.errors import InvalidInput, Problem
from calibrant.slv.estimators import BinnedLocalLinear, KernelRegression, RadialBasis
from calibrant.slv.heston_surface import HestonSurface
from calibrant.slv.particles import ParticleOptions
from calibrant.slv.paths import PathOptions
from calibrant.slv.requests import (
    CalibratedLeverage,
    LeverageRequest,
    QuotedTouch,
    TouchAnswer,
    leverage_work,
    touch_work,
)
from calibrant.slv.requests_by_name import KeptLeverage, NamedLeverage, NamedTouches, leverage_named, touches_named
from calibrant.slv.time_grid import time_grid

from ..batches.answers import BatchAnswer, BatchContext, cut
from ..body import mapped
from ..core import Core
from ..errors import DeadlineExpired, NotFound, TooLarge
from ..lane import Priority
from ..memory import Hold, of_body
from ..wire.formats import FORMATS
from ..wire.mappings import mapping_of
from .progress import driven
from .store import Job, Jobs, State

Kind: TypeAlias = Literal["leverage", "one_touch"]

SOON = 1.0
"""Seconds: what is expected to take fewer is answered at once."""
_PATIENCE = 10.0
"""Seconds in which it is: what takes longer, because others do too, becomes a job after all."""

_PER_PARTICLE, _PER_SORTED_PARTICLE = 6e-8, 3e-7
"""Seconds that a particle takes at a date, moved and shared among cells, or sorted and regressed on by itself."""
_PER_PAIR = 2e-8
"""The same of two particles, where each is left out in turn to choose a bandwidth."""
_PER_ACTIVATION = 2.5e-8
"""Of a cell and a unit; with many units the equations take longer than what they are made of."""
_PER_CELL = 1e-7
_FEW_UNITS = 40
_LONGEST_DATE = 3.0
"""Seconds: a date is a step of the work, and nobody else goes on on its lane meanwhile."""
_PER_PATH_STEP = 6e-8
"""Of a path walked to a date, by one spot."""
_PER_BARRIER = 6e-9
"""The same for each barrier that is watched beside."""
_FITTING = 0.1
"""Of Heston fitted to the surface."""
_QUOTES = 50
"""Vanillas that are priced again, at most, five an expiry."""
_PER_DATE, _PER_DATE_OF_HESTON = 2e-3, 1.5e-2
"""Of the local vol on the nodes of a date: a surface in closed form, or one that has to be priced."""
_TRIES = 10
"""Leverages and prices that it takes to find the mixing."""

_BYTES_PER_PARTICLE = 150
"""Where it is, its place in the order, and what its regression needs."""
_BYTES_PER_ACTIVATION = 32
_BYTES_PER_NODE = 400
"""Of a leverage, as numbers of numpy's and of Python's and in the answer."""
_BYTES_PER_DATE = 60_000
"""That a date takes of the paths walked together: normal numbers of both kinds, and the points they come from."""
_BYTES_PER_WATCHED = 100_000
_MOST_DATES = 10_000
"""What the Sobol sequence has dimensions for."""


class Simulation(NamedTuple):
    """A leverage, or touches, to be answered at once or later."""

    asked: BatchContext
    owner: str
    """Name of the key that it came with; empty where none is needed."""
    kind: Kind
    media_type: str
    """Content type of the body."""
    wanted: str
    """Content type of the answer."""
    later: bool
    """Whether the client would rather ask for the answer."""


class _Effort(NamedTuple):
    """What a request is expected to take."""

    seconds: float
    n_bytes: int


class Simulations:
    """Answers them in this process. Used on its event loop."""

    def __init__(self, core: Core, jobs: Jobs) -> None:
        self._core, self._jobs = core, jobs

    async def answer(self, request: Simulation, body: BinaryIO) -> BatchAnswer:
        """The result, or where it comes later the state of the job, whose id is in the head then.

        raises  InvalidInput, InvalidRequest, TooLarge, Overloaded, DeadlineExpired, and what it failed for
        """
        deadline = request.asked.deadline(None)
        hold = self._core.memory.hold()
        try:
            named = await self._read(request, mapped(body), hold)
            effort = _effort(named)
            most = self._core.settings.max_job_s
            if effort.seconds > most:
                raise TooLarge(
                    f"It is expected to take {effort.seconds:.0f} s of the processor, but may take {most:g} "
                    "(`max_job_s` of the service): ask for fewer particles, paths, dates or barriers."
                )
            hold.grow(effort.n_bytes)
            at_once = not request.later and effort.seconds <= SOON
            work = partial(self._work, request, named, effort.seconds)
            job = self._jobs.begin(request.kind, request.owner, work, brief=at_once)
        except BaseException:
            hold.close()
            raise
        job.task.add_done_callback(lambda _: hold.close())
        if at_once and await self._ended(job, deadline):
            return self._told(job)
        return described(job)

    async def _read(self, request: Simulation, body: memoryview, hold: Hold) -> NamedLeverage | NamedTouches:
        hold.grow(of_body(len(body)))
        run = partial(self._core.scheduler.run, priority=Priority.JOB, deadline=request.asked.deadline(None))
        given = await run(partial(mapping_of, bytes(body), request.media_type))
        if request.kind == "leverage":
            return await run(partial(leverage_named, given))
        # Found here, on the event loop; read there, since a refusal of it is one of many.
        find = self._finder(given.get("leverage"), request.owner)
        return await run(partial(touches_named, given, find))

    def _finder(self, given: object, owner: str) -> Callable[[str], KeptLeverage]:
        kept, why = b"", ""
        if isinstance(given, str):
            try:
                job = self._jobs.find(given, owner)
            except NotFound as error:
                why = error.detail
            else:
                kept = job.kept
                why = "" if kept else f"The job is {job.state.value}, and of the kind {job.kind}."

        def find(_: str) -> KeptLeverage:
            if not kept:
                needed = f"must be the id of an answer of /v1/leverage that is known yet, but is not. {why}"
                raise InvalidInput(Problem.at(("leverage",), needed))
            found = pickle.loads(kept)
            assert isinstance(found, KeptLeverage)
            return found

        return find

    async def _work(
        self, request: Simulation, named: NamedLeverage | NamedTouches, seconds: float, job: Job
    ) -> BatchAnswer:
        scheduler = self._core.scheduler
        if isinstance(named, NamedLeverage):
            calibrated = await driven(scheduler, leverage_work(named.request), seconds)
            kept = KeptLeverage(calibrated, named.surface.conventions)
            job.kept = await scheduler.run(partial(pickle.dumps, kept), priority=Priority.JOB)
            document = partial(_leverage_document, calibrated, named, job.id)
        else:
            priced = await driven(scheduler, touch_work(named.request), seconds)
            document = partial(_touch_document, priced, named)
        encode = FORMATS[request.wanted].encode
        content = await scheduler.run(lambda: encode(document()), priority=Priority.JOB)
        return BatchAnswer({"content-type": request.wanted, "content-length": str(len(content))}, cut(content))

    async def _ended(self, job: Job, deadline: float | None) -> bool:
        """Whether it has, while somebody waited, for a few seconds at most.

        raises  DeadlineExpired
        """
        rest = _PATIENCE if deadline is None else max(deadline - perf_counter(), 0.0)
        try:
            async with asyncio.timeout(min(rest, _PATIENCE)):
                await job.ended.wait()
        except TimeoutError:
            if rest > _PATIENCE or deadline is None:
                return False
            await self._drop(job)
            raise DeadlineExpired("The deadline passed before the result was there.") from None
        except asyncio.CancelledError:
            # Nobody knows of it but who has gone.
            await self._drop(job)
            raise
        return True

    async def _drop(self, job: Job) -> None:
        if not job.state.ended:
            await self._jobs.cancel(job)
        self._jobs.forget(job)

    def _told(self, job: Job) -> BatchAnswer:
        """The result of one that has ended; kept only where its id means something."""
        try:
            return self._jobs.result(job)
        finally:
            if job.state is not State.DONE or not job.kept:
                self._jobs.forget(job)


def described(job: Job) -> BatchAnswer:
    """The state of a job, as it goes over the wire."""
    return BatchAnswer({"job-id": job.id}, cut(FORMATS["application/json"].encode(job.document())))


def _leverage_document(calibrated: CalibratedLeverage, named: NamedLeverage, job_id: str) -> dict[str, Any]:
    """`schema.LeverageResponse`."""
    return {"id": job_id, **calibrated.to_dict(), **_about(named, calibrated.cautions)}


def _touch_document(priced: TouchAnswer, named: NamedTouches) -> dict[str, Any]:
    """`schema.TouchResponse`."""
    return {**priced.to_dict(), **_about(named)}


def _about(named: NamedLeverage | NamedTouches, cautions: tuple[Caution, ...] = ()) -> dict[str, Any]:
    """What an answer says of the surface, and what is to be looked at."""
    surface = named.surface
    warnings = cautions if surface is None else (*surface.warnings, *cautions)
    document = None if surface is None else surface.document()
    return {"surface": document, "warnings": [each.document() for each in warnings]}


def _effort(named: NamedLeverage | NamedTouches) -> _Effort:
    """raises  TooLarge where there are more dates than the numbers have dimensions for"""
    if isinstance(named, NamedLeverage):
        return _of_leverage(named.request)
    request = named.request
    ends = tuple(barrier.expiry for barrier in request.barriers)
    if request.model == "bs":
        return _Effort(1e-3 * len(ends), _BYTES_PER_NODE * len(ends))
    spots = 3 if request.greeks else 1
    priced = _of_paths(request.paths, ends, spots, n_barriers=len(ends))
    if request.model == "slv" and request.calibration is not None:
        calibrated = _of_leverage(request.calibration)
        return _Effort(priced.seconds + calibrated.seconds, priced.n_bytes + calibrated.n_bytes)
    return priced


def _of_leverage(request: LeverageRequest) -> _Effort:
    particles = request.particles
    _require_dates(365.0 * request.maturity / particles.step_days)
    n_dates = time_grid(request.maturity, request.pillars or (), particles.step_days).size
    tries = _TRIES if isinstance(request.mixing, QuotedTouch) else 1
    date = _of_date(particles)
    if date.seconds > _LONGEST_DATE:
        raise TooLarge(
            f"A date is expected to take {date.seconds:.0f} s, but may take {_LONGEST_DATE:g}: ask for fewer particles "
            "or another estimator."
        )
    paths = _of_paths(request.paths, (request.maturity,))
    fitting = _FITTING if request.heston is None else 0.0
    per_date = date.seconds + (_PER_DATE_OF_HESTON if isinstance(request.surface, HestonSurface) else _PER_DATE)
    seconds = fitting + tries * (n_dates * per_date + paths.seconds)
    return _Effort(seconds, date.n_bytes + _BYTES_PER_NODE * particles.n_nodes * n_dates + paths.n_bytes)


def _of_date(particles: ParticleOptions) -> _Effort:
    n, estimator = particles.n_particles, particles.estimator
    seconds, n_bytes = _PER_PARTICLE * n, _BYTES_PER_PARTICLE * n
    if isinstance(estimator, RadialBasis):
        activations = estimator.n_units * (n if estimator.n_cells is None else estimator.n_cells)
        seconds += _PER_ACTIVATION * activations * max(estimator.n_units / _FEW_UNITS, 1.0)
        return _Effort(seconds, n_bytes + _BYTES_PER_ACTIVATION * activations)
    if isinstance(estimator, BinnedLocalLinear):
        return _Effort(seconds + _PER_CELL * estimator.n_cells, n_bytes)
    if isinstance(estimator, KernelRegression) and estimator.bandwidth == "leave_one_out":
        seconds += _PER_PAIR * float(n) ** 2
    return _Effort(seconds + _PER_SORTED_PARTICLE * n, n_bytes)


def _of_paths(paths: PathOptions, ends: tuple[float, ...], spots: int = 1, n_barriers: int = 0) -> _Effort:
    n_dates = paths.dates(np.unique(ends)).size
    _require_dates(n_dates)
    n_steps = 2 * paths.points * paths.n_replicates * n_dates * spots
    n_bytes = _BYTES_PER_DATE * n_dates + _BYTES_PER_WATCHED * (_QUOTES + n_barriers)
    return _Effort(n_steps * (_PER_PATH_STEP + _PER_BARRIER * n_barriers), n_bytes)


def _require_dates(n_dates: float) -> None:
    if n_dates > _MOST_DATES:
        raise TooLarge(f"It would step through {n_dates:.0f} dates, but may through {_MOST_DATES} at most.")
