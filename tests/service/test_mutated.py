"""Mutated inputs of every format: an answer or a refusal, and never a failure. A few of what `benchmarks.mutations`
sends by the hundred thousand."""

import pytest

from benchmarks.load.asked import ask, calibrated_file, fault_of
from benchmarks.load.mutated import KINDS, mutated
from calibrant.models import HESTON
from tests.service.client import Client

_EACH = 40
_MAX_WORK = 2000.0


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_makes_the_service_fail(client: Client, kind: str) -> None:
    place = list(KINDS).index(kind)
    statuses = set()
    for number in range(place, _EACH * len(KINDS), len(KINDS)):
        given = mutated(2, number)
        assert given.kind == kind
        if given.path:
            answer = client.run(ask(client.app, given))
            assert fault_of(answer) is None, (number, answer)
            statuses.add(answer.status)
        else:
            release = client.app.service.engine.releases[HESTON.name]
            statuses.add(calibrated_file(given, release, _MAX_WORK))
    # Neither all refused nor all let through.
    assert {200, 422} <= statuses


def test_an_input_is_a_function_of_seed_and_number() -> None:
    assert [mutated(3, number) for number in range(200)] == [mutated(3, number) for number in range(200)]
    assert mutated(3, 7) != mutated(4, 7)
