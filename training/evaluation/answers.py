"""What is evaluated: a released artefact, or the network of a training run before its release."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from calibrant.arrays import BoolVector, Matrix, Vector
from calibrant.release import Release
from training.domain import DOMAINS, Domain
from training.train import load_network


class Answerer(Protocol):
    """As `calibrant.network.Network`: panels in, parameters out."""

    @property
    def version(self) -> str: ...

    def parameters(self, iv: NDArray[np.floating[Any]]) -> Matrix: ...

    def in_domain(self, params: Vector, mask: BoolVector | None = None) -> bool: ...


class Candidate(NamedTuple):
    """A network and the domain whose held-out panels it is asked."""

    network: Answerer
    domain: Domain
    release: Release | None = None
    """What it is served with, if it is released."""


class RunNetwork:
    """The best network of a training run, answering in torch."""

    def __init__(self, run: Path) -> None:
        self._network, self.domain = load_network(run)
        self._lower, self._upper = self.domain.sampled_box()
        self.version = str(run)

    def parameters(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        """(b, n_params) of panels (b, n_expiries, n_strikes), NaN where missing."""
        panels = torch.from_numpy(np.ascontiguousarray(iv, np.float32))
        with torch.inference_mode():
            answers = [self._network(part) for part in torch.split(panels, 2000)]
        params: Matrix = torch.cat(answers).double().numpy()
        return params

    def in_domain(self, params: Vector, mask: BoolVector | None = None) -> bool:
        """As the network released from this run will say."""
        inside = bool(np.all((params >= self._lower) & (params <= self._upper)))
        return inside and (mask is None or float(np.mean(mask)) >= self.domain.least_coverage)


def of_run(run: Path) -> Candidate:
    """The network of a training run."""
    network = RunNetwork(run)
    return Candidate(network, network.domain)


def of_artefact(folder: Path) -> list[Candidate]:
    """The networks of `networks/<model>/<version>`, the paper's domain first."""
    release = Release.load(folder)
    return [Candidate(network, DOMAINS[network.manifest.domain], release) for network in release.networks]
