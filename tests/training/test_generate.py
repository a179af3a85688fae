"""Shards: the same bytes however made, complete after a kill, and refused when damaged."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from training.domain import PAPER
from training.generate import DamagedShard, PanelSet, generate, load, read_description
from training.panels import make_panels

ROOT = Path(__file__).parents[2]
SET = PanelSet(domain="paper", seed=7, count=50, shard_size=12)


def quiet(_: str) -> None:
    """No progress lines in the tests' output."""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_one_worker_or_many_give_the_same_bytes(tmp_path: Path) -> None:
    generate(tmp_path / "one", SET, workers=1, say=quiet)
    generate(tmp_path / "two", SET, workers=2, say=quiet)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert load(tmp_path / "one").tobytes() == make_panels(PAPER, 7, 0, 50).tobytes()
    assert read_description(tmp_path / "one") == SET


def test_a_kill_loses_only_the_shard_in_progress(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = ["--out", str(killed), "--seed", "7", "--count", "40000", "--shard-size", "400", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "training.generate", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(list(killed.glob("*.sha256"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in killed.glob("*.sha256")}
    assert 2 <= len(finished) < 100
    # The description is that of the killed run; the test cuts it down to a few shards more, to be quick.
    n_shards = len(finished) + 2
    short = PanelSet(domain="paper", seed=7, count=400 * n_shards, shard_size=400)
    (killed / "panels.json").unlink()
    said: list[str] = []
    generate(killed, short, say=said.append)
    assert len(said) == 2, "the finished shards were made again"
    assert {name: (killed / name).stat().st_mtime_ns for name in finished} == finished
    generate(whole, short, say=quiet)
    assert {k: v for k, v in contents(killed).items() if not k.endswith(".part")} == contents(whole)


def test_a_damaged_shard_is_refused_and_made_again(tmp_path: Path) -> None:
    generate(tmp_path, SET, say=quiet)
    before = contents(tmp_path)
    shard = tmp_path / "shard-00001.npy"
    damaged = bytearray(shard.read_bytes())
    damaged[-5] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(DamagedShard, match="shard-00001"):
        load(tmp_path)
    said: list[str] = []
    generate(tmp_path, SET, say=said.append)
    assert len(said) == 1
    assert contents(tmp_path) == before


def test_a_folder_of_another_set_is_not_overwritten(tmp_path: Path) -> None:
    generate(tmp_path, SET, say=quiet)
    with pytest.raises(ValueError, match="choose another folder"):
        generate(tmp_path, PanelSet(domain="paper", seed=8, count=50, shard_size=12), say=quiet)


def test_a_part_of_a_set_can_be_loaded(tmp_path: Path) -> None:
    generate(tmp_path, SET, say=quiet)
    np.testing.assert_array_equal(load(tmp_path, 30)["params"], load(tmp_path)["params"][:30])
    with pytest.raises(ValueError, match="holds 50 panels, but 51"):
        load(tmp_path, 51)
