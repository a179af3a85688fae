"""Dense networks: the shallow baseline and the compact one."""

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from training.dense import CompactNetwork, DenseNetwork, ShallowNetwork  # noqa: E402
from training.domain import PAPER  # noqa: E402
from training.networks import CnnTransformer, NetworkOptions, Normalisation  # noqa: E402
from training.panels import make_panels  # noqa: E402

PANELS = make_panels(PAPER, 61, 0, 32)["iv"]
NORMALISATION = Normalisation.of(PANELS, PAPER)
KINDS = pytest.mark.parametrize("kind", [ShallowNetwork, CompactNetwork])


def network(kind: type[DenseNetwork]) -> DenseNetwork:
    torch.manual_seed(1)
    return kind(PAPER, NORMALISATION).eval()


@pytest.mark.parametrize(("kind", "widths"), [(ShallowNetwork, (512, 256)), (CompactNetwork, (128, 128, 128))])
def test_it_has_its_hidden_layers_and_nothing_else_to_learn(kind: type[DenseNetwork], widths: tuple[int, ...]) -> None:
    shapes = [tuple(value.shape) for name, value in network(kind).named_parameters() if name.endswith("weight")]
    deep = CnnTransformer(PAPER, NORMALISATION, NetworkOptions())
    n_in = deep.features(torch.from_numpy(PANELS[:1])).numel()
    assert shapes == list(zip((*widths, 5), (n_in, *widths), strict=True))


@KINDS
def test_it_reads_the_features_of_the_deep_network_and_scales_its_answers_alike(kind: type[DenseNetwork]) -> None:
    dense, deep = network(kind), CnnTransformer(PAPER, NORMALISATION, NetworkOptions())
    iv = torch.from_numpy(PANELS)
    assert torch.equal(dense.features(iv), deep.features(iv))
    answer = dense.normalised(iv)
    assert answer.shape == (32, 5)
    assert float(answer.detach().abs().max()) <= 1.0
    assert torch.equal(dense(iv), deep.parameters_of(answer))


@KINDS
def test_a_missing_quote_s_value_does_not_matter(kind: type[DenseNetwork]) -> None:
    iv = torch.from_numpy(PANELS[:4].copy())
    iv[:, 2, 3] = torch.nan
    answer = network(kind)(iv)
    assert bool(answer.isfinite().all())
    iv[:, 2, 3] = 1e-9
    assert torch.equal(network(kind)(iv), answer)
