"""API keys."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.auth import Keys, Scope, main
from service.errors import Forbidden, Unauthenticated
from service.settings import Settings
from tests.service.client import Client
from tests.shared import ROOT


def make(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, dict[str, Any]]:
    """A key and its entry, as the command makes them."""
    assert main([*arguments]) == 0
    printed = capsys.readouterr()
    return printed.err.split()[-1], json.loads(printed.out)


def test_a_key_opens_what_it_was_made_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk, entry = make(capsys, "desk", "calibrate")
    risk, other = make(capsys, "risk", "batch", "price")
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(entry | other))
    assert desk not in path.read_text()
    keys = Keys.read(path)
    assert keys.required
    assert keys.authorise(f"Bearer {desk}", Scope.CALIBRATE) == "desk"
    assert keys.authorise(f"bearer  {risk} ", Scope.BATCH) == "risk"
    assert keys.authorise(f"Bearer {risk}", None) == "risk"
    with pytest.raises(Forbidden, match=r"desk.*batch"):
        keys.authorise(f"Bearer {desk}", Scope.BATCH)
    digest = entry["desk"]["sha256"]
    for given in (None, "", "Bearer", "Bearer ", "Basic " + desk, "Bearer x" + desk, digest):
        with pytest.raises(Unauthenticated):
            keys.authorise(given, Scope.CALIBRATE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"a": 1}',
        '{"a": {"sha256": "ab", "scopes": []}}',
        '{"a": {"sha256": "%s", "scopes": ["everything"]}}' % ("0" * 64),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"keys\.json"):
        Keys.read(path)


def test_the_command_knows_its_scopes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["desk", "everything"]) == 2
    _, entry = make(capsys, "desk")
    assert set(entry["desk"]["scopes"]) == set(Scope)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "scopes": ["price"]}
    path.write_text(json.dumps({"desk": entry}))
    client = Client(Settings(networks=ROOT / "networks", api_keys=path, default_deadline_ms=5000.0))
    yield client
    client.close()


def test_a_guarded_service_answers_only_with_a_key(guarded: Client, dax: dict[str, Any]) -> None:
    for response in (guarded.post("/v1/calibrate", dax), guarded.get("/v1/models"), guarded.get("/metrics")):
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"
    assert guarded.get("/health/live").status_code == guarded.get("/health/ready").status_code == 200
    wrong = guarded.post("/v1/calibrate", dax, authorization="Bearer secret")
    assert (wrong.status_code, wrong.json()["code"]) == (403, "forbidden")
    priced = {
        "parameters": {"kappa": 2.0, "theta": 0.05, "xi": 0.5, "rho": -0.7, "v0": 0.05},
        "expiry": [0.5],
        "log_moneyness": [0.0],
    }
    assert guarded.post("/v1/price", priced, authorization="Bearer secret").status_code == 200
