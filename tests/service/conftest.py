"""One application for all tests of the service."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service.settings import Settings
from tests.service.client import Client
from tests.shared import ROOT


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    # The machine of the tests may keep a thread waiting for longer than a second.
    client = Client(Settings(networks=ROOT / "networks", default_deadline_ms=5000.0))
    yield client
    client.close()


@pytest.fixture(scope="session")
def dax() -> dict[str, Any]:
    """The request that ships as an example: the DAX panel of 5 July 2002."""
    body: dict[str, Any] = json.loads((ROOT / "examples" / "dax_20020705.json").read_text())
    return body
