"""The job process: `python -m service.jobs.process INBOX CHANNEL`, descriptors that its supervisor gives it."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

import uvloop

from .. import logs
from ..batches.crew import crew_size, usable_cores
from ..core import Core
from ..lane import Priority
from ..link import Link
from ..metrics import Metrics
from ..processes import allow_many_descriptors, step_behind
from ..settings import Settings
from .handover import Inbox
from .requests import JobAnswers
from .warm_up import warm_up

log = logging.getLogger("calibrant.service")

_WARMING = 60.0
"""Seconds that it may take to compile what simulations need; a second where it was compiled before."""
_BATCHES = (Priority.INTERACTIVE, Priority.LONG, Priority.BULK)


def lanes_for(settings: Settings) -> Mapping[str, Sequence[Priority]]:
    """By the names of the lanes the priorities that they take. Behind batches that come one after the other the turn of
    a job or an audit would never come: each has a lane of its own. But where batches leave no core free, an audit, for
    which nobody waits, would take a share of theirs, so it takes what they leave."""
    if crew_size(settings) < usable_cores():
        return {"batch": _BATCHES, "job": (Priority.JOB,), "audit": (Priority.AUDIT,)}
    return {"batch": (*_BATCHES, Priority.AUDIT), "job": (Priority.JOB,)}


async def serve(core: Core, inbox: socket.socket, channel: int) -> None:
    """Until told to stop, when nobody waits any more; left alone, until what is under way is done."""
    stopping = asyncio.Event()
    orphaned = asyncio.Event()
    loop = asyncio.get_running_loop()
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, stopping.set)

    def end_alone() -> None:
        orphaned.set()
        stopping.set()

    answers = JobAnswers(core)
    taking = Inbox(inbox, answers.answer)
    link = Link(core, orphaned=end_alone)
    await link.open(channel)
    await core.start()
    # Not before: batches wait for it to be ready, and what it then does takes seconds of the processor.
    step_behind()
    taking.open()
    warming = asyncio.create_task(_warmed(core))
    await stopping.wait()
    warming.cancel()
    await taking.close(core.settings.stop_s if orphaned.is_set() else 0.0)
    await answers.stop()
    await core.stop()


async def _warmed(core: Core) -> None:
    """What simulations need read or compiled, before the first of them: they are not waited for at the start."""
    try:
        await core.scheduler.run(warm_up, priority=Priority.JOB, cost=_WARMING)
    except Exception:
        log.exception("simulations are not warm")


def main(arguments: list[str]) -> int:
    inbox, channel = (int(argument) for argument in arguments)
    settings = Settings()
    # Its supervisor's business.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    allow_many_descriptors()
    metrics = Metrics()
    lanes = lanes_for(settings)
    core = Core(settings, metrics, metrics.job_process_ready, kind="job process", refines_batches=True, lanes=lanes)
    writer = logs.set_up(settings.log_level, settings.log_format, metrics.log_drops.inc)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(core, socket.socket(fileno=inbox), channel))
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
