"""What the processes of the service ask of the operating system."""

import os
import resource
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import NamedTuple

_LAST = 19
"""The niceness that leaves most to others."""
_LOOKED_AWAY = 1.0
"""Seconds between two looks of which no more count: who was itself kept waiting knows nothing of the rest."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BORN = time()
"""When this process began, or nearly: its first import of this module."""
_CGROUP = Path("/sys/fs/cgroup")


class Usage(NamedTuple):
    """What this process has of the machine."""

    resident: int
    """Bytes."""
    descriptors: int
    most_descriptors: int
    cpu: float
    """Seconds of the processor, spent since it began."""
    born: float
    """Seconds since 1970."""


def usage() -> Usage:
    """As the system counts it now; on a system that does not say, no descriptors and the most memory there ever was."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resident = _PAGE * int(Path("/proc/self/statm").read_text().split()[1])
        # Of newer kernels: to list thousands of them takes milliseconds.
        descriptors = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        resident, descriptors = 1024 * spent.ru_maxrss, 0
    return Usage(resident, descriptors, most, spent.ru_utime + spent.ru_stime, _BORN)


def container_memory() -> tuple[int, int] | None:
    """Bytes that the container uses and may use; beyond, the system kills. None where there is no limit."""
    try:
        # Without a limit it is written "max".
        used, most = (int((_CGROUP / name).read_text()) for name in ("memory.current", "memory.max"))
        found = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Files that were read lately the system can take back.
    return used - int(found["inactive_file"]), most


def allow_many_descriptors() -> None:
    """As many as the system lets: every connection is one, and every batch a few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def step_behind() -> None:
    """Put this process, with the threads that it has and those to come, behind all others.

    By Linux's idle policy, not by the lowest priority: a thread that wakes up takes the processor from it at once, and
    does not wait until it has had its turn.
    """
    try:
        for thread in os.listdir("/proc/self/task"):
            # One may have ended meanwhile.
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        # Another system, or a sandbox.
        os.nice(_LAST)


class _Thread(NamedTuple):
    state: str
    """As `/proc` has it: R runs or could, S and D wait, T is stopped."""
    seconds: float
    """Processor time that it has had."""


def threads_of(pid: int) -> dict[int, _Thread]:
    """The threads of a process by their number; none where the system does not tell."""
    found: dict[int, _Thread] = {}
    with suppress(OSError):
        tick = os.sysconf("SC_CLK_TCK")
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/stat") as line:
                # The name, which may hold anything, is in brackets.
                fields = line.read().rpartition(")")[2].split()
                found[thread] = _Thread(fields[0], (int(fields[11]) + int(fields[12])) / tick)
    return found


class Stall:
    """For how long a thread has not come on that should have, of that what nobody else is to blame for.

    By the clock alone a busy machine makes a healthy thread look dead. So of a thread that could run what it had of the
    processor counts; of one that waits while others of its process could run, on whom it may wait, what all of them
    had; and the time that passed only where nothing of the process wanted the processor, or it is stopped.
    """

    def __init__(self, pid: int, thread: int) -> None:
        self._pid = pid
        self._thread = thread
        self._looked = monotonic()
        self._had: dict[int, _Thread] = {}

    def restart(self) -> None:
        """Count from now on."""
        self._had = threads_of(self._pid)
        self._looked = monotonic()

    def passed(self) -> float:
        """Seconds that count, since this was asked last."""
        looked, had = self._looked, self._had
        self.restart()
        elapsed = min(self._looked - looked, _LOOKED_AWAY)
        threads = self._had
        mine = threads.get(self._thread)
        if mine is None or mine.state in "Tt":
            return elapsed
        # Of one that is new all that it has had.
        spent = {n: thread.seconds - (had[n].seconds if n in had else 0.0) for n, thread in threads.items()}
        if mine.state == "R":
            return min(spent[self._thread], elapsed)
        # Who looks, if it is one of them, runs at this moment.
        looking = threading.get_native_id()
        others = any(now.state == "R" for number, now in threads.items() if number not in (self._thread, looking))
        return min(sum(spent.values()), elapsed) if others else elapsed
