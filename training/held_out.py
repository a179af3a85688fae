"""What each epoch measures on validation panels."""

from typing import NamedTuple

import torch

from calibrant.models import Model

from .loss import Panels, vol_rmse_bp
from .networks import CnnTransformer
from .penalties import penalty

PENALTY_PANELS = 64
"""Of the validation set, the first ones: the penalty is measured on them even where training does without it."""


class Validation(NamedTuple):
    """Of clean panels."""

    median_bp: float
    """Vol error to first order, basis points."""
    mean_bp: float
    p99_bp: float
    penalty: float
    """Mean over `PENALTY_PANELS` panels of the penalty summed over its grid."""
    pearson: dict[str, float]
    """Correlation of each parameter with the truth."""

    def row(self) -> dict[str, float]:
        """A name and a number for each."""
        numbers = self._asdict()
        return numbers | {f"pearson_{name}": value for name, value in numbers.pop("pearson").items()}


def validate(network: CnnTransformer, panels: Panels, model: Model, penalty_kind: str = "paper") -> Validation:
    """Accuracy on clean panels; the exact pricer has the last word in the evaluation.

    model  whose parameters the network answers
    """
    network.eval()
    with torch.inference_mode():
        answer = torch.cat([network.normalised(iv) for iv in torch.split(panels.iv, 2000)])
        error = torch.cat(
            [
                vol_rmse_bp(part - target, metric)
                for part, target, metric in zip(
                    *(torch.split(x, 2000) for x in (answer, panels.target, panels.metric)), strict=True
                )
            ]
        )
        found, truth = (network.parameters_of(x.double()) for x in (answer, panels.target))
        correlation = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(found.T, truth.T, strict=True)]
        return Validation(
            float(error.median()),
            float(error.mean()),
            float(error.quantile(0.99)),
            float(penalty(found[:PENALTY_PANELS], penalty_kind, model)),
            dict(zip(model.parameters, correlation, strict=True)),
        )
