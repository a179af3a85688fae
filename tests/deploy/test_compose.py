"""The compose stack, read: what can be known of it without Docker. deploy/tests/test_compose.py brings it up."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.operate.stack import Stack
from service.admission import LARGE_BODY
from service.errors import ServiceError
from service.routes import ROUTES
from service.settings import Settings
from tests.shared import ROOT

DEPLOY = ROOT / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GPU = {name: service for name, service in SERVICES.items() if name.startswith("calibrant-gpu-")}
REPLICAS = {"calibrant": SERVICES["calibrant"], **GPU}
PROXY = (DEPLOY / "proxy" / "haproxy.cfg").read_text()
SETTINGS = dict(
    line.split("=", 1) for line in (DEPLOY / "service.env").read_text().splitlines() if line and line[0] != "#"
)
VARIABLES = set(re.findall(r"\$\{(\w+)", TEXT + (DEPLOY / "compose.networks.yaml").read_text()))
UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0}


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def keys(node: Any) -> set[str]:
    """All keys at any depth."""
    if isinstance(node, Mapping):
        return set(node) | {key for value in node.values() for key in keys(value)}
    return {key for item in node for key in keys(item)} if isinstance(node, list) else set()


def test_nothing_is_used_that_docker_compose_1_29_does_not_know() -> None:
    assert set(COMPOSE) - {"services", "networks", "volumes", "secrets"} == {
        name for name in COMPOSE if name[:2] == "x-"
    }
    assert not keys(SERVICES) & {"start_interval", "required", "develop", "pull_policy"}
    for service in SERVICES.values():
        assert isinstance(service.get("depends_on", []), list)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_limited_and_stopped_with_patience(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert service["pids_limit"] > 0
    # The image of the service has a check of its own.
    assert name in REPLICAS or "healthcheck" in service


@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_gets_more_time_to_stop_than_it_takes(name: str) -> None:
    drain_and_stop = float(SETTINGS["CALIBRANT_DRAIN_S"]) + float(SETTINGS["CALIBRANT_STOP_S"])
    assert seconds(REPLICAS[name]["stop_grace_period"]) >= drain_and_stop + 22.0


def test_the_proxy_sees_a_drain_well_before_it_ends() -> None:
    inter, fast, fall = re.search(r"check inter (\w+) fastinter (\w+) .*fall (\d)", PROXY).groups()  # type: ignore[union-attr]
    checks = re.search(r"timeout check (\w+)", PROXY)
    assert checks is not None
    slowest = seconds(inter) + (int(fall) - 1) * seconds(fast) + int(fall) * seconds(checks[1])
    assert slowest < 0.5 * float(SETTINGS["CALIBRANT_DRAIN_S"])


def test_only_the_proxy_can_be_reached_from_other_machines() -> None:
    public = {
        name for name, service in SERVICES.items() for port in service.get("ports", []) if port[:9] != "127.0.0.1"
    }
    assert public == {"proxy"}
    assert COMPOSE["networks"]["service"]["internal"]
    for service in REPLICAS.values():
        assert list(service["networks"]) == ["service"]
        assert service["networks"]["service"]["aliases"] == ["calibrant"]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_gpu_profile_starts_one_replica_on_each_gpu(count: int) -> None:
    profile = "gpu" if count == 1 else f"gpu-{count}"
    devices = [
        device
        for service in GPU.values()
        if profile in service["profiles"]
        for device in service["deploy"]["resources"]["reservations"]["devices"]
    ]
    assert [device["device_ids"] for device in devices] == [[str(i)] for i in range(count)]
    assert all(device["driver"] == "nvidia" and device["capabilities"] == ["gpu"] for device in devices)


def test_folders_of_networks_are_added_to_every_replica_and_nothing_else() -> None:
    added = yaml.safe_load((DEPLOY / "compose.networks.yaml").read_text())
    assert set(added["services"]) == set(REPLICAS)


def test_the_settings_of_the_service_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {**SETTINGS, **REPLICAS["calibrant"]["environment"], **GPU["calibrant-gpu-0"]["environment"]}
    given["CALIBRANT_API_KEYS"] = str(tmp_path / "keys")
    (tmp_path / "keys").touch()
    for name, value in given.items():
        assert name.removeprefix("CALIBRANT_").lower() in Settings.model_fields, name
        monkeypatch.setenv(name, value)
    Settings()


def test_every_image_is_named_by_a_variable_and_every_file_mounted_is_there() -> None:
    named = re.findall(r"^ +image: (.*)$", TEXT, re.MULTILINE)
    # That of the replicas on GPUs is named once for all.
    assert len(named) == len(SERVICES) - len(GPU) + 1
    assert all(re.fullmatch(r"\$\{\w+_IMAGE:-[\w/-]+:[\w.]+\}", name) for name in named)
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (DEPLOY / source).exists() if source[0] == "." else source in COMPOSE["volumes"]
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])


def test_the_readme_lists_every_variable() -> None:
    table = re.findall(r"^\| (`[A-Z].*?) \|", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    listed = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    assert listed == VARIABLES | {"CALIBRANT_NAMES", "COMPOSE_PROJECT_NAME"}


def test_the_proxy_waits_as_long_as_the_service_does() -> None:
    timeouts = dict(re.findall(r"^    timeout ([\w-]+) (\w+)", PROXY, re.MULTILINE))
    defaults = Settings()
    assert seconds(timeouts["http-request"]) == defaults.header_timeout_s
    assert seconds(timeouts["http-keep-alive"]) == defaults.keep_alive_s
    assert seconds(timeouts["client"]) > max(defaults.body_timeout_s, defaults.write_timeout_s)


def test_an_interactive_request_fits_into_a_buffer_of_the_proxy() -> None:
    size = re.search(r"tune.bufsize (\d+)", PROXY)
    assert size is not None
    assert int(size[1]) >= LARGE_BODY + 8192


def test_the_proxy_lets_through_what_clients_may_ask_and_nothing_else() -> None:
    begins = re.findall(r"^    acl public path_beg (.*)$", PROXY, re.MULTILINE)
    paths = re.findall(r"^    acl public path (.*)$", PROXY, re.MULTILINE)
    assert re.findall(r"^    http-request deny .*$", PROXY, re.MULTILINE) == [
        "    http-request deny deny_status 404 unless public"
    ]

    def public(path: str) -> bool:
        return path in " ".join(paths).split() or path.startswith(tuple(" ".join(begins).split()))

    served = {route.path for route in ROUTES}
    assert {path for path in served if not public(path)} == {"/metrics"}
    for path in ("/%6detrics", "/metrics/", "//metrics", "/./metrics", "/%2fmetrics", "/v1%2f..%2fmetrics", "//"):
        assert not public(path)


def test_the_refusals_of_the_proxy_are_those_of_the_contract() -> None:
    refusals = re.findall(r"http-error status (\d+) content-type application/problem\+json string '(.*?)'", PROXY)
    assert len(refusals) == PROXY.count("http-error status")
    codes = {kind.code for kind in every(ServiceError) if hasattr(kind, "code")}
    for status, text in refusals:
        document = json.loads(text)
        assert document["code"] in codes
        assert document["status"] == (503 if status == "502" else int(status))


def every(kind: type[ServiceError]) -> set[type[ServiceError]]:
    return {kind} | {further for each in kind.__subclasses__() for further in every(each)}


def test_settings_are_kept_in_env_beside_what_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALIBRANT_IMAGE", raising=False)
    stack = Stack(tmp_path)
    assert stack.setting("CALIBRANT_IMAGE", "none") == "none"
    (tmp_path / ".env").write_text("# mine\nCALIBRANT_IMAGE=a:1\nCALIBRANT_REPLICAS=3\n")
    stack.write_setting("CALIBRANT_IMAGE", "a:2")
    assert (tmp_path / ".env").read_text() == "# mine\nCALIBRANT_REPLICAS=3\nCALIBRANT_IMAGE=a:2\n"
    assert stack.setting("CALIBRANT_IMAGE", "none") == "a:2"
    monkeypatch.setenv("CALIBRANT_IMAGE", "a:3")
    assert stack.setting("CALIBRANT_IMAGE", "none") == "a:3"


@pytest.mark.parametrize("command", ["up", "upgrade"])
def test_the_commands_say_how_they_are_used(command: str) -> None:
    for argument, status in (("--help", 0), ("--what", 2)):
        run = subprocess.run([DEPLOY / command, argument], capture_output=True, text=True, cwd="/")
        assert run.returncode == status
        assert f"deploy/{command}" in run.stdout
