"""The route table: what each path needs, and what is not in it."""

import pytest

from service.auth import Scope
from service.errors import MethodNotAllowed, NotFound
from service.lane import Priority
from service.routes import ROUTES
from service.routing import Routes

TABLE = Routes(ROUTES)


def test_each_path_has_its_scope() -> None:
    def scope(method: str, path: str) -> Scope | None:
        return TABLE.find(method, path)[0].scope

    assert scope("POST", "/v1/calibrate") == scope("POST", "/v2/models/heston/infer") == Scope.CALIBRATE
    assert scope("POST", "/v1/calibrate/batch") == Scope.BATCH
    assert scope("POST", "/v1/price") == Scope.PRICE
    assert scope("POST", "/v1/leverage") == scope("POST", "/v1/one-touch") == Scope.LEVERAGE
    assert scope("GET", "/metrics") == scope("HEAD", "/metrics") == Scope.METRICS
    assert scope("GET", "/v1/models") is None


def test_nothing_that_needs_the_engine_is_open_and_health_is() -> None:
    assert {route.path for route in ROUTES if route.open and not route.page} == {
        *("/health/live", "/health/ready"),
        *("/v2/health/live", "/v2/health/ready"),
    }
    assert not [
        route for route in ROUTES if (route.open or route.page) and (route.work is not None or route.method != "GET")
    ]
    assert {route.path for route in ROUTES if route.vital and not route.open} == {"/metrics"}


def test_only_a_batch_may_be_as_large_as_one() -> None:
    assert {route.path for route in ROUTES if route.large} == {
        route.path for route in ROUTES if route.work is Priority.BULK
    }


def test_no_two_routes_answer_one_request() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    for route in ROUTES:
        filled = {name: f"some-{name}" for name in route.parameters}
        assert TABLE.find(route.method, route.path.format(**filled)) == (route, filled)


@pytest.mark.parametrize("path", ["", "/v1/calibrate/", "//v1/calibrate", "/v2/models//infer", "/v2/models/a/b"])
def test_a_path_is_what_it_is(path: str) -> None:
    route, parameters = TABLE.find("POST", path)
    assert (route.path, parameters, route.vital) == ("other", {}, False)
    with pytest.raises(NotFound):
        route.endpoint(None).send(None)  # type: ignore[arg-type, attr-defined]


def test_a_wrong_method_is_told_which_are_right() -> None:
    route, _ = TABLE.find("PUT", "/v2/models/heston")
    with pytest.raises(MethodNotAllowed) as refused:
        route.endpoint(None).send(None)  # type: ignore[arg-type, attr-defined]
    assert refused.value.headers["allow"] == "GET, HEAD"
    # Who needs no key for a path is told without one.
    assert [TABLE.find("PUT", path)[0].open for path in ("/health/live", "/v2/models/heston")] == [True, False]
