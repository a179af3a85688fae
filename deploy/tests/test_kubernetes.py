"""The Kubernetes manifests as kubectl renders them, against the schemas of Kubernetes and of the Prometheus operator.

Not here: whether a cluster takes them and what becomes of them there. The container of a pod is run, by Docker.
"""

import copy
import os
import re
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
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule
from pydantic import BaseModel

from deploy.tests.docker import container, docker
from tests.shared import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu")
VERSIONS = ("1.25", "1.37")
"""The oldest and the newest that `kubernetes-validate` knows."""
NOT_OF_KUBERNETES: dict[str, type[BaseModel]] = {"PodMonitor": PodMonitor, "PrometheusRule": PrometheusRule}


def render(overlay: str, tree: Path = KUBERNETES) -> str:
    kubectl = shutil.which("kubectl")
    assert kubectl is not None, "kubectl is missing: apt-get install kubernetes-client, from Debian 13 on"
    command = [kubectl, "kustomize", str(tree / "overlays" / overlay)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    # Of a key that is deprecated kubectl warns, and the next major version refuses it.
    assert not run.stderr
    return run.stdout


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
    assert len(passed) == len(rendered) - len(NOT_OF_KUBERNETES)
    unknown = [line for line in lines if line not in passed]
    assert len(unknown) == len(NOT_OF_KUBERNETES)
    for kind in NOT_OF_KUBERNETES:
        assert any(f"kind {kind} " in line for line in unknown)


def test_a_misspelt_field_does_not_fit(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    objects = copy.deepcopy(rendered)
    pod = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    pod["terminationGracePeriod"] = pod.pop("terminationGracePeriodSeconds")
    run = validate(objects, VERSIONS[-1], tmp_path)
    assert run.returncode == 1
    assert "terminationGracePeriod" in run.stdout


def as_documented(thing: dict[str, Any]) -> dict[str, Any]:
    """What is left of an object in the operator's own types, which drop a field that they do not know.

    raises  ValueError if a field has a value that it cannot have, or a required one is missing
    """
    of_operator = NOT_OF_KUBERNETES[thing["kind"]].model_validate(thing)
    return of_operator.model_dump(mode="json", by_alias=True, exclude_unset=True)


@pytest.mark.parametrize("kind", NOT_OF_KUBERNETES)
def test_what_is_the_operators_has_documented_fields_alone(rendered: list[dict[str, Any]], kind: str) -> None:
    thing = of_kind(rendered, kind)
    assert as_documented(thing) == thing


@pytest.mark.parametrize(("given", "planted"), [("scrapeTimeout", "timeout"), ("tlsConfig", "tls")])
def test_an_undocumented_field_of_the_pod_monitor_is_found(
    rendered: list[dict[str, Any]], given: str, planted: str
) -> None:
    monitor = copy.deepcopy(of_kind(rendered, "PodMonitor"))
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


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_image_may_be_named_by_its_digest(overlay: str, tmp_path: Path) -> None:
    tree = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    file = tree / "overlays" / overlay / "kustomization.yaml"
    digest = f"sha256:{'0123456789abcdef' * 4}"
    file.write_text(re.sub(r"newTag: \S+", f"digest: {digest}", file.read_text()))
    objects = list(yaml.safe_load_all(render(overlay, tree)))
    pod = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    assert {part["image"] for part in containers(pod)} == {f"calibrant-{overlay}@{digest}"}


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
    hold(tmp_path, {"tests": [test]})


def hold(folder: Path, tests: dict[str, Any]) -> None:
    """Have Prometheus's own tool carry out tests of rules."""
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(tests))
    run = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_memory_alert_fires_for_the_pod_that_is_near_its_limit_and_for_no_other(tmp_path: Path) -> None:
    rule = yaml.safe_load((KUBERNETES / "base" / "memory_alert.yaml").read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    limit = 2 * 2**30
    # Full from the tenth minute on; full for a minute; never full. A pod's own sums have no container.
    used = {
        ("calibrant-1", "calibrant"): f"{0.5 * limit:.0f}x9 {0.95 * limit:.0f}x20",
        ("calibrant-2", "calibrant"): f"{0.5 * limit:.0f}x9 {0.95 * limit:.0f}x1 {0.5 * limit:.0f}x18",
        ("calibrant-3", "calibrant"): f"{0.85 * limit:.0f}x29",
        ("calibrant-3", ""): f"{0.99 * limit:.0f}x29",
        ("other-1", "other"): f"{0.99 * limit:.0f}x29",
    }
    series = [
        {
            "series": f'container_memory_working_set_bytes{{namespace="desk",pod="{pod}",container="{container}"}}',
            "values": values,
        }
        for (pod, container), values in used.items()
    ]
    limits = [
        {
            "series": f'kube_pod_container_resource_limits{{namespace="desk",pod="{pod}",container="{container}",'
            'resource="memory",unit="byte"}',
            "values": f"{limit}x29",
        }
        for pod, container in used
        if container
    ]
    alert = {
        "exp_labels": {"severity": "warning", "namespace": "desk", "pod": "calibrant-1"},
        "exp_annotations": {
            "summary": "The pod calibrant-1 has used 95% of its memory for two minutes; at 100 % it is killed.",
            "runbook": "docs/operate.md#calibrantpodmemoryhigh",
        },
    }
    expected = [("9m", []), ("11m", []), ("12m", [alert]), ("29m", [alert])]
    name = "CalibrantPodMemoryHigh"
    test = {
        "interval": "1m",
        "input_series": [*series, *limits],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": alerts} for at, alerts in expected],
    }
    hold(tmp_path, {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
