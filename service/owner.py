"""The one thread that owns the engine: the inference session and the compiled kernels run on it, one job at a time.

The kernels release the interpreter lock, so the event loop keeps answering meanwhile. A queue and a future of the event
loop's own cost half of what `concurrent.futures` does for the same hand-over, and the queue is where priorities belong.
"""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Job(NamedTuple):
    work: Callable[[], Any]
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class OwnerThread:
    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], T]) -> T:
        """`work()` on the owner's thread, after the jobs before it; not at all if the caller has gone by then."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, done, loop))
        return await done

    def stop(self) -> None:
        """Return once the jobs handed in before have run."""
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.done.cancelled():
                continue
            try:
                result = job.work()
            except BaseException as error:  # the caller's to handle, whatever it is; the thread must go on
                _hand_over(job, job.done.set_exception, error)
            else:
                _hand_over(job, job.done.set_result, result)


def _hand_over(job: _Job, deliver: Callable[[Any], None], outcome: Any) -> None:
    def deliver_unless_gone() -> None:
        if not job.done.done():
            deliver(outcome)

    try:
        job.loop.call_soon_threadsafe(deliver_unless_gone)
    except RuntimeError:
        # The loop was closed while the job ran: nobody waits any more.
        return
