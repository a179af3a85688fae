"""The batch worker: `python -m service.batches.worker INBOX CHANNEL`, descriptors that its supervisor gives it.

Apart from the workers, so that an interactive request shares neither the interpreter lock nor the memory of a process
with a batch, and the operating system can tell them apart: whatever a worker has to do goes before all of this.
"""

import asyncio
import logging
import os
import signal
import socket
import sys

import uvloop

from .. import logs
from ..core import Core
from ..link import Link
from ..metrics import Metrics
from ..settings import Settings
from .answers import BatchAnswers
from .handover import Inbox

log = logging.getLogger("calibrant.service")

_LAST = 19


def step_behind() -> None:
    """Have this process, with all threads that it will have, run when nobody else wants to.

    Linux's idle policy, not the lowest priority: a thread that wakes up takes the processor from it at once, and does
    not wait until it has had its turn.
    """
    try:
        # What has been imported may have threads already; those to come inherit it.
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        # Another system, or a sandbox.
        os.nice(_LAST)


async def serve(core: Core, inbox: socket.socket, channel: int) -> None:
    """Until told to stop, or left alone."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, stopping.set)
    batches = BatchAnswers(core)
    taking = Inbox(inbox, batches.answer)
    link = Link(core, orphaned=stopping.set)
    await link.open(channel)
    await core.start()
    taking.open()
    await stopping.wait()
    await taking.close()
    await core.stop()
    batches.stop()


def main(arguments: list[str]) -> int:
    inbox, channel = (int(argument) for argument in arguments)
    step_behind()
    settings = Settings()
    # Its supervisor's business.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    metrics = Metrics()
    core = Core(settings, metrics, metrics.batch_worker_ready, refines_batches=True)
    writer = logs.set_up(settings.log_level, settings.log_format, metrics.log_drops.inc)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(core, socket.socket(fileno=inbox), channel))
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
