"""The Kubernetes manifests against the code that they run; `deploy/tests/test_kubernetes.py` renders them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from calibrant.network import MANIFEST, read_manifest
from service.auth import Scope
from service.lane import HANGING_IN_BACKGROUND
from service.metrics import Metrics
from service.routes import ROUTES
from service.routing import Routes
from service.scheduler import Scheduler
from service.server import LINGER, SETTLE
from service.settings import Settings
from service.supervisor import LAST_JOBS
from tests.shared import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu")
PREFIX = "CALIBRANT_"


def manifest(path: str) -> Any:
    return yaml.safe_load((KUBERNETES / path).read_text())


BASE = manifest("base/deployment.yaml")["spec"]["template"]["spec"]
GPU = manifest("overlays/gpu/deployment.yaml")["spec"]["template"]["spec"]
(CONTAINER,) = BASE["containers"]


def literals(path: str) -> dict[str, str]:
    """The settings of a kustomization."""
    generators = manifest(f"{path}/kustomization.yaml").get("configMapGenerator", [])
    lines = [line for generator in generators for line in generator.get("literals", [])]
    return dict(line.split("=", 1) for line in lines)


def settings_of(overlay: str) -> dict[str, str]:
    return {**literals("base"), **literals(f"overlays/{overlay}")}


@pytest.fixture
def settings(overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As a pod reads them; each file of a Secret stands in an empty folder here."""
    for name, value in settings_of(overlay).items():
        path = Path(value)
        if path.is_relative_to("/etc/calibrant"):
            path = tmp_path / path.name
            path.touch()
            value = str(path)
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_and_the_service_takes_its_value(overlay: str, settings: Settings) -> None:
    named = {name.removeprefix(PREFIX).lower() for name in settings_of(overlay)}
    assert named <= Settings.model_fields.keys()
    assert named <= settings.model_fields_set


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_is_given_longer_to_end_than_the_service_takes(overlay: str, settings: Settings) -> None:
    scheduler = Scheduler()
    scheduler.stop()
    lanes = len(scheduler.lanes) * HANGING_IN_BACKGROUND
    longest = settings.drain_s + SETTLE + LINGER + settings.stop_s + lanes + LAST_JOBS
    assert "terminationGracePeriodSeconds" not in GPU
    assert BASE["terminationGracePeriodSeconds"] > longest


def test_the_service_has_as_many_workers_as_the_pod_has_cores() -> None:
    assert int(settings_of("cpu")["CALIBRANT_WORKERS"]) == CONTAINER["resources"]["limits"]["cpu"]
    # On a GPU one worker, with the other cores for refinements in its threads and one for the interactive lane.
    gpu = settings_of("gpu")
    assert int(gpu["CALIBRANT_WORKERS"]) == 1
    assert int(gpu["CALIBRANT_BATCH_THREADS"]) < GPU["containers"][0]["resources"]["limits"]["cpu"]


@pytest.mark.parametrize("container", [CONTAINER, *GPU["initContainers"], *GPU["containers"]])
def test_what_is_asked_for_is_the_limit(container: dict[str, Any]) -> None:
    """Of every resource: only then are a pod's cores its own."""
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_every_probe_asks_a_path_of_the_application_on_the_port_of_the_service() -> None:
    routes = {route.path: route for route in ROUTES}
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == int(literals("base")["CALIBRANT_PORT"])
    asked = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    for probe in asked.values():
        assert probe["path"] in routes
        assert probe["port"] == port["name"]
        assert probe["scheme"] == "HTTPS"
        # Kubernetes has no key.
        assert routes[probe["path"]].open
    assert asked["readiness"]["path"] == "/health/ready"
    # A pod that is not ready must be there to say why, and so must one that is busy.
    assert asked["startup"]["path"] == asked["liveness"]["path"] == "/health/live"
    (served,) = manifest("base/service.yaml")["spec"]["ports"]
    assert served["targetPort"] == port["name"]


