"""The shallow baseline."""

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from training.domain import PAPER  # noqa: E402
from training.networks import CnnTransformer, NetworkOptions, Normalisation  # noqa: E402
from training.panels import make_panels  # noqa: E402
from training.dense import ShallowNetwork  # noqa: E402

PANELS = make_panels(PAPER, 61, 0, 32)["iv"]
NORMALISATION = Normalisation.of(PANELS, PAPER)


def network() -> ShallowNetwork:
    torch.manual_seed(1)
    return ShallowNetwork(PAPER, NORMALISATION).eval()


def test_it_has_the_paper_s_two_hidden_layers_and_nothing_else_to_learn() -> None:
    shapes = [tuple(value.shape) for name, value in network().named_parameters() if name.endswith("weight")]
    deep = CnnTransformer(PAPER, NORMALISATION, NetworkOptions())
    n_in = deep.features(torch.from_numpy(PANELS[:1])).numel()
    assert shapes == [(512, n_in), (256, 512), (5, 256)]


def test_it_reads_the_features_of_the_deep_network_and_scales_its_answers_alike() -> None:
    shallow, deep = network(), CnnTransformer(PAPER, NORMALISATION, NetworkOptions())
    iv = torch.from_numpy(PANELS)
    assert torch.equal(shallow.features(iv), deep.features(iv))
    answer = shallow.normalised(iv)
    assert answer.shape == (32, 5)
    assert float(answer.detach().abs().max()) <= 1.0
    assert torch.equal(shallow(iv), deep.parameters_of(answer))


def test_a_missing_quote_s_value_does_not_matter() -> None:
    iv = torch.from_numpy(PANELS[:4].copy())
    iv[:, 2, 3] = torch.nan
    answer = network()(iv)
    assert bool(answer.isfinite().all())
    iv[:, 2, 3] = 1e-9
    assert torch.equal(network()(iv), answer)
