"""What a wheel holds: built as `pip wheel` and `python -m build` build it, by way of a source distribution."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import calibrant
from tests.shared import ROOT

BUILD = "import sys; from setuptools import build_meta\nprint(build_meta.build_sdist(sys.argv[1]))\n"
WHEEL = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which a wheel was unpacked."""
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "engines")
    for name in ("src", "networks"):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, checkout / name)
    archive = output_of(BUILD, checkout, folder)
    shutil.unpack_archive(folder / archive, folder / "source")
    (source,) = (folder / "source").iterdir()
    # Left by the build of an earlier version in the same folder.
    (source / "build" / "lib" / "calibrant" / "networks" / "heston" / "0").mkdir(parents=True)
    (source / "build" / "lib" / "calibrant" / "networks" / "heston" / "0" / "model.onnx").touch()
    with zipfile.ZipFile(folder / output_of(WHEEL, source, folder)) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


def output_of(code: str, where: Path, *arguments: Path) -> str:
    """The last line that a program prints."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_wheel_has_the_newest_network_of_each_model_and_finds_it(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from calibrant.models import MODELS; from calibrant.release import networks_folder, release_in_reach\n"
        "print(networks_folder().relative_to(sys.argv[1]), release_in_reach(MODELS['heston']).version)"
    )
    assert "CALIBRANT_NETWORKS" not in os.environ
    folder, version = output_of(code, tmp_path, installed).split()
    assert folder == "calibrant/networks"
    for model in (ROOT / "networks").iterdir():
        (shipped,) = (installed / "calibrant" / "networks" / model.name).iterdir()
        assert int(shipped.name) == max(int(path.name) for path in model.iterdir() if path.name.isdecimal())
        if model.name == "heston":
            assert version.startswith(f"heston-{shipped.name}@")


def test_a_wheel_is_typed_and_has_the_version_of_the_package(installed: Path) -> None:
    assert (installed / "calibrant" / "py.typed").exists()
    (metadata,) = installed.glob("calibrant-*.dist-info/METADATA")
    assert f"\nVersion: {calibrant.__version__}\n" in metadata.read_text()
