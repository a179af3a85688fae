"""Sessions of fixed shapes, on the processor: what a GPU's batches are made of."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.arrays import Matrix
from calibrant.sessions import (
    BATCH_SIZES,
    CPU_PROVIDER,
    CUDA_PROVIDER,
    ArtefactError,
    FixedShapes,
    HostStep,
    Panels,
    PlainSession,
    open_session,
    require_all_on,
)

ROOT = Path(__file__).parents[1]
MODEL = (ROOT / "networks" / "heston" / "3" / "market" / "model.onnx").read_bytes()
PANEL = (12, 12)


def fixed_shapes(session: Any, sizes: tuple[int, ...] = BATCH_SIZES) -> FixedShapes:
    return FixedShapes({size: HostStep(session, size, PANEL, 5) for size in sizes}, CPU_PROVIDER, 0.0)


@pytest.fixture(scope="module")
def session() -> Any:
    return open_session(MODEL)


@pytest.fixture(scope="module")
def fixed(session: Any) -> FixedShapes:
    return fixed_shapes(session)


@pytest.fixture(scope="module")
def panels() -> Panels:
    generator = np.random.default_rng(7)
    iv = generator.uniform(0.05, 0.9, (200, *PANEL)).astype(np.float32)
    iv[generator.random(iv.shape) < 0.3] = np.nan
    return iv


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 31, 33, 63, 64, 65, 129, 200])
def test_a_batch_filled_up_answers_bit_for_bit_as_one_of_its_own_size(
    session: Any, fixed: FixedShapes, panels: Panels, n: int
) -> None:
    (expected,) = session.run(None, {"iv": panels[:n]})
    np.testing.assert_array_equal(fixed.run(panels[:n]), expected)


def test_what_a_larger_batch_left_behind_does_not_show_in_the_next(fixed: FixedShapes, panels: Panels) -> None:
    first = fixed.run(panels[:3]).copy()
    fixed.run(panels[100:104])
    np.testing.assert_array_equal(fixed.run(panels[:3]), first)


def test_answers_are_the_caller_s_own(fixed: FixedShapes, panels: Panels) -> None:
    kept = fixed.run(panels[:2])
    copy = kept.copy()
    fixed.run(panels[50:52])
    np.testing.assert_array_equal(kept, copy)


def test_no_panels_are_no_answers(fixed: FixedShapes, panels: Panels) -> None:
    assert fixed.run(panels[:0]).shape == (0, 5)


def test_larger_batches_go_in_steps_of_the_largest_size(session: Any, panels: Panels) -> None:
    small = fixed_shapes(session, (1, 4))
    np.testing.assert_array_equal(small.run(panels[:11]), fixed_shapes(session).run(panels[:11]))


def test_every_size_has_run_before_the_first_request(session: Any) -> None:
    steps = {size: HostStep(session, size, PANEL, 5) for size in (1, 8)}
    for step in steps.values():
        step.outputs[:] = np.nan
    FixedShapes(steps, CPU_PROVIDER, 0.0)
    assert all(np.isfinite(step.outputs).all() for step in steps.values())


def test_another_thread_than_the_owner_is_refused(fixed: FixedShapes, panels: Panels) -> None:
    raised: list[Exception] = []

    def run() -> None:
        try:
            fixed.run(panels[:1])
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert "the thread that made it" in str(raised[0])


def test_a_session_without_sizes_is_none() -> None:
    with pytest.raises(ValueError, match="at least one batch size"):
        FixedShapes({}, CPU_PROVIDER, 0.0)


def test_where_the_nodes_went_is_checked_not_which_providers_were_registered() -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    recorded = onnxruntime.InferenceSession(MODEL, options, providers=[CPU_PROVIDER])
    require_all_on(CPU_PROVIDER, recorded)
    with pytest.raises(ArtefactError, match=f"on {CPU_PROVIDER}, not {CUDA_PROVIDER}"):
        require_all_on(CUDA_PROVIDER, recorded)


def test_the_runtime_reports_to_nobody_and_leaves_no_identifier(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    load = f"from calibrant.network import Network; Network.load({str(ROOT / 'networks/heston/1')!r})"
    subprocess.run([sys.executable, "-c", load], env=environment, check=True)
    assert list(tmp_path.rglob("*onnxruntime*")) == []


def test_a_single_panel_is_answered_alike_on_every_thread(session: Any, panels: Panels) -> None:
    plain = PlainSession(session)
    expected = plain.run(panels[:2])[:1]
    answers: list[Matrix] = [plain.run(panels[:1])]
    thread = threading.Thread(target=lambda: answers.append(plain.run(panels[:1])))
    thread.start()
    thread.join()
    other = plain.run(panels[1:2])
    for answer in answers:
        np.testing.assert_allclose(answer, expected, rtol=1e-5)
    assert not np.allclose(other, answers[0])
