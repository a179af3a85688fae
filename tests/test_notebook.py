"""The walk-through runs, and leaves what it shows."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.shared import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "walkthrough.ipynb"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def outputs(notebook: Any) -> list[list[Any]]:
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell: list[Any]) -> str:
    """What a cell prints and shows, but for the names of its pictures."""
    shown = [out.text if out.output_type == "stream" else out.data["text/plain"] for out in cell]
    return " ".join(" ".join(text for text in shown if not text.startswith("<Figure")).split())


def pictures_of(cell: list[Any]) -> list[bool]:
    return [len(out.data["image/png"]) > 20_000 for out in cell if "image/png" in out.get("data", {})]


def test_the_walk_through_leaves_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook, shown = (
        nbformat.reads(NOTEBOOK.read_text(), as_version=4)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": tmp_path}}).execute()
    assert sum(len(pictures_of(cell)) for cell in outputs(shown)) == 3
    for left, kept in zip(outputs(notebook), outputs(shown), strict=True):
        assert pictures_of(left) == pictures_of(kept) == [True] * len(pictures_of(kept))
        assert NUMBER.sub("#", text_of(left)) == NUMBER.sub("#", text_of(kept))
        numbers, expected = (list(map(float, NUMBER.findall(text_of(cell)))) for cell in (left, kept))
        # Another network's start leads to the same optimum, but to no more digits of it than a flat valley has.
        assert numbers == pytest.approx(expected, rel=0.02, abs=2e-3)
