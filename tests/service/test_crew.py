"""Threads that share the work of one job."""

import threading
from time import sleep

import pytest

from service.batches.crew import Crew, usable_cores


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_item_is_done_once_and_the_results_are_in_order(size: int) -> None:
    crew = Crew(size)
    done: list[int] = []

    def work(i: int) -> int:
        # Those that begin first take longest.
        sleep(0.001 * max(0, 8 - i))
        done.append(i)
        return i * i

    try:
        for n in (0, 1, 2, 30):
            done.clear()
            assert crew.share(work, n) == [i * i for i in range(n)]
            assert sorted(done) == list(range(n))
    finally:
        crew.stop()


def test_as_many_work_at_a_time_as_the_crew_has() -> None:
    crew = Crew(3)
    together = threading.Barrier(3, timeout=10.0)
    try:
        # It passes only if three threads are there at once.
        names = crew.share(lambda _: (together.wait(), threading.current_thread().name)[1], 3)
    finally:
        crew.stop()
    assert len(set(names)) == 3
    assert threading.current_thread().name in names


def test_one_alone_hands_nothing_over() -> None:
    before = threading.active_count()
    crew = Crew(1)
    assert crew.share(lambda _: threading.current_thread(), 4) == [threading.current_thread()] * 4
    assert threading.active_count() == before
    crew.stop()


def test_there_is_a_core_to_use() -> None:
    assert usable_cores() >= 1
