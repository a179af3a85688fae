"""What tests of several folders share."""

from collections.abc import Iterator

import pytest

from tests.service.process import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The service as it is run, for the tests that need no settings of their own and leave it as they found it."""
    # The machine may be busy with other tests: what is late is not their subject.
    server = Server(default_deadline_ms=60_000)
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()
