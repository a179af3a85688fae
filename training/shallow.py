"""The paper's shallow baseline: two hidden layers of 512 and 256 ReLU on the flattened panel."""

import torch
from torch import Tensor, nn

from .domain import Domain
from .networks import CnnTransformer, NetworkOptions, Normalisation

_HIDDEN = (512, 256)


class ShallowNetwork(CnnTransformer):
    """The same input and output as `CnnTransformer`, features and scaling included, so that what differs is the depth.

    The features of a missing quote are zeros, and the mask is one of them.
    """

    def __init__(self, domain: Domain, normalisation: Normalisation) -> None:
        super().__init__(domain, normalisation, NetworkOptions())
        n_in = self.features(torch.ones(1, *domain.shape)).numel()
        for layer in ("blocks", "to_tokens", "positions", "encoder", "hidden", "output"):
            delattr(self, layer)
        first, second = _HIDDEN
        self.layers = nn.Sequential(
            nn.Linear(n_in, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, domain.n_params)
        )

    def normalised(self, iv: Tensor) -> Tensor:
        return torch.tanh(self.layers(self.features(iv).flatten(1)))
