"""The Kubernetes manifests as kubectl renders them, against the schemas of Kubernetes and of the Prometheus operator.

Not here: whether a cluster takes them and what becomes of them there. The container of a pod is run, by Docker.
"""

import copy
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import PodMonitor

from deploy.tests.docker import container, docker
from tests.shared import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu")
VERSIONS = ("1.25", "1.37")
"""The oldest and the newest that `kubernetes-validate` knows."""
NOT_OF_KUBERNETES = "PodMonitor"


def render(overlay: str) -> str:
    kubectl = shutil.which("kubectl")
    assert kubectl is not None, "kubectl is missing: apt-get install kubernetes-client"
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(render(request.param)))


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (thing for thing in objects if thing["kind"] == kind)
    return found


def validate(objects: list[dict[str, Any]], kubernetes: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", kubernetes, str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


@pytest.mark.parametrize("kubernetes", VERSIONS)
def test_every_object_fits_the_schema_of_kubernetes(
    rendered: list[dict[str, Any]], kubernetes: str, tmp_path: Path
) -> None:
    run = validate(rendered, kubernetes, tmp_path)
    assert run.returncode == 0, run.stdout
    lines = run.stdout.splitlines()
    passed = [line for line in lines if line.startswith("INFO") and " passed " in line]
    assert len(passed) == len(rendered) - 1
    (unknown,) = (line for line in lines if line not in passed)
    assert f"kind {NOT_OF_KUBERNETES} " in unknown


def test_a_misspelt_field_does_not_fit(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    objects = copy.deepcopy(rendered)
    pod = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    pod["terminationGracePeriod"] = pod.pop("terminationGracePeriodSeconds")
    run = validate(objects, VERSIONS[-1], tmp_path)
    assert run.returncode == 1
    assert "terminationGracePeriod" in run.stdout


def as_documented(monitor: dict[str, Any]) -> dict[str, Any]:
    """What is left of a PodMonitor in the operator's own types, which drop a field that they do not know.

    raises  ValueError if a field has a value that it cannot have, or a required one is missing
    """
    kept: dict[str, Any] = PodMonitor.model_validate(monitor).model_dump(mode="json", by_alias=True, exclude_unset=True)
    return kept


def test_the_pod_monitor_has_documented_fields_alone(rendered: list[dict[str, Any]]) -> None:
    monitor = of_kind(rendered, NOT_OF_KUBERNETES)
    assert as_documented(monitor) == monitor


@pytest.mark.parametrize(("given", "planted"), [("scrapeTimeout", "timeout"), ("tlsConfig", "tls")])
def test_an_undocumented_field_of_the_pod_monitor_is_found(
    rendered: list[dict[str, Any]], given: str, planted: str
) -> None:
    monitor = copy.deepcopy(of_kind(rendered, NOT_OF_KUBERNETES))
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    endpoint[planted] = endpoint.pop(given)
    assert as_documented(monitor) != monitor


def test_every_reference_between_the_objects_leads_somewhere(rendered: list[dict[str, Any]]) -> None:
    """Kustomize gives a ConfigMap a name with a hash, and must give the same to whoever uses it."""
    names = {(thing["kind"], thing["metadata"]["name"]) for thing in rendered}
    pod = of_kind(rendered, "Deployment")["spec"]["template"]["spec"]
    for part in containers(pod):
        (source,) = part["envFrom"]
        assert ("ConfigMap", source["configMapRef"]["name"]) in names
        mounted = {mount["name"] for mount in part["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in pod["volumes"]}
    for volume in pod["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in names
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names


def test_each_overlay_runs_its_own_image_and_keeps_what_the_base_says() -> None:
    for overlay in OVERLAYS:
        objects = list(yaml.safe_load_all(render(overlay)))
        template = of_kind(objects, "Deployment")["spec"]["template"]
        images = {part["image"] for part in containers(template["spec"])}
        assert images == {f"calibrant-{overlay}:{version('calibrant')}"}
        (service,) = template["spec"]["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= service.keys()
        assert {"keys", "tls"} <= {mount["name"] for mount in service["volumeMounts"]}
        settings = next(thing["data"] for thing in objects if "CALIBRANT_PORT" in thing.get("data", {}))
        assert settings["CALIBRANT_DRAIN_S"] == "10"
        assert settings.get("CALIBRANT_PROVIDER", "cpu") == {"cpu": "cpu", "gpu": "tensorrt"}[overlay]


def make_secrets(image: str, folder: Path, group: int) -> str:
    """What the two Secrets hold, as files for the pod's group alone; a key for Prometheus."""
    for name in ("keys", "tls"):
        (folder / name).mkdir()
    made = subprocess.run(
        ["docker", "run", "--rm", image, "python", "-m", "service.auth", "prometheus", "metrics"],
        capture_output=True,
        text=True,
        check=True,
    )
    (folder / "keys" / "keys.json").write_text(made.stdout)
    certificate, key = folder / "tls" / "tls.crt", folder / "tls" / "tls.key"
    names = ("-subj", "/CN=calibrant", "-addext", "subjectAltName=DNS:calibrant")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, "-keyout", key, "-out", certificate)
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    for file in (folder / "keys" / "keys.json", certificate, key):
        os.chown(file, 0, group)
        file.chmod(0o440)
    return made.stderr.split()[-1]


def test_a_pods_container_serves_with_its_settings_and_ends_within_its_grace(
    service_image: str, tmp_path: Path
) -> None:
    objects = list(yaml.safe_load_all(render("cpu")))
    pod = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    (service,) = pod["containers"]
    group = pod["securityContext"]["fsGroup"]
    key = make_secrets(service_image, tmp_path, group)
    options: list[object] = ["--user", f"{pod['securityContext']['runAsUser']}:{group}"]
    options += ["--cpus", service["resources"]["limits"]["cpu"], "--memory", "2g"]
    for name, value in of_kind(objects, "ConfigMap")["data"].items():
        options += ["--env", f"{name}={value}"]
    for mount in service["volumeMounts"]:
        options += ["--volume", f"{tmp_path / mount['name']}:{mount['mountPath']}:ro"]
    with container(service_image, *options) as running:
        asked = ["docker", "exec", running.name, "python", "-m", "service.health"]
        startup = service["startupProbe"]["periodSeconds"] * service["startupProbe"]["failureThreshold"]
        running.until(lambda: subprocess.run(asked, capture_output=True).returncode == 0, startup, 1.0)
        (address,) = (network["IPAddress"] for network in running.inspect(".NetworkSettings.Networks").values())
        # As Prometheus asks: by the pod's address, for the name in its certificate.
        (endpoint,) = of_kind(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
        trusted = ssl.create_default_context(cafile=str(tmp_path / "tls" / "tls.crt"))
        metrics = f"https://{address}:{service['ports'][0]['containerPort']}{endpoint['path']}"
        with httpx.Client(verify=trusted) as http:
            extensions = {"sni_hostname": endpoint["tlsConfig"]["serverName"]}
            authorized = {"authorization": f"Bearer {key}"}
            answer = http.get(metrics, headers=authorized, extensions=extensions)
            assert answer.status_code == 200
            assert "calibrant_workers 2.0" in answer.text
            assert http.get(metrics, extensions=extensions).status_code == 401
        docker("stop", "-t", pod["terminationGracePeriodSeconds"], running.name)
        assert running.inspect(".State.ExitCode") == 0


def test_the_adapter_counts_the_requests_of_a_pod_without_the_scrape(tmp_path: Path) -> None:
    """The query that the adapter makes of its rule for two pods, answered by Prometheus."""
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus_adapter.yaml").read_text())["rules"]
    query = rule["metricsQuery"]
    for field, value in (
        ("Series", "calibrant_in_flight"),
        ("LabelMatchers", 'namespace="desk",pod=~"calibrant-1|calibrant-2"'),
        ("GroupBy", "pod"),
    ):
        assert f"<<.{field}>>" in query
        query = query.replace(f"<<.{field}>>", value)
    # `axn` is a and n more of it. The minute before the ninetieth second begins with the seventh sample.
    series = {"calibrant-1": "1x20", "calibrant-2": "9x5 3x14", "calibrant-3": "9x20"}
    test = {
        "interval": "5s",
        "input_series": [
            {"series": f'calibrant_in_flight{{namespace="desk",pod="{pod}"}}', "values": values}
            for pod, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": "90s",
                "exp_samples": [
                    {"labels": '{pod="calibrant-1"}', "value": 0.0},
                    {"labels": '{pod="calibrant-2"}', "value": 2.0},
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    run = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
