"""Which part may import which: checked in a fresh interpreter, where only the part's own imports count."""

import subprocess
import sys
import tomllib
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

from tests.shared import ROOT

EVERY_MODULE_OF = (
    "import importlib, pkgutil, sys; import {0} as package\n"
    "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
    "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
    "print(*{{name.partition('.')[0] for name in sys.modules}})"
)


def imported_by(package: str) -> set[str]:
    """Top-level packages in memory after importing every module of `package`."""
    code = EVERY_MODULE_OF.format(package)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("service", {"torch", "onnx", "training", "model_export", "httpx", "matplotlib"}),
        ("calibrant", {"torch", "onnx", "onnxruntime", "training", "model_export", "service", "starlette", "pydantic"}),
        ("training", {"service", "model_export", "starlette"}),
        ("model_export", {"service", "starlette"}),
    ],
)
def test_a_package_imports_only_what_is_below_it(package: str, forbidden: set[str]) -> None:
    assert not imported_by(package) & forbidden


def test_the_services_install_needs_neither_torch_nor_cuda() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(line) for line in (*project["dependencies"], *extras["service"], *extras["cpu"])]
    installed: set[str] = set()
    while wanted:
        needed = wanted.pop()
        if needed.name in installed or needed.name == "calibrant":
            continue
        installed.add(needed.name)
        for line in requires(needed.name) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (needed.extras or {""})):
                wanted.append(requirement)
    assert "onnxruntime" in installed
    assert not [name for name in installed if name.startswith(("torch", "nvidia", "cuda", "triton", "tensorrt"))]
