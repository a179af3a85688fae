"""The micro-batcher of a GPU, with the released networks on the processor in its fixed shapes."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.network import Network
from calibrant.sessions import BATCH_SIZES, CPU_PROVIDER, FixedShapes, HostStep, Panels, open_session
from service.errors import Overloaded
from service.microbatch import LARGEST, MicroBatcher
from tests.shared import ROOT

ARTEFACT = ROOT / "networks" / "heston" / "3" / "market"
Work = Callable[[Sequence[Panels]], Sequence[Panels]]


class Counted:
    """The network in fixed shapes, made on the thread that runs it, which remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()
        """Not set, a batch is held up once it has begun."""
        self.begun = threading.Event()
        self.go.set()

    def make(self) -> Work:
        reference = Network.load(ARTEFACT)
        session = open_session((ARTEFACT / "model.onnx").read_bytes())
        fixed = FixedShapes({n: HostStep(session, n, (12, 12), 5) for n in BATCH_SIZES}, CPU_PROVIDER, 0.0)
        network = Network(reference.manifest, fixed)

        def work(panels: Sequence[Panels]) -> Sequence[Panels]:
            self.sizes.append(len(panels))
            self.begun.set()
            self.go.wait()
            if any(panel.shape != (12, 12) for panel in panels):
                raise ValueError("a panel of another shape")
            return list(network.parameters(np.stack(panels)).astype(np.float32))

        return work


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def batcher(counted: Counted) -> Iterator[MicroBatcher[Panels, Panels]]:
    batcher: MicroBatcher[Panels, Panels] = MicroBatcher(counted.make, most_waiting=200)
    batcher.ready.result(60.0)
    yield batcher
    counted.go.set()
    batcher.stop()


@pytest.fixture(scope="module")
def panels() -> Panels:
    return np.random.default_rng(8).uniform(0.1, 0.6, (200, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(panels: Panels) -> Panels:
    return Network.load(ARTEFACT).parameters(panels).astype(np.float32)


def test_what_waits_when_the_owner_comes_free_goes_together_and_each_gets_its_own_answer(
    batcher: MicroBatcher[Panels, Panels], counted: Counted, panels: Panels, expected: Panels
) -> None:
    counted.go.clear()
    answers = [batcher.ask(panels[0])]
    assert counted.begun.wait(10.0)
    answers += [batcher.ask(panel) for panel in panels[1:100]]
    counted.go.set()
    found = np.array([answer.result(10.0) for answer in answers])
    assert counted.sizes == [1, LARGEST, 99 - LARGEST]
    np.testing.assert_array_equal(found, expected[:100])


def test_on_an_event_loop_answers_are_awaited(
    batcher: MicroBatcher[Panels, Panels], panels: Panels, expected: Panels
) -> None:
    async def ask_all() -> list[Panels]:
        return await asyncio.gather(*(asyncio.wrap_future(batcher.ask(panel)) for panel in panels[:20]))

    np.testing.assert_array_equal(np.array(asyncio.run(ask_all())), expected[:20])


def test_a_bad_panel_fails_alone(
    batcher: MicroBatcher[Panels, Panels], counted: Counted, panels: Panels, expected: Panels
) -> None:
    counted.go.clear()
    held = batcher.ask(panels[0])
    assert counted.begun.wait(10.0)
    good, bad, also_good = batcher.ask(panels[1]), batcher.ask(panels[2][:3]), batcher.ask(panels[3])
    counted.go.set()
    np.testing.assert_array_equal(held.result(10.0), expected[0])
    np.testing.assert_array_equal(good.result(10.0), expected[1])
    np.testing.assert_array_equal(also_good.result(10.0), expected[3])
    with pytest.raises(ValueError, match="another shape"):
        bad.result(10.0)


def test_who_has_gone_before_the_batch_begins_costs_nothing(
    batcher: MicroBatcher[Panels, Panels], counted: Counted, panels: Panels
) -> None:
    counted.go.clear()
    held = batcher.ask(panels[0])
    assert counted.begun.wait(10.0)
    gone, stays = batcher.ask(panels[1]), batcher.ask(panels[2])
    assert gone.cancel()
    counted.go.set()
    held.result(10.0)
    stays.result(10.0)
    assert counted.sizes == [1, 1]


def test_nothing_grows_beyond_the_limit(
    batcher: MicroBatcher[Panels, Panels], counted: Counted, panels: Panels
) -> None:
    counted.go.clear()
    batcher.ask(panels[0])
    assert counted.begun.wait(10.0)
    waiting = [batcher.ask(panels[0]) for _ in range(200)]
    with pytest.raises(Overloaded, match="200 panels wait"):
        batcher.ask(panels[0])
    counted.go.set()
    for answer in waiting:
        answer.result(10.0)


def test_stopping_answers_what_was_asked_before(counted: Counted, panels: Panels, expected: Panels) -> None:
    batcher: MicroBatcher[Panels, Panels] = MicroBatcher(counted.make)
    answers = [batcher.ask(panel) for panel in panels[:10]]
    batcher.stop()
    np.testing.assert_array_equal(np.array([answer.result(0.0) for answer in answers]), expected[:10])


def test_with_a_delay_the_first_waits_for_others(counted: Counted, panels: Panels) -> None:
    batcher: MicroBatcher[Panels, Panels] = MicroBatcher(counted.make, largest=3, delay=30.0)
    batcher.ready.result(60.0)
    began = perf_counter()
    answers = [batcher.ask(panel) for panel in panels[:3]]
    for answer in answers:
        answer.result(10.0)
    assert counted.sizes == [3]
    # A full batch does not wait for the rest of the delay.
    assert perf_counter() - began < 30.0
    batcher.stop()


def test_what_kept_the_networks_from_loading_is_told_to_all() -> None:
    def make() -> Work:
        raise RuntimeError("there is no GPU")

    batcher: MicroBatcher[Panels, Panels] = MicroBatcher(make)
    with pytest.raises(RuntimeError, match="no GPU"):
        batcher.ready.result(10.0)
    with pytest.raises(RuntimeError, match="no GPU"):
        batcher.ask(np.zeros((12, 12), np.float32)).result(10.0)
    batcher.stop()
