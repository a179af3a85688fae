"""A trained network as an ONNX model, written for ONNX Runtime to answer a single panel fast.

A panel's arithmetic is so small that ONNX Runtime on the processor spends as long on going from node to node, and on
laying values out anew, as on calculating. So the graph is written here node by node, not traced, and what is linear in
a row is multiplied out beforehand, in float64. It is the network of `training.networks` in exact arithmetic; `verify`
says by how much it differs in float32.

- Batch-norms lie in their convolutions, the scale of the scores in the query's weights.
- A convolution on a map of a few nodes is a matrix between whole maps.
- The softmax does not feel the key's bias; the value's passes through it unchanged, into the bias behind it.
- Nothing bends between the feed-forward's second half and the mean over tokens, nor from there to the hidden layer:
  one matrix takes all three.
- Heads are told apart by masks, not by moving their columns: with a handful of tokens the products are small, and
  splits and transpositions are not.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from calibrant.arrays import Matrix, Vector
from training.dense import DenseNetwork
from training.domain import Domain
from training.networks import COMPRESSED_SCALE, LEAST_VOL, SMALL_LOG_SMILE, SMALL_SMILE, CnnTransformer, ResidualBlock

from .graph import Graph

DENSE_NODES = 9
"""Largest map whose convolutions become matrices. On 3 x 3 nodes and below a padded kernel multiplies more zeros than a
matrix holds; on 6 x 6 the matrix is a hundred times the kernel."""
_ACTIVATIONS = {nn.ReLU: "Relu", nn.GELU: "Gelu"}
"""Of dense networks, as torch and as ONNX call them."""


def to_onnx(network: CnnTransformer, domain: Domain) -> bytes:
    """The network in ONNX: `iv` (batch, n_expiries, n_strikes) float32 in, `parameters` (batch, n_params) out."""
    graph = Graph()
    last = _dense(graph, network) if isinstance(network, DenseNetwork) else _deep(graph, network)
    _parameters(graph, network, graph.add("Tanh", last))
    return graph.model(domain)


def _dense(graph: Graph, network: DenseNetwork) -> str:
    """The output layer before its tanh, (batch, n_params)."""
    channels, mask = _channels(graph, network)
    value = graph.add("Flatten", graph.add("Cast", graph.add("Mul", channels, mask), to=TensorProto.FLOAT))
    for i, layer in enumerate(network.layers):
        if isinstance(layer, nn.Linear):
            matrix = _float64(layer.weight).T
            if i == 0:
                matrix = _of_raw_channels(network, matrix)
            value = _linear(graph, f"layers.{i}", value, matrix, _float64(layer.bias))
        else:
            value = graph.add(_ACTIVATIONS[type(layer)], value)
    return value


def _of_raw_channels(network: CnnTransformer, matrix: Matrix) -> Matrix:
    """A matrix of the flat features as one of the flat channels with zeros where missing: the scale is multiplied into
    it, and what the mean adds where a quote is there is the mask's."""
    mean, scale = (values.reshape(4, -1, 1) for values in _scales(network))
    by_channel = scale * matrix.reshape(*scale.shape[:2], -1)
    by_channel[3] -= (mean * by_channel).sum(0)
    return by_channel.reshape(matrix.shape)


def _deep(graph: Graph, network: CnnTransformer) -> str:
    """The output layer before its tanh, (batch, n_params)."""
    n_rows, n_columns = network.mean.shape
    maps = _Maps(_features(graph, network), (n_rows, n_columns), flat=False)
    for i, block in enumerate(network.blocks):
        assert isinstance(block, ResidualBlock)
        write = _dense_block if maps.shape[0] * maps.shape[1] <= DENSE_NODES else _convolutions
        maps = write(graph, f"blocks.{i}", block, maps)
    tokens, n_tokens = _tokens(graph, network, maps)
    hidden = graph.add("Tanh", _encoder(graph, network, tokens, n_tokens))
    return _linear(graph, "output", hidden, _float64(network.output.weight).T, _float64(network.output.bias))


class _Maps(NamedTuple):
    name: str
    shape: tuple[int, int]
    """Rows and columns."""
    flat: bool
    """(batch, nodes * channels), channels together; otherwise (batch, channels, rows, columns)."""


