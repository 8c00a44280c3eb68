"""Files for QONNX against those that Brevitas writes for the same network: what they compute, and every quantizer in them.

Scales are powers of two where the files add up in different orders, so that there is nothing to round in the sums.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import brevitas.quant.float_quant_ocp as bocp
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from torch import Tensor, nn

import quant_core.quant as q
import quant_nn as qnn
import quant_rnn as qrnn
from quant_core.export import capture, lower

DOMAIN = "qonnx.custom_op.general"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file, and what can be read in it."""

    model: onnx.ModelProto

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    @property
    def quantizers(self) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if node.domain == DOMAIN]

    @property
    def operators(self) -> list[onnx.NodeProto]:
        """What is not a quantizer."""
        return [node for node in self.model.graph.node if node.domain != DOMAIN]

    @staticmethod
    def attributes(node: onnx.NodeProto) -> dict[str, Any]:
        return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}

    def trace(self, x: Tensor) -> dict[str, np.ndarray]:
        """Every value, by name."""
        (entry,) = self.model.graph.input
        values: dict[str, np.ndarray] = execute_onnx(
            ModelWrapper(self.model), {entry.name: x.numpy()}, return_full_exec_context=True
        )
        return values

    def output(self, x: Tensor) -> np.ndarray:
        return self.trace(x)[self.model.graph.output[0].name]


class Chain(nn.Sequential):
    """Layers, one after the other, that hand on plain tensors in the end."""

    def forward(self, x: Tensor) -> Tensor:
        result = super().forward(x)
        return getattr(result, "value", result)


