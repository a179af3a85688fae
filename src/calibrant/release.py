"""A released version: the networks of a model, one for each training domain, and which of them answers a panel.

A panel quoted on a network's own nodes is that network's: it sees the very numbers quoted. Any other panel goes to the
network of the widest domain, whose grid is standardised and which was trained on projected quotes; so does a panel
whose answer from the narrower network lies outside its domain, and then both answers are proposed.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .arrays import Vector
from .grid import project, project_all, project_on_nodes
from .group import PanelGroup
from .models.model import Model
from .network import CPU_PROVIDER, MANIFEST, ArtefactError, Network
from .panel import OptionPanel

CONTENTS = "release.json"
"""Names the networks of a version, `{"networks": {domain: sha256}}`, each in the folder of that name."""
FOLDER_VARIABLE = "CALIBRANT_NETWORKS"
"""Of the environment: the folder of the released networks, for the service and for the library alike."""
_PACKAGE = Path(__file__).parent
_CHECKOUT = [_PACKAGE.parents[1] / "networks"] if (_PACKAGE.parents[1] / "pyproject.toml").is_file() else []
"""Of an editable installation; `parents[1]` of an installed package is a folder of Python's."""


class Proposal(NamedTuple):
    """What one network makes of a panel."""

    network: Network
    params: Vector
    covered: bool
    """The panel's quotes fill as much of the network's grid as its training panels do."""
    trusted: bool
    """The panel and the network's answer to it are of the network's domain."""

    def in_domain(self, params: Vector) -> bool:
        """Whether the panel and these parameters, the final ones, are of the network's domain."""
        return self.covered and self.network.in_domain(params)