def _features(graph: Graph, network: CnnTransformer) -> str:
    """`CnnTransformer.features` with the channels stacked before they are standardised, (batch, 4, rows, columns)."""
    channels, mask = _channels(graph, network)
    mean, scale = _scales(network)
    standard = graph.add("Mul", graph.add("Sub", channels, mean), scale)
    return graph.add("Cast", graph.add("Mul", standard, mask), to=TensorProto.FLOAT)


def _channels(graph: Graph, network: CnnTransformer) -> tuple[str, str]:
    """Vol, smile, the smile compressed and the mask before they are standardised, with anything where quotes are
    missing, (batch, 4, rows, columns), and the mask once more, (batch, 1, rows, columns)."""
    visible_from = _float64(network.visible_from)
    # A panel as one channel: what follows is stacked and multiplied without another change of shape.
    iv = graph.add("Unsqueeze", "iv", np.array([1]))
    exact = graph.add("Cast", iv, to=TensorProto.DOUBLE)
    visible = graph.add("GreaterOrEqual", exact, visible_from)
    mask = graph.add("Cast", visible, to=TensorProto.DOUBLE)
    # Missing vols count as zero in the sum over an expiry: one whose logarithm is taken is 1.
    vol = graph.add("Where", visible, exact, np.array(1.0 if network.log_vols else 0.0))
    if network.log_vols:
        vol = graph.add("Log", graph.add("Max", vol, np.array(LEAST_VOL)))
    strikes = graph.constant("strikes", np.array([3]))
    count = graph.add("Max", graph.add("ReduceSum", mask, strikes, keepdims=1), np.array(1.0))
    smile = graph.add("Sub", vol, graph.add("Div", graph.add("ReduceSum", vol, strikes, keepdims=1), count))
    small = SMALL_LOG_SMILE if network.log_vols else SMALL_SMILE
    # The inverse hyperbolic sine. On the negative side the two terms cancel, which float64 bears: vols of at most 500 %
    # keep `size` above -10,000, and the result right to 4e-8.
    size = graph.add("Mul", smile, np.array(1.0 / small))
    root = graph.add("Sqrt", graph.add("Add", graph.add("Mul", size, size), np.array(1.0)))
    compressed = graph.add("Log", graph.add("Add", size, root))
    return graph.add("Concat", vol, smile, compressed, mask, axis=1), mask


