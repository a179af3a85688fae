"""What the processes of the service ask of the operating system."""

import os
import resource
from contextlib import suppress
from pathlib import Path
from time import time
from typing import NamedTuple

_LAST = 19
"""The niceness that leaves most to others."""


_PAGE = os.sysconf("SC_PAGE_SIZE")
_BORN = time()
"""When this process began, or nearly: its first import of this module."""
_CGROUPS = (
    # Of version 2, then of version 1: what is used, the limit, and what of the use the system can take back.
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)


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
    for used, limit, stat, idle in _CGROUPS:
        try:
            found = dict(line.split() for line in Path(stat).read_text().splitlines())
            most, now = int(Path(limit).read_text()), int(Path(used).read_text())
        except (OSError, ValueError):
            # Of the other version, or without a limit, which is written "max".
            continue
        # Version 1 writes a limit beyond all memory.
        return (now - int(found.get(idle, 0)), most) if most < 1 << 60 else None
    return None


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
