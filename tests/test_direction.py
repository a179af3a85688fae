"""What the library and the service do without: import direction within the repository is import-linter's to check."""

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
    ("package", "unneeded"),
    [
        ("service", {"torch", "onnx", "httpx", "matplotlib"}),
        ("calibrant", {"torch", "onnx", "onnxruntime", "fastapi", "starlette", "pydantic"}),
    ],
)
def test_a_package_loads_nothing_that_it_can_do_without(package: str, unneeded: set[str]) -> None:
    assert not imported_by(package) & unneeded


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