def _scales(network: CnnTransformer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What standardises `_channels`: the mean to take off and the factor, (4, rows, columns) each."""
    none = np.zeros(network.mean.shape)
    mean = np.stack([_float64(network.mean), _float64(network.smile_mean), none, none])
    factors = _float64(network.inverse_std), _float64(network.inverse_smile_std), none + COMPRESSED_SCALE, none + 1.0
    return mean, np.stack(factors)


def _convolutions(graph: Graph, name: str, block: ResidualBlock, maps: _Maps) -> _Maps:
    """A residual block as it was trained."""
    stride = _stride(block)
    kernel, bias = _folded(block.first, block.first_norm)
    first = _convolution(graph, f"{name}.first", maps.name, kernel, stride, bias)
    kernel, bias = _folded(block.second, block.second_norm)
    second = _convolution(graph, f"{name}.second", graph.add("Elu", first), kernel, (1, 1), bias)
    skip = _convolution(graph, f"{name}.skip", maps.name, _float64(block.skip.weight), stride)
    return _Maps(graph.add("Elu", graph.add("Add", second, skip)), _strided(maps.shape, stride), flat=False)


def _convolution(
    graph: Graph, name: str, maps: str, kernel: NDArray[np.float64], stride: tuple[int, int], bias: Vector | None = None
) -> str:
    size = kernel.shape[2]
    constants = [graph.constant(f"{name}.weight", _float32(kernel))]
    if bias is not None:
        constants.append(graph.constant(f"{name}.bias", _float32(bias)))
    return graph.add("Conv", maps, *constants, kernel_shape=[size, size], pads=[size // 2] * 4, strides=list(stride))


def _dense_block(graph: Graph, name: str, block: ResidualBlock, maps: _Maps) -> _Maps:
    """A residual block whose convolutions are matrices between flat maps."""
    stride = _stride(block)
    after = _strided(maps.shape, stride)
    n_nodes, n_in, n_out = after[0] * after[1], block.first.in_channels, block.first.out_channels
    flat = maps.name if maps.flat else graph.shaped(maps.name, -1, n_in * maps.shape[0] * maps.shape[1])
    kernel, bias = _folded(block.first, block.first_norm)
    first = _linear(
        graph, f"{name}.first", flat, _matrix(kernel, maps.shape, stride, maps.flat), np.tile(bias, n_nodes)
    )
    kernel, bias = _folded(block.second, block.second_norm)
    across = _float64(block.skip.weight)
    if maps.flat and stride == (1, 1):
        # Node by node it is the same small matrix.
        rows = _linear(graph, f"{name}.skip", graph.shaped(flat, -1, n_in), across[:, :, 0, 0].T, bias)
        skip = graph.shaped(rows, -1, n_nodes * n_out)
    else:
        matrix = _matrix(across, maps.shape, stride, maps.flat)
        skip = _linear(graph, f"{name}.skip", flat, matrix, np.tile(bias, n_nodes))
    second = _linear(graph, f"{name}.second", graph.add("Elu", first), _matrix(kernel, after, (1, 1), True), skip)
    return _Maps(graph.add("Elu", second), after, flat=True)


def _tokens(graph: Graph, network: CnnTransformer, maps: _Maps) -> tuple[str, int]:
    """The nodes of the last maps as rows (batch * n_tokens, width), and n_tokens."""
    n_tokens, width = network.positions.shape
    n_channels = network.to_tokens.in_features
    if maps.flat:
        rows = graph.shaped(maps.name, -1, n_tokens, n_channels)
    else:
        rows = graph.add("Transpose", graph.shaped(maps.name, -1, n_channels, n_tokens), perm=[0, 2, 1])
    weight = graph.constant("to_tokens.weight", _float32(_float64(network.to_tokens.weight).T))
    positions = _float64(network.to_tokens.bias) + _float64(network.positions)
    tokens = graph.add("Add", graph.add("MatMul", rows, weight), graph.constant("positions", _float32(positions)))
    return graph.shaped(tokens, -1, width), n_tokens


def _encoder(graph: Graph, network: CnnTransformer, tokens: str, n_tokens: int) -> str:
    """The encoder layer and the hidden layer before its tanh, (batch, hidden), of rows (batch * n_tokens, width)."""
    encoder = network.encoder
    width, heads = network.to_tokens.out_features, encoder.heads
    query, key, value = np.split(_float64(encoder.query_key_value.weight).T, 3, axis=1)
    query_bias, _, value_bias = np.split(_float64(encoder.query_key_value.bias), 3)
    merge = _float64(encoder.merge.weight).T
    scale = (width // heads) ** -0.5
    # (heads, width), 1 in the columns that are a head's own.
    own = np.repeat(np.eye(heads), width // heads, axis=1)

    rows = _layer_norm(graph, "encoder.attention_norm", encoder.attention_norm, tokens)
    queries = graph.shaped(
        _linear(graph, "encoder.query", rows, scale * query, scale * query_bias), -1, n_tokens, 1, width
    )
    queries = graph.shaped(
        graph.add("Mul", queries, graph.constant("query_heads", _float32(own))), -1, n_tokens * heads, width
    )
    keys = graph.shaped(_linear(graph, "encoder.key", rows, key), -1, n_tokens, width)
    values = graph.shaped(_linear(graph, "encoder.value", rows, value), -1, 1, n_tokens, width)
    values = graph.shaped(
        graph.add("Mul", values, graph.constant("value_heads", _float32(own[:, None]))), -1, heads * n_tokens, width
    )
    # Rows are pairs (token, head), columns the tokens it looks at; then rows tokens, columns pairs (head, token).
    scores = graph.add("MatMul", queries, graph.add("Transpose", keys, perm=[0, 2, 1]))
    shares = graph.shaped(graph.add("Softmax", scores, axis=-1), -1, n_tokens, heads * n_tokens)
    mixed = graph.shaped(graph.add("MatMul", shares, values), -1, width)
    merged = _linear(graph, "encoder.merge", mixed, merge, _float64(encoder.merge.bias) + value_bias @ merge)
    tokens = graph.add("Add", tokens, merged)

    rows = _layer_norm(graph, "encoder.feed_norm", encoder.feed_norm, tokens)
    wide = _linear(graph, "encoder.widen", rows, _float64(encoder.widen.weight).T, _float64(encoder.widen.bias))
    hidden = _float64(network.hidden.weight).T
    bias = _float64(network.hidden.bias) + _float64(encoder.narrow.bias) @ hidden
    straight = _linear(graph, "hidden", tokens, hidden, bias)
    narrow = _float64(encoder.narrow.weight).T @ hidden
    each = _linear(graph, "encoder.narrow", graph.add("Gelu", wide), narrow, straight)
    return graph.add("ReduceMean", graph.shaped(each, -1, n_tokens, hidden.shape[1]), np.array([1]), keepdims=0)


def _parameters(graph: Graph, network: CnnTransformer, share: str) -> None:
    """`CnnTransformer.parameters_of`, without taking the columns apart."""
    logs = np.array(network.log_scaled, np.float64)
    centre, half_range = _float64(network.centre), _float64(network.half_range)
    if not logs.any():
        _linear(graph, "scale", share, np.diag(half_range), centre, output="parameters")
        return
    # Each of two sums holds the parameters of one kind, and of the other what its exponential of zero adds.
    plain = 1.0 - logs
    exponents = _linear(graph, "log_scale", share, np.diag(logs * half_range), logs * centre)
    linear = _linear(graph, "scale", share, np.diag(plain * half_range), plain * (centre - 1.0))
    graph.add("Add", graph.add("Exp", exponents), linear, name="parameters")


def _layer_norm(graph: Graph, name: str, norm: nn.LayerNorm, rows: str) -> str:
    weight = graph.constant(f"{name}.weight", _float32(_float64(norm.weight)))
    bias = graph.constant(f"{name}.bias", _float32(_float64(norm.bias)))
    return graph.add("LayerNormalization", rows, weight, bias, axis=-1, epsilon=norm.eps)


def _linear(
    graph: Graph, name: str, rows: str, matrix: Matrix, bias: Vector | str | None = None, output: str | None = None
) -> str:
    """Rows times a matrix, plus a bias or the value of that name."""
    weight = graph.constant(f"{name}.weight", _float32(matrix))
    if bias is None:
        return graph.add("MatMul", rows, weight, name=output)
    added = bias if isinstance(bias, str) else graph.constant(f"{name}.bias", _float32(bias))
    return graph.add("Gemm", rows, weight, added, name=output)


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[NDArray[np.float64], Vector]:
    """Kernel (out, in, height, width) and bias (out,) of a convolution with the batch-norm behind it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    slope = _float64(norm.weight) / np.sqrt(_float64(norm.running_var) + norm.eps)
    bias = _float64(norm.bias) - _float64(norm.running_mean) * slope
    return _float64(convolution.weight) * slope[:, None, None, None], bias


def _matrix(kernel: NDArray[np.float64], shape: tuple[int, int], stride: tuple[int, int], flat: bool) -> Matrix:
    """A convolution as a matrix from maps to flat maps, whose rows are flat maps too or maps with their nodes together.

    The convolution of each map that is 1 at one node of one channel.
    """
    n_in, n_nodes = kernel.shape[1], shape[0] * shape[1]
    units = torch.eye(n_in * n_nodes, dtype=torch.float64).reshape(-1, n_in, *shape)
    if flat:
        units = units.reshape(n_in, n_nodes, n_in, *shape).transpose(0, 1).reshape(-1, n_in, *shape)
    made = nn.functional.conv2d(units, torch.from_numpy(kernel), stride=stride, padding=kernel.shape[2] // 2)
    matrix: Matrix = made.flatten(2).transpose(1, 2).flatten(1).numpy()
    return matrix


def _stride(block: ResidualBlock) -> tuple[int, int]:
    down, across = block.first.stride
    return int(down), int(across)


def _strided(shape: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // stride[0]), -(-shape[1] // stride[1])


def _float64(values: Tensor) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return numbers


def _float32(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32)
