"""What each operation becomes in a script, and that the script gives every value of the model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn
from export_torchq.engines import ENGINES
from quant_core.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
    Uint8ActPerTensorFixedPointMaxInit,
)

from .grids import EXACT, PRESENT, Act, Lowered, Middle, lowered, values, with_each_engine

IMAGE = values(2, 4, 7, 9)


class Unsigned(Uint8ActPerTensorFixedPointMaxInit):
    scaling_impl_type = "const"
    scaling_init = 4.0


def assert_equal(found: Lowered, *inputs: Tensor) -> None:
    """Every value is that of the model, and the results are those of exact arithmetic: float64 holds all of these sums."""
    result = found.compared(*inputs)
    assert result.first_divergence is None
    assert result.compared == sum(quantizer.role == "activation" for quantizer in found.program.quantizers)
    exact = copy.deepcopy(found.model).double()(*(value.double() for value in inputs))
    given = found.artifact.run(*inputs).double()
    assert torch.equal(given, exact), (given - exact)[given != exact]


def calls(found: Lowered) -> list[str]:
    """The operators between the first quantization and the last dequantization."""
    every = list(found.artifact.calls)
    first, last = every.index("aten.quantize_per_tensor"), len(every) - every[::-1].index("aten.dequantize")
    return every[first + 1 : last - 1]


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "conv1d": (qnn.QuantConv1d(4, 6, 3, stride=2, padding=1, **EXACT), (2, 4, 9), "conv1d"),
    "conv2d": (qnn.QuantConv2d(4, 6, (3, 2), dilation=(2, 1), padding=(1, 0), **EXACT), (2, 4, 7, 9), "conv2d"),
    "conv3d": (qnn.QuantConv3d(4, 6, 3, **EXACT), (1, 4, 5, 4, 3), "conv3d"),
    "depthwise": (qnn.QuantConv2d(4, 8, 3, groups=4, **EXACT), (2, 4, 7, 9), "conv2d"),
    "same padding": (qnn.QuantConv2d(4, 6, 3, padding="same", **EXACT), (2, 4, 7, 9), "conv2d"),
    "no bias": (qnn.QuantConv2d(4, 6, 3, bias=False, weight_quant=EXACT["weight_quant"]), (2, 4, 7, 9), "conv2d"),
    "transposed 1d": (qnn.QuantConvTranspose1d(4, 6, 3, stride=2, **EXACT), (2, 4, 5), "conv_transpose1d"),
    "transposed 2d": (
        qnn.QuantConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, **EXACT),
        (2, 4, 5, 5),
        "conv_transpose2d",
    ),
    "linear": (qnn.QuantLinear(6, 5, True, **EXACT), (3, 6), "linear"),
    "linear of rows": (qnn.QuantLinear(6, 5, True, **EXACT), (3, 2, 6), "linear"),
}


_CONFUSED = "engine {} confuses input and output channels of transposed convolutions where their numbers differ"
IN_FLOATS = {
    ("conv3d", "qnnpack"): "engine qnnpack cannot save convolutions of volumes",
    ("transposed 1d", "x86"): _CONFUSED.format("x86"),
    ("transposed 1d", "onednn"): _CONFUSED.format("onednn"),
    ("transposed 2d", "onednn"): "engine onednn takes transposed convolutions without output_padding",
}
"""Layers that an engine does not compute in integers, or computes wrongly."""


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_one_operator_of_integers(name: str) -> None:
    layer, shape, operator = LAYERS[name]
    x = values(*shape)
    for engine, found in with_each_engine(Middle(layer), x):
        assert ([f"quantized.{operator}"] == calls(found)) == ((name, engine) not in IN_FLOATS), engine
        notes = [note.what for note in found.artifact.notes[1:]]
        floats = "this layer is computed in floats, between a dequantization and a quantization: "
        assert notes == ([floats + IN_FLOATS[name, engine]] if (name, engine) in IN_FLOATS else []), engine
        assert_equal(found, x)


_IN_HALVES = (
    "engine {} adds pairs of products of a depthwise convolution in 16 bits, which these weights overflow with 8-bit "
    "activations; unsigned activations of 7 bits fit"
)
_NARROW = (
    "engine {} may compute a transposed convolution of images wrongly that has a kernel of height 2, multiples of 8 channels, "
    "and neither groups nor padding"
)
WRONG_IN_FBGEMM: dict[str, tuple[nn.Module, str, dict[str, bool]]] = {
    "depthwise": (qnn.QuantConv2d(8, 8, 3, groups=8, padding=1, **EXACT), _IN_HALVES, {"fbgemm": True, "x86": False}),
    "depthwise, two for each": (
        qnn.QuantConv2d(8, 16, 5, groups=8, padding=2, **EXACT),
        _IN_HALVES,
        {"fbgemm": True, "x86": False},
    ),
    "depthwise, many": (
        qnn.QuantConv2d(104, 104, 3, groups=104, padding=1, **EXACT),
        _IN_HALVES,
        {"fbgemm": True, "x86": True},
    ),
    "depthwise of volumes": (
        qnn.QuantConv3d(8, 8, 3, groups=8, padding=1, **EXACT),
        _IN_HALVES,
        {"fbgemm": True, "x86": False},
    ),
    "transposed": (
        qnn.QuantConvTranspose2d(8, 8, 2, stride=2, **EXACT),
        _NARROW,
        {"fbgemm": True, "x86": True},
    ),
}
"""Layers that torch 2.13 computes wrongly in fbgemm, which the engine x86 uses too, for some layers or on some processors."""


@pytest.mark.parametrize("name", WRONG_IN_FBGEMM)
def test_what_fbgemm_computes_wrongly_is_computed_in_floats(name: str) -> None:
    layer, note, where = WRONG_IN_FBGEMM[name]
    with torch.no_grad():
        layer.weight.copy_(torch.where(layer.weight > -0.05, 1.0, -1.0) * layer.weight.abs().max())
    axes = layer.weight.dim() - 2
    x = values(1, layer.in_channels, *(5,) * axes).abs() + 2
    for engine, found in with_each_engine(Middle(layer), x):
        told = any(note.format(engine) in one.what for one in found.artifact.notes)
        assert told == where.get(engine, False), engine
        whole = any("quantized.conv" in call for call in calls(found))
        assert whole != (told or (axes == 3 and engine == "qnnpack")), engine
        assert found.compared(x).first_divergence is None, engine


def test_unsigned_activations_of_7_bits_overflow_nothing() -> None:
    if "fbgemm" not in PRESENT:
        pytest.skip("this build of torch lacks fbgemm")
    layer = WRONG_IN_FBGEMM["depthwise"][0]
    seven = Unsigned.let(bit_width=7)
    x = values(1, 8, 5, 5).abs() + 2
    found = lowered("torchq", Middle(layer, seven), x, engine="fbgemm")
    assert "quantized.conv2d" in calls(found)
    assert_equal(found, x)


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "linear"])
def test_a_relu_is_a_part_of_the_operator_before_it(name: str) -> None:
    layer, shape, operator = LAYERS[name]
    x = values(*shape)
    net = nn.Sequential(Middle(nn.Sequential(layer, nn.ReLU()), out=Unsigned))
    found = lowered("torchq", net, x)
    assert calls(found) == [f"quantized.{operator}_relu"]
    assert_equal(found, x)


def test_a_scale_for_each_channel() -> None:
    layer = qnn.QuantConv2d(4, 6, 3, weight_scaling_per_output_channel=True, **EXACT)
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([0.2, 1, 5, 0.5, 2, 8]).reshape(6, 1, 1, 1))
    found = lowered("torchq", Middle(layer), IMAGE)
    weight = next(quantizer for quantizer in found.program.quantizers if quantizer.role == "weight")
    assert weight.granularity == "per_channel"
    assert calls(found) == ["quantized.conv2d"]
    assert_equal(found, IMAGE)


@pytest.mark.parametrize("engine", ["x86", "fbgemm", "qnnpack"])
def test_unsigned_weights_with_a_zero_point(engine: str) -> None:
    if engine not in PRESENT:
        pytest.skip(f"this build of torch lacks {engine}")
    layer = qnn.QuantLinear(6, 5, bias=False, weight_quant=ShiftedUint8WeightPerTensorFloat)
    with torch.no_grad():
        layer.weight.add_(1)
    x = values(5, 6)
    found = lowered("torchq", Middle(layer), x, engine=engine)
    assert calls(found) == ["quantized.linear"]
    assert found.compared(x).equal


PAIRS: dict[str, Any] = {"add": lambda x, y: x + y, "mul": lambda x, y: x * y}


@pytest.mark.parametrize("name", PAIRS)
def test_two_values(name: str) -> None:
    x, y = values(2, 2, 4, 7, 9)
    found = lowered("torchq", Middle(PAIRS[name]), x, y)
    assert found.artifact.calls[2:-1] == (f"quantized.{name}",)
    assert_equal(found, x, y)


class Grids(nn.Module):
    """Two values on different grids, joined and rounded to a third one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = qnn.QuantIdentity(Act)
        self.other = qnn.QuantIdentity(Act, scaling_init=1.0)
        self.out = qnn.QuantIdentity(Act, scaling_init=2.0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        joined: Tensor = self.out(torch.cat([self.one(x), self.other(y)], 1))
        return joined


def test_concatenations_stay_on_their_grid_or_go_to_the_one_behind_them() -> None:
    x, y = values(2, 2, 4, 7, 9)
    same = lowered("torchq", Middle(lambda x, y: torch.cat([x, y], 1)), x, y)
    assert same.artifact.calls[2:-1] == ("aten.cat",)
    assert_equal(same, x, y)
    other = lowered("torchq", Grids(), x, y)
    assert other.artifact.calls[2:-1] == ("quantized.cat",)
    assert_equal(other, x, y)


MOVES: dict[str, tuple[Any, str]] = {
    "flatten": (lambda x: x.flatten(1), "flatten"),
    "permute": (lambda x: x.permute(0, 2, 3, 1), "permute"),
    "reshape": (lambda x: x.reshape(2, -1), "reshape"),
    "view": (lambda x: x.view(2, 2, -1), "reshape"),
    "slice": (lambda x: x[:, 1:3], "slice"),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 1)), "pad"),
    "max pool": (lambda x: F.max_pool2d(x, 3, 2, 1), "max_pool2d"),
    "max pool of its own stride": (lambda x: F.max_pool2d(x, 2, padding=1), "max_pool2d"),
    "relu": (torch.relu, "relu"),
    "enlarged": (lambda x: F.interpolate(x, scale_factor=2), "upsample_nearest2d"),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_values_is_done_on_integers(name: str) -> None:
    function, operator = MOVES[name]
    found = lowered("torchq", Middle(function, out=Act), IMAGE)
    assert f"aten.{operator}" in calls(found)
    assert not {"aten.dequantize", "aten.quantize_per_tensor"} & set(calls(found))
    assert_equal(found, IMAGE)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_edges_that_are_repeated(mode: str) -> None:
    found = lowered("torchq", Middle(lambda x: F.pad(x, (1, 1, 1, 1), mode=mode)), IMAGE)
    assert ("aten.dequantize" in calls(found)) == (mode != "reflect")
    assert_equal(found, IMAGE)


