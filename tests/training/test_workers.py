"""Shards made on a Ray cluster of two machines, both of them this one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibrant.cluster import PRIVATE_CLUSTER
from training.domain import PAPER
from training.generate import PanelSet, generate, load
from training.panels import make_panels
from training.workers import Job, _make_with, code_digest, make

SET = PanelSet(domain="paper", seed=7, count=50, shard_size=12)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of two Ray nodes with one processor each."""
    # pytest's own folders make the paths of Ray's sockets too long.
    with tempfile.TemporaryDirectory(prefix="ray") as scratch:
        for name, value in {**PRIVATE_CLUSTER, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": scratch}.items():
            monkeypatch.setenv(name, value)
        from ray.cluster_utils import Cluster

        nodes = Cluster()
        try:
            nodes.add_node(include_dashboard=False)
            nodes.add_node()
            yield nodes.address
        finally:
            nodes.shutdown()  # type: ignore[no-untyped-call]


def test_a_ray_cluster_gives_the_bytes_of_one_process(cluster: str, tmp_path: Path) -> None:
    said: list[str] = []
    generate(tmp_path / "ray", SET, ray_address=cluster, say=said.append)
    generate(tmp_path / "one", SET, say=lambda _: None)
    assert len(said) == SET.n_shards
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "ray" / path.name).read_bytes() == path.read_bytes(), path.name
    assert load(tmp_path / "ray").tobytes() == make_panels(PAPER, 7, 0, 50).tobytes()


def test_a_machine_with_other_code_makes_no_shard() -> None:
    job = Job(shard=0, generator="exact", domain="paper", seed=1, start=0, stop=2)
    assert _make_with(job, code_digest()) == make(job)
    with pytest.raises(RuntimeError, match="other code"):
        _make_with(job, "0" * 64)
