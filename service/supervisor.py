"""The parent process: it owns the sockets, keeps the others alive, and adds up their metrics. It serves no request.

The others are the workers and the job process, which calibrates their batches and audits their answers: it comes when
the first of them has started, so as not to hold that up, and goes when the last one has ended. So do the other workers:
where the kernels are not compiled yet the first one compiles them, and gives way, since the compiler keeps half a
gigabyte; all others find them compiled.

The socket is bound here and shared, not opened by each worker with SO_REUSEPORT: connections that wait to be accepted
then belong to all workers, and outlive the one that dies. It listens only once the first worker serves, so that a port
that answers is a service that is ready. A worker that has nothing to serve accepts no connection as long as another
one has: it would refuse what that one answers.

Workers are started as programs, not forked: the runtime of the network has threads, and threads do not survive a fork.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Coroutine
from functools import partial
from itertools import count
from time import monotonic
from typing import NamedTuple

from . import logs
from .channel import Channel, Message
from .metrics import Metrics
from .processes import Stall
from .settings import Settings
from .tally import Snapshot, merged

log = logging.getLogger("calibrant.supervisor")

SILENCE = 5.0
"""Seconds without a heartbeat, which comes twice a second, after which a worker hangs; `processes.Stall` says which
seconds count on a machine that is busy with others."""
SILENCE_BEHIND = 60.0
"""The same of the job process, which runs when nobody else wants to."""
START = 600.0
"""Seconds for the first: compiling everything anew on a slow machine takes minutes."""
LAST_WORDS = 0.5
"""Seconds in which a worker that knows that its engine hangs can tell those that wait."""
SNAPSHOTS = 0.5
"""Seconds that a scrape waits for the workers; of one that is late the last snapshot counts."""
RELOAD = 120.0
LAST_JOBS = 5.0
"""Seconds in which the job process ends by itself, when nobody waits for it any more."""
WORKER = "service.worker"
JOB_PROCESS = "service.jobs.process"
_KIND = "supervisor"
"""Kind of process, in the metrics."""
_WATCH = 0.25
_HEARTBEATS = 1.0
"""Seconds in which there are some, of a worker that is well on a machine that is not busy."""
_SOON = 30.0
"""A worker that ends sooner than so many seconds after its start is started again after a pause that doubles."""
_LONGEST_PAUSE = 10.0


class Role(NamedTuple):
    """What a process is for."""

    name: str
    module: str
    """Run with its descriptors and that of its channel."""
    descriptors: tuple[int, ...]
    silence: float


class Worker:
    """One process, as its parent sees it."""

    def __init__(self, number: int, role: Role, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.number = number
        self.role = role
        self.process = process
        self.channel = channel
        self.born = monotonic()
        self.heard: float | None = None
        self.serves: bool | None = None
        """Whether it has anything to serve; None until it has started."""
        self.accepts = False
        """Whether it was told to take connections."""
        self.gives_way = False
        """Whether it was told to end, so that another takes its place."""
        self.snapshot: Snapshot = {}


class Supervisor:
    def __init__(self, settings: Settings, worker: str = WORKER, job_process: str = JOB_PROCESS) -> None:
        """`worker` and `job_process` are the modules that they run."""
        self._settings = settings
        self._metrics = Metrics()
        self._socket = bound(settings.host, settings.port)
        # By messages, so that workers can share an end.
        self._inbox, self._outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._worker = Role("worker", worker, (self._socket.fileno(), self._outbox.fileno()), SILENCE)
        self._job_process = Role("job process", job_process, (self._inbox.fileno(),), SILENCE_BEHIND)
        self._workers: dict[int, Worker] = {}
        self._gone: Snapshot = {}
        """What workers that have gone had counted."""
        self._numbers = count(1)
        self._one_started = asyncio.Event()
        self._compiled = False
        """Whether a worker has compiled the kernels and made room: its compiler keeps hundreds of megabytes."""
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()

    async def run(self) -> int:
        """Until told to stop; the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, self._stop, signal.SIGINT)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self.reload()))
        host, port, *_ = self._socket.getsockname()
        log.info("%d worker(s) for %s port %d", self._settings.workers, host, port)
        job_process = asyncio.create_task(self._keep_alive_after_the_first(self._job_process))
        others = (self._keep_alive_after_the_first(self._worker) for _ in range(self._settings.workers - 1))
        await asyncio.gather(self._keep_alive(self._worker), *others)
        # Now that nobody waits for it.
        for process in self._of(self._job_process):
            _signal(process.process, signal.SIGTERM)
        try:
            await asyncio.wait_for(job_process, LAST_JOBS)
        except TimeoutError:
            for process in self._of(self._job_process):
                _signal(process.process, signal.SIGKILL)
        return 0

    def _of(self, role: Role) -> list[Worker]:
        return [worker for worker in self._workers.values() if worker.role is role]

    def _stop(self, how: signal.Signals) -> None:
        again = self._stopping.is_set()
        self._stopping.set()
        # Nobody need wait for that any more.
        self._one_started.set()
        drain = 0.0 if again or how != signal.SIGTERM else self._settings.drain_s
        asyncio.get_running_loop().call_later(drain, self._accept_no_more)
        for worker in self._of(self._worker):
            # What is still starting serves nobody.
            sent = signal.SIGKILL if worker.heard is None else signal.SIGINT if again else how
            _signal(worker.process, sent)

    def _accept_no_more(self) -> None:
        """A moment before the workers close theirs: with the last of them the socket is gone."""
        self._socket.close()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_alive_after_the_first(self, role: Role) -> None:
        await self._one_started.wait()
        await self._keep_alive(role)

    async def _keep_alive(self, role: Role) -> None:
        """One process after the other, until the end."""
        pause = 0.0
        while not self._stopping.is_set():
            try:
                worker = await self._start(role)
            except OSError as error:
                # No memory or no descriptors just now.
                log.error("a %s cannot be started: %s", role.name, error)
                await self._pause(_LONGEST_PAUSE)
                continue
            watch = asyncio.create_task(self._watch(worker))
            status = await worker.process.wait()
            watch.cancel()
            self._bury(worker)
            if self._stopping.is_set():
                return
            if worker.gives_way:
                continue
            self._metrics.workers_ended.inc()
            log.error("%s %d (process %d) has ended with %d", role.name, worker.number, worker.process.pid, status)
            soon = monotonic() - worker.born < _SOON
            pause = min(max(2.0 * pause, 0.25), _LONGEST_PAUSE) if soon else 0.0
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """So long, or until the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _start(self, role: Role) -> Worker:
        ours, theirs = socket.socketpair()
        number = next(self._numbers)
        descriptors = *role.descriptors, theirs.fileno()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", role.module, *map(str, descriptors)),
            pass_fds=descriptors,
            # A Ctrl-C at the terminal is the supervisor's to pass on. Not a session of its own: its niceness would mean
            # nothing to other sessions where the kernel groups by them.
            process_group=0,
        )
        theirs.close()
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(
            lambda: Channel(partial(self._heard, number), lambda: None, self._asked), sock=ours
        )
        worker = self._workers[number] = Worker(number, role, process, channel)
        log.info("%s %d is process %d", role.name, number, process.pid)
        return worker

    async def _watch(self, worker: Worker) -> None:
        """Kill a worker that falls silent."""
        # The event loop runs on the thread that has the process's number.
        stall = Stall(worker.process.pid, worker.process.pid)
        stalled: float | None = None
        while True:
            await asyncio.sleep(_WATCH)
            silence = monotonic() - (worker.heard or worker.born)
            if silence < _HEARTBEATS:
                stalled = None
            elif stalled is None:
                stall.restart()
                stalled = 0.0
            else:
                stalled += stall.passed()
            if stalled is not None and stalled > (START if worker.heard is None else worker.role.silence):
                log.error(
                    "%s %d has not been heard for %.1f s and is replaced", worker.role.name, worker.number, silence
                )
                _signal(worker.process, signal.SIGKILL)
                return

    def _bury(self, worker: Worker) -> None:
        del self._workers[worker.number]
        worker.channel.close()
        self._gone = merged(self._metrics.counters, [self._gone, worker.snapshot])
        self._share_connections()

    def _share_connections(self) -> None:
        """Have those take connections that have something to serve; where none has, all of them, to say so."""
        started = [worker for worker in self._of(self._worker) if worker.serves is not None]
        some_serve = any(worker.serves for worker in started)
        for worker in started:
            accepts = bool(worker.serves) or not some_serve
            if accepts != worker.accepts:
                worker.accepts = accepts
                worker.channel.tell("accept", accepts)

    def _heard(self, number: int, message: Message) -> None:
        worker = self._workers.get(number)
        if worker is None:
            return
        worker.heard = monotonic()
        match message:
            case ("beat", None):
                pass
            case ("beat", snapshot):
                worker.snapshot = snapshot
            case ("started", True, n_compiled) if n_compiled and not self._compiled:
                self._compiled = worker.gives_way = True
                log.info("worker %d gives way to one that finds the kernels compiled", number)
                _signal(worker.process, signal.SIGINT)
            case ("started", serves, _):
                self._one_started.set()
                if serves != worker.serves:
                    worker.serves = serves
                    self._share_connections()
            case ("hanging", reason):
                log.error("%s %d is replaced: %s", worker.role.name, number, reason)
                asyncio.get_running_loop().call_later(LAST_WORDS, _signal, worker.process, signal.SIGKILL)

    async def _asked(self, _: str) -> bytes:
        """There is one question: the metrics of all."""
        return await self.exposition()

    async def exposition(self) -> bytes:
        """The metrics of all workers, those that have gone included, in Prometheus's text format."""
        workers = [worker for worker in self._workers.values() if worker.heard is not None]
        # All of them anew, and those late as they were: no counter ever goes back between two scrapes.
        asked = (worker.channel.ask("snapshot", SNAPSHOTS) for worker in workers)
        for worker, answer in zip(workers, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if not isinstance(answer, BaseException):
                worker.snapshot = answer
            silence = monotonic() - (worker.heard or worker.born)
            worker.snapshot[self._metrics.silence.name] = {(worker.role.name,): [silence]}
        self._metrics.observe_process(_KIND)
        own = self._metrics.snapshot()
        # Its other gauges say nothing: it serves no request.
        process = {name: own.pop(name) for name in tuple(own) if (_KIND,) in own[name]}
        living = [*(worker.snapshot for worker in workers), process]
        total = merged(self._metrics.families, living, [self._gone, own])
        return await asyncio.to_thread(self._metrics.exposition, total)

    async def reload(self) -> None:
        """Have all load the networks anew, one after the other: never more than one of them is busy with it."""
        async with self._reloading:
            for worker in list(self._workers.values()):
                try:
                    done = await worker.channel.ask("reload", RELOAD)
                except TimeoutError:
                    done = "It did not answer."
                log.info("%s %d: %s", worker.role.name, worker.number, done)


def bound(host: str, port: int) -> socket.socket:
    """A socket with that address, not yet listening.

    raises  OSError if it is taken
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket(family, kind, protocol))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        opened.pop_all()
    return listener


def _signal(process: asyncio.subprocess.Process, sent: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(sent)


def supervise(settings: Settings, worker: str = WORKER, job_process: str = JOB_PROCESS) -> int:
    """Run the service; the exit status."""
    writer = logs.set_up(settings.log_level, settings.log_format)

    async def run() -> int:
        return await Supervisor(settings, worker, job_process).run()

    try:
        return asyncio.run(run())
    except OSError as error:
        log.critical("cannot listen on %s port %d: %s", settings.host, settings.port, error)
        return 1
    finally:
        writer.close()
