"""Which processors compiled kernels run on."""

import os
import subprocess
import sys

from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]

from calibrant.processor import VARIABLE, build_arguments, unsuited
from tests.shared import ROOT


def test_what_the_processor_lacks_is_named() -> None:
    reason = unsuited("+avx2,+avx512f,-avx512vl,+fma", {"avx2": True, "avx512f": False, "avx512vl": False})
    assert reason is not None
    assert "processors with avx512f, fma," in reason
    assert f"--build-arg {VARIABLE}=" in reason


def test_a_processor_with_more_than_is_used_is_suited() -> None:
    assert unsuited("+avx2,-avx512f", {"avx2": True, "avx512f": True, "fma": True}) is None


def test_kernels_compiled_where_they_run_suit() -> None:
    assert unsuited("") is None


def test_the_build_arguments_for_this_processor_suit_it_and_name_all_its_features() -> None:
    arguments = build_arguments().split()
    (features,) = [a.partition("=")[2] for a in arguments if a.startswith(VARIABLE)]
    assert unsuited(features) is None
    has = {name for name, there in get_host_cpu_features().items() if there}
    assert {name[1:] for name in features.split(",") if name.startswith("+")} == has


def test_the_service_refuses_a_processor_that_lacks_something() -> None:
    lacking = next(name for name, there in sorted(get_host_cpu_features().items()) if not there)
    environment = {**os.environ, VARIABLE: f"+{lacking}"}
    command = [sys.executable, "-m", "service"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert f"processors with {lacking}," in run.stderr
