"""What the tests of the deployment share: a base image made here, and the image of the service built upon it."""

import re
import shutil
import ssl
import subprocess
import sys

import pytest

from deploy.tests.docker import docker, require_docker
from deploy.tests.watched import watched  # noqa: F401
from tests.shared import ROOT

BASE, SERVICE = "calibrant-base:test", "calibrant:test"
DOCKERFILE = ROOT / "docker" / "Dockerfile"
VERSION, REVISION = "0.0.test", "0" * 40


@pytest.fixture(scope="session")
def base_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian as in the base image of the Dockerfile, made from Debian's packages: no registry is needed.

    It also holds what this machine needs to reach a package index, so that nothing of that is said at the build.
    """
    require_docker()
    if docker("images", "--quiet", BASE):
        return BASE
    folder = tmp_path_factory.mktemp("base")
    root = folder / "root"
    (release,) = re.findall(r"^ARG BASE_IMAGE=debian:(\w+)-slim$", DOCKERFILE.read_text(), re.MULTILINE)
    _run("debootstrap", "--variant=minbase", release, root)
    shutil.copy(ssl.get_default_verify_paths().cafile or "", root / "etc" / "certificates.pem")
    (root / "etc" / "pip.conf").write_text(pip_configuration(_run(sys.executable, "-m", "pip", "config", "list")))
    unneeded = ("--exclude=*.deb", "--exclude=./var/lib/apt/lists/*")
    _run("tar", "--create", "--directory", root, "--file", folder / "base.tar", *unneeded, ".")
    docker("import", folder / "base.tar", BASE)
    shutil.rmtree(folder)
    return BASE


@pytest.fixture(scope="session")
def service_image(base_image: str) -> str:
    """The image for processors, as shipped but for its base."""
    return build(base_image, SERVICE, "cpu")


def build(base: str, tag: str, target: str) -> str:
    arguments = {"BASE_IMAGE": base, "VERSION": VERSION, "REVISION": REVISION}
    options = [option for name, value in arguments.items() for option in ("--build-arg", f"{name}={value}")]
    # The host's network, since a container's own need not reach a package index where the host does.
    docker("build", "--network", "host", "--file", DOCKERFILE, "--target", target, "--tag", tag, *options, ROOT)
    return tag


def pip_configuration(listed: str) -> str:
    """What `pip config list` says of indexes that a container can reach too, for a container with the certificates of
    this machine."""
    lines = ["[global]", "cert = /etc/certificates.pem"]
    for name, value in re.findall(r"^\S*\.([\w-]*index-url)='(.*)'$", listed, re.MULTILINE):
        reached = [url for url in value.split() if url.startswith("http")]
        if reached:
            lines.append(f"{name} = {' '.join(reached)}")
    return "\n".join(lines) + "\n"


def _run(*command: object) -> str:
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert run.returncode == 0, f"{' '.join(map(str, command))}\n{run.stdout}{run.stderr}"
    return run.stdout
