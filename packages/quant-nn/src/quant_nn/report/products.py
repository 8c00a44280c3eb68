"""How many products a layer adds up: the multiply-accumulate operations of hardware."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@runtime_checkable
class CountsProducts(Protocol):
    """A layer that knows how many products it adds up; its submodules get no rows of their own."""

    def count_products(self, *inputs: Any) -> int:
        """The number for these inputs of ``forward``."""


_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_OPERANDS: Final[Mapping[Any, tuple[str, ...]]] = {
    F.linear: ("input", "weight"),
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), ("input", "other")),
    **dict.fromkeys((torch.mm, torch.bmm, Tensor.mm, Tensor.bmm), ("input", "mat2")),
    **dict.fromkeys((torch.addmm, Tensor.addmm), ("input", "mat1", "mat2")),
    **dict.fromkeys((torch.baddbmm, Tensor.baddbmm), ("input", "batch1", "batch2")),
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), ("input", "weight")),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), ("input", "weight")),
    F.scaled_dot_product_attention: ("query", "key", "value"),
}
"""Functions that multiply two tensors, of which neither needs to be a weight: what they call their operands."""
_OF_CONVOLUTIONS: Final = (F.conv1d, F.conv2d, F.conv3d)
_OF_TRANSPOSED: Final = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def products_of_layer(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> int | None:
    """The number of products in one call of a layer; ``None`` where they are counted call by call of torch's functions.

    - linear: elements of the output · features of the input;
    - convolution: elements of the output · input channels of a group · elements of the kernel; products with the zeros of the
      padding count;
    - transposed convolution: elements of the input · output channels of a group · elements of the kernel;
    - attention: four projections, queries · keys, weights · values;
    - recurrent: for each step, layer, direction and gate ``H · (I + P)``, and ``P · H`` of a projection.

    >>> layer = nn.Conv2d(4, 8, 3, groups=2)
    >>> x = torch.zeros(1, 4, 6, 6)
    >>> products_of_layer(layer, (x,), layer(x)) == 8 * 4 * 4 * 2 * 9
    True
    """
    if isinstance(layer, CountsProducts):
        return layer.count_products(*inputs)
    if isinstance(layer, nn.Linear):
        return int(output.numel()) * layer.in_features
    if isinstance(layer, _CONVOLUTIONS):
        return int(output.numel()) * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)
    if isinstance(layer, _TRANSPOSED):
        return int(inputs[0].numel()) * (layer.out_channels // layer.groups) * math.prod(layer.kernel_size)
    if isinstance(layer, nn.RNNBase):
        return _recurrent(layer, inputs[0])
    if type(layer) is nn.MultiheadAttention:
        return _attention(layer, *inputs[:3])
    return None


def is_counted_by_shape(layer: nn.Module) -> bool:
    """Whether :func:`products_of_layer` knows the products of a layer; those of others are counted call by call.

    >>> is_counted_by_shape(nn.Linear(1, 1)), is_counted_by_shape(nn.Sequential())
    (True, False)
    """
    kinds = (CountsProducts, nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED, nn.RNNBase)
    return isinstance(layer, kinds) or type(layer) is nn.MultiheadAttention


def _recurrent(layer: nn.RNNBase, x: Any) -> int:
    steps = (x.data if hasattr(x, "batch_sizes") else x).numel() // layer.input_size
    gates = {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
    sides, outputs = 2 if layer.bidirectional else 1, layer.proj_size or layer.hidden_size
    each = 0
    for number in range(layer.num_layers):
        features = layer.input_size if number == 0 else outputs * sides
        each += sides * (gates * layer.hidden_size * (features + outputs) + layer.proj_size * layer.hidden_size)
    return int(steps) * each


def _attention(layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> int:
    width = layer.embed_dim
    batch = math.prod(query.shape[:-1]) // query.shape[0 if not layer.batch_first or query.dim() == 2 else 1]
    queries, keys = (math.prod(x.shape[:-1]) // batch for x in (query, key))
    projections = queries * 2 * width * width + keys * width * (key.shape[-1] + value.shape[-1])
    return int(batch * (projections + 2 * queries * keys * width))


def products_of_call(
    function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
) -> tuple[int, Any, Any] | None:
    """The number of products of a call of torch, and the two operands; ``None`` for functions that multiply nothing.

    ``scaled_dot_product_attention`` counts both of its products as those of query and key, and weights and value.

    >>> products_of_call(torch.matmul, (torch.zeros(2, 3), torch.zeros(3, 4)), {}, torch.zeros(2, 4))[0]
    24
    """
    if function is torch.einsum and len(args) == 3 and isinstance(args[0], str):
        return _einsum(*args), args[1], args[2]
    names = _OPERANDS.get(function)
    if names is None:
        return None
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    operands = [given[name] for name in names]
    if function is F.scaled_dot_product_attention:
        query, key, value = operands
        scores = math.prod(query.shape[:-1]) * key.shape[-2]
        return int(scores * (query.shape[-1] + value.shape[-1])), query, key
    one, other = operands[-2:]
    if function in _OF_TRANSPOSED:
        return int(one.numel()) * math.prod(other.shape[1:]), one, other
    if function in _OF_CONVOLUTIONS:
        return int(output.numel()) * math.prod(other.shape[1:]), one, other
    return int(output.numel()) * int(one.shape[-1]), one, other


def _einsum(equation: str, *operands: Tensor) -> int:
    """The number of products of ``torch.einsum``: one for each combination of all its indices.

    >>> _einsum("ij,jk", torch.zeros(2, 3), torch.zeros(3, 4)), _einsum("...i,...k->k", torch.zeros(2, 3), torch.zeros(2, 4))
    (24, 24)
    """
    sizes: dict[str, int] = {}
    rest = []
    for term, operand in zip(equation.replace(" ", "").partition("->")[0].split(","), operands, strict=True):
        first, _, last = term.partition("...")
        sizes |= dict(zip(first, operand.shape, strict=False))
        sizes |= dict(zip(reversed(last), reversed(operand.shape), strict=False))
        rest.append(operand.shape[len(first) : operand.dim() - len(last)])
    return math.prod((*sizes.values(), *torch.broadcast_shapes(*rest)))