class Release:
    """Verified networks, from the narrowest domain to the widest. On a GPU it has one owner, see `Network`."""

    def __init__(self, networks: Sequence[Network]) -> None:
        if not networks:
            raise ValueError("`networks` must hold at least one network.")
        self.networks = tuple(sorted(networks, key=lambda network: network.grid.standardised))
        first = self.networks[0].manifest
        if len({(network.manifest.name, network.manifest.parameters) for network in networks}) > 1:
            raise ArtefactError(f"The networks of {first.name}-{first.version} must be of one model.")
        self.model = first.name
        self.parameters = first.parameters
        self.provider = self.networks[0].provider
        digests = [network.manifest.sha256 for network in self.networks]
        whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        self.version = f"{self.model}-{first.version}@sha256:{whole[:12]}"
        """`heston-2@sha256:` and twelve hexadecimal digits: of the file, or of the digests of several."""

    @classmethod
    def load(cls, folder: Path | str, provider: str = CPU_PROVIDER, precision: str = "fp32") -> "Release":
        """Load and verify `networks/<model>/<version>`: a network for each domain, or, as the first release was, one.

        provider, precision  as `Network.load`
        raises  as `Network.load`; ArtefactError if a network named in release.json is missing or another one
        """
        folder = Path(folder)
        contents = folder / CONTENTS
        if not contents.exists():
            return cls([Network.load(folder, provider, precision)])
        try:
            digests: dict[str, str] = dict(json.loads(contents.read_text())["networks"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"{contents} cannot be read: {type(error).__name__} {error}") from error
        networks = []
        for domain, sha256 in digests.items():
            network = Network.load(folder / domain, provider, precision)
            if network.manifest.sha256 != sha256:
                raise ArtefactError(f"{folder / domain} is not the network that {contents} names.")
            networks.append(network)
        return cls(networks)

    def propose(self, panel: OptionPanel) -> list[Proposal]:
        """Starts for a panel, that of the narrowest fitting domain first."""
        proposals: list[Proposal] = []
        for network in self.networks:
            # The widest network takes what is left; the others what is quoted on their nodes.
            widest = network is self.networks[-1]
            projected = project(panel, network.grid) if widest else project_on_nodes(panel, network.grid)
            if projected is None:
                continue
            params = network.parameters(projected.iv[np.newaxis])[0]
            proposals.append(_proposal(network, params, projected.n_filled))
            if proposals[-1].trusted:
                break
        return proposals

    def propose_all(self, group: PanelGroup) -> list[list[Proposal]]:
        """`propose` for each panel with each network asked once: alone a panel costs several times its part of 16."""
        proposals: list[list[Proposal]] = [[] for _ in group.panels]
        waiting = list(range(len(group)))
        for network in self.networks:
            if not waiting:
                break
            seen = group if len(waiting) == len(group) else PanelGroup([group.panels[i] for i in waiting])
            widest = network is self.networks[-1]
            projected = project_all(seen, network.grid, only_on_nodes=not widest)
            iv, n_filled = projected.iv, projected.n_filled.tolist()
            asked = [at for at, on_nodes in enumerate(projected.on_grid.tolist()) if widest or on_nodes]
            if not asked:
                continue
            answers = network.parameters(iv if len(asked) == len(iv) else iv[asked])
            for at, params in zip(asked, answers, strict=True):
                proposals[waiting[at]].append(_proposal(network, params, n_filled[at]))
            waiting = [i for i in waiting if not any(proposal.trusted for proposal in proposals[i])]
        return proposals


def _proposal(network: Network, params: Vector, n_filled: int) -> Proposal:
    covered = n_filled >= network.least_filled
    return Proposal(network, params, covered, covered and network.in_domain(params))


def released(folder: Path | str, name: str, provider: str = CPU_PROVIDER, precision: str = "fp32") -> Release:
    """The highest released version of a model under `folder/<name>/<version>`.

    raises  ArtefactError if there is none; as `Release.load`
    """
    root = Path(folder) / name
    versions = _versions(root)
    if not versions:
        raise ArtefactError(f"{root} holds no released network: `python -m model_export.release` writes one.")
    return Release.load(root / str(max(versions)), provider, precision)


def is_released(folder: Path | str, name: str) -> bool:
    """Whether there is a version of a model's networks, sound or not."""
    return bool(_versions(Path(folder) / name))


def _versions(root: Path) -> list[int]:
    """Numbers of the versions in a model's folder; a baseline beside them has a name."""
    return [
        int(path.name)
        for path in root.glob("*")
        if path.name.isdigit() and any((path / file).exists() for file in (CONTENTS, MANIFEST))
    ]


def networks_folder() -> Path | None:
    """Where the released networks are: where `CALIBRANT_NETWORKS` says, else in the package, as a wheel brings them,
    else in the checkout that the package is part of; None if there are none.

    raises  ArtefactError if `CALIBRANT_NETWORKS` names no folder
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        if not Path(named).is_dir():
            raise ArtefactError(f"`{FOLDER_VARIABLE}` must name a folder, but is {named!r}.")
        return Path(named)
    return next((folder for folder in (_PACKAGE / "networks", *_CHECKOUT) if folder.is_dir()), None)


def release_in_reach(model: Model) -> Release | None:
    """The newest released networks of a model, loaded once in a process and shared by its threads; None where there
    are none, or no ONNX Runtime to run them: calibrations then start from the shape of the surface.

    raises  as `networks_folder`, `Release.load` and `require_release_of`
    """
    folder = networks_folder()
    if folder is None or not (folder / model.name).is_dir() or not find_spec("onnxruntime"):
        return None
    release = _loaded(folder.resolve(), model.name)
    return None if release is None else require_release_of(model, release)


def release_for(model: Model, folder: Path | None) -> Release | None:
    """The version in a folder; of None, that of `release_in_reach`.

    raises  as `Release.load`, `require_release_of` and `release_in_reach`
    """
    return release_in_reach(model) if folder is None else require_release_of(model, Release.load(folder))


@lru_cache
def _loaded(folder: Path, name: str) -> Release | None:
    return released(folder, name) if _versions(folder / name) else None


def require_release_of(model: Model, release: Release) -> Release:
    """The release, if it was trained for this model.

    raises  ArtefactError if it was not
    """
    if release.model != model.name or release.parameters != model.parameters:
        found = f"{release.model} ({', '.join(release.parameters)})"
        raise ArtefactError(f"{release.version} must be networks for {model.name}, but was trained for {found}.")
    return release
