"""The stack of deploy/compose.yaml as Docker knows it: its settings, its replicas, and what they and the proxy say."""

import csv
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

PORT = 8000
"""Of a replica."""
_STATISTICS = "http://proxy:8404/stats;csv"
_LABEL = "calibrant.replica"
LAST_WORDS = ("--tail", "5")
"""Options of `log`."""
# Run inside a replica: neither its port nor the proxy's inner one can be reached from outside.
_ASK = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5.0)
except urllib.error.HTTPError as error:
    answer = error
except OSError:
    sys.exit(0)
print(answer.status)
sys.stdout.write(answer.read().decode())
"""


class Failure(Exception):
    """What went wrong, in a sentence for the operator."""


class Answer(NamedTuple):
    """That of an HTTP request."""

    status: int
    body: str


class Ready(NamedTuple):
    """What a replica says of itself."""

    ready: bool
    says: str
    """The versions of its networks, or why it is not ready."""


@dataclass(frozen=True)
class Replica:
    """A container of the service."""

    id: str
    name: str
    service: str
    """In compose.yaml."""
    image_variable: str
    """In compose.yaml, of the name of its image."""
    image: str
    image_id: str
    running: bool
    address: str
    """As the proxy knows it; empty if it does not run."""

    @classmethod
    def of(cls, container: Mapping[str, Any]) -> "Replica":
        """container  as `docker inspect` describes it"""
        labels = container["Config"]["Labels"]
        networks = container["NetworkSettings"]["Networks"].values()
        addresses = [network["IPAddress"] for network in networks if network["IPAddress"]]
        return cls(
            id=container["Id"],
            name=container["Name"].lstrip("/"),
            service=labels["com.docker.compose.service"],
            image_variable=labels[_LABEL],
            image=container["Config"]["Image"],
            image_id=container["Image"],
            running=container["State"]["Running"],
            address=f"{addresses[0]}:{PORT}" if addresses else "",
        )


class Stack:
    def __init__(self, folder: Path) -> None:
        """folder  that of compose.yaml"""
        self.folder = folder
        self._settings = folder / ".env"

    def setting(self, name: str, default: str) -> str:
        """A variable of compose.yaml: of the environment, else of .env."""
        return os.environ.get(name) or self._written().get(name) or default

    def write_setting(self, name: str, value: str) -> None:
        """Keep a variable in .env, where compose finds it."""
        lines = self._settings.read_text().splitlines() if self._settings.exists() else []
        kept = [line for line in lines if line.partition("=")[0].strip() != name]
        self._settings.write_text("\n".join([*kept, f"{name}={value}"]) + "\n")

    def _written(self) -> dict[str, str]:
        if not self._settings.exists():
            return {}
        pairs = [line.partition("=") for line in self._settings.read_text().splitlines() if not line.startswith("#")]
        return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}

    @cached_property
    def _compose(self) -> list[str]:
        for command in (["docker", "compose"], ["docker-compose"]):
            try:
                subprocess.run([*command, "version"], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            return command
        raise Failure("Neither `docker compose` nor `docker-compose` runs here.")

    def compose(self, *arguments: str, **variables: str) -> None:
        """raises  Failure with what it said, if it fails"""
        done = subprocess.run(
            [*self._compose, *arguments],
            cwd=self.folder,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise Failure(f"`{' '.join([*self._compose, *arguments])}` failed:\n{done.stdout.strip()}")

    def containers(self, *filters: str) -> list[dict[str, Any]]:
        """The containers of the stack, as `docker inspect` describes them."""
        project = f"label=com.docker.compose.project={self.setting('COMPOSE_PROJECT_NAME', self.folder.name)}"
        chosen = [part for each in (project, *filters) for part in ("--filter", each)]
        found = docker("ps", "--all", "--quiet", "--no-trunc", *chosen).split()
        inspected: list[dict[str, Any]] = json.loads(docker("inspect", *found)) if found else []
        return inspected

    def replicas(self) -> list[Replica]:
        return sorted(map(Replica.of, self.containers(f"label={_LABEL}")), key=lambda replica: replica.name)

    def in_proxy(self, asking: Replica) -> set[str]:
        """The addresses of the replicas that the proxy sends requests to.

        asking  a replica that runs
        """
        answer = ask(asking, _STATISTICS)
        if answer is None or answer.status != 200:
            raise Failure("The proxy does not tell its state: is the service `proxy` running?")
        rows = csv.DictReader(StringIO(answer.body.removeprefix("# ")))
        return {row["addr"] for row in rows if row["pxname"] == "calibrant" and row["status"].startswith("UP")}


def docker(*arguments: str) -> str:
    """What a command of Docker prints.

    raises  Failure with what it said, if it fails
    """
    try:
        return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout
    except OSError as error:
        raise Failure(f"`docker` cannot be run: {error}") from None
    except subprocess.CalledProcessError as error:
        raise Failure(f"`docker {' '.join(arguments[:2])}` failed: {error.stderr.strip()}") from None


def require_image(image: str) -> None:
    """Have an image on this machine.

    raises  Failure if it is neither here nor can be pulled
    """
    try:
        docker("image", "inspect", image)
    except Failure:
        docker("pull", image)


def ask(replica: Replica, url: str) -> Answer | None:
    """A request made inside a replica; None where nobody answers."""
    try:
        status, _, body = docker("exec", replica.id, "python", "-c", _ASK, url).partition("\n")
    except Failure:
        # It has stopped, or is about to.
        return None
    return Answer(int(status), body) if status else None


def readiness(replica: Replica) -> Ready | None:
    """None as long as it does not answer."""
    answer = ask(replica, f"http://127.0.0.1:{PORT}/health/ready")
    if answer is None:
        return None
    document = json.loads(answer.body)
    if answer.status == 200:
        versions = (model["model_version"] for model in document["models"].values())
        return Ready(True, ", ".join(version for version in versions if version))
    return Ready(False, document["detail"])


def log(container: str, *options: str) -> str:
    """Of a container; options  of `docker logs`"""
    command = ["docker", "logs", *options, container]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.strip()
