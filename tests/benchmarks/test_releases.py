"""Releases side by side: each is charged for what it leads to."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from benchmarks.paper_panels import clean_panels, noisy_panels
from benchmarks.releases import SAME_OBJECTIVE, Run, compare, drawn_panels, rows_of, taken
from calibrant.calibration import calibrate
from calibrant.models import HESTON
from calibrant.release import Release, released
from tests.shared import ROOT

RELEASES = [Release.load(ROOT / "networks" / "heston" / version) for version in ("1", "3")]


def test_releases_are_compared_panel_by_panel_and_lead_to_one_optimum() -> None:
    panels = [sample.panel for sample in clean_panels(3, 5)]
    runs = compare(RELEASES, panels)
    assert [len(of_panel) for of_panel in runs] == [2, 2, 2]
    assert all(
        run.network_us > 0.0 and run.refine_us > 0.0 and run.iterations > 0 for of_panel in runs for run in of_panel
    )
    assert [row[0] for row in rows_of("paper", RELEASES, runs)] == [f"paper, {r.version}" for r in RELEASES]
    assert [row[-1] for row in rows_of("paper", RELEASES, runs)] == ["0", "0"]


def test_a_worse_optimum_and_a_second_opinion_are_counted_against_their_release() -> None:
    good, bad = Run(20.0, 100.0, 4, 1, 1.0, 5.0), Run(10.0, 300.0, 9, 2, 1.1, 5.2)
    first, second = rows_of("market", RELEASES, [[good, bad], [good, good]])
    assert first[1:] == ["2", "20.0", "100.0", "120.0", "120.0", "4 / 4.00 / 4", "0", "0"]
    assert second[1:4] == ["2", "15.0", "200.0"]
    assert second[-2:] == ["1", "1"]


def test_panels_that_the_library_refuses_are_left_out() -> None:
    strike, iv = [90.0, 95.0, 100.0, 105.0, 110.0], [0.22, 0.21, 0.2, 0.2, 0.21]
    quotes = {"expiry": [0.5] * 5, "strike": strike, "forward": [100.0] * 5, "iv": iv}
    too_few = {name: values[:4] for name, values in quotes.items()}
    kept = taken([quotes, too_few, {**quotes, "iv": [None] * 5}, {**quotes, "strike": [*strike[:4], 1e9]}])
    assert len(kept) == 1
    np.testing.assert_array_equal(kept[0].mid, iv)
    calibrate(kept[0], HESTON, [])


def test_the_newest_release_leaves_the_refinement_no_more_to_do_than_the_third() -> None:
    third, newest = RELEASES[1], released(ROOT / "networks", "heston")
    panels = [sample.panel for sample in noisy_panels(100, 6)]
    before, after = zip(*compare([third, newest], panels), strict=True)
    assert sum(run.iterations for run in after) <= sum(run.iterations for run in before)
    assert sum(run.n_starts for run in after) <= sum(run.n_starts for run in before)
    assert all(
        run.objective <= best.objective * (1.0 + SAME_OBJECTIVE) for run, best in zip(after, before, strict=True)
    )


def test_drawn_panels_are_irregular_and_the_same_each_time() -> None:
    panels = drawn_panels(20, 8)
    assert len(panels) >= 15
    assert len({panel.n_quotes for panel in panels}) > 5
    for one, other in zip(panels, drawn_panels(20, 8), strict=True):
        np.testing.assert_array_equal(one.mid, other.mid)
