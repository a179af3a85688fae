"""How far the work of a job has come, told by whoever does it: work that is no job's tells nobody."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

from calibrant.steps import Progress, Steps

from ..lane import Priority
from ..scheduler import Scheduler

T = TypeVar("T")
See: TypeAlias = Callable[[Progress], None]

_see: ContextVar[See] = ContextVar("see", default=lambda _: None)


def tell_progress_to(see: See) -> None:
    """Have the progress of all that this task does from now on told."""
    _see.set(see)


def progressed(progress: Progress) -> None:
    _see.get()(progress)


async def driven(scheduler: Scheduler, steps: Steps[T], cost: float) -> T:
    """The result of steps that are the work of a job, driven on the lane of jobs; `cost` in seconds."""
    return (await scheduler.drive(_watched(steps, _see.get()), priority=Priority.JOB, cost=cost)).result


def _watched(steps: Steps[T], see: See) -> Steps[T]:
    enough: bool | None = None
    try:
        while True:
            progress = steps.send(enough)  # type: ignore[arg-type]  # None begins it
            see(progress)
            enough = yield progress
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        steps.close()
