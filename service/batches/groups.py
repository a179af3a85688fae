"""The panels of a batch, calibrated in groups. Knows no bodies.

The panels go to the lane of batches in groups, each a job of its own, so that more urgent jobs come between and a batch
that nobody waits for any more ends. A group is shared by a crew of threads: first the networks are asked and
the refinements begun, a part of the group in one call that needs no interpreter, then each panel is finished and
judged. Where the GPU refines, thousands of panels are read and refined there in one job, and judged in groups as ever.
A panel that fails is that panel's problem.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

from calibrant.errors import InvalidInput
from calibrant.pipeline import Assessment, Begun
from calibrant.steps import Progress, Steps, in_one_step, told

from ..engine import CalibrationJob, Engine
from ..errors import DeadlineExpired, EngineFailed, ServiceError, bare
from ..lane import Priority
from ..scheduler import Scheduler
from ..wire.batch import Answer, Batch, Deadline, PanelRequest
from .crew import Crew

log = logging.getLogger("calibrant.service")

Part = TypeVar("Part")

GROUP_PANELS = 32
"""For each thread of the crew. A network answers them in a sixth of the time that they take one by one, and what runs
in the interpreter between two compiled calls finds itself in the caches: 16 at a time take a tenth longer."""
GROUP_QUOTES = 4000
"""The same, roughly; so a group takes the lane for some ten milliseconds, or one large panel does."""
GPU_GROUP_PANELS = 4096
GPU_GROUP_QUOTES = 1_000_000
"""The same where the GPU refines: one launch."""
GROUP_BYTES = 30 * GROUP_QUOTES
"""Of a body: a group has no more, beside its last panel."""
AT_A_TIME = 2
"""Groups of one batch on the lane."""
_BEGINNING = 5e-6
_SECONDS_PER_QUOTE = 5e-6
"""Of the lane, roughly, to read a quote and begin with it, and to do the rest; for the estimate of how long others
wait."""


@dataclass(frozen=True, slots=True)
class Done(Generic[Part]):
    """One panel of a batch, calibrated or refused."""

    job: CalibrationJob | None
    """None where the panel was refused."""
    outcome: Assessment | ServiceError
    part: Part
    """What was made of its answer."""


class _Read(NamedTuple):
    """A panel that is ready to be refined."""

    request: PanelRequest
    decode: float
    """Seconds."""
    begun: Begun | None
    """None where that failed on it or its neighbours: it finds out for itself."""


class Groups:
    """Runs the groups of batches on their lane."""

    def __init__(self, scheduler: Scheduler, crew: Crew) -> None:
        self._scheduler = scheduler
        self._crew = crew

    async def run(
        self, engine: Engine, batch: Batch, deadline: Deadline, finish: Callable[[Answer], Part]
    ) -> AsyncGenerator[list[Done[Part]], None]:
        """The panels in groups, in order, each as it is done.

        deadline  of a panel by its budget; of one without a budget it is the batch's
        finish    makes the part of an answer that is kept, on the thread that made the answer
        raises    Overloaded if there is no room for the first group
        """
        handed_in = perf_counter()
        crew = self._crew

        async def read(group: range) -> dict[int, _Read | ServiceError]:
            steps = self._read(engine, batch, group, deadline)
            cost = _BEGINNING * sum(batch.n_quotes(i) for i in group)
            done = await self._scheduler.drive(steps, priority=Priority.BULK, deadline=deadline(None), cost=cost)
            return done.result

        async def done_of(group: range, reading: asyncio.Task[dict[int, _Read | ServiceError]]) -> list[Done[Part]]:
            cost = _SECONDS_PER_QUOTE * sum(batch.n_quotes(i) for i in group)
            try:
                # Shielded: others of its panels may wait for it too.
                panels = await asyncio.shield(reading)
                steps = self._calibrate(engine, batch, group, panels, handed_in, finish)
                done = await self._scheduler.drive(steps, priority=Priority.BULK, deadline=deadline(None), cost=cost)
                return done.result
            except ServiceError as error:
                if group.start == 0 and not isinstance(error, DeadlineExpired):
                    raise
                return [Done(None, bare(error), finish(Answer(i, None, error, {}))) for i in group]

        # One waits while another is done, so that the lane need not wait for the event loop in between.
        under_way: deque[asyncio.Task[list[Done[Part]]]] = deque()
        readings: set[asyncio.Task[dict[int, _Read | ServiceError]]] = set()
        try:
            for whole in _groups(batch, range(batch.n_panels), *_together(engine, crew)):
                reading = asyncio.create_task(read(whole))
                readings.add(reading)
                reading.add_done_callback(readings.discard)
                for group in _groups(batch, whole, GROUP_PANELS * crew.size, GROUP_QUOTES * crew.size):
                    under_way.append(asyncio.create_task(done_of(group, reading)))
                    if len(under_way) == AT_A_TIME:
                        yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in (*under_way, *readings):
                task.cancel()

    def _read(
        self, engine: Engine, batch: Batch, group: range, deadline: Deadline
    ) -> Steps[dict[int, _Read | ServiceError]]:
        """The panels of a group by their number, with what the networks make of them, or why there is none."""
        read: dict[int, _Read | ServiceError] = {}
        of_models: dict[str, list[tuple[int, PanelRequest, float]]] = {}
        # Not shared: reading holds the interpreter lock, and two threads were no faster at it (measured).
        for i in group:
            before = perf_counter()
            try:
                request = batch.panel(i, deadline)
            except Exception as error:
                read[i] = bare(error) if isinstance(error, ServiceError) else _failure(error, i)
            else:
                of_models.setdefault(request.job.model.name, []).append((i, request, perf_counter() - before))
            yield Progress(i - group.start + 1, len(group))
        for name, panels in of_models.items():
            begun = yield from _begun(engine, self._crew, name, [request.job for _, request, _ in panels])
            for (i, request, decode), of_panel in zip(panels, begun, strict=True):
                read[i] = _Read(request, decode, of_panel)
        return read

    def _calibrate(
        self,
        engine: Engine,
        batch: Batch,
        group: range,
        read: Mapping[int, _Read | ServiceError],
        handed_in: float,
        finish: Callable[[Answer], Part],
    ) -> Steps[list[Done[Part]]]:
        began = perf_counter()

        def refusal_of(i: int, error: ServiceError) -> Done[Part]:
            return Done(None, error, finish(Answer(i, None, error, {})))

        def one(place: int) -> Steps[Done[Part]]:
            i = group[place]
            panel = read[i]
            if isinstance(panel, ServiceError):
                return refusal_of(i, panel)
            job = panel.request.job
            try:
                outcome = yield from told(engine.calibration_steps(job, panel.begun), partial(_passed, job.deadline))
                stages = {"decode": panel.decode, "queue": began - handed_in, **outcome.seconds._asdict()}
                return Done(job, outcome, finish(Answer(i, panel.request.echo, outcome, stages)))
            except Exception as error:
                return refusal_of(i, bare(_refusal(error, batch, i)))

        return (yield from self._crew.share(one, len(group)))


def _together(engine: Engine, crew: Crew) -> tuple[int, int]:
    """Panels and quotes, at most, that are read in one job."""
    if engine.gpu_refinement:
        return GPU_GROUP_PANELS, GPU_GROUP_QUOTES
    return GROUP_PANELS * crew.size, GROUP_QUOTES * crew.size


def _groups(batch: Batch, panels: range, most_panels: int, most_quotes: int) -> Iterator[range]:
    """Panels cut into groups, none larger than it should be unless it is a single panel."""
    first, n_quotes = panels.start, 0
    for i in panels:
        more = batch.n_quotes(i)
        if i > first and (i - first == most_panels or n_quotes + more > most_quotes):
            yield range(first, i)
            first, n_quotes = i, 0
        n_quotes += more
    yield range(first, panels.stop)


def _begun(engine: Engine, crew: Crew, model: str, jobs: Sequence[CalibrationJob]) -> Steps[Sequence[Begun | None]]:
    """What is done for panels of one model together, each thread taking parts of them; None where it failed."""
    parts = [jobs[at : at + GROUP_PANELS] for at in range(0, len(jobs), GROUP_PANELS)]

    def begin(place: int) -> Sequence[Begun | None]:
        try:
            return engine.begin(model, parts[place])
        except Exception:
            log.exception("the networks of %s failed on a group of panels", model)
            return [None] * len(parts[place])

    together = yield from crew.share(lambda place: in_one_step(partial(begin, place)), len(parts))
    begun = [of_panel for part in together for of_panel in part]
    if not engine.refines_on_gpu(model) or None in begun:
        return begun
    try:
        return engine.sharpen(jobs, [of_panel for of_panel in begun if of_panel is not None])
    except Exception:
        log.exception("the GPU failed to refine a group of panels, which are refined on the processor")
        return begun


def _passed(deadline: float | None, _: bool) -> bool:
    """Whether a panel has had its time, by its own deadline, whoever drives it."""
    return deadline is not None and perf_counter() >= deadline


def _refusal(error: Exception, batch: Batch, i: int) -> ServiceError:
    """What a panel's answer says where the engine gave none."""
    if isinstance(error, InvalidInput):
        return batch.refusal(i, error.problems)
    if isinstance(error, ServiceError) and not isinstance(error, EngineFailed):
        return error
    return _failure(error, i)


def _failure(error: Exception, i: int) -> EngineFailed:
    log.error("panel %d of a batch failed", i, exc_info=error)
    return EngineFailed(f"The service failed on panel {i} of the batch; the cause is logged.")
