"""The graph written for ONNX Runtime is the network, whatever its sizes and strides, and stays lean."""

from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
onnx = pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("onnxruntime", reason="the cpu extra is not installed")

from calibrant.sessions import open_session  # noqa: E402
from model_export.graph import Graph  # noqa: E402
from model_export.to_onnx import to_onnx  # noqa: E402
from model_export.verify import PARITY_TOLERANCE, largest_difference, parity_inputs, verify  # noqa: E402
from tests.declared_domains import DECLARED  # noqa: E402
from training.dense import CompactNetwork, DenseNetwork, ShallowNetwork  # noqa: E402
from training.domain import DOMAINS, MARKET, PAPER, Domain  # noqa: E402
from training.networks import CnnTransformer, NetworkOptions, Normalisation  # noqa: E402
from training.panels import make_panels  # noqa: E402


def normalisation(domain: Domain) -> Normalisation:
    with np.errstate(all="ignore"):
        return Normalisation.of(make_panels(domain, 21, 0, 256)["iv"], domain)


def disturbed(network: CnnTransformer) -> CnnTransformer:
    """With batch-norms, layer-norms and biases that an untrained network has not: each must reach the graph."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for name, value in network.named_buffers():
            if name.endswith("running_mean"):
                value.add_(0.3 * torch.randn(value.shape, generator=generator))
            if name.endswith("running_var"):
                value.mul_(0.5 + torch.rand(value.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
@pytest.mark.parametrize(
    "strides",
    [
        ((2, 2), (2, 2), (2, 2), (1, 1)),
        ((2, 2), (2, 2), (2, 2), (2, 2)),
        ((2, 2), (2, 2), (1, 1), (1, 1)),
        ((2, 1), (1, 2), (1, 1), (1, 1)),
    ],
    ids=["released", "one token", "six or nine tokens", "convolutions to the end"],
)
def test_networks_of_other_strides_answer_as_in_torch(domain: Domain, strides: tuple[tuple[int, int], ...]) -> None:
    torch.manual_seed(1)
    network = disturbed(CnnTransformer(domain, normalisation(domain), NetworkOptions(strides=strides)))
    assert verify(network, to_onnx(network, domain), domain) <= PARITY_TOLERANCE


def test_a_network_of_other_sizes_answers_as_in_torch() -> None:
    torch.manual_seed(2)
    options = NetworkOptions(
        channels=(4, 12, 20), strides=((2, 2), (2, 2), (1, 1)), width=48, heads=4, feed_forward=80, hidden=24
    )
    network = disturbed(CnnTransformer(PAPER, normalisation(PAPER), options))
    assert verify(network, to_onnx(network, PAPER), PAPER) <= PARITY_TOLERANCE


@pytest.mark.parametrize("kind", [ShallowNetwork, CompactNetwork])
@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_dense_networks_answer_as_in_torch(domain: Domain, kind: type[DenseNetwork]) -> None:
    torch.manual_seed(3)
    network = disturbed(kind(domain, normalisation(domain)))
    assert verify(network, to_onnx(network, domain), domain) <= PARITY_TOLERANCE


@pytest.mark.parametrize("domain", DECLARED, ids=lambda domain: f"{domain.n_params}-{domain.standardised}")
def test_networks_of_any_number_of_parameters_answer_as_in_torch(domain: Domain) -> None:
    torch.manual_seed(7)
    like = MARKET if domain.standardised else PAPER
    iv = parity_inputs(like, 64)
    for made in (
        CompactNetwork(domain, normalisation(like)),
        CnnTransformer(domain, normalisation(like), NetworkOptions()),
    ):
        network = disturbed(made)
        session = open_session(to_onnx(network, domain))
        assert largest_difference(network, session, iv) <= PARITY_TOLERANCE
        (answers,) = session.run(None, {"iv": iv})
        assert answers.shape == (len(iv), domain.model.n_params)
        low, high = domain.output_box()
        room = 1e-5 * (high - low)
        assert ((low - room <= answers) & (answers <= high + room)).all()


@pytest.mark.parametrize("compact", [False, True], ids=["cnn_transformer", "compact"])
def test_every_layer_reaches_the_graph(compact: bool) -> None:
    """A change of any parameter moves the network's answers, and those of its graph to the same place."""
    torch.manual_seed(5)
    scales = normalisation(MARKET)
    made = CompactNetwork(MARKET, scales) if compact else CnnTransformer(MARKET, scales, NetworkOptions())
    network = disturbed(made)
    iv = parity_inputs(MARKET, 16)
    session = open_session(to_onnx(network, MARKET))
    for name, value in network.named_parameters():
        with torch.no_grad():
            kept = value.clone()
            value.add_(0.2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(6)))
            assert largest_difference(network, session, iv) > 3.0 * PARITY_TOLERANCE, name
            assert largest_difference(network, open_session(to_onnx(network, MARKET)), iv) <= PARITY_TOLERANCE, name
            value.copy_(kept)


def test_graphs_stay_lean() -> None:
    """What a single panel's time goes into: a node costs as much as its arithmetic."""

    def nodes(network: CnnTransformer) -> Counter[str]:
        graph = onnx.load_model_from_string(to_onnx(network.eval(), MARKET)).graph
        return Counter(node.op_type for node in graph.node)

    deep = nodes(CnnTransformer(MARKET, normalisation(MARKET), NetworkOptions()))
    assert deep.total() <= 85
    assert deep["Conv"] == 6
    assert deep["Elu"] == 8
    assert not {"Split", "Squeeze", "Gather", "Slice"} & set(deep)
    compact = nodes(CompactNetwork(MARKET, normalisation(MARKET)))
    assert compact.total() <= 34
    assert compact["Gemm"] == 6


def test_a_name_is_given_once() -> None:
    graph = Graph()
    graph.constant("weight", np.ones(2))
    with pytest.raises(ValueError, match="holds a constant weight already"):
        graph.constant("weight", np.zeros(2))
