"""What the processes of the service ask of the operating system."""

import os
import resource
from contextlib import suppress

_LAST = 19
"""The niceness that leaves most to others."""


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
