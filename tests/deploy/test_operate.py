"""The operator's page: all that there is has its place in it, and what it names is there."""

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.admission import SHED
from service.errors import ServiceError
from service.lane import Priority
from service.metrics import Metrics
from service.settings import Settings
from tests.shared import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "operate.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = "\n".join([*BLOCKS, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))])


def rules() -> Iterator[dict[str, Any]]:
    for file in sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


RULES = list(rules())
OF_PODS = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / "memory_alert.yaml").read_text())
"""The object of the operator that has what only a cluster knows."""
ALL_RULES = [*RULES, *(rule for group in OF_PODS["spec"]["groups"] for rule in group["rules"])]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}
HEADINGS = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def exposed(metric: Any) -> str:
    return f"{metric.name}_total" if type(metric).__name__ == "Counter" else metric.name


def test_every_setting_is_listed_with_its_default_and_meaning() -> None:
    for name, field in Settings.model_fields.items():
        assert f"| `CALIBRANT_{name.upper()}` | `{field.default}` | {field.description} |" in TEXT


def test_every_metric_is_listed_with_its_labels_and_meaning() -> None:
    for metric in Metrics().families:
        by = f", by {', '.join(metric.labels)}" if metric.labels else ""
        assert f"| `{exposed(metric)}` | {type(metric).__name__.lower()}{by} | {metric.help} |" in TEXT


def test_every_variable_named_is_a_setting_or_of_the_compose_files() -> None:
    settings = {f"CALIBRANT_{name.upper()}" for name in Settings.model_fields}
    compose = "".join(path.read_text() for path in (ROOT / "deploy").glob("compose*.yaml"))
    variables = set(re.findall(r"\$\{(\w+)", compose))
    assert set(re.findall(r"\bCALIBRANT_[A-Z_]+\b", TEXT)) <= settings | variables


def test_every_series_named_is_a_metric_or_recorded() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    metrics = {exposed(metric) for metric in Metrics().families}
    for series in re.findall(r"(?<![\w./-])(?:[a-z_]+:)?calibrant_\w+(?::\w+)?", TEXT):
        assert series.removesuffix("_bucket") in recorded | metrics, series


def test_every_label_is_explained_with_its_values() -> None:
    labels = {label for metric in Metrics().families for label in metric.labels}
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|[^|]*\|$", TEXT, re.MULTILINE))))
    # Of the others the metric's own line says what they are.
    assert labels - explained == {"model", "version", "requested", "actual", "generation"}
    for priority in Priority:
        assert f"`{priority.name.lower()}`" in TEXT


def _beneath(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for narrower in error.__subclasses__():
        yield narrower
        yield from _beneath(narrower)


def test_every_refusal_is_explained_with_its_status() -> None:
    known = {(error.code, str(error.status)) for error in _beneath(ServiceError)}
    listed: set[tuple[str, str]] = set()
    for codes, statuses in re.findall(r"^\| (`\w+`(?:, `\w+`)?) \| ([\d, ]+) \|", TEXT, re.MULTILINE):
        names, numbers = re.findall(r"\w+", codes), statuses.split(", ")
        listed |= set(zip(names, numbers, strict=True)) if len(names) > 1 else {(names[0], n) for n in numbers}
    assert listed == known
    assert {code for code, _ in known} >= set(SHED)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_to_do(alert: str) -> None:
    section = re.search(rf"^### {alert}\n\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert section is not None
    assert section[1].startswith(ALERTS[alert]["labels"]["severity"].capitalize())
    page, _, name = ALERTS[alert]["annotations"]["runbook"].partition("#")
    assert ROOT / page == DOCS / "operate.md"
    assert name == anchor(alert)


def test_every_alert_described_is_one() -> None:
    assert {heading for heading in HEADINGS if heading.startswith("Calibrant")} == ALERTS.keys()
    assert set(re.findall(r"`(Calibrant\w+)`", TEXT)) <= ALERTS.keys()


def test_every_link_leads_somewhere() -> None:
    anchors = {anchor(heading) for heading in HEADINGS}
    assert len(anchors) == len(HEADINGS)
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, name = target.partition("#")
        if path:
            assert (DOCS / path).exists(), target
        else:
            assert name in anchors, target


def test_every_panel_named_is_on_the_dashboard() -> None:
    dashboard = (ROOT / "deploy" / "grafana" / "dashboards" / "calibrant.json").read_text()
    titles = set(re.findall(r'"title": "([^"]+)"', dashboard))
    named = [name for line in re.findall(r"Dashboard: ([^.:]+)\.", TEXT) for name in re.findall(r"\*([^*]+)\*", line)]
    assert len(named) >= 9
    assert {" ".join(name.split()) for name in named} <= titles


def test_every_module_and_file_of_the_commands_is_there() -> None:
    modules = set(re.findall(r"python -m ([\w.]+)", COMMANDS))
    assert {"service", "service.auth", "model_export.to_tensorrt"} <= modules
    for module in modules:
        assert importlib.util.find_spec(module), module
    files = set(re.findall(r"(?<![\w/.])(?:deploy|examples|docs|networks/heston/5)/[\w./*-]*\w", COMMANDS))
    assert files
    # `deploy/up` makes these.
    kept_out = tuple(f"deploy/{name.rstrip('/')}" for name in (ROOT / "deploy" / ".gitignore").read_text().split())
    for file in files:
        assert file.startswith(kept_out) or list(ROOT.glob(file)), file
    made = (ROOT / "deploy" / "operate" / "secret_files.py").read_text()
    for secret in re.findall(r"deploy/secrets/([\w.]*\w)", COMMANDS):
        assert f'"{secret}"' in made, secret


def test_every_domain_of_the_newest_network_is_named_for_its_engine() -> None:
    newest = max((ROOT / "networks" / "heston").iterdir(), key=lambda path: int(path.name))
    domains = sorted(path.parent.name for path in newest.glob("*/manifest.json"))
    (loop,) = re.findall(r"for domain in ([\w ]+); do\n.*networks/heston/(\d+)/", TEXT)
    assert sorted(loop[0].split()) == domains
    assert loop[1] == newest.name


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_of_commands_is_a_script(block: str) -> None:
    run = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_sizes_are_those_measured() -> None:
    """Of docs/results/service.md, which benchmarks.service writes."""
    measured = (DOCS / "results" / "service.md").read_text()
    (table,) = re.findall(r"\| what \| one core \|\n(?:\|.*\n)+", TEXT)
    numbers = re.findall(r"\d+(?:\.\d+)?", " ".join(re.findall(r"\| ([\d. and ms]+) \|$", table, re.MULTILINE)))
    assert len(numbers) == 5
    for number in numbers:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", measured), number


def test_the_alerts_become_objects_of_the_operator(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if "kind: PrometheusRule" in block)
    script = block.replace("kubectl apply -f -", f"cat >{tmp_path}/$(basename $file)")
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True, cwd=ROOT)
    objects = [yaml.safe_load(path.read_text()) for path in sorted(tmp_path.iterdir())]
    assert [rule for thing in objects for group in thing["spec"]["groups"] for rule in group["rules"]] == RULES
    names = [thing["metadata"]["name"] for thing in (OF_PODS, *objects)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"calibrant-[a-z]+", name) for name in names)