class Residual(nn.Module):
    """A convolution beside a shortcut, both quantized by one quantizer."""

    def __init__(self, library: Any) -> None:
        super().__init__()
        self.sum = library.QuantIdentity(bit_width=4, return_quant_tensor=True, collect_stats_steps=1)
        self.conv = library.QuantConv2d(2, 2, 3, padding=1, weight_bit_width=4, bias=False)
        self.relu = library.QuantReLU(bit_width=4, collect_stats_steps=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sum(x)
        return self.relu(x + self.sum(self.conv(x)))


def activations(library: Any, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Quantizers before and after a layer."""
    options |= {"bit_width": 4, "return_quant_tensor": True, "collect_stats_steps": 1}
    return library.QuantIdentity(**options), library.QuantReLU(**options)


def convolution(library: Any, presets: Any, **options: Any) -> nn.Module:
    entry, relu = activations(library)
    options |= {"weight_bit_width": 4, "bias_quant": presets.Int8Bias, "return_quant_tensor": True}
    return Chain(entry, library.QuantConv2d(2, 3, 3, **options), relu)


def linear(library: Any, presets: Any, *, bias: bool = True, **options: Any) -> nn.Module:
    entry, _ = activations(library, restrict_scaling_type="power_of_two")
    options |= {"weight_bit_width": 4, "weight_restrict_scaling_type": "power_of_two"}
    options |= {"bias_quant": presets.Int8Bias} if bias else {}
    return Chain(entry, nn.Flatten(), library.QuantLinear(72, 5, bias=bias, **options))


def few_levels(library: Any, presets: Any, name: str) -> nn.Module:
    entry = library.QuantIdentity(getattr(presets, f"Signed{name}ActPerTensorConst"))
    weights = getattr(presets, f"Signed{name}WeightPerTensorConst")
    return Chain(entry, library.QuantConv2d(2, 5, 3, weight_quant=weights, bias=False))


def pooled(library: Any, presets: Any, name: str) -> nn.Module:
    _, relu = activations(library)
    return Chain(relu, library.TruncAvgPool2d(2, trunc_quant=getattr(presets, name), bit_width=4))


def minifloats(library: Any, presets: Any) -> nn.Module:
    presets = q if presets is q else bocp  # of its other families, Brevitas exports none
    entry = library.QuantIdentity(presets.Fp8e4m3OCPActPerTensorFloat, collect_stats_steps=1)
    weights = {"weight_quant": presets.Fp8e4m3OCPWeightPerTensorFloat, "bias": False}
    return Chain(entry, library.QuantConv2d(2, 5, 3, **weights))


NETS: dict[str, Callable[[Any, Any], nn.Module]] = {
    "convolution": convolution,
    "convolution, per channel": lambda n, p: convolution(n, p, weight_scaling_per_output_channel=True),
    "linear": linear,
    "linear, per channel": lambda n, p: linear(n, p, weight_scaling_per_output_channel=True),
    "linear, no bias": lambda n, p: linear(n, p, bias=False),
    "binary": lambda n, p: few_levels(n, p, "Binary"),
    "ternary": lambda n, p: few_levels(n, p, "Ternary"),
    "average pool, floor": lambda n, p: pooled(n, p, "TruncTo8bit"),
    "average pool, round": lambda n, p: pooled(n, p, "RoundTo8bit"),
    "residual": lambda n, p: Residual(n),
    "minifloats": minifloats,
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both files of a network, and what went in."""

    ours: File
    theirs: File
    x: Tensor


@cache
def pair(name: str) -> Pair:
    return written(NETS[name])


def written(build: Callable[[Any, Any], nn.Module]) -> Pair:
    torch.manual_seed(0)
    x = torch.randn(2, 2, 6, 6)
    mine, other = build(qnn, q), build(bnn, bq)
    parameters = dict(other.named_parameters())
    with torch.no_grad():
        for key, parameter in mine.named_parameters():
            if key.endswith((".weight", ".bias")):
                parameters[key].copy_(parameter)
    for net in (mine, other):
        for layer in net.modules():
            if hasattr(layer, "weight_quant"):
                layer.weight_quant.init_tensor_quant()
        net(x)
        net.eval()
    assert torch.equal(mine(x), other(x))
    ours = onnx.load_from_string(lower(capture(mine, (x,)), "qonnx").content())
    return Pair(ours=File(model=ours), theirs=File(model=written_there(other, x)), x=x)


def written_there(net: nn.Module, x: Tensor, **options: Any) -> onnx.ModelProto:
    """Brevitas's file; what its exporter and torch say meanwhile is none of ours."""
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        warnings.simplefilter("ignore")
        from brevitas.export import export_qonnx

        return export_qonnx(net, args=(x,), **options)


@pytest.mark.parametrize("name", NETS)
def test_both_files_compute_the_same_to_the_bit(name: str) -> None:
    found = pair(name)
    ours, theirs = found.ours.output(found.x), found.theirs.output(found.x)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", NETS)
def test_quantizers_have_the_same_attributes_and_operands(name: str) -> None:
    found = pair(name)
    for ours, theirs in zip(found.ours.quantizers, found.theirs.quantizers, strict=True):
        assert ours.op_type == theirs.op_type
        expected = File.attributes(theirs)
        if ours.op_type in ("Trunc", "FloatQuant"):  # qonnx takes both; its specification has upper case
            expected["rounding_mode"] = expected["rounding_mode"].upper()
        assert File.attributes(ours) == expected
        for mine, other in zip(ours.input[1:], theirs.input[1:], strict=True):
            one, two = found.ours.constants[mine], found.theirs.constants[other]
            turned = two.T if two.ndim == 2 else two  # per channel of a linear layer
            np.testing.assert_array_equal(*np.broadcast_arrays(one, turned))
            assert one.dtype == two.dtype == np.float32


@pytest.mark.parametrize("name", NETS)
def test_operands_have_the_same_shapes_save_those_that_we_write_otherwise(name: str) -> None:
    found = pair(name)
    differing = set()
    for ours, theirs in zip(found.ours.quantizers, found.theirs.quantizers, strict=True):
        for position, (mine, other) in enumerate(zip(ours.input[1:], theirs.input[1:], strict=True), start=1):
            one, two = found.ours.constants[mine].shape, found.theirs.constants[other].shape
            if one != two:
                differing.add((ours.op_type, position, len(one), len(two)))
    expected = {
        "convolution": {("Quant", 2, 1, 0)},  # the zero-point of a bias
        "convolution, per channel": {("Quant", 2, 1, 0)},
        "linear": {("Quant", 2, 1, 0)},
        "linear, per channel": {("Quant", 1, 2, 2), ("Quant", 2, 1, 0)},  # the scale is turned as the weight is
        "binary": {("BipolarQuant", 1, 0, 1)},
    }
    assert differing == expected.get(name, set())


@pytest.mark.parametrize("name", NETS)
def test_stored_weights_are_theirs_after_their_quantizer(name: str) -> None:
    found = pair(name)
    rounded = found.theirs.trace(found.x)
    for ours, theirs in zip(found.ours.quantizers, found.theirs.quantizers, strict=True):
        stored = found.ours.constants.get(ours.input[0])
        assert (stored is None) == (theirs.input[0] not in found.theirs.constants)
        if stored is not None:
            expected = rounded[theirs.output[0]]
            np.testing.assert_array_equal(stored, expected.T if name.startswith("linear") else expected)


def test_weights_that_are_rounded_down_are_so_in_our_file_and_to_nearest_in_theirs() -> None:
    found = written(lambda n, p: convolution(n, p, weight_float_to_int_impl_type="floor"))
    ours, theirs = (file.quantizers[1] for file in (found.ours, found.theirs))
    assert File.attributes(ours)["rounding_mode"] == File.attributes(theirs)["rounding_mode"] == b"ROUND"
    weight, scale = (found.theirs.constants[name] for name in theirs.input[:2])
    np.testing.assert_array_equal(found.theirs.trace(found.x)[theirs.output[0]], np.round(weight / scale) * scale)
    values = found.ours.trace(found.x)
    np.testing.assert_array_equal(values[ours.output[0]], np.maximum(np.floor(weight / scale), -7) * scale)


@pytest.mark.parametrize("name", NETS)
def test_what_stands_between_the_quantizers_is_the_same_operators(name: str) -> None:
    found = pair(name)
    expected = []
    for node in found.theirs.operators:
        expected += {"Gemm": ["MatMul", "Add"][: len(node.input) - 1], "Reshape": ["Flatten"]}.get(
            node.op_type, [node.op_type]
        )
    assert [node.op_type for node in found.ours.operators] == expected
    for ours, theirs in zip(found.ours.operators, found.theirs.operators, strict=False):
        if ours.op_type == theirs.op_type:
            assert File.attributes(ours) == File.attributes(theirs)
    assert {domain.domain: domain.version for domain in found.ours.model.opset_import}[DOMAIN] == {
        domain.domain: domain.version for domain in found.theirs.model.opset_import
    }[DOMAIN]


def test_constants_are_named_after_the_modules_in_our_file() -> None:
    found = pair("convolution")
    owners = {name.partition(".")[0] for name in found.ours.constants}
    assert owners == {"0", "1", "2"}
    assert {"1.weight", "1.bias"} <= found.ours.constants.keys()
    assert "1.weight" not in found.theirs.constants
    assert [value.name for value in found.ours.model.graph.input] == ["x"]


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"coupled_input_forget_gates": True}, {"bias": False}])
def test_lstm_cells_have_the_same_operands_and_attributes(options: dict[str, Any]) -> None:
    x = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0))
    files = []
    for library in (bnn, qrnn):
        net = library.QuantLSTM(3, 4, **options)
        net(x)
        files.append(net.eval())
    theirs = File(model=written_there(files[0], x, dynamo=False))
    ours = File(model=onnx.load_from_string(lower(capture(files[1], (x,)), "qonnx", recurrent="cell").content()))
    pairs = [[node for node in file.quantizers if node.op_type == "QuantLSTMCell"] for file in (theirs, ours)]
    assert len(pairs[0]) == len(pairs[1]) > 0
    for one, other in zip(*pairs, strict=True):
        assert len(one.input) == len(other.input) == 48
        assert File.attributes(one) == File.attributes(other)
        made = [{node.output[0]: node for node in file.quantizers} for file in (theirs, ours)]
        for name, named in zip(one.input[3:15], other.input[3:15], strict=True):
            assert (name in made[0]) == (named in made[1])
            if name in made[0]:
                assert File.attributes(made[0][name]) == File.attributes(made[1][named])
