"""The CNN-Transformer: shapes, positions, and what a missing quote may do."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from training.domain import MARKET, PAPER, Domain  # noqa: E402
from training.networks import (  # noqa: E402
    CnnTransformer,
    NetworkOptions,
    Normalisation,
    sinusoidal_positions,
    token_grid,
)
from training.panels import make_panels  # noqa: E402

PANELS = make_panels(PAPER, 21, 0, 64)["iv"]


def network(options: NetworkOptions | None = None) -> CnnTransformer:
    torch.manual_seed(1)
    return CnnTransformer(PAPER, Normalisation.of(PANELS, PAPER), options or NetworkOptions()).eval()


@pytest.mark.parametrize(
    ("strides", "tokens"),
    [
        (((1, 1), (1, 1), (1, 1), (1, 1)), (8, 10)),
        (((1, 1), (2, 2), (1, 1), (1, 1)), (4, 5)),
        (((2, 2), (2, 2), (1, 1), (1, 1)), (2, 3)),
        (((2, 2), (2, 2), (2, 2), (1, 1)), (1, 2)),
        (((2, 1), (1, 2), (1, 1), (1, 1)), (4, 5)),
    ],
)
def test_strides_leave_the_stated_tokens_and_any_batch_goes_through(
    strides: tuple[tuple[int, int], ...], tokens: tuple[int, int]
) -> None:
    assert token_grid(PAPER.shape, strides) == tokens
    net = network(NetworkOptions(strides=strides))
    assert net.positions.shape == (tokens[0] * tokens[1], 128)
    for n in (1, 7):
        assert net(torch.from_numpy(PANELS[:n])).shape == (n, 5)


def test_the_paper_s_layers_are_there_in_the_paper_s_sizes() -> None:
    net = network()
    kernels = {name: tuple(value.shape) for name, value in net.state_dict().items() if name.startswith("blocks.")}
    assert [kernels[f"blocks.{i}.second.weight"] for i in range(4)] == [(n, n, 3, 3) for n in (8, 16, 32, 64)]
    assert [kernels[f"blocks.{i}.first.weight"][2:] for i in range(4)] == [(3, 3)] * 4
    assert net.encoder.heads == 8
    assert net.encoder.widen.weight.shape == (512, 128)
    assert (net.hidden.in_features, net.hidden.out_features, net.output.out_features) == (128, 64, 5)


def test_answers_lie_inside_the_output_ranges_even_for_absurd_panels() -> None:
    low, high = PAPER.output_box()
    for level in (0.0, 0.01, 4.9, 1e6, float("nan")):
        params = network()(torch.full((1, 8, 10), level)).detach().double().numpy()
        assert np.isfinite(params).all()
        assert (params >= low - 1e-6).all()
        assert (params <= high + 1e-6).all()


def test_positions_are_distinct_and_split_between_row_and_column() -> None:
    encoding = sinusoidal_positions(4, 5, 128).reshape(4, 5, 128)
    flat = encoding.reshape(20, 128)
    distance = torch.cdist(flat, flat) + 1e9 * torch.eye(20)
    assert float(distance.min()) > 0.1
    # The first half depends on the row alone, the second on the column alone, and every pair is sine and cosine.
    assert torch.equal(encoding[:, 0, :64], encoding[:, 4, :64])
    assert torch.equal(encoding[0, :, 64:], encoding[3, :, 64:])
    torch.testing.assert_close(encoding[..., :32] ** 2 + encoding[..., 32:64] ** 2, torch.ones(4, 5, 32))


def test_positions_can_be_switched_off() -> None:
    assert float(network(NetworkOptions(positions=False)).positions.abs().max()) == 0.0


def test_without_positions_the_encoder_cannot_tell_tokens_apart() -> None:
    tokens = torch.randn(3, 6, 128, generator=torch.Generator().manual_seed(2))
    encoder = network().encoder
    mixed = encoder(tokens)
    swapped = encoder(tokens[:, [3, 1, 2, 0, 4, 5]])
    torch.testing.assert_close(mixed.mean(1), swapped.mean(1))


def test_a_missing_quote_s_value_does_not_matter() -> None:
    net = network()
    iv = torch.from_numpy(PANELS[:8].copy())
    iv[:, 2, 3] = float("nan")
    far = iv.clone()
    # Nor does a quote beyond four standard deviations: it counts as missing.
    far[:, 2, 3] = 0.9 * float(net.visible_from[2, 3])
    torch.testing.assert_close(net(iv), net(far))
    assert float(net.features(iv)[:, :, 2, 3].abs().max()) == 0.0


def test_features_of_the_normalising_panels_are_standardised() -> None:
    features = network().features(torch.from_numpy(PANELS))
    seen = features[:, 3] > 0
    for channel in (0, 1):
        values = features[:, channel][seen]
        assert abs(float(values.mean())) < 0.05
        assert float(values.std()) == pytest.approx(1.0, abs=0.05)


def test_a_panel_s_answer_does_not_depend_on_its_batch() -> None:
    net = network()
    iv = torch.from_numpy(PANELS)
    alone = torch.cat([net(iv[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(net(iv)[:8], alone, rtol=1e-5, atol=1e-6)


def test_a_small_smile_reaches_the_compressed_channel_at_full_scale() -> None:
    features = network().features(torch.from_numpy(0.3 + 0.02 * (PANELS - PANELS.mean())))
    standard, compressed = features[:, 1], features[:, 2]
    # Both vary over the panels; the standardised smile of a fiftieth of the usual size by a fiftieth.
    assert float(standard.std(0).max()) < 0.03
    assert float(compressed.std(0).mean()) > 3.0 * float(standard.std(0).mean())


@pytest.mark.parametrize("domain", [PAPER, MARKET], ids=lambda domain: domain.name)
def test_the_scale_of_the_loss_can_be_inverted(domain: Domain) -> None:
    normalisation = Normalisation.of(make_panels(domain, 21, 0, 300)["iv"], domain)
    net = CnnTransformer(domain, normalisation, NetworkOptions()).eval()
    low, high = (torch.from_numpy(edge)[None] for edge in domain.output_box())
    torch.testing.assert_close(net.parameters_of(-torch.ones(1, 5).double()), low, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(net.parameters_of(torch.ones(1, 5).double()), high, rtol=1e-6, atol=1e-6)
    inside = 0.3 * low + 0.7 * high
    torch.testing.assert_close(net.parameters_of(net.normalised_of(inside)), inside)
    # The slope of that scale is what the metric of the vols is taken in.
    y = net.normalised_of(inside).requires_grad_()
    (slope,) = torch.autograd.grad(net.parameters_of(y).sum(), y)
    np.testing.assert_allclose(slope.numpy(), domain.output_slope(inside.numpy()), rtol=1e-5)


def test_a_market_network_answers_any_panel_inside_its_output_ranges() -> None:
    panels = make_panels(MARKET, 21, 0, 300)["iv"]
    net = CnnTransformer(MARKET, Normalisation.of(panels, MARKET), NetworkOptions()).eval()
    low, high = MARKET.output_box()
    absurd = torch.tensor([0.0, 1e-9, 30.0, float("nan")])[:, None, None].expand(4, *MARKET.shape)
    params = net(torch.cat([torch.from_numpy(panels), absurd])).detach().double().numpy()
    assert np.isfinite(params).all()
    assert (params >= low * (1 - 1e-5) - 1e-6).all()
    assert (params <= high * (1 + 1e-5)).all()