def test_every_selector_finds_the_pods() -> None:
    labels = manifest("base/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert manifest("base/service.yaml")["spec"]["selector"].items() <= labels.items()
    selectors = [
        manifest("base/deployment.yaml")["spec"]["selector"],
        manifest("base/disruption_budget.yaml")["spec"]["selector"],
        manifest("base/pod_monitor.yaml")["spec"]["selector"],
        manifest("base/network_policy.yaml")["spec"]["podSelector"],
        *(constraint["labelSelector"] for constraint in BASE["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector["matchLabels"].items() <= labels.items()
    target = manifest("base/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", manifest("base/deployment.yaml")["metadata"]["name"])


def test_the_name_of_the_service_does_not_become_a_setting() -> None:
    """Kubernetes sets CALIBRANT_PORT=tcp://... beside a Service of that name unless it is told not to."""
    assert manifest("base/service.yaml")["metadata"]["name"].upper() + "_PORT" == "CALIBRANT_PORT"
    assert BASE["enableServiceLinks"] is False


def test_a_pod_may_do_nothing_that_it_need_not() -> None:
    assert BASE["automountServiceAccountToken"] is False
    pod = BASE["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] > 0
    for container in (CONTAINER, *GPU["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_files_of_the_settings_come_from_secrets() -> None:
    mounts = {mount["mountPath"]: mount for mount in CONTAINER["volumeMounts"]}
    secrets = {volume["name"]: volume["secret"] for volume in BASE["volumes"] if "secret" in volume}
    files = [Path(value) for name, value in literals("base").items() if value.startswith("/etc/")]
    assert len(files) == 3
    for file in files:
        mount = mounts[str(file.parent)]
        assert mount["readOnly"] is True
        # Readable for the pod's group, for nobody else.
        assert secrets[mount["name"]]["defaultMode"] == 0o440


def test_the_pod_monitor_asks_as_the_service_wants_to_be_asked() -> None:
    (endpoint,) = manifest("base/pod_monitor.yaml")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == CONTAINER["ports"][0]["name"]
    assert Routes(ROUTES).find("GET", endpoint["path"])[0].scope is Scope.METRICS
    assert endpoint["scheme"] == "https"
    assert endpoint["authorization"]["credentials"]["name"] == "calibrant-metrics-key"
    secrets = [volume["secret"]["secretName"] for volume in BASE["volumes"]]
    assert endpoint["tlsConfig"]["ca"]["secret"]["name"] in secrets
    assert endpoint["tlsConfig"]["serverName"] == manifest("base/service.yaml")["metadata"]["name"]
    seconds = [float(endpoint[name].removesuffix("s")) for name in ("scrapeTimeout", "interval")]
    assert seconds == sorted(seconds)
    label = manifest("base/pod_monitor.yaml")["spec"]["jobLabel"]
    assert manifest("base/deployment.yaml")["spec"]["template"]["metadata"]["labels"][label] == "calibrant"


def test_nothing_gets_to_a_pod_but_by_its_port_and_nothing_out() -> None:
    policy = manifest("base/network_policy.yaml")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert "egress" not in policy
    (way_in,) = policy["ingress"]
    (port,) = way_in["ports"]
    assert port["port"] == CONTAINER["ports"][0]["name"]
    # Prometheus comes the same way.
    (endpoint,) = manifest("base/pod_monitor.yaml")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == port["port"]


def test_the_memory_alert_is_of_the_containers_own_limit() -> None:
    (group,) = manifest("base/memory_alert.yaml")["spec"]["groups"]
    (rule,) = group["rules"]
    assert set(re.findall(r'container="(\w+)"', rule["expr"])) == {CONTAINER["name"]}
    assert "memory" in CONTAINER["resources"]["limits"]


def test_the_autoscaler_and_the_adapter_name_a_metric_of_the_service() -> None:
    (metric,) = manifest("base/autoscaler.yaml")["spec"]["metrics"]
    (rule,) = manifest("prometheus_adapter.yaml")["rules"]
    name = metric["pods"]["metric"]["name"]
    assert name == rule["name"]["as"]
    assert re.fullmatch(rule["name"]["matches"], name)
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert name in {family.name for family in Metrics().families}
    assert manifest("base/autoscaler.yaml")["spec"]["minReplicas"] >= 2


def test_pods_are_added_at_half_of_what_they_hold_at_the_sustainable_rate() -> None:
    """By Little's law, from what benchmarks.service measured."""
    measured = json.loads((ROOT / "docs" / "results" / "service.json").read_text())["overload"]["data"]
    rate = measured["sustainable_per_s"]
    seconds = [1e-3 * probe["latency_ms"]["p50"] for probe in measured["probes"] if probe["rate"] == rate]
    held = int(settings_of("cpu")["CALIBRANT_WORKERS"]) * rate * max(seconds)
    (metric,) = manifest("base/autoscaler.yaml")["spec"]["metrics"]
    target = 1e-3 * int(metric["pods"]["target"]["averageValue"].removesuffix("m"))
    assert target == pytest.approx(held / 2, rel=0.25)


def test_the_gpu_overlay_gives_each_pod_one_gpu_and_asks_for_it() -> None:
    for container in (*GPU["initContainers"], *GPU["containers"]):
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert settings_of("gpu")["CALIBRANT_PROVIDER"] == "tensorrt"
    mounts = {mount["mountPath"] for mount in GPU["containers"][0]["volumeMounts"]}
    assert settings_of("gpu")["CALIBRANT_NETWORKS"] in mounts


def test_networks_find_their_engines_in_the_cache_and_without_a_gpu_none_is_built(tmp_path: Path) -> None:
    cache, into = tmp_path / "cache", tmp_path / "networks"
    cache.mkdir()
    script = KUBERNETES / "overlays" / "gpu" / "engines.py"
    command = [sys.executable, str(script), "networks", str(cache), str(into), "fp32"]
    # Twice: a pod's init containers may be run again.
    for _ in range(2):
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert run.stdout.startswith("to be built: ")
        # What became of model_export.to_tensorrt, and the sentence with which it ends.
        assert run.returncode == 2, run.stderr
        assert "cannot run the network on TensorrtExecutionProvider" in run.stderr.splitlines()[-1]
    released = sorted(path.relative_to(ROOT / "networks") for path in (ROOT / "networks").rglob(MANIFEST))
    assert sorted(path.relative_to(into) for path in into.rglob(MANIFEST)) == released
    for path in released:
        engines = (into / path).with_name("engines")
        assert engines.resolve() == cache / read_manifest((into / path).parent).sha256
        assert engines.is_dir()
