"""Fully connected networks on the features of the flattened panel: the paper's baseline, and the one that is served.

The features of a missing quote are zeros, and the mask is one of them.
"""

import torch
from torch import Tensor, nn

from .domain import Domain
from .networks import CnnTransformer, NetworkOptions, Normalisation


class DenseNetwork(CnnTransformer):
    """The same input and output as `CnnTransformer`, features and scaling included, so that what differs is between."""

    activation: type[nn.Module]
    """Behind each hidden layer."""

    def __init__(self, domain: Domain, normalisation: Normalisation) -> None:
        super().__init__(domain, normalisation, NetworkOptions())
        n_in = self.features(torch.ones(1, *domain.shape)).numel()
        for layer in ("blocks", "to_tokens", "positions", "encoder", "hidden", "output"):
            delattr(self, layer)
        self.layers = nn.Sequential()
        for width in self.widths(domain):
            self.layers.extend((nn.Linear(n_in, width), self.activation()))
            n_in = width
        self.layers.append(nn.Linear(n_in, domain.n_params))

    @staticmethod
    def widths(domain: Domain) -> tuple[int, ...]:
        """Of the hidden layers."""
        raise NotImplementedError

    def normalised(self, iv: Tensor) -> Tensor:
        return torch.tanh(self.layers(self.features(iv).flatten(1)))


class ShallowNetwork(DenseNetwork):
    """The paper's shallow baseline."""

    activation = nn.ReLU

    @staticmethod
    def widths(domain: Domain) -> tuple[int, ...]:
        return 512, 256


class CompactNetwork(DenseNetwork):
    """A few smooth layers, small enough that a panel's answer costs a third of the CNN-Transformer's.

    A start needs to be no better than what spares the refinement a step.
    """

    activation = nn.GELU

    @staticmethod
    def widths(domain: Domain) -> tuple[int, ...]:
        # Irregular panels with noise say less and ask for more, and so do several factors.
        if len(domain.model.factors) > 1:
            return (256,) * 3
        return (192,) * 3 if domain.standardised else (128,) * 3