def test_an_average_on_the_grid_of_its_operand_is_one_of_integers_and_another_one_of_floats() -> None:
    same = lowered("torchq", Middle(lambda x: F.avg_pool2d(x, 2)), IMAGE)
    assert calls(same) == ["aten.avg_pool2d"]
    assert_equal(same, IMAGE)
    finer = type("Finer", (Act,), {"scaling_init": 2.0})
    other = lowered("torchq", Middle(lambda x: F.avg_pool2d(x, 2), out=finer), IMAGE)
    assert calls(other) == ["aten.dequantize", "aten.avg_pool2d", "aten.quantize_per_tensor"]
    assert_equal(other, IMAGE)


WRONG: dict[str, tuple[Any, tuple[int, ...], tuple[str, ...]]] = {
    "a point enlarged": (lambda x: F.interpolate(x, scale_factor=2), (2, 4, 1, 1), ENGINES),
    "a point of space enlarged": (lambda x: F.interpolate(x, scale_factor=2), (2, 4, 1, 1, 1), ENGINES),
    "a row enlarged": (lambda x: F.interpolate(x, size=(4, 3)), (2, 4, 1, 5), ENGINES),
    "a point averaged to more": (lambda x: F.adaptive_avg_pool2d(x, 2), (2, 4, 1, 1), ENGINES),
    "an average without its padding": (
        lambda x: F.avg_pool2d(x, 4, 2, 1, count_include_pad=False),
        (2, 4, 6, 6),
        ("qnnpack",),
    ),
    "a sum": (lambda x: F.avg_pool2d(x, 2, divisor_override=1), (2, 4, 6, 6), ("qnnpack",)),
    "the maximum of one": (lambda x: F.max_pool2d(x, 1, 2), (2, 4, 6, 6), ("qnnpack",)),
}
"""What torch 2.13 computes wrongly on quantized tensors, or not at all, and with which engines."""


