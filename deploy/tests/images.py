"""The images that the tests run: a base made here, and upon it the service, and proxy and Prometheus.

    python -m deploy.tests.images

builds them beforehand, which the tests then find done.
"""

import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.tests.docker import docker, require_docker
from tests.shared import ROOT

BASE, SERVICE = "calibrant-base:test", "calibrant:test"
PROXY_AND_PROMETHEUS = "calibrant-proxy-and-prometheus:test"
DOCKERFILE = ROOT / "docker" / "Dockerfile"
VERSION, REVISION = "0.0.test", "0" * 40


def base() -> str:
    """Debian as in the base image of the Dockerfile, made from Debian's packages: no registry is needed.

    It also holds what this machine needs to reach a package index, so that nothing of that is said at the build.
    """
    require_docker()
    if docker("images", "--quiet", BASE):
        return BASE
    with tempfile.TemporaryDirectory() as folder:
        root, archive = Path(folder) / "root", Path(folder) / "base.tar"
        (release,) = re.findall(r"^ARG BASE_IMAGE=debian:(\w+)-slim$", DOCKERFILE.read_text(), re.MULTILINE)
        _run("debootstrap", "--variant=minbase", release, root)
        shutil.copy(ssl.get_default_verify_paths().cafile or "", root / "etc" / "certificates.pem")
        (root / "etc" / "pip.conf").write_text(pip_configuration(_run(sys.executable, "-m", "pip", "config", "list")))
        unneeded = ("--exclude=*.deb", "--exclude=./var/lib/apt/lists/*")
        _run("tar", "--create", "--directory", root, "--file", archive, *unneeded, ".")
        docker("import", archive, BASE)
    return BASE


def service() -> str:
    """The image for processors, as shipped but for its base."""
    return build(base(), SERVICE, "cpu")


def proxy_and_prometheus() -> str:
    """Those of Debian, since no official image can be had here."""
    with tempfile.TemporaryDirectory() as folder:
        # The official image of Prometheus has busybox's wget, for the health check, and its volume is that user's.
        wget = "ln -s /bin/busybox /usr/bin/wget && install --directory --owner 65534 --group 65534 /prometheus"
        install = "apt-get update && apt-get install --yes --no-install-recommends haproxy prometheus busybox"
        (Path(folder) / "Dockerfile").write_text(f"FROM {base()}\nRUN {install} && {wget}\n")
        docker("build", "--network", "host", "--tag", PROXY_AND_PROMETHEUS, folder)
    return PROXY_AND_PROMETHEUS


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


if __name__ == "__main__":
    print(service(), proxy_and_prometheus())
