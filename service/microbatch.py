"""One thread for a GPU, and batches of what waits for it.

A GPU answers sixty-four panels in little more than the time of one, so whatever is waiting when it comes free goes
together; nothing is waited for unless a delay is asked for. Its CUDA graphs belong to the thread that captured them, so
what is run is also made on the thread here. Not for the processor, where sixty-four panels take nineteen times as
long as one (market network, one thread) and the first would wait for all of them.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

from .errors import Overloaded

log = logging.getLogger("calibrant.service")

T = TypeVar("T")
R = TypeVar("R")

LARGEST = 64
"""Panels in one batch: the largest size that a session on a GPU has."""
MOST_WAITING = 1024


@dataclass(slots=True, eq=False)
class _Asked(Generic[T, R]):
    item: T
    answer: "Future[R]" = field(default_factory=Future)


class MicroBatcher(Generic[T, R]):
    """Answers single items by a function of many. `ask` may be called from any thread."""

    def __init__(
        self,
        make: Callable[[], Callable[[Sequence[T]], Sequence[R]]],
        *,
        largest: int = LARGEST,
        delay: float = 0.0,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """
        make          called once, on the owner thread: makes the function (loads the networks, captures the graphs)
        largest       items given to it at once
        delay         seconds that the first of a batch waits for others
        most_waiting  items that may wait; the next is refused
        """
        self._make = make
        self._largest = largest
        self._delay = delay
        self._waiting: queue.Queue[_Asked[T, R] | None] = queue.Queue(most_waiting)
        self.ready: Future[None] = Future()
        """Done once the function is made, or with what kept it from being made."""
        self._thread = threading.Thread(target=self._serve, name="microbatch", daemon=True)
        self._thread.start()

    def ask(self, item: T) -> "Future[R]":
        """The answer to come: `.result()` on a thread, `await asyncio.wrap_future(...)` on an event loop. Cancelled
        before its batch begins it is left out.

        raises  Overloaded if too many wait
        """
        asked: _Asked[T, R] = _Asked(item)
        try:
            self._waiting.put_nowait(asked)
        except queue.Full:
            raise Overloaded(f"{self._waiting.maxsize} panels wait for the GPU already.") from None
        return asked.answer

    def stop(self, patience: float = 10.0) -> None:
        """Return once what was asked before has been answered, or after so many seconds."""
        try:
            self._waiting.put(None, timeout=patience)
        except queue.Full:
            return
        self._thread.join(patience)

    def _serve(self) -> None:
        try:
            work = self._make()
        except BaseException as error:  # whoever waits for `ready` is told, whatever it is
            self.ready.set_exception(error)
            work = _failing(error)
        else:
            self.ready.set_result(None)
        going = True
        while going:
            batch, going = self._collect()
            if batch:
                _answer(work, batch)
            del batch

    def _collect(self) -> tuple[list[_Asked[T, R]], bool]:
        """What waits, at least one item; and whether there will be more."""
        first = self._waiting.get()
        if first is None:
            return [], False
        batch = [first] if first.answer.set_running_or_notify_cancel() else []
        until = monotonic() + self._delay
        while len(batch) < self._largest:
            try:
                rest = until - monotonic()
                asked = self._waiting.get(timeout=rest) if rest > 0.0 else self._waiting.get_nowait()
            except queue.Empty:
                break
            if asked is None:
                return batch, False
            if asked.answer.set_running_or_notify_cancel():
                batch.append(asked)
        return batch, True


def _answer(work: Callable[[Sequence[T]], Sequence[R]], batch: list[_Asked[T, R]]) -> None:
    try:
        answers = work([asked.item for asked in batch])
        if len(answers) != len(batch):
            raise RuntimeError(f"{len(batch)} panels got {len(answers)} answers.")
    except BaseException as error:
        if len(batch) == 1:
            # Without this frame, which holds the answer that will hold the error.
            batch[0].answer.set_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
            return
        # One bad item must not fail the others: each finds out for itself.
        log.exception("a batch of %d panels failed", len(batch))
        for asked in batch:
            _answer(work, [asked])
        return
    for asked, answer in zip(batch, answers, strict=True):
        asked.answer.set_result(answer)


def _failing(error: BaseException) -> Callable[[Sequence[T]], Sequence[R]]:
    def work(items: Sequence[T]) -> Sequence[R]:
        raise error

    return work
