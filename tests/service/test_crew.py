"""Threads that share the work of one job."""

import threading
from time import sleep

import pytest

from calibrant.steps import Progress, Steps, finish, in_one_step
from service.batches.crew import Crew, usable_cores


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_item_is_done_once_and_the_results_are_in_order(size: int) -> None:
    crew = Crew(size)
    done: list[int] = []

    def work(i: int) -> Steps[int]:
        # Those that begin first take longest.
        for _ in range(max(0, 8 - i)):
            sleep(0.001)
            yield Progress(0.0, 1.0)
        done.append(i)
        return i * i

    try:
        for n in (0, 1, 2, 30):
            done.clear()
            assert finish(crew.share(work, n)) == [i * i for i in range(n)]
            assert sorted(done) == list(range(n))
    finally:
        crew.stop()


def test_as_many_work_at_a_time_as_the_crew_has() -> None:
    crew = Crew(3)
    together = threading.Barrier(3, timeout=10.0)
    try:
        # It passes only if three threads are there at once.
        names = finish(
            crew.share(lambda _: in_one_step(lambda: (together.wait(), threading.current_thread().name)[1]), 3)
        )
    finally:
        crew.stop()
    assert len(set(names)) == 3
    assert threading.current_thread().name in names


def test_one_alone_hands_nothing_over() -> None:
    before = threading.active_count()
    crew = Crew(1)
    assert finish(crew.share(lambda _: in_one_step(threading.current_thread), 4)) == [threading.current_thread()] * 4
    assert threading.active_count() == before
    crew.stop()


def test_while_the_first_makes_room_its_crew_works_on_and_its_steps_are_signs_of_life() -> None:
    crew = Crew(2)
    let_on = threading.Event()

    def work(i: int) -> Steps[str]:
        # Whoever takes the first item is the quick one.
        for _ in range(0 if i == 0 else 300):
            sleep(0.001)
            yield Progress(0.0, 1.0)
        if i > 0:
            let_on.set()
        return threading.current_thread().name

    shared = crew.share(work, 2)
    try:
        signs = sum(1 for _ in shared)
        assert let_on.is_set()
    finally:
        crew.stop()
    assert signs >= 2


def test_closed_the_whole_crew_leaves_off() -> None:
    crew = Crew(3)
    left: list[int] = []
    begun = threading.Barrier(3, timeout=10.0)

    def endless(i: int) -> Steps[None]:
        begun.wait()
        try:
            while True:
                yield Progress(0.0, 1.0)
                sleep(0.001)
        finally:
            left.append(i)

    shared = crew.share(endless, 3)
    next(shared)
    shared.close()
    # It waits for those that help.
    crew.stop()
    assert sorted(left) == [0, 1, 2]


def test_there_is_a_core_to_use() -> None:
    assert usable_cores() >= 1
