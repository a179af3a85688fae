"""Work as a sequence of deterministic steps: whoever drives it decides where the next one runs and when to stop.

A calibration, or prices of thousands of options, is a generator that yields after each step and returns its result. The
steps are the same whoever drives them and however slowly, so an answer never depends on the load; clocks, deadlines,
threads and clients that went away are the driver's alone. A step takes a few milliseconds at most but on panels of tens
of thousands of quotes, so a driver can look at the clock between two, take the work up again on another thread where it
was, or close it and be rid of it.

    work = calibration_steps(panel, model, starts)
    result = finish(work)                              # to the end
    result = finish(work, lambda: clock() >= deadline) # then with the best so far
"""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Progress(NamedTuple):
    """How far the work has come, after a step."""

    done: float
    """Work spent so far, in the unit of the work: quote-evaluations of a calibration, options priced."""
    total: float
    """Work that it will take at most."""


Steps = Generator[Progress, bool, T]
"""Yields after each step. Sent True, it ends with the best so far as soon as there is any; else it goes on."""


def in_one_step(work: Callable[[], T]) -> Steps[T]:
    """Work that is not cut: nobody hears of it before it is done."""
    return work()
    # What makes it a generator.
    yield Progress(0.0, 0.0)


def told(steps: Steps[T], tell: Callable[[bool], bool]) -> Steps[T]:
    """The same steps, told something else than the driver says.

    tell  from whether the driver says that it is enough, whether the steps are told so; what it raises ends them
    """
    with closing(steps):
        enough: bool | None = None
        while True:
            try:
                progress = next(steps) if enough is None else steps.send(enough)
            except StopIteration as ended:
                result: T = ended.value
                return result
            enough = tell((yield progress) is True)


def finish(steps: Steps[T], enough: Callable[[], bool] | None = None) -> T:
    """Drive the steps to their end.

    enough   asked after each step; once true the work is told to end with the best so far
    returns  the result
    """
    try:
        next(steps)
        while True:
            steps.send(enough is not None and enough())
    except StopIteration as ended:
        result: T = ended.value
        return result
