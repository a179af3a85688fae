"""What a kill costs: nothing but time, with one process or several."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from calibrant.__main__ import main
from tests.shared import ROOT

from .quotes import contents, quotes_of, rows_in, written

N_DAYS = 250
BAD = (("SPX", 3), ("SPX", 4), ("NDX", 100))


@pytest.fixture(scope="module")
def quotes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two underlyings, with three bad panels."""
    table = quotes_of(["SPX", "NDX"], N_DAYS, BAD)
    return written(table, tmp_path_factory.mktemp("quotes") / "quotes.parquet", rows_in_group=1000)


@pytest.fixture(scope="module")
def undisturbed(quotes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them, a unit a day."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(["backfill", str(quotes), "--out", str(folder), "--block", "day"]) == 0
    return folder


def test_killed_twice_it_ends_as_if_undisturbed(quotes: Path, undisturbed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "calibrant", "backfill", str(quotes), "--out", str(tmp_path), "--block", "day"]
    already = 0
    for _ in range(2):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            while len(contents(tmp_path)) < already + 20:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        already = len(contents(tmp_path))
        assert already < 2 * N_DAYS
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=True)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept, "no unit is done twice"
    assert contents(tmp_path) == contents(undisturbed)
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left"


def test_every_panel_has_one_row_and_the_bad_ones_a_reason(undisturbed: Path) -> None:
    rows = rows_in(undisturbed)
    assert len(rows) == len({(row["underlying"], row["as_of"]) for row in rows}) == 2 * N_DAYS
    bad = [row for row in rows if row["status"] == "invalid_input"]
    assert len(bad) == len(BAD)
    for row in bad:
        assert row["message"].startswith("`iv` must hold at least one usable quote, but all 15 are left out")
        assert row["kappa"] is None
    assert all(row["rmse_bp"] < 0.01 for row in rows if row["status"] != "invalid_input")


def test_workers_give_the_same_bytes_and_one_that_dies_gives_its_unit_back(
    quotes: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALIBRANT_TEST_OF_WORKERS", str(tmp_path))
    # pytest's own folders make the paths of Ray's sockets too long.
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    killed: list[int] = []

    def kill_one() -> None:
        while not killed and not done.wait(0.002):
            for pid in workers_at_work(tmp_path)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    done = threading.Event()
    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        arguments = ["--out", str(tmp_path / "out"), "--block", "day", "--ray", "local", "--workers", "2"]
        assert main(["backfill", str(quotes), *arguments]) == 0
    finally:
        done.set()
        killer.join()
    assert killed, "no worker was at work"
    assert contents(tmp_path / "out") == contents(undisturbed)


def workers_at_work(mark: Path) -> list[int]:
    """Processes of Ray that are at a unit of this test."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            at_work = (process / "cmdline").read_bytes().startswith(b"ray::made_by_worker")
            if at_work and os.fsencode(mark) in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found
