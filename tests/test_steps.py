"""Work as a sequence of steps."""

import pytest

from calibrant.steps import Progress, Steps, finish, in_one_step, told


def counting(n: int, heard: list[bool], ended: list[str]) -> Steps[int]:
    """Counts to `n`; told that it is enough, no further."""
    try:
        for i in range(n):
            enough = yield Progress(i + 1, n)
            heard.append(enough)
            if enough:
                return i + 1
        return n
    finally:
        ended.append("ended")


def test_work_is_driven_to_its_end_or_until_it_is_enough() -> None:
    assert finish(counting(5, [], [])) == 5
    looks = iter([False, False, True])
    assert finish(counting(5, [], []), lambda: next(looks)) == 3


def test_work_that_is_not_cut_is_one_step() -> None:
    assert list(in_one_step(lambda: 7)) == []
    assert finish(in_one_step(lambda: 7)) == 7


def test_the_steps_hear_what_they_are_told_and_not_the_driver() -> None:
    heard: list[bool] = []
    assert finish(told(counting(3, heard, []), lambda _: False), lambda: True) == 3
    assert heard == [False] * 3
    verdicts = iter([False, True])
    assert finish(told(counting(3, [], []), lambda _: next(verdicts))) == 2


def test_what_the_teller_raises_ends_the_steps() -> None:
    ended: list[str] = []

    def too_late(enough: bool) -> bool:
        if enough:
            raise TimeoutError
        return False

    with pytest.raises(TimeoutError):
        finish(told(counting(3, [], ended), too_late), lambda: True)
    assert ended == ["ended"]


def test_closed_it_closes_what_it_tells() -> None:
    ended: list[str] = []
    steps = told(counting(3, [], ended), lambda enough: enough)
    next(steps)
    steps.close()
    assert ended == ["ended"]
