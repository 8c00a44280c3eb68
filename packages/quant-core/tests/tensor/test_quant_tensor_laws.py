"""Laws of operations on quantized tensors, held for every operation of the table of rules.

Each call below takes two tensors of shape (2, 4, 6, 6), both quantized on one grid or both plain, so that the results
can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quant_core.tensor import RULES, QuantTensor

Call = Callable[[Any, Any], Any]

MASK = torch.arange(2 * 4 * 6 * 6).reshape(2, 4, 6, 6) % 3 == 0
INDEX = torch.arange(2 * 4 * 6 * 6).reshape(2, 4, 6, 6) % 4
KERNEL = torch.linspace(-1, 1, 2 * 4 * 3 * 3).reshape(2, 4, 3, 3)
MATRIX = torch.linspace(-1, 1, 18).reshape(3, 6)


def volume(x: Any) -> Any:
    return x.unsqueeze(2)  # (N, C, 1, H, W)


MOVES: dict[str, Call] = {
    "__getitem__": lambda x, y: x[1, 1:3, ..., ::2],
    "broadcast_to": lambda x, y: torch.broadcast_to(x, (3, 2, 4, 6, 6)),
    "channel_shuffle": lambda x, y: F.channel_shuffle(x, 2),
    "chunk": lambda x, y: x.chunk(2, 1),
    "diagonal": lambda x, y: x.diagonal(0, 2, 3),
    "dsplit": lambda x, y: x.dsplit(2),
    "expand": lambda x, y: x.expand(3, -1, -1, -1, -1),
    "expand_as": lambda x, y: x.expand_as(y),
    "flatten": lambda x, y: torch.flatten(x, 1),
    "flip": lambda x, y: x.flip(1, 2),
    "fliplr": lambda x, y: torch.fliplr(x),
    "flipud": lambda x, y: torch.flipud(x),
    "gather": lambda x, y: x.gather(1, INDEX),
    "hsplit": lambda x, y: x.hsplit(2),
    "index_select": lambda x, y: x.index_select(1, torch.tensor([3, 0])),
    "masked_select": lambda x, y: x.masked_select(MASK),
    "movedim": lambda x, y: x.movedim(1, -1),
    "moveaxis": lambda x, y: torch.moveaxis(x, 1, 0),
    "narrow": lambda x, y: x.narrow(1, 1, 2),
    "permute": lambda x, y: x.permute(0, 2, 3, 1),
    "pixel_shuffle": lambda x, y: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x, y: F.pixel_unshuffle(x, 2),
    "ravel": lambda x, y: x.ravel(),
    "repeat": lambda x, y: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x, y: x.repeat_interleave(2, dim=1),
    "reshape": lambda x, y: x.reshape(2, 2, 2, -1),
    "reshape_as": lambda x, y: x.reshape_as(y),
    "roll": lambda x, y: torch.roll(x, 1, 1),
    "rot90": lambda x, y: x.rot90(1, (1, 2)),
    "select": lambda x, y: x.select(1, 2),
    "split": lambda x, y: torch.split(x, [1, 3], 1),
    "split_with_sizes": lambda x, y: x.split_with_sizes([1, 3], 1),
    "squeeze": lambda x, y: x[:1].squeeze(),
    "swapaxes": lambda x, y: x.swapaxes(1, 2),
    "swapdims": lambda x, y: x.swapdims(1, 2),
    "t": lambda x, y: x[:, :, 0, 0].t(),
    "take": lambda x, y: x.take(torch.tensor([0, 40, 287])),
    "take_along_dim": lambda x, y: torch.take_along_dim(x, INDEX, 1),
    "tensor_split": lambda x, y: x.tensor_split(3, 1),
    "tile": lambda x, y: x.tile(1, 2, 1, 1),
    "transpose": lambda x, y: x.transpose(1, 3),
    "unbind": lambda x, y: x.unbind(1),
    "unflatten": lambda x, y: x.unflatten(1, (2, 2)),
    "Tensor.unfold": lambda x, y: x.unfold(2, 3, 1),
    "unsqueeze": lambda x, y: x.unsqueeze(1),
    "view": lambda x, y: x.view(2, -1),
    "view_as": lambda x, y: x.view_as(y),
    "vsplit": lambda x, y: torch.vsplit(x, 2),
}

KEEPS: dict[str, Call] = {
    "__pos__": lambda x, y: +x,
    "clone": lambda x, y: x.clone(),
    "contiguous": lambda x, y: x.contiguous(),
    "detach": lambda x, y: x.detach(),
    "positive": lambda x, y: torch.positive(x),
    "bfloat16": lambda x, y: x.bfloat16(),
    "cpu": lambda x, y: x.cpu(),
    "double": lambda x, y: x.double(),
    "float": lambda x, y: x.float(),
    "half": lambda x, y: x.half(),
    "to": lambda x, y: x.to(torch.float64),
    "type": lambda x, y: x.type(torch.float64),
    "type_as": lambda x, y: x.type_as(y),
    "relu": lambda x, y: F.relu(x),
    "masked_fill": lambda x, y: x.masked_fill(MASK, 0.0),
    "tril": lambda x, y: x.tril(),
    "triu": lambda x, y: torch.triu(x),
    "constant_pad_nd": lambda x, y: torch.constant_pad_nd(x, (1, 1), 0),
    "pad": lambda x, y: F.pad(x, (1, 2, 1, 0), mode="reflect"),
    "functional.unfold": lambda x, y: F.unfold(x, 3, padding=1),
    "alpha_dropout": lambda x, y: F.alpha_dropout(x),
    "dropout": lambda x, y: F.dropout(x, 0.5, training=False),
    "dropout1d": lambda x, y: F.dropout1d(x[0], training=False),
    "dropout2d": lambda x, y: F.dropout2d(x, training=False),
    "dropout3d": lambda x, y: F.dropout3d(volume(x), training=False),
    "feature_alpha_dropout": lambda x, y: F.feature_alpha_dropout(x),
    "feature_dropout": lambda x, y: torch.feature_dropout(x, 0.5, False),
    "interpolate": lambda x, y: F.interpolate(x, scale_factor=2, mode="nearest-exact"),
    "upsample": lambda x, y: torch.nn.Upsample(scale_factor=2)(x),
    "upsample_nearest": lambda x, y: torch.nn.UpsamplingNearest2d(scale_factor=2)(x),
    "adaptive_max_pool1d": lambda x, y: F.adaptive_max_pool1d(x[0], 3),
    "adaptive_max_pool1d_with_indices": lambda x, y: F.adaptive_max_pool1d(x[0], 3, return_indices=True)[0],
    "adaptive_max_pool2d": lambda x, y: F.adaptive_max_pool2d(x, 3),
    "adaptive_max_pool2d_with_indices": lambda x, y: F.adaptive_max_pool2d_with_indices(x, 3)[0],
    "adaptive_max_pool3d": lambda x, y: F.adaptive_max_pool3d(volume(x), (1, 3, 3)),
    "adaptive_max_pool3d_with_indices": lambda x, y: F.adaptive_max_pool3d_with_indices(volume(x), (1, 3, 3))[0],
    "max_pool1d": lambda x, y: F.max_pool1d(x[0], 2),
    "max_pool1d_with_indices": lambda x, y: F.max_pool1d(x[0], 2, return_indices=True)[0],
    "max_pool2d": lambda x, y: F.max_pool2d(x, 3, padding=1),
    "max_pool2d_with_indices": lambda x, y: F.max_pool2d(x, 2, return_indices=True)[0],
    "max_pool3d": lambda x, y: F.max_pool3d(volume(x), (1, 2, 2)),
    "max_pool3d_with_indices": lambda x, y: F.max_pool3d_with_indices(volume(x), (1, 2, 2))[0],
    "amax": lambda x, y: x.amax((2, 3)),
    "amin": lambda x, y: x.amin(3, keepdim=True),
    "cat": lambda x, y: torch.cat([x, y], 1),
    "column_stack": lambda x, y: torch.column_stack((x, y)),
    "concat": lambda x, y: torch.concat((x, y), dim=2),
    "concatenate": lambda x, y: torch.concatenate((x, y)),
    "dstack": lambda x, y: torch.dstack((x, y)),
    "hstack": lambda x, y: torch.hstack((x, y)),
    "row_stack": lambda x, y: torch.row_stack((x, y)),
    "stack": lambda x, y: torch.stack([x, y], 1),
    "vstack": lambda x, y: torch.vstack((x, y)),
    "max": lambda x, y: torch.max(x, y),
    "maximum": lambda x, y: torch.maximum(x, y),
    "min": lambda x, y: torch.min(x, y),
    "minimum": lambda x, y: x.minimum(y),
    "Tensor.where": lambda x, y: x.where(MASK, y),
    "torch.where": lambda x, y: torch.where(MASK, x, y),
}

CHANGES: dict[str, Call] = {
    "__add__": lambda x, y: x + y,
    "__radd__": lambda x, y: x.__radd__(y),
    "__rsub__": lambda x, y: x.__rsub__(y),
    "__sub__": lambda x, y: x - y,
    "add": lambda x, y: torch.add(x, other=y),
    "rsub": lambda x, y: torch.rsub(x, y),
    "sub": lambda x, y: x.sub(y),
    "subtract": lambda x, y: torch.subtract(x, y),
    "__neg__": lambda x, y: -x,
    "neg": lambda x, y: torch.neg(x),
    "negative": lambda x, y: x.negative(),
    "__abs__": lambda x, y: abs(x),
    "abs": lambda x, y: torch.abs(x),
    "absolute": lambda x, y: x.absolute(),
    "__mul__": lambda x, y: x * y,
    "__rmul__": lambda x, y: 3 * x,
    "__truediv__": lambda x, y: x / 2.0,
    "div": lambda x, y: torch.div(x, 4),
    "divide": lambda x, y: x.divide(0.3),
    "mul": lambda x, y: torch.mul(x, y),
    "multiply": lambda x, y: x.multiply(0.3),
    "true_divide": lambda x, y: x.true_divide(7),
    "__matmul__": lambda x, y: x @ y,
    "__rmatmul__": lambda x, y: x.__rmatmul__(y),
    "bmm": lambda x, y: torch.bmm(x[0], y[1]),
    "matmul": lambda x, y: torch.matmul(x, y),
    "mm": lambda x, y: torch.mm(x[0, 0], y[1, 0]),
    "mean": lambda x, y: x.mean((2, 3)),
    "sum": lambda x, y: x.sum(2, keepdim=True),
    "adaptive_avg_pool1d": lambda x, y: F.adaptive_avg_pool1d(x[0], 3),
    "adaptive_avg_pool2d": lambda x, y: F.adaptive_avg_pool2d(x, (2, None)),
    "adaptive_avg_pool3d": lambda x, y: F.adaptive_avg_pool3d(volume(x), (1, 2, 2)),
    "avg_pool1d": lambda x, y: F.avg_pool1d(x[0], 2),
    "avg_pool2d": lambda x, y: F.avg_pool2d(x, 3, stride=1, padding=1),
    "avg_pool3d": lambda x, y: F.avg_pool3d(volume(x), (1, 3, 2)),
}

UNARY = """argmax argmin argsort cos exp isnan median norm ones_like prod reciprocal round sigmoid sign sin sort sqrt
    square std tan tanh var zeros_like log"""
ACTIVATIONS = """celu elu gelu hardsigmoid hardswish hardtanh instance_norm leaky_relu mish normalize relu6 selu silu
    softplus"""
ALONG_AN_AXIS = "cumprod cumsum log_softmax logsumexp softmax topk"
BINARY = "eq floor_divide ge gt le lt ne remainder"

COMPUTES: dict[str, Call] = {
    **{name: (lambda x, y, name=name: getattr(torch, name)(x)) for name in UNARY.split()},
    **{name: (lambda x, y, name=name: getattr(F, name)(x)) for name in ACTIVATIONS.split()},
    **{name: (lambda x, y, name=name: getattr(torch, name)(x, 1)) for name in ALONG_AN_AXIS.split()},
    **{name: (lambda x, y, name=name: getattr(torch, name)(x, y)) for name in BINARY.split()},
    "addbmm": lambda x, y: torch.addbmm(x[0, 0], x[0], y[0]),
    "addcmul": lambda x, y: torch.addcmul(x, x, y),
    "addmm": lambda x, y: torch.addmm(x[0, 0], x[0, 0], y[0, 0]),
    "batch_norm": lambda x, y: torch.nn.BatchNorm2d(4).eval()(x),
    "bilinear": lambda x, y: F.bilinear(x, y, torch.ones(2, 6, 6)),
    "clamp": lambda x, y: torch.clamp(x, -1, 1),
    "clip": lambda x, y: x.clip(0, 1),
    "conv1d": lambda x, y: F.conv1d(x[..., 0], KERNEL[..., 0]),
    "conv2d": lambda x, y: F.conv2d(x, KERNEL),
    "conv3d": lambda x, y: F.conv3d(volume(x), KERNEL.unsqueeze(2)),
    "conv_transpose1d": lambda x, y: F.conv_transpose1d(x[..., 0], KERNEL[..., 0].transpose(0, 1)),
    "conv_transpose2d": lambda x, y: F.conv_transpose2d(x, KERNEL.transpose(0, 1)),
    "conv_transpose3d": lambda x, y: F.conv_transpose3d(volume(x), KERNEL.transpose(0, 1).unsqueeze(2)),
    "cosine_similarity": lambda x, y: F.cosine_similarity(x, y),
    "cross_entropy": lambda x, y: F.cross_entropy(x[0, 0], torch.arange(6)),
    "einsum": lambda x, y: torch.einsum("nchw,ncwk->nchk", x, y),
    "fill": lambda x, y: torch.fill(x, 1.0),
    "glu": lambda x, y: F.glu(x, 1),
    "group_norm": lambda x, y: F.group_norm(x, 2),
    "layer_norm": lambda x, y: F.layer_norm(x, (6,)),
    "linear": lambda x, y: F.linear(x, MATRIX),
    "mse_loss": lambda x, y: F.mse_loss(x, y),
    "pow": lambda x, y: torch.pow(x, 2),
    "prelu": lambda x, y: F.prelu(x, torch.tensor([0.1])),
    "scaled_dot_product_attention": lambda x, y: F.scaled_dot_product_attention(x, y, x),
    "__eq__": lambda x, y: x == y,
    "__ge__": lambda x, y: x >= 0,
    "__gt__": lambda x, y: x > y,
    "__le__": lambda x, y: x <= y,
    "__lt__": lambda x, y: x < 0,
    "__ne__": lambda x, y: x != y,
    "__pow__": lambda x, y: x**2,
    "__rtruediv__": lambda x, y: 2.0 / x,
}

CASES: dict[str, Call] = {**MOVES, **KEEPS, **CHANGES, **COMPUTES}

ACROSS_CHANNELS = frozenset({"functional.unfold", "__matmul__", "__rmatmul__", "bmm", "matmul"})
PRODUCTS = frozenset(
    {"__abs__", "abs", "absolute", "__mul__", "mul", "__matmul__", "__rmatmul__", "bmm", "matmul", "mm"}
)
PLAIN = {"per_tensor": frozenset(), "per_channel": ACROSS_CHANNELS, "asymmetric": ACROSS_CHANNELS | PRODUCTS}
"""Operations whose rule has a condition that the operands of their case do not meet."""

RESULTS = {operation: rule.result for rule in RULES for operation in rule.operations}
CHANNELS = torch.tensor([0.3, 0.25, 0.7, 0.01]).reshape(1, 4, 1, 1)
SCALES = {
    "per_tensor": (torch.tensor(0.3), torch.tensor(0.0)),
    "per_channel": (CHANNELS, torch.zeros(1, 4, 1, 1)),
    "asymmetric": (CHANNELS, torch.tensor([-3.0, 0.0, 5.0, 1.0]).reshape(1, 4, 1, 1)),
}
GRIDS = pytest.mark.parametrize("granularity", SCALES)
OPERATIONS = pytest.mark.parametrize("operation", CASES)


def operands(granularity: str, *, training: bool = False) -> tuple[QuantTensor, QuantTensor]:
    """Two leaves on one grid of 4 bits."""
    scale, zero_point = SCALES[granularity]
    generator = torch.Generator().manual_seed(7)
    grid = scale, zero_point, torch.tensor(4.0)
    x, y = (
        QuantTensor(
            ((torch.randint(-8, 8, (2, 4, 6, 6), generator=generator) - zero_point) * scale).requires_grad_(),
            *grid,
            signed=True,
            training=training,
            symmetric=granularity != "asymmetric",
        )
        for _ in range(2)
    )
    return x, y


def parts(result: Any) -> list[Any]:
    return list(result) if isinstance(result, list | tuple) else [result]


def plain(part: Any) -> Tensor:
    return part.value if isinstance(part, QuantTensor) else part


def test_each_operation_of_the_table_has_a_case_and_one_rule():
    assert sorted([*CASES, "cuda"]) == sorted(operation for rule in RULES for operation in rule.operations)


@GRIDS
@OPERATIONS
def test_the_value_is_that_of_the_operation_on_values(operation: str, granularity: str):
    x, y = operands(granularity)
    for got, want in zip(parts(CASES[operation](x, y)), parts(CASES[operation](x.value, y.value)), strict=True):
        assert torch.equal(plain(got).nan_to_num(), want.nan_to_num())
        assert plain(got).dtype == want.dtype


@pytest.mark.parametrize("training", [False, True])
@GRIDS
@OPERATIONS
def test_the_result_is_quantized_if_and_only_if_the_rule_says_so(operation: str, granularity: str, training: bool):
    quantized = RESULTS[operation] != "plain" and operation not in PLAIN[granularity]
    for part in parts(CASES[operation](*operands(granularity, training=training))):
        assert isinstance(part, QuantTensor) is quantized


@GRIDS
@OPERATIONS
def test_a_quantized_result_is_valid_and_its_integers_give_its_value(operation: str, granularity: str):
    for part in parts(CASES[operation](*operands(granularity))):
        if not isinstance(part, QuantTensor):
            continue
        assert part.is_valid
        assert not part.int().is_floating_point()
        exact = (part.int().double() - part.zero_point) * part.scale
        tolerance = 2 * max(torch.finfo(kind).eps for kind in (part.dtype, part.scale.dtype))
        largest = float(part.scale.max())
        torch.testing.assert_close(part.value.double(), exact, rtol=tolerance, atol=100 * tolerance * largest)


@GRIDS
@pytest.mark.parametrize("operation", [name for name, result in RESULTS.items() if result == "kept" and name in CASES])
def test_a_kept_grid_keeps_bits_and_sign(operation: str, granularity: str):
    x, y = operands(granularity)
    for part in parts(CASES[operation](x, y)):
        if isinstance(part, QuantTensor):
            assert (part.bit_width, part.signed, part.symmetric) == (x.bit_width, x.signed, x.symmetric)
            assert granularity != "per_tensor" or torch.equal(part.scale, x.scale)


@GRIDS
@pytest.mark.parametrize("operation", [name for name in CASES if name != "floor_divide"])  # torch gives it no gradient
def test_the_gradient_is_that_of_the_operation_on_values(operation: str, granularity: str):
    x, y = operands(granularity)
    want_x, want_y = (t.value.detach().clone().requires_grad_() for t in (x, y))
    gradients = []
    for leaves, result in (
        ((x.value, y.value), CASES[operation](x, y)),
        ((want_x, want_y), CASES[operation](want_x, want_y)),
    ):
        total = sum((plain(part).double() ** 2).nan_to_num().sum() for part in parts(result))
        differentiable = isinstance(total, Tensor) and total.requires_grad
        gradients.append(torch.autograd.grad(total, leaves, allow_unused=True) if differentiable else (None, None))
    for got, want in zip(*gradients, strict=True):
        assert (got is None) == (want is None)
        assert got is None or torch.equal(got.nan_to_num(), want.nan_to_num())
