"""The paper's CNN-Transformer: a panel of implied vols in, the parameters of the model out."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibrant.arrays import Matrix

from .domain import VISIBLE_DEVIATIONS, Domain

SMALL_SMILE = 5e-4
"""Of vol: below it the compressed channel is linear, above it logarithmic."""
SMALL_LOG_SMILE = 5e-3
"""The same of log vol, where panels are noisy."""
LEAST_VOL = 1e-4
"""Keeps the logarithm finite; no panel is that quiet."""
COMPRESSED_SCALE = 1.0 / 3.0
"""Brings the compressed channel to a standard deviation of about one."""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Sizes of the paper's section 4.1, and the one choice it leaves open on a 10 x 8 panel."""

    channels: tuple[int, ...] = (8, 16, 32, 64)
    """Of the residual blocks, in order."""
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (2, 2), (1, 1))
    """(expiry, strike) stride of each block. The default leaves 1 x 2 tokens: after equal short runs it is more
    accurate than 2 x 3 and trains twice as fast. `python -m benchmarks.network_strides` writes the table,
    docs/network_strides.md."""
    width: int = 128
    """Of a token."""
    heads: int = 8
    """Of the attention."""
    feed_forward: int = 512
    """Hidden width inside the encoder layer."""
    hidden: int = 64
    """Hidden width of the parameter head."""
    positions: bool = True
    """Sinusoidal positions on or off (the paper's ablation)."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation over training panels at each node of the grid, stored in the network.

    Of the vol, or of its logarithm where vols range over orders of magnitude (a standardised domain).
    """

    mean: Matrix
    """Of the vol, (n_expiries, n_strikes)."""
    std: Matrix
    """Of the vol."""
    smile_mean: Matrix
    """Of the vol less the mean of its expiry."""
    smile_std: Matrix
    """Of the vol less the mean of its expiry."""

    @classmethod
    def of(cls, iv: NDArray[np.float32], domain: Domain) -> "Normalisation":
        """Measured on panels (n, n_expiries, n_strikes) with NaN where missing."""
        vols = iv.astype(np.float64)
        if domain.standardised:
            vols = np.log(vols)
        # A panel that misses a whole expiry has no mean there, and a node that all of them miss none at all: it is
        # masked whatever it is scaled by.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            smile = vols - np.nanmean(vols, axis=2, keepdims=True)
            means = [np.nan_to_num(np.nanmean(of, 0)) for of in (vols, smile)]
            deviations = [np.nan_to_num(np.nanstd(of, 0)) for of in (vols, smile)]
        std, smile_std = (np.where(each > 0.0, each, 1.0) for each in deviations)
        return cls(means[0], std, means[1], smile_std)


def sinusoidal_positions(n_rows: int, n_columns: int, width: int) -> Tensor:
    """2-D sinusoidal encoding of a grid: half of the width encodes the row (expiry), half the column (strike).

    width    a multiple of 4
    returns  (n_rows * n_columns, width), row by row
    """
    quarter = width // 4
    # Vaswani et al. 2017 use a base of 10,000 for sentences; a grid of ten needs no wavelength beyond a hundred.
    frequency = 100.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row = torch.arange(n_rows, dtype=torch.float64)[:, None] * frequency  # (R, width/4)
    column = torch.arange(n_columns, dtype=torch.float64)[:, None] * frequency  # (C, width/4)
    rows = torch.cat([row.sin(), row.cos()], 1)[:, None].expand(n_rows, n_columns, 2 * quarter)
    columns = torch.cat([column.sin(), column.cos()], 1)[None].expand(n_rows, n_columns, 2 * quarter)
    return torch.cat([rows, columns], 2).reshape(n_rows * n_columns, width).float()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch-norm and ELU; a 1x1 convolution carries the skip where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(n_out)
        self.skip = nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.elu(self.first_norm(self.first(x)))
        out = self.second_norm(self.second(out))
        return functional.elu(out + self.skip(x))


class EncoderLayer(nn.Module):
    """One Transformer encoder layer, normalised before each half (Xiong et al. 2020), without dropout.

    Written out instead of nn.TransformerEncoderLayer, whose inference fast path does not export.
    """

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, feed_forward)
        self.narrow = nn.Linear(feed_forward, width)

    def forward(self, x: Tensor) -> Tensor:
        n_tokens, width = x.shape[1:]
        head_width = width // self.heads
        mixed = self.query_key_value(self.attention_norm(x))  # (B, T, 3W)
        mixed = mixed.reshape(-1, n_tokens, 3, self.heads, head_width).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        query, key, value = mixed[0], mixed[1], mixed[2]
        scores = query @ key.transpose(2, 3) * head_width**-0.5  # (B, H, T, T)
        out = (scores.softmax(3) @ value).transpose(1, 2).reshape(-1, n_tokens, width)  # (B, T, W)
        x = x + self.merge(out)
        x = x + self.narrow(functional.gelu(self.widen(self.feed_norm(x))))
        return x


