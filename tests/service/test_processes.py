"""What the processes of the service ask of the operating system."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import pytest

from service.processes import Stall, threads_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")

_SPIN = "while True: pass"
_SLEEP = "import time; print(1, flush=True); time.sleep(3600)"
_STARVED = (
    "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); print(1, flush=True)\nwhile True: pass"
)
_HELD_UP = """
import threading, os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
def spin():
    print(1, flush=True)
    while True: pass
thread = threading.Thread(target=spin)
thread.start()
thread.join()
"""


@contextmanager
def running(code: str, core: int | None = None, told: bool = False) -> Iterator[int]:
    """A process, by its number, on one core if one is given; `told` waits for its first line."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        assert process.stdout is not None
        if told:
            process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def counted(pid: int, thread: int, seconds: float) -> tuple[float, float]:
    """What counts of so many seconds, and how many those were."""
    stall = Stall(pid, thread)
    stall.restart()
    began, total = monotonic(), 0.0
    while monotonic() < began + seconds:
        sleep(0.1)
        total += stall.passed()
    return total, monotonic() - began


def test_of_what_sleeps_or_is_stopped_all_the_time_counts() -> None:
    with running(_SLEEP, told=True) as pid:
        sleep(0.5)
        total, elapsed = counted(pid, pid, 1.0)
        assert total > 0.7 * elapsed
        os.kill(pid, signal.SIGSTOP)
        sleep(0.1)
        total, elapsed = counted(pid, pid, 1.0)
        assert total > 0.7 * elapsed


def test_of_what_runs_its_own_time_counts() -> None:
    with running(_SPIN) as pid:
        sleep(0.5)
        before = threads_of(pid)[pid].seconds
        total, elapsed = counted(pid, pid, 2.0)
        had = threads_of(pid)[pid].seconds - before
        # The system counts in hundredths of a second.
        assert abs(total - had) < 0.1
        assert total <= elapsed


@pytest.mark.parametrize("code", [_STARVED, _HELD_UP])
def test_of_what_others_keep_from_the_processor_little_counts(code: str) -> None:
    """One that spins, and one that waits for its own thread, both where no other leaves them anything."""
    core = min(os.sched_getaffinity(0))
    with running(code, core, told=True) as pid, running(_SPIN, core):
        sleep(0.5)
        total, elapsed = counted(pid, pid, 3.0)
    assert total < 0.5 * elapsed


def test_who_looks_does_not_count_as_one_who_runs() -> None:
    begun, hold = threading.Event(), threading.Event()
    numbers: list[int] = []

    def blocked() -> None:
        numbers.append(threading.get_native_id())
        begun.set()
        hold.wait(60.0)

    thread = threading.Thread(target=blocked)
    thread.start()
    begun.wait()
    total, elapsed = counted(os.getpid(), numbers[0], 1.0)
    hold.set()
    thread.join()
    assert total > 0.7 * elapsed


def test_what_was_not_watched_hardly_counts() -> None:
    with running(_SLEEP, told=True) as pid:
        stall = Stall(pid, pid)
        stall.restart()
        sleep(2.5)
        # Who looks that seldom may have been kept from it.
        assert stall.passed() <= 1.0
