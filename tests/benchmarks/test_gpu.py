"""The GPU benchmark, as far as a machine without one goes: it measures what it says, and refuses in a sentence."""

import subprocess
import sys

import numpy as np
import pytest
from numba import cuda

pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from benchmarks.gpu import OUTCOMES, measure_network, measure_refinement, newest_release, report, seconds_of
from benchmarks.paper_panels import noisy_panels
from calibrant.network import Network
from calibrant.release import Release
from calibrant.sessions import BATCH_SIZES
from tests.shared import ROOT


@pytest.mark.skipif(cuda.is_available(), reason="this machine has the GPU that the test needs to be absent")
def test_without_a_gpu_it_refuses_in_a_sentence() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "benchmarks.gpu needs an NVIDIA GPU with its driver, and this machine has none.\n"


def test_the_page_holds_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.PAUSE", 1e-4)
    folder = newest_release()
    release = Release.load(folder)
    network = Network.load(folder / "paper")
    run = measure_network("here", network, release.networks[0], calls=4, cold=2)
    assert run.difference == 0.0
    assert [row.size for row in run.latencies] == list(BATCH_SIZES)
    assert all(row.warm_p50 <= row.warm_p99 and row.cold_p50 <= row.cold_p99 for row in run.latencies)
    refined = measure_refinement(noisy_panels(12, 5), release, on_cpu=6)
    assert sum(refined.outcomes.values()) == 12
    assert refined.outcomes["converged"] >= 10
    assert set(refined.outcomes) == set(OUTCOMES.values())
    assert refined.vol_difference < 1e-9
    page = "\n".join(report([run], refined, ["TensorRT: no engine."], "A GPU"))
    assert f"| paper | here | 64 | {run.latencies[-1].warm_p50:.0f} |" in page
    assert "Not measured: TensorRT: no engine." in page
    assert f"{refined.outcomes['converged']} converged" in page


def test_pauses_and_the_first_call_are_not_timed() -> None:
    calls: list[int] = []
    seconds = seconds_of(lambda: calls.append(1), 3, pause=0.2)
    assert len(calls) == 4
    assert seconds.shape == (3,)
    assert np.median(seconds) < 0.2
