"""Kernels compiled beforehand. That they are read where nothing can be written, `deploy/tests/test_images.py` shows."""

import os
import subprocess
import sys
from pathlib import Path

CODE = "from kernels import double; print(double(21), double.stats.cache_hits and 'found')"
MODULE = "from numba import njit\n\n@njit(cache=True)\ndef double(x):\n    return 2 * x\n"


def run(sources: Path, kernels: Path) -> subprocess.CompletedProcess[str]:
    """Run a kernel in a process of its own."""
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(kernels),
        "NUMBA_CACHE_LOCATOR_CLASSES": "calibrant.shipped_kernels.ShippedKernels",
    }
    return subprocess.run(
        [sys.executable, "-c", CODE], cwd=sources, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_kernel_is_compiled_once_and_found_again(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(MODULE)
    assert [run(tmp_path, tmp_path / "compiled").stdout for _ in range(2)] == ["42 Counter()\n", "42 found\n"]


def test_a_kernel_is_found_whatever_the_date_of_its_source(tmp_path: Path) -> None:
    # The layers of an image keep dates only to the second.
    source = tmp_path / "kernels.py"
    source.write_text(MODULE)
    run(tmp_path, tmp_path / "compiled")
    os.utime(source, (0, 0))
    assert run(tmp_path, tmp_path / "compiled").stdout == "42 found\n"


def test_a_kernel_that_is_neither_there_nor_can_be_saved_is_named(tmp_path: Path) -> None:
    source = tmp_path / "kernels.py"
    source.write_text(MODULE)
    # Where not even root can make a folder.
    failed = run(tmp_path, Path("/proc/compiled"))
    assert failed.returncode != 0
    assert f"A kernel of {source}, line 3, is not among those compiled beforehand" in failed.stderr
