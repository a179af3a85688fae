"""The health check of a container."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from service.health import PORT
from service.settings import Settings
from tests.service.process import free_port
from tests.shared import ROOT


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A port that gives one connection this answer, whatever it asks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def health(port: int, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.health"],
        cwd=ROOT,
        env={**os.environ, "CALIBRANT_PORT": str(port), **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nready", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nThe networks could not be loaded.", 1),
    ],
)
def test_the_check_passes_only_what_is_ready_and_repeats_the_reason(answer: bytes, code: int) -> None:
    with answering(answer) as port:
        run = health(port)
    assert run.returncode == code
    assert run.stdout.strip() == answer.decode().rpartition("\r\n")[2]


@pytest.mark.parametrize("answer", [b"", b"nonsense"])
def test_what_is_no_answer_fails(answer: bytes) -> None:
    with answering(answer) as port:
        run = health(port)
    assert run.returncode == 1
    assert run.stdout.startswith(f"No answer on port {port}: ")


def test_the_port_asked_by_default_is_that_of_the_settings() -> None:
    assert Settings.model_fields["port"].default == PORT


def test_nothing_that_listens_fails() -> None:
    port = free_port()
    assert health(port).stdout.startswith(f"No answer on port {port}: ")


def test_the_check_loads_nothing_beyond_the_standard_library() -> None:
    code = "import sys, service.health; print([m for m in ('pydantic', 'numpy', 'http.client') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
