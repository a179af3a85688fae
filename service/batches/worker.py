"""The batch worker: `python -m service.batches.worker INBOX CHANNEL`, descriptors that its supervisor gives it.

Apart from the workers, so that an interactive request shares neither the interpreter lock nor the memory of a process
with a batch, and the operating system can tell them apart: whatever a worker has to do goes before all of this. Audits
come here too: nobody waits for them, but in a worker each took a core for 50 ms.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

import uvloop

from .. import logs
from ..core import Core
from ..lane import Priority
from ..link import Link
from ..metrics import Metrics
from ..processes import allow_many_descriptors, step_behind
from ..scheduler import LANES
from ..settings import Settings
from .answers import BatchAnswers
from .crew import crew_size, usable_cores
from .handover import Inbox

_AUDITS_APART: Mapping[str, Sequence[Priority]] = {
    "batch": (Priority.INTERACTIVE, Priority.LONG, Priority.BULK),
    "audit": (Priority.AUDIT,),
}


def lanes_for(settings: Settings) -> Mapping[str, Sequence[Priority]]:
    """The lanes of this process: audits have one of their own if the batches leave a core free for it.

    Behind batches that come one after the other an audit would never have its turn; beside them on their last core it
    would take half of it, though nobody waits for an audit.
    """
    return _AUDITS_APART if crew_size(settings) < usable_cores() else LANES


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

    batches = BatchAnswers(core)
    taking = Inbox(inbox, batches.answer)
    link = Link(core, orphaned=end_alone)
    await link.open(channel)
    await core.start()
    # Not before: batches wait for it to be ready, and what it then does takes seconds of the processor.
    step_behind()
    taking.open()
    await stopping.wait()
    await taking.close(core.settings.stop_s if orphaned.is_set() else 0.0)
    await core.stop()
    batches.stop()


def main(arguments: list[str]) -> int:
    inbox, channel = (int(argument) for argument in arguments)
    settings = Settings()
    # Its supervisor's business.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    allow_many_descriptors()
    metrics = Metrics()
    lanes = lanes_for(settings)
    core = Core(settings, metrics, metrics.batch_worker_ready, kind="batch worker", refines_batches=True, lanes=lanes)
    writer = logs.set_up(settings.log_level, settings.log_format, metrics.log_drops.inc)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(core, socket.socket(fileno=inbox), channel))
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
