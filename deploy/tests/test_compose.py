"""The compose stack for real: service, proxy and Prometheus, started, killed and upgraded as an operator does it."""

import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from benchmarks.load.steady import Load
from calibrant.client import Client
from deploy.operate.secret_files import self_signed
from deploy.tests.docker import docker
from deploy.tests.images import PROXY_AND_PROMETHEUS, proxy_and_prometheus
from tests.service.process import free_port
from tests.shared import ROOT

NEW, CORRUPT = "calibrant:test-new-network", "calibrant:test-corrupt-network"
DAX = json.loads((ROOT / "examples" / "dax_20020705.json").read_text())
SERVED = re.compile(r"heston-5@sha256:[0-9a-f]{12}")
NEWER = re.compile(r"heston-6@sha256:[0-9a-f]{12}")


class Deployed:
    """A copy of deploy/, and what it has started."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self._settings = settings
        self.url = f"https://localhost:{settings['CALIBRANT_HTTPS_PORT']}"
        self.prometheus = f"http://127.0.0.1:{settings['PROMETHEUS_PORT']}"

    def command(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self._settings}
        return subprocess.run(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def done(self, *command: str) -> str:
        """What a command prints, which must succeed."""
        run = self.command(*command)
        assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout}"
        return run.stdout

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        chosen = [f"label=com.docker.compose.project={self._settings['COMPOSE_PROJECT_NAME']}"]
        if service:
            chosen.append(f"label=com.docker.compose.service={service}")
        found = docker("ps", "--all", "--quiet", *[part for each in chosen for part in ("--filter", each)]).split()
        inspected: list[dict[str, Any]] = json.loads(docker("inspect", *found)) if found else []
        return inspected

    def replicas(self) -> dict[str, str]:
        """The names of the running ones, and their images."""
        running = [each for each in self.containers("calibrant") if each["State"]["Running"]]
        return {each["Name"].lstrip("/"): each["Config"]["Image"] for each in running}

    @property
    def key(self) -> str:
        return (self.folder / "secrets" / "client_key").read_text()

    @property
    def certificate(self) -> Path:
        return self.folder / "secrets" / "certificate.pem"

    def load(self, attempts: int) -> Load:
        return Load(self.url, self.certificate, self.key, DAX["quotes"], attempts)

    def get(self, path: str, **headers: str) -> httpx.Response:
        context = ssl.create_default_context(cafile=self.certificate)
        with httpx.Client(verify=context, trust_env=False) as client:
            return client.get(self.url + path, headers=headers)


@pytest.fixture(scope="module")
def images(service_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The service with a newer network and with one that is not what its manifest says; its image as it is."""
    folder = tmp_path_factory.mktemp("images")
    proxy_and_prometheus()
    for tag, corrupt in ((NEW, False), (CORRUPT, True)):
        network(folder / "networks" / "heston" / "6", corrupt=corrupt)
        built(folder, tag, f"FROM {service_image}\nCOPY networks networks\n")
    return service_image


def built(folder: Path, tag: str, dockerfile: str) -> None:
    (folder / "Dockerfile").write_text(dockerfile)
    docker("build", "--network", "host", "--tag", tag, folder)


def network(folder: Path, *, corrupt: bool) -> None:
    """Write a version of its own: the first network again, as the version that the folder names.

    corrupt  its golden output is not what it answers
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "networks" / "heston" / "1", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["version"] = int(folder.name)
    if corrupt:
        manifest["golden"]["parameters"][0][0] += 0.01
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def deployed(images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Started by the documented command, without Grafana, of which no image can be had here."""
    folder = tmp_path_factory.mktemp("stack") / "deploy"
    shutil.copytree(ROOT / "deploy", folder, ignore=shutil.ignore_patterns("tests", "secrets", ".env"))
    with (folder / "service.env").open("a") as settings:
        # The machine of the tests may keep a request waiting for longer than the 50 ms of a quoting path, or behind a
        # reload; and the proxy needs less than the ten seconds of a drain that Prometheus is to see.
        settings.write("CALIBRANT_DEFAULT_DEADLINE_MS=10000\nCALIBRANT_LONG_QUEUE_S=25\nCALIBRANT_DRAIN_S=3\n")
    (folder / ".env").write_text(f"CALIBRANT_IMAGE={images}\n")
    deployed = Deployed(
        folder,
        {
            "COMPOSE_PROJECT_NAME": f"calibrant-test-{os.getpid()}",
            "HAPROXY_IMAGE": PROXY_AND_PROMETHEUS,
            "PROMETHEUS_IMAGE": PROXY_AND_PROMETHEUS,
            "CALIBRANT_ADDRESS": "127.0.0.1",
            "CALIBRANT_HTTPS_PORT": str(free_port()),
            "PROMETHEUS_PORT": str(free_port()),
        },
    )
    try:
        assert "It serves" in deployed.done("./up", "calibrant", "proxy", "prometheus")
        yield deployed
    finally:
        for container in deployed.containers():
            docker("rm", "--force", "--volumes", container["Id"])
        deployed.done("docker-compose", "down", "--volumes")


def test_one_command_brings_up_what_answers_a_sample_request_over_tls(deployed: Deployed) -> None:
    context = ssl.create_default_context(cafile=deployed.certificate)
    with Client(deployed.url, key=deployed.key, verify=context) as client:
        answer = client.calibrate(DAX["quotes"])
    assert answer.status == "converged"
    assert SERVED.fullmatch(answer.model_version or "")
    assert len(deployed.replicas()) == 2


