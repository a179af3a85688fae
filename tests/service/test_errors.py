"""Refusals: what a client may branch on, of every class of them."""

import json
from collections.abc import Iterator

import pytest

from calibrant.errors import Problem
from service.errors import InvalidRequest, RateLimited, ServiceError, problem_response


def classes(of: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    for each in of.__subclasses__():
        yield each
        yield from classes(each)


CODES = {
    *("invalid_input", "too_large", "unsupported_media_type", "unauthenticated", "forbidden", "rate_limited"),
    *("overloaded", "deadline_unreachable", "deadline_expired", "not_ready", "engine_failed", "not_found"),
    "method_not_allowed",
}
"""Of the contract."""


def test_the_codes_are_those_of_the_contract() -> None:
    assert {each.code for each in classes()} == CODES


@pytest.mark.parametrize("refusal", list(classes()))
def test_what_may_be_answered_at_another_time_says_when(refusal: type[ServiceError]) -> None:
    error = InvalidRequest([Problem((), "No.")]) if refusal is InvalidRequest else refusal("No.")
    response = problem_response(error)
    document = json.loads(bytes(response.body))
    assert (document["status"], document["code"], document["detail"]) == (refusal.status, refusal.code, "No.")
    given = response.headers.get("retry-after")
    if refusal.status in (429, 503, 504):
        assert given is not None
        assert int(given) >= 1
    else:
        assert given is None


def test_who_refuses_may_know_better_when_to_come_back() -> None:
    headers = {"retry-after": "7"}
    assert problem_response(RateLimited("No.", headers=headers)).headers["retry-after"] == "7"
    assert headers == {"retry-after": "7"}