@pytest.mark.parametrize("name", WRONG)
def test_what_torch_computes_wrongly_is_computed_in_floats(name: str) -> None:
    function, shape, engines = WRONG[name]
    x = values(*shape)
    for engine, found in with_each_engine(Middle(function), x):
        assert ("aten.dequantize" in calls(found)) == (engine in engines)
        assert found.compared(x).first_divergence is None


def test_transposed_convolutions_of_groups_with_a_scale_for_each_channel() -> None:
    layer = qnn.QuantConvTranspose2d(4, 6, 3, groups=2, weight_scaling_per_output_channel=True, **EXACT)
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([0.2, 1, 5]).reshape(1, 3, 1, 1))
    for _, found in with_each_engine(Middle(layer), IMAGE):
        assert "quantized.conv_transpose2d" not in calls(found)
        assert_equal(found, IMAGE)


def test_what_torch_has_no_integers_for_is_computed_in_floats() -> None:
    found = lowered("torchq", Middle(torch.tanh), IMAGE)
    assert calls(found) == ["aten.dequantize", "aten.tanh", "aten.quantize_per_tensor"]
    assert_equal(found, IMAGE)


def test_a_last_layer_without_an_output_quantizer_gives_the_floats_of_the_model() -> None:
    net = nn.Sequential(qnn.QuantIdentity(Act, return_quant_tensor=True), qnn.QuantLinear(9, 3, bias=True))
    found = lowered("torchq", net, IMAGE)
    assert "quantized.linear" not in found.artifact.calls
    assert torch.equal(found.artifact.run(IMAGE), net(IMAGE))


