"""Docker as the tests use it: its command, and containers that go when the test has ended."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from time import monotonic, sleep
from typing import Any

import httpx

CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""As every deployment runs the service."""
PORT = 8000
"""Of the service, in its container."""


def docker(*arguments: object) -> str:
    """What `docker` with these arguments prints.

    raises  AssertionError with what it said if it fails
    """
    run = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, env=_environment())
    assert run.returncode == 0, f"docker {' '.join(map(str, arguments))}\n{run.stdout}{run.stderr}"
    return run.stdout.strip()


def require_docker() -> None:
    """Fail, and say what is to be done, where no daemon answers."""
    assert shutil.which("docker") is not None, "Docker is not installed: `.ci/provision` installs it."
    answer = subprocess.run(["docker", "info"], capture_output=True, text=True)
    assert answer.returncode == 0, f"Docker's daemon does not answer: `.ci/provision` starts it.\n{answer.stderr}"


@cache
def _environment() -> dict[str, str]:
    """The old builder, where the new one is not installed: the command does not fall back to it by itself."""
    new = subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0
    return {**os.environ, "DOCKER_BUILDKIT": str(int(new))}


class Container:
    """A running container of the service."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Not by a published port: Docker's proxy accepts there what the service does not any more.
        (network,) = self.inspect(".NetworkSettings.Networks").values()
        self.url = f"http://{network['IPAddress']}:{PORT}"

    def inspect(self, template: str) -> Any:
        """A part of its state, as Docker's templates name it: ".State.ExitCode"."""
        return json.loads(docker("inspect", "--format", f"{{{{json {template}}}}}", self.name))

    def logs(self) -> str:
        run = subprocess.run(["docker", "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return run.stdout

    def ready(self) -> bool:
        """Whether calibrations are answered."""
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False

    def until(self, condition: Callable[[], bool], seconds: float = 60.0, pause: float = 0.05) -> None:
        end = monotonic() + seconds
        while not condition():
            assert monotonic() < end, f"not within {seconds:g} s; the container's log:\n{self.logs()}"
            sleep(pause)


@contextmanager
def container(image: str, *options: object) -> Iterator[Container]:
    """The service in a container as every deployment confines it, at an address of its own.

    options  further ones of `docker run`
    """
    name = docker("run", "--detach", *CONFINED, *options, image)
    try:
        yield Container(name)
    finally:
        docker("rm", "--force", name)
