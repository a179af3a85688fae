"""Two processes of torchrun over gloo train one network."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from training.parallel import Ranks  # noqa: E402
from training.train import load_network  # noqa: E402

from .small import TWO_RANKS, assert_same_weights, make_sets, python, weights  # noqa: E402


def torchrun(*arguments: str) -> str:
    """What two processes say, on the loopback: this machine's own name need not resolve."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1")
    done = subprocess.run(
        python(*launcher, "--master-port", str(port), *arguments),
        env={
            **os.environ,
            **({"GLOO_SOCKET_IFNAME": loopback} if loopback else {}),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "error",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def said_and_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("ranks")
    make_sets(out)
    return torchrun("-m", "tests.training.two_ranks", str(out), str(out)), out


def test_ranks_end_with_identical_weights_those_of_the_checkpoint(said_and_out: tuple[str, Path]) -> None:
    _, out = said_and_out
    first, second = (torch.load(out / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    saved = weights(out / "whole")
    assert first.keys() == second.keys() == saved.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert torch.equal(value, saved[name]), name


def test_the_loss_falls_over_two_ranks_and_the_record_names_them(said_and_out: tuple[str, Path]) -> None:
    _, out = said_and_out
    record = json.loads((out / "whole" / "run.json").read_text())
    assert (record["processes"], record["device"]) == (2, "cpu")
    losses = [row["loss"] for row in record["history"]]
    assert len(losses) == TWO_RANKS.epochs
    assert losses[-1] < 0.75 * losses[0]
    network, _ = load_network(out / "whole")
    assert not network.training


def test_a_run_over_two_ranks_resumes_exactly(said_and_out: tuple[str, Path]) -> None:
    said, out = said_and_out
    assert said.count("resumed after epoch 1\n") == 1  # rank 0 alone speaks
    assert_same_weights(out / "cut", out / "whole")


def test_ranks_part_a_batch_without_gap_or_overlap() -> None:
    batch = torch.arange(12)
    parts = [Ranks(rank, 3, torch.device("cpu")).part(batch) for rank in range(3)]
    assert torch.equal(torch.cat(parts), batch)
    assert {len(part) for part in parts} == {4}
