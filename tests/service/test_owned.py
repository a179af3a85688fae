"""A release owned by one thread, with the networks of the newest one on the processor in a GPU's fixed shapes."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from benchmarks import paper_box
from calibrant.group import PanelGroup
from calibrant.network import Network
from calibrant.panel import OptionPanel
from calibrant.release import Release, released
from calibrant.sessions import BATCH_SIZES, CPU_PROVIDER, FixedShapes, HostStep, open_session
from service.gpu.owned import owned
from tests.exact_vols import noisy_panel
from tests.shared import ROOT

NETWORKS = ROOT / "networks"
NEWEST = max((NETWORKS / "heston").glob("*/release.json"), key=lambda path: int(path.parent.name)).parent


def in_fixed_shapes() -> Release:
    """What a release on a GPU is to its callers: sessions that only the thread may run which loaded them."""
    networks = []
    for network in released(NETWORKS, "heston").networks:
        manifest = network.manifest
        session = open_session((NEWEST / manifest.domain / manifest.file).read_bytes())
        shape = (network.grid.expiry.size, network.grid.log_moneyness.size)
        steps = {size: HostStep(session, size, shape, len(manifest.parameters)) for size in BATCH_SIZES}
        networks.append(Network(manifest, FixedShapes(steps, CPU_PROVIDER, 1e-4)))
    return Release(networks)


@pytest.fixture(scope="module")
def panels() -> list[OptionPanel]:
    """On the paper's grid and off it, so that both networks are asked."""
    made = []
    for i, params in enumerate(paper_box.draws(24, seed=61)):
        panel = noisy_panel(params, i, 1.0)
        k = panel.log_moneyness * (0.9 if i % 2 else 1.0)
        made.append(OptionPanel.from_quotes(expiry=panel.expiry, log_moneyness=k, iv=panel.mid))
    return made


def test_any_thread_gets_the_answers_of_the_release_itself(panels: list[OptionPanel]) -> None:
    plain = released(NETWORKS, "heston")
    release = owned(in_fixed_shapes)
    assert (release.version, release.provider) == (plain.version, plain.provider)
    assert release.networks[0].tolerance == 1e-4
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(release.propose, panels))
    for proposals, expected in zip(found, (plain.propose(panel) for panel in panels), strict=True):
        assert [p.network.manifest.domain for p in proposals] == [p.network.manifest.domain for p in expected]
        for one, other in zip(proposals, expected, strict=True):
            np.testing.assert_array_equal(one.params, other.params)
    together = release.propose_all(PanelGroup(panels))
    np.testing.assert_array_equal([p[0].params for p in together], [p[0].params for p in found])


def test_a_release_that_cannot_be_loaded_says_why_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())

    def load() -> Release:
        raise OSError("no such networks")

    with pytest.raises(OSError, match="no such networks"):
        owned(load)
    # One of an earlier test may have ended meanwhile.
    assert set(threading.enumerate()) <= before


def test_the_thread_ends_with_the_release(panels: list[OptionPanel]) -> None:
    before = set(threading.enumerate())
    release = owned(in_fixed_shapes)
    release.propose(panels[0])
    (thread,) = set(threading.enumerate()) - before
    del release
    gc.collect()
    thread.join(10.0)
    assert not thread.is_alive()