class CnnTransformer(nn.Module):
    """Raw implied vols with NaN for missing in, raw parameters out: all scaling is inside."""

    def __init__(self, domain: Domain, normalisation: Normalisation, options: NetworkOptions) -> None:
        super().__init__()
        log_moneyness, expiry = domain.grid()
        low, high = domain.output_box()
        logs = domain.logs()
        low[logs], high[logs] = np.log(low[logs]), np.log(high[logs])
        visible_from = np.abs(log_moneyness) / (VISIBLE_DEVIATIONS * np.sqrt(expiry)[:, None])
        # Standardised strikes are a few deviations out by construction.
        self._keep("visible_from", np.zeros(domain.shape) if domain.standardised else visible_from)
        self.log_vols = domain.standardised
        self.log_scaled = domain.log_scaled
        self._keep("mean", normalisation.mean)
        self._keep("inverse_std", 1.0 / normalisation.std)
        self._keep("smile_mean", normalisation.smile_mean)
        self._keep("inverse_smile_std", 1.0 / normalisation.smile_std)
        self._keep("centre", (high + low) / 2.0, torch.float32)
        self._keep("half_range", (high - low) / 2.0, torch.float32)

        n_in = (4, *options.channels[:-1])
        blocks = zip(n_in, options.channels, options.strides, strict=True)
        self.blocks = nn.Sequential(*(ResidualBlock(i, o, stride) for i, o, stride in blocks))
        n_rows, n_columns = token_grid(domain.shape, options.strides)
        self.to_tokens = nn.Linear(options.channels[-1], options.width)
        positions = sinusoidal_positions(n_rows, n_columns, options.width)
        self.register_buffer("positions", positions if options.positions else torch.zeros_like(positions))
        self.encoder = EncoderLayer(options.width, options.heads, options.feed_forward)
        self.hidden = nn.Linear(options.width, options.hidden)
        self.output = nn.Linear(options.hidden, domain.n_params)

    def forward(self, iv: Tensor) -> Tensor:
        """Parameters (b, n_params) of vols (b, n_expiries, n_strikes)."""
        return self.parameters_of(self.normalised(iv))

    def parameters_of(self, normalised: Tensor) -> Tensor:
        """Parameters (b, n_params) from the scale of the loss."""
        scaled = self.centre.to(normalised.dtype) + self.half_range.to(normalised.dtype) * normalised
        if not any(self.log_scaled):
            return scaled
        columns = [scaled[:, i].exp() if log else scaled[:, i] for i, log in enumerate(self.log_scaled)]
        return torch.stack(columns, 1)

    def normalised_of(self, params: Tensor) -> Tensor:
        """The inverse of `parameters_of`."""
        columns = [params[:, i].log() if log else params[:, i] for i, log in enumerate(self.log_scaled)]
        return (torch.stack(columns, 1) - self.centre.to(params.dtype)) / self.half_range.to(params.dtype)

    def normalised(self, iv: Tensor) -> Tensor:
        """The same on the scale of the loss: -1 and +1 are the ends of the output box."""
        x = self.blocks(self.features(iv))  # (B, C, R, S)
        x = x.flatten(2).transpose(1, 2)  # (B, T, C)
        x = self.encoder(self.to_tokens(x) + self.positions)  # (B, T, W)
        return torch.tanh(self.output(torch.tanh(self.hidden(x.mean(1)))))

    def features(self, iv: Tensor) -> Tensor:
        """Channels (b, 4, n_expiries, n_strikes): standardised vol, standardised smile, the smile compressed, the mask;
        0 where missing.

        The smile, the vol less the mean of its expiry, is what tells rho, xi and kappa apart, and it is a tenth of the
        level's size: as a channel of its own it reaches the first convolution at full scale. Where xi is small the
        smile is a hundredth of that again, and rho is all that it shows: the inverse hyperbolic sine lifts it to full
        scale too (without it the correlation of rho with the truth stayed at 0.985 where it reached 0.992 with it).
        Scaling up scales up rounding; in float32 the order of ten additions moved kappa by 1e-4, so this stage alone
        is float64.
        """
        iv = iv.double()
        visible = iv >= self.visible_from  # NaN compares false
        mask = visible.double()
        vol = torch.where(visible, iv, 1.0)
        if self.log_vols:
            vol = vol.clamp(min=LEAST_VOL).log()
        row_mean = (vol * mask).sum(2, keepdim=True) / mask.sum(2, keepdim=True).clamp(min=1.0)
        level = (vol - self.mean) * self.inverse_std * mask
        smile = (vol - row_mean) * mask
        standard = (smile - self.smile_mean * mask) * self.inverse_smile_std
        small = SMALL_LOG_SMILE if self.log_vols else SMALL_SMILE
        # asinh(x), which ONNX Runtime has in float32 alone.
        size = smile.abs() * (1.0 / small)
        compressed = smile.sign() * (size + (size * size + 1.0).sqrt()).log() * COMPRESSED_SCALE
        return torch.stack([level, standard, compressed, mask], 1).to(self.centre.dtype)

    def _keep(self, name: str, value: Matrix, dtype: torch.dtype = torch.float64) -> None:
        self.register_buffer(name, torch.tensor(value, dtype=dtype))

    centre: Tensor
    half_range: Tensor
    visible_from: Tensor
    mean: Tensor
    inverse_std: Tensor
    smile_mean: Tensor
    inverse_smile_std: Tensor
    positions: Tensor


def token_grid(shape: tuple[int, int], strides: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Rows and columns of tokens that the strides leave of a panel."""
    n_rows, n_columns = shape
    for down, across in strides:
        n_rows, n_columns = -(-n_rows // down), -(-n_columns // across)
    return n_rows, n_columns
