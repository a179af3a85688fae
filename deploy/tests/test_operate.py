"""The queries of the operator's page, read by Prometheus."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.shared import ROOT

QUERIES = re.findall(r"ask '([^']+)'", (ROOT / "docs" / "operate.md").read_text())


def check(queries: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """As rules that record them: `promtool` 2.42 reads no query by itself."""
    rules = [{"record": f"query{i}", "expr": query} for i, query in enumerate(queries)]
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    return subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60)


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    assert len(set(QUERIES)) > 20
    run = check(QUERIES, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_query_with_a_mistake_is_found(tmp_path: Path) -> None:
    run = check([*QUERIES, QUERIES[0] + "["], tmp_path)
    assert run.returncode != 0
