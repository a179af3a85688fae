"""The files that browsers are given, as the service sends them; `deploy/tests/test_console.py` opens them in one."""

import gzip
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from service import pages
from service.auth import main as make_key
from service.pages import FOLDER, VENDOR, asset
from service.routes import ROUTES
from service.settings import Settings
from tests.service.client import Client
from tests.shared import ROOT

PAGES = ("/", "/console", "/docs")
FILES = sorted({*VENDOR, *(file.name for file in FOLDER.iterdir())})


@pytest.mark.parametrize("path", PAGES)
def test_a_page_names_its_own_files_alone_and_each_is_there_for_good(client: Client, path: str) -> None:
    page = client.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert any(".js?v=" in address for address in named)
    for address in named:
        assert not address.startswith(("/", "http:", "https:")), address
        found = client.get(f"/{address}")
        assert found.status_code == 200
        if "?" in address:
            assert found.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_no_file_of_ours_names_another_host() -> None:
    for file in FOLDER.iterdir():
        # Names of XML, which nobody asks for.
        hosts = set(re.findall(r"https?://[\w.-]+", file.read_text())) - {"http://www.w3.org"}
        assert not hosts, file


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_answered_once_and_then_known_by_its_tag(client: Client, name: str) -> None:
    path = f"/console/{name}"
    first = client.get(path)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["x-content-type-options"] == "nosniff"
    again = client.request("GET", path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = client.request("GET", path, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    # The client inflates what it is sent.
    assert first.content == plain.content == asset(name).content
    assert gzip.decompress(asset(name).compressed) == plain.content


def test_a_module_names_the_versions_of_those_that_it_needs() -> None:
    for file in FOLDER.glob("*.js"):
        for name, version in re.findall(rb'from "\./([\w.]+)(?:\?v=(\w+))?"', asset(file.name).content):
            assert version.decode() == asset(name.decode()).version


@pytest.mark.parametrize("path", PAGES)
def test_no_page_may_load_run_or_send_anything_elsewhere(client: Client, path: str) -> None:
    policy = client.get(path).headers["content-security-policy"]
    told = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
    assert (told["default-src"], told["script-src"], told["connect-src"]) == ("'none'", "'self'", "'self'")
    assert not re.search(r"https?:|\*|unsafe-eval", policy)


@pytest.mark.parametrize("name", ["%2e%2e", "%2e%2e%2fapp.py", "..%2Fpages.py", "pages.py", "nothing.js", "%00"])
def test_what_is_no_file_of_the_console_is_not_found(client: Client, name: str) -> None:
    assert client.get(f"/console/{name}").status_code == 404


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pages, "distribution", missing)
    asset.cache_clear()
    yield
    asset.cache_clear()


@pytest.mark.usefixtures("without_packages")
def test_without_its_packages_the_console_is_there_and_their_files_say_what_is_missing(client: Client) -> None:
    assert "console/main.js?v=" in client.get("/").text
    for name in VENDOR:
        response = client.get(f"/console/{name}")
        assert response.status_code == 404
        assert "install calibrant[console]" in response.json()["detail"]


def test_pages_are_open_where_the_api_wants_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_key(["desk", "calibrate"])
    (tmp_path / "keys.json").write_text(capsys.readouterr().out)
    client = Client(Settings(networks=ROOT / "networks", api_keys=tmp_path / "keys.json"))
    try:
        for path in (*PAGES, "/console/main.js"):
            assert client.get(path).status_code == 200
            assert client.request("POST", path).status_code == 405
        assert client.get("/openapi.json").status_code == 401
        assert client.get("/v1/models").status_code == 401
    finally:
        client.close()


def test_no_page_is_answered_by_a_service_that_is_full_for_others() -> None:
    assert not [route for route in ROUTES if route.page and route.vital]