def test_the_proxy_serves_nobody_without_a_key_nor_metrics_nor_old_tls(deployed: Deployed) -> None:
    assert deployed.get("/health/ready").status_code == 200
    assert deployed.get("/v1/models").json()["code"] == "unauthenticated"
    assert deployed.get("/metrics", authorization=f"Bearer {deployed.key}").json()["code"] == "not_found"
    for version, status in (("-tls1_1", 1), ("-tls1_2", 0)):
        address = deployed.url.removeprefix("https://")
        # The library itself would refuse the old one too, at its usual level.
        command = ["openssl", "s_client", version, "-cipher", "ALL:@SECLEVEL=0", "-connect", address]
        assert subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == status


def test_a_certificate_written_in_place_is_served_without_a_break(deployed: Deployed) -> None:
    (proxy,) = deployed.containers("proxy")
    address = "localhost", int(deployed.url.rpartition(":")[2])
    before = ssl.get_server_certificate(address)
    certificate, key = self_signed(["localhost"])
    deployed.certificate.write_text(before + certificate)
    with deployed.load(attempts=1).running() as load:
        (deployed.folder / "secrets" / "tls").write_text(certificate + key)
        docker("kill", "--signal", "HUP", proxy["Id"])
        end = monotonic() + 20.0
        while ssl.get_server_certificate(address) == before:
            assert monotonic() < end
            sleep(0.2)
    assert load.lost == []
    assert ssl.get_server_certificate(address).split() == certificate.split()


def test_every_container_is_confined_limited_and_checked(deployed: Deployed) -> None:
    containers = deployed.containers()
    assert len(containers) == 4
    for container in containers:
        host, config = container["HostConfig"], container["Config"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert config["User"].split(":")[0] not in ("", "0", "root")
        assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert container["State"]["Health"]["Status"] == "healthy"


def test_prometheus_scrapes_every_replica_and_the_proxy(deployed: Deployed) -> None:
    end = monotonic() + 30.0
    while True:
        with httpx.Client(trust_env=False) as client:
            answer = client.get(f"{deployed.prometheus}/api/v1/targets", params={"state": "active"}).json()
        targets = [target["labels"]["job"] for target in answer["data"]["activeTargets"] if target["health"] == "up"]
        if targets.count("calibrant") == 2 and targets.count("proxy") == 1:
            return
        assert monotonic() < end, answer
        sleep(0.5)


def test_a_killed_replica_loses_no_request_that_the_client_sends_again(deployed: Deployed) -> None:
    victim, survivor = sorted(deployed.replicas())
    with deployed.load(attempts=4).running() as load:
        sleep(2.0)
        docker("kill", victim)
        sleep(3.0)
        before = load.answered.total()
        sleep(2.0)
    assert load.lost == []
    assert load.answered.total() > before
    assert list(deployed.replicas()) == [survivor]
    deployed.done("./up", "calibrant")
    assert len(deployed.replicas()) == 2


def test_a_network_that_fails_its_golden_check_stops_the_upgrade(deployed: Deployed) -> None:
    replicas = deployed.replicas()
    with deployed.load(attempts=1).running() as load:
        run = deployed.command("./upgrade", CORRUPT)
    assert run.returncode == 1
    assert "stopped with 2 of 2 replicas as before" in run.stdout
    assert "does not reproduce the golden output of its manifest" in run.stdout
    assert load.lost == []
    assert all(SERVED.fullmatch(version) for version in load.answered)
    assert deployed.replicas() == replicas
    assert CORRUPT not in (deployed.folder / ".env").read_text()


def test_an_upgrade_to_a_new_network_loses_no_request_at_all(deployed: Deployed) -> None:
    with deployed.load(attempts=1).running() as load:
        sleep(1.0)
        said = deployed.done("./upgrade", NEW)
        sleep(1.0)
    assert load.lost == []
    old, new = sorted(load.answered)
    assert SERVED.fullmatch(old)
    assert NEWER.fullmatch(new)
    assert said.count(f"serving {new}") == 2
    replicas = deployed.replicas()
    assert list(replicas.values()) == [NEW, NEW]
    # What was upgraded stays so, and the way back is the same.
    deployed.done("./up", "calibrant")
    assert deployed.replicas() == replicas
    assert "All 2 replicas run" in deployed.done("./upgrade", NEW)
    assert deployed.replicas() == replicas


def test_networks_of_a_folder_are_loaded_one_replica_at_a_time_or_not_at_all(deployed: Deployed) -> None:
    networks = deployed.folder / "networks"
    network(networks / "heston" / "5", corrupt=False)
    with (deployed.folder / ".env").open("a") as settings:
        settings.write("COMPOSE_FILE=compose.yaml:compose.networks.yaml\nCALIBRANT_NETWORKS_FOLDER=./networks\n")
    with deployed.load(attempts=1).running() as load:
        assert deployed.done("./upgrade", "--restart").count("serving heston-5@") == 2
        network(networks / "heston" / "6", corrupt=True)
        run = deployed.command("./upgrade", "--networks")
        assert run.returncode == 1
        assert "stopped at replica 1 of 2, which serves what it did: Not reloaded: heston-6@" in run.stdout
        network(networks / "heston" / "6", corrupt=False)
        assert deployed.done("./upgrade", "--networks").count("heston-6@sha256:") == 2
        sleep(1.0)
    assert load.lost == []
    assert {version.partition("@")[0] for version in load.answered} >= {"heston-5", "heston-6"}
