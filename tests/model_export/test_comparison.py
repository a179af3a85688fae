"""A release that is worse than the one it would replace is refused, and says by how much."""

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.release import CONTENTS, Release  # noqa: E402
from model_export.comparison import TOLERANCE, Comparison, WorseRelease, Worth, compared, worth_of  # noqa: E402
from model_export.release import release  # noqa: E402
from tests.model_export.runs import short_run  # noqa: E402
from tests.shared import ROOT  # noqa: E402
from training.domain import MARKET, PAPER  # noqa: E402
from training.evaluation.inputs import held_out_panels  # noqa: E402

RELEASES = ROOT / "networks" / "heston"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("paper"), PAPER.name)


@pytest.fixture
def networks(run: Path, tmp_path: Path) -> Path:
    """`networks/heston` with a first release."""
    release([run], tmp_path / "heston" / "1")
    return tmp_path / "heston"


def spoilt(run: Path, folder: Path) -> Path:
    """The run with weights that answer every panel with a corner of the box."""
    shutil.copytree(run, folder)
    best = torch.load(folder / "best.pt", weights_only=True)
    best["network"]["output.bias"] += torch.tensor([9.0, -9.0, 9.0, 9.0, -9.0])
    torch.save(best, folder / "best.pt")
    return folder


def test_a_worse_network_is_refused_with_what_it_would_cost(run: Path, networks: Path, tmp_path: Path) -> None:
    worse = spoilt(run, tmp_path / "spoilt")
    with pytest.raises(WorseRelease, match=r"worse than heston-1@.*paper: .* evaluations .* for .* % more") as refused:
        release([worse], networks / "2")
    assert "--force" in str(refused.value)
    assert [path.name for path in networks.iterdir()] == ["1"], "nothing is left behind"
    forced = release([worse], networks / "2", force=True)
    assert forced.version.startswith("heston-2@")
    card = (networks / "2" / "CARD.md").read_text()
    assert "## Against heston-1@" in card, "what was insisted on is on record"


def test_the_same_network_may_be_released_again(run: Path, networks: Path) -> None:
    release([run], networks / "2")
    before, after = (Release.load(networks / version) for version in "12")
    (comparison,) = compared(before, after, 20)
    assert comparison.before == comparison.after


def test_a_better_network_is_released_and_compared_with_the_version_just_below(
    run: Path, networks: Path, tmp_path: Path
) -> None:
    release([spoilt(run, tmp_path / "spoilt")], networks / "3", force=True)
    # Better than the third, whatever the first was.
    release([run], networks / "7")
    assert "## Against heston-3@" in (networks / "7" / "CARD.md").read_text()


def test_a_version_to_be_replaced_stays_until_the_new_one_is_no_worse(
    run: Path, networks: Path, tmp_path: Path
) -> None:
    second = release([run], networks / "2")
    with pytest.raises(WorseRelease):
        release([spoilt(run, tmp_path / "spoilt")], networks / "2", replace=True)
    assert Release.load(networks / "2").version == second.version


def test_a_release_without_one_of_the_networks_is_compared_on_its_panels_too(tmp_path: Path) -> None:
    fourth = Release.load(RELEASES / "4")
    alone = tmp_path / "5"
    shutil.copytree(RELEASES / "4" / "market", alone / "market")
    digest = json.loads((RELEASES / "4" / CONTENTS).read_text())["networks"]["market"]
    (alone / CONTENTS).write_text(json.dumps({"networks": {"market": digest}}))
    on_paper, on_market = compared(fourth, Release.load(alone), 60)
    assert (on_paper.domain, on_market.domain) == (PAPER.name, MARKET.name)
    assert on_market.losses() == []
    assert on_paper.after.error_bp > 3.0 * on_paper.before.error_bp
    assert len(on_paper.losses()) == 2


def test_a_figure_counts_as_worse_beyond_the_tolerance_alone() -> None:
    before = Worth(10.0, 50.0)
    for factor, n_losses in ((1.0 - TOLERANCE, 0), (1.0 + 0.9 * TOLERANCE, 0), (1.0 + 1.1 * TOLERANCE, 2)):
        after = Worth(10.0 * factor, 50.0 * factor)
        assert len(Comparison("paper", 7, before, after).losses()) == n_losses
    assert len(Comparison("paper", 7, before, Worth(float("nan"), 50.0)).losses()) == 1


def test_the_fourth_release_s_starts_on_the_paper_s_grid_are_worth_more_than_the_third_s() -> None:
    panels = held_out_panels(PAPER, 6, 100)
    third, fourth = (worth_of(Release.load(RELEASES / version), panels) for version in "34")
    assert fourth.error_bp < 0.6 * third.error_bp
    assert fourth.evaluations < third.evaluations
