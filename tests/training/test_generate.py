"""Shards: the same bytes however made, complete after a kill, and refused when damaged."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.domain import PAPER
from training.generate import DamagedShard, PanelSet, generate, load, read_description
from training.panels import make_panels
from training.workers import GENERATORS

ROOT = Path(__file__).parents[2]
SET = PanelSet(domain="paper", seed=7, count=50, shard_size=12)
LONG = PanelSet(domain="paper", seed=7, count=8000, shard_size=400)
"""Long enough to be killed within."""


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


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `LONG` looks like when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("unkilled")
    generate(folder, LONG, say=quiet)
    return contents(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_loses_only_the_shards_in_progress(tmp_path: Path, unkilled: dict[str, str], workers: int) -> None:
    command = [sys.executable, "-u", "-m", "training.generate", "--out", str(tmp_path), "--seed", str(LONG.seed)]
    command += ["--count", str(LONG.count), "--shard-size", str(LONG.shard_size), "--workers", str(workers)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline().startswith("shard"), "a line for every shard that is finished"
        process.kill()
    finished = {path.with_suffix("").name for path in tmp_path.glob("*.sha256")}
    assert 2 <= len(finished) < LONG.n_shards
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.stem in finished}
    # At once, while workers that outlived the kill may still be at it.
    again = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in times} == times, "finished shards were touched"
    assert len(again.stdout.splitlines()) == LONG.n_shards - len(finished), "no shard is made twice"
    assert contents(tmp_path) == unkilled


@pytest.mark.parametrize("left", ["nothing", "unfinished", "unnamed"])
def test_a_shard_is_made_again_unless_its_checksum_was_written(tmp_path: Path, left: str) -> None:
    generate(tmp_path, SET, say=quiet)
    before = contents(tmp_path)
    shard, checksum = tmp_path / "shard-00002.npy", tmp_path / "shard-00002.sha256"
    checksum.unlink()
    if left == "nothing":
        shard.unlink()
    if left == "unfinished":
        shard.with_suffix(".npy.part").write_bytes(shard.read_bytes()[:100])
        shard.unlink()
    said: list[str] = []
    generate(tmp_path, SET, say=said.append)
    assert len(said) == 1
    assert contents(tmp_path) == before


def test_simulated_panels_come_through_the_same_door(tmp_path: Path) -> None:
    panels = PanelSet(domain="paper", seed=7, count=2, shard_size=1, generator="simulated")
    said: list[str] = []
    generate(tmp_path, panels, say=said.append)
    assert read_description(tmp_path) == panels
    assert load(tmp_path).tobytes() == GENERATORS["simulated"](PAPER, 7, 0, 2).tobytes()
    np.testing.assert_array_equal(load(tmp_path)["params"], make_panels(PAPER, 7, 0, 2)["params"])
    assert said[-1].startswith("shard 2/2 of simulated paper seed 7: 2 panels")
    with pytest.raises(ValueError, match="choose another folder"):
        generate(tmp_path, replace(panels, generator="exact"), say=quiet)


def test_a_folder_described_before_there_were_generators_is_exact(tmp_path: Path) -> None:
    generate(tmp_path, SET, say=quiet)
    description = tmp_path / "panels.json"
    written = json.loads(description.read_text())
    del written["generator"]
    description.write_text(json.dumps(written))
    assert read_description(tmp_path) == SET


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