def test_rows_of_a_table_are_packed_bytes() -> None:
    table = qnn.QuantEmbedding(10, 8, weight_quant=EXACT["weight_quant"])
    indices = torch.tensor([[1, 9], [0, 3]])
    found = lowered("torchq", table, indices)
    assert found.artifact.calls == ("quantized.embedding_byte",)
    assert torch.equal(found.artifact.run(indices), table(indices))


@settings(max_examples=10, deadline=None)
@given(
    bits=st.integers(2, 8),
    signed=st.booleans(),
    narrow=st.booleans(),
    exponent=st.integers(-2, 3),
    seed=st.integers(0, 99),
    engine=st.sampled_from(PRESENT),
)
def test_any_range_of_activations(bits: int, signed: bool, narrow: bool, exponent: int, seed: int, engine: str) -> None:
    grid: dict[str, Any] = {"bit_width": bits, "signed": signed, "narrow_range": narrow and signed}
    chosen = Act.let(scaling_init=2.0**exponent, **grid)
    x = 3 * values(2, 4, 5, 5, seed=seed)
    found = lowered("torchq", Middle(qnn.QuantConv2d(4, 3, 3, **EXACT), chosen, chosen), x, engine=engine)
    assert "quantized.conv2d" in calls(found)
    assert_equal(found, x)


def test_scales_that_are_no_powers_of_two_differ_by_ties_only() -> None:
    act = {"output_quant": Int8ActPerTensorFloat, "bias_quant": None, "weight_quant": Int8WeightPerTensorFloat}
    net = nn.Sequential(
        qnn.QuantIdentity(ShiftedUint8ActPerTensorFloat, return_quant_tensor=True), qnn.QuantConv2d(4, 16, 3, **act)
    )
    for _ in range(3):
        net(torch.randn(8, 4, 7, 9) + 0.5)
    found = lowered("torchq", net, IMAGE)
    assert calls(found) == ["quantized.conv2d"]
    assert found.compared(IMAGE).equal
