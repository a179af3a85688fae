"""CORS over sockets: who may ask from a page, and that what a browser asks beforehand costs nobody anything."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from pydantic import ValidationError

from service.settings import Settings
from tests.service.client import Client
from tests.service.process import Server
from tests.service.test_bad_input import panel
from tests.shared import ROOT

DESK, LOCAL, OTHER = "https://desk.example", "http://localhost:3000", "https://desk.example.net"
CALIBRATE = "/v1/calibrate"
ASKED = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A key and the path of the file that knows it."""
    command = [sys.executable, "-m", "service.auth", "page", "calibrate", "metrics"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_text(made.stdout)
    return made.stderr.split()[-1], str(path)


@pytest.fixture(scope="module")
def server(key_file: tuple[str, str]) -> Iterator[Server]:
    server = Server(cors_origins=f"{DESK}, {LOCAL}", api_keys=key_file[1], rate_limit=1e-3, rate_burst=3)
    try:
        server.until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 200, 300.0)
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60.0) as page:
        yield page


def preflight(page: httpx.Client, origin: str, path: str = CALIBRATE) -> httpx.Response:
    return page.options(path, headers={"origin": origin, **ASKED})


@pytest.mark.parametrize("origin", [DESK, LOCAL])
def test_a_page_of_an_origin_named_may_ask_and_read(page: httpx.Client, key_file: tuple[str, str], origin: str) -> None:
    asked = preflight(page, origin)
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == origin
    assert asked.headers["vary"] == "origin"
    assert "POST" in asked.headers["access-control-allow-methods"]
    allowed = set(asked.headers["access-control-allow-headers"].split(", "))
    assert allowed >= {"authorization", "content-type", "x-request-deadline-ms", "x-request-id"}
    # Without cookies: a page that has no key can do nothing in the name of who reads it.
    assert "access-control-allow-credentials" not in asked.headers
    authorized = {"origin": origin, "authorization": f"Bearer {key_file[0]}"}
    answer = page.post(CALIBRATE, json=panel(), headers=authorized)
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == origin
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert exposed >= {"server-timing", "x-request-id", "retry-after"}


def test_a_refusal_can_be_read_by_the_page_too(page: httpx.Client, key_file: tuple[str, str]) -> None:
    for path, key, status in ((CALIBRATE, "none", 401), ("/v1/nonsense", key_file[0], 404)):
        refused = page.post(path, content=b"", headers={"origin": DESK, "authorization": f"Bearer {key}"})
        assert refused.status_code == status
        assert refused.headers["access-control-allow-origin"] == DESK
        assert "code" in refused.json()


@pytest.mark.parametrize("origin", [OTHER, "null", DESK.upper(), f"{DESK}, {LOCAL}", "*", ""])
def test_a_page_of_another_origin_is_told_nothing(page: httpx.Client, origin: str) -> None:
    for response in (preflight(page, origin), page.get("/health/live", headers={"origin": origin})):
        assert response.is_success
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert response.headers["vary"] == "origin"


def test_what_is_no_page_sees_none_of_it(page: httpx.Client) -> None:
    plain = page.get("/health/live")
    assert not [name for name in plain.headers if name.startswith("access-control-") or name == "vary"]
    # OPTIONS by itself asks for no permission.
    assert page.options("/health/live", headers={"origin": DESK}).status_code == 405


def test_what_a_browser_asks_beforehand_is_answered_before_admission(
    page: httpx.Client, key_file: tuple[str, str]
) -> None:
    authorized = {"authorization": f"Bearer {key_file[0]}"}
    before = page.get("/metrics", headers=authorized).text
    # Without a key, of which there is a rate, and for paths that are none.
    for _ in range(20):
        assert preflight(page, DESK).status_code == preflight(page, DESK, "/v1/none").status_code == 204
    after = page.get("/metrics", headers=authorized).text
    for name in ("calibrant_requests_total", "calibrant_problems_total"):
        counted = [[line for line in text.splitlines() if line.startswith(name)] for text in (before, after)]
        other = [{line for line in lines if 'route="/metrics"' not in line} for lines in counted]
        assert other[0] == other[1]


def test_without_the_setting_there_is_none_of_it() -> None:
    client = Client(Settings())
    try:
        for method in ("GET", "OPTIONS"):
            response = client.request(method, "/health/live", headers={"origin": DESK, **ASKED})
            assert not [name for name in response.headers if name.startswith("access-control-")]
            assert response.status_code == (200 if method == "GET" else 405)
    finally:
        client.close()


def test_a_star_opens_it_to_every_page() -> None:
    client = Client(Settings(cors_origins="*"))
    try:
        for origin in (DESK, OTHER, "null"):
            asked = client.request("OPTIONS", CALIBRATE, headers={"origin": origin, **ASKED})
            assert asked.headers["access-control-allow-origin"] == origin
    finally:
        client.close()


@pytest.mark.parametrize(
    "given", ["desk.example", f"{DESK}/", f"{DESK}/page", f"{DESK},", f"*,{DESK}", "https://Desk.example", "", "null"]
)
def test_what_is_no_origin_is_refused_at_start(given: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=given)


@pytest.mark.parametrize("given", ["*", DESK, f"{DESK},{LOCAL}", f"{DESK} , {LOCAL}", "http://[::1]:8080"])
def test_origins_are_those_that_browsers_send(given: str) -> None:
    assert Settings(cors_origins=given).cors_origins == given
