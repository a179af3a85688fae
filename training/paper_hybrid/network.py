"""The second paper's feed-forward network: ten features of 15 quotes in, 13 parameters out.

Dense layers of 512, 256, 128 and 64 ReLU, batch-norm behind the first three, dropout of 0.2 behind the second, and 13
linear outputs. These are standardised, logarithms of what is positive, as in its authors' program.

The text counts ten features and lists eleven: of each of three maturities the at-the-money price, the skew (an
out-of-the-money call less the put) and the curvature (a butterfly of the wings), the term slope and the total premium.
The total premium is left out here: it is the sum of the three prices at the money, which are features themselves. Nor
does the text say which strikes: here the skew is taken at 95 and 105 %, the butterfly at 90 and 110 %.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibrant.arrays import Matrix, Vector

from .scenarios import EXPIRIES, SCENARIOS, STRIKES, call_prices

N_FEATURES = 10
_AT, _PUT, _CALL = STRIKES.index(1.0), STRIKES.index(0.95), STRIKES.index(1.05)
# The distribution function of the normal law to 1e-15 (Hart 1968 in the form of West 2005): torch and ONNX Runtime each
# have their own error function, and only in float32. Coefficients from the highest power down.
NUMERATOR = (
    3.52624965998911e-2,
    0.700383064443688,
    6.37396220353165,
    33.912866078383,
    112.079291497871,
    221.213596169931,
    220.206867912376,
)
DENOMINATOR = (
    8.83883476483184e-2,
    1.75566716318264,
    16.064177579207,
    86.7807322029461,
    296.564248779674,
    637.333633378831,
    793.826512519948,
    440.413735824752,
)


class Scaling(NamedTuple):
    """What the network sees and answers at zero and one."""

    feature_mean: Vector
    """(10,)"""
    feature_std: Vector
    """(10,)"""
    target_mean: Vector
    """(13,), of `targets_of`."""
    target_std: Vector
    """(13,)"""
    node_vol: Matrix
    """(3, 5) what a missing quote counts as."""


def features_of_calls() -> tuple[Matrix, Vector]:
    """A matrix (15, 10) and a constant (10,): the features of call prices in units of the forward."""
    n = len(STRIKES)
    matrix, constant = np.zeros((len(EXPIRIES) * n, N_FEATURES)), np.zeros(N_FEATURES)
    for e in range(len(EXPIRIES)):
        calls = matrix[e * n : (e + 1) * n]
        calls[_AT, 3 * e] = 1.0
        # The put at 95 % is the call there less 5 % of the forward.
        calls[_CALL, 3 * e + 1], calls[_PUT, 3 * e + 1] = 1.0, -1.0
        constant[3 * e + 1] = 1.0 - STRIKES[_PUT]
        calls[[0, _AT, -1], 3 * e + 2] = 1.0, -2.0, 1.0
    matrix[_AT, -1], matrix[-n + _AT, -1] = -1.0, 1.0
    return matrix, constant


def targets_of(params: Matrix) -> Matrix:
    """What is regressed on, before it is standardised: logarithms of the positive parameters, (n, 13)."""
    logs = SCENARIOS.logs()
    out = params.copy()
    out[:, logs] = np.log(params[:, logs])
    return out


def scaling_of(iv: NDArray[np.float64], params: Matrix) -> Scaling:
    """Measured on training panels (n, 3, 5) and their parameters (n, 13)."""
    matrix, constant = features_of_calls()
    features, targets = call_prices(iv) @ matrix + constant, targets_of(params)
    return Scaling(features.mean(0), features.std(0), targets.mean(0), targets.std(0), iv.mean(0))


class PaperNetwork(nn.Module):
    """Raw implied vols with NaN for missing in, raw parameters out, as every network of the library."""

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        low, high = SCENARIOS.output_box()
        logs = SCENARIOS.logs()
        low[logs], high[logs] = np.log(low[logs]), np.log(high[logs])
        k, t = np.log(STRIKES), np.sqrt(EXPIRIES)
        matrix, constant = features_of_calls()
        for name, value in (
            ("node_vol", scaling.node_vol),
            ("log_moneyness", k),
            ("root_expiry", t[:, np.newaxis]),
            ("of_calls", matrix / scaling.feature_std),
            ("shift", (constant - scaling.feature_mean) / scaling.feature_std),
            ("target_mean", scaling.target_mean),
            ("target_std", scaling.target_std),
            ("lowest", low),
            ("highest", high),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.register_buffer("logs", torch.tensor(logs))
        self.layers = nn.Sequential(
            nn.Linear(N_FEATURES, 512),
            nn.ReLU(),
            nn.BatchNorm1d(512),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.BatchNorm1d(256),
            nn.Dropout(0.2),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.BatchNorm1d(128),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, SCENARIOS.n_params),
        )

    node_vol: Tensor
    log_moneyness: Tensor
    root_expiry: Tensor
    of_calls: Tensor
    shift: Tensor
    target_mean: Tensor
    target_std: Tensor
    lowest: Tensor
    highest: Tensor
    logs: Tensor

    def forward(self, iv: Tensor) -> Tensor:
        """Parameters (b, 13), inside the boxes, of vols (b, 3, 5)."""
        return self.parameters_of(self.layers(self.features(iv)))

    def features(self, iv: Tensor) -> Tensor:
        """Standardised, (b, 10) float32."""
        vol = torch.where(iv.isnan(), self.node_vol, iv.double())
        sd = vol * self.root_expiry
        d = 0.5 * sd - self.log_moneyness / sd
        call = normal(d) - self.log_moneyness.exp() * normal(d - sd)
        return (call.flatten(1) @ self.of_calls + self.shift).float()

    def parameters_of(self, normalised: Tensor) -> Tensor:
        """Parameters (b, 13) from the scale of the loss."""
        scaled = self.target_mean + self.target_std * normalised.double()
        scaled = torch.minimum(torch.maximum(scaled, self.lowest), self.highest)
        return torch.where(self.logs, scaled.exp(), scaled).float()

    def normalised_of(self, targets: Tensor) -> Tensor:
        """`targets_of` on the scale of the loss."""
        return ((targets - self.target_mean) / self.target_std).float()


def normal(x: Tensor) -> Tensor:
    """The distribution function of the normal law, double."""
    a = x.abs()
    numerator, denominator = torch.full_like(a, NUMERATOR[0]), torch.full_like(a, DENOMINATOR[0])
    for coefficient in NUMERATOR[1:]:
        numerator = numerator * a + coefficient
    for coefficient in DENOMINATOR[1:]:
        denominator = denominator * a + coefficient
    tail = (-0.5 * a * a).exp() * numerator / denominator
    return torch.where(x > 0.0, 1.0 - tail, tail)
