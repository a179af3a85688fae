"""A released version: which network answers a panel, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.calibration import calibrate
from calibrant.models import HESTON, MODELS, Model
from calibrant.network import ArtefactError, Network
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel
from calibrant.pipeline import starting_from
from calibrant.prices import price_steps
from calibrant.release import Release, released, require_release_of
from calibrant.steps import finish
from tests.many_factors import ORDINARY
from tests.shared import ROOT

NETWORKS = ROOT / "networks"


@pytest.fixture(scope="module")
def release() -> Release:
    return released(NETWORKS, "heston")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The newest release, to be damaged."""
    newest = max((path for path in (NETWORKS / "heston").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    return Path(shutil.copytree(newest, tmp_path / "heston" / newest.name))


def on_paper_grid(vol: float = 0.2) -> OptionPanel:
    grid = paper(released(NETWORKS, "heston")).grid
    smile = vol * (1.0 - 0.2 * grid.log_moneyness + 0.1 * grid.log_moneyness**2)
    return OptionPanel.from_grid(
        expiry=grid.expiry, log_moneyness=grid.log_moneyness, iv=np.tile(smile, (grid.expiry.size, 1))
    )


def paper(release: Release) -> Network:
    return next(network for network in release.networks if network.manifest.domain == "paper")


def irregular() -> OptionPanel:
    expiry = np.repeat([0.03, 0.2, 0.7], 7)
    k = np.tile(np.linspace(-0.2, 0.15, 7), 3) * np.sqrt(expiry)
    return OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=0.2 - 0.1 * k)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_each_model_has_a_network_for_panels_on_the_grid_and_one_for_all_others(model: Model) -> None:
    release = require_release_of(model, released(NETWORKS, model.name))
    on_grid, other = release.networks
    assert (on_grid.grid.standardised, other.grid.standardised) == (False, True)
    params = np.array([ORDINARY[name] for name in model.parameters])
    for network, expiries, strikes in (
        (on_grid, on_grid.grid.expiry, on_grid.grid.log_moneyness),
        (other, np.array([0.08, 0.25, 0.5, 1.0, 1.5]), np.linspace(-0.25, 0.2, 8)),
    ):
        expiry, k = np.repeat(expiries, strikes.size), np.tile(strikes, expiries.size)
        iv = finish(price_steps(model, params, k, expiry, gradient=False)).implied_vol
        panel = OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=iv)
        (proposal,) = release.propose(panel)
        assert proposal.network is network
        assert proposal.trusted
        start = calibrate(panel, model, starting_from([proposal]), CalibrationOptions(refine="none"))
        assert start.rmse_bp < 300.0
        assert calibrate(panel, model, starting_from([proposal])).rmse_bp < 0.1


def test_the_newest_release_holds_a_network_for_each_domain(release: Release) -> None:
    assert [network.manifest.domain for network in release.networks] == ["paper", "market"]
    assert release.model == "heston"
    assert release.provider == "CPUExecutionProvider"
    name, digest = release.version.split("@sha256:")
    assert name == f"heston-{release.networks[0].manifest.version}"
    assert len(digest) == 12


def test_a_panel_on_the_nodes_of_a_network_is_that_network_s(release: Release) -> None:
    proposals = release.propose(on_paper_grid())
    assert proposals[0].network is paper(release)
    assert proposals[0].covered


def test_any_other_panel_is_the_widest_network_s(release: Release) -> None:
    (proposal,) = release.propose(irregular())
    assert proposal.network.manifest.domain == "market"
    assert proposal.in_domain(proposal.params)


def test_an_answer_outside_its_domain_brings_a_second_proposal(release: Release) -> None:
    # The same smile at every expiry: only a slower kappa than the paper's box has comes near it.
    narrow, wide = release.propose(on_paper_grid(0.5))
    assert not narrow.in_domain(narrow.params)
    assert wide.network.manifest.domain == "market"
    assert wide.in_domain(wide.params)


def test_the_first_release_still_loads_and_answers_every_panel() -> None:
    first = Release.load(NETWORKS / "heston" / "1")
    assert first.version.startswith("heston-1@sha256:")
    for panel in (on_paper_grid(), irregular()):
        (proposal,) = first.propose(panel)
        assert np.isfinite(proposal.params).all()


def test_a_missing_or_exchanged_network_is_refused(copied: Path) -> None:
    contents = copied / "release.json"
    names = json.loads(contents.read_text())["networks"]
    contents.write_text(json.dumps({"networks": {**names, "paper": names["market"]}}))
    with pytest.raises(ArtefactError, match="is not the network that"):
        Release.load(copied)
    contents.write_text(json.dumps({"networks": names}))
    shutil.rmtree(copied / "market")
    with pytest.raises(ArtefactError, match="manifest"):
        Release.load(copied)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"networks": 3}', "\xff"])
def test_unreadable_contents_are_refused(copied: Path, text: str) -> None:
    (copied / "release.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtefactError, match="cannot be read"):
        Release.load(copied)


def test_the_highest_released_version_is_taken_and_none_is_said(copied: Path) -> None:
    root = copied.parents[1]
    shutil.copytree(NETWORKS / "heston" / "1", root / "heston" / "10")
    # The version is the manifest's, which the copy says is 1; the folder was taken for being the highest.
    assert released(root, "heston").version.startswith("heston-1@")
    with pytest.raises(ArtefactError, match="holds no released network"):
        released(root, "bates")


def test_a_release_of_another_model_is_refused(release: Release) -> None:
    assert require_release_of(HESTON, release) is release
    with pytest.raises(ArtefactError, match="must be networks for bates"):
        require_release_of(dataclasses.replace(HESTON, name="bates"), release)


def test_a_release_without_networks_is_none() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Release([])
