"""Activation quantizers of QONNX: the integers that qonnx's executor computes are those of the model, on every grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import BinaryQuant, ConstScaling, ConstZeroPoint
from quant_core.ops import integer_range, quantize_ternary, quantize_trunc
from quant_core.tensor import QuantTensor

CHANNELS = 4
PER_CHANNEL = [[0.3], [1.7], [5.0], [33.0]]  # thresholds whose scales are no powers of two, so that divisions round
MODES = ("ROUND", "FLOOR", "CEIL", "TO_ZERO", "HALF_UP")


def grids() -> Iterator[dict[str, Any]]:
    """The options of a quantizer for each grid and rounding mode that the format has."""
    for bits, signed, narrow, mode in itertools.product(range(2, 9), (True, False), (True, False), MODES):
        if mode != "ROUND" and (bits not in (2, 5, 8) or narrow or (mode == "HALF_UP" and signed)):
            continue
        low, high = (int(bound) for bound in integer_range(bits, signed=signed, narrow_range=narrow))
        integers = {"bit_width": bits, "signed": signed, "narrow_range": narrow, "scaling_impl": ConstScaling}
        integers |= {"rounding_mode": mode}
        whole = integers | {"scaling_init": 1.9}
        channels = integers | {
            "scaling_init": torch.tensor(PER_CHANNEL),
            "scaling_per_output_channel": True,
            "per_channel_broadcastable_shape": (CHANNELS, 1),
        }
        yield whole
        if mode != "ROUND":
            continue
        yield channels
        if narrow or bits not in (2, 5, 8):
            continue
        yield whole | {"zero_point_impl": ConstZeroPoint, "zero_point_init": high}
        yield channels | {
            "zero_point_impl": ConstZeroPoint,
            "zero_point_init": [[low], [low + 1], [high - 1], [high]],
        }


class Activations(nn.Module):
    """One input through each quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = nn.ModuleList(qnn.QuantIdentity(return_quant_tensor=True, **grid) for grid in grids())
        self.relu = nn.ModuleList(
            qnn.QuantReLU(return_quant_tensor=True, bit_width=bits, scaling_impl=ConstScaling, scaling_init=1.9)
            for bits in range(2, 9)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [quantizer(x).value for quantizer in (*self.identity, *self.relu)]

    def results(self, x: Tensor) -> list[QuantTensor]:
        """What each quantizer gives, in the order of the outputs."""
        return [quantizer(x) for quantizer in (*self.identity, *self.relu)]


@pytest.fixture(scope="module")
def activations(write: Callable[..., Any]) -> Any:
    return write("qonnx", Activations(), torch.zeros(2, CHANNELS, 12))


def test_values_are_those_of_the_model_to_the_bit(activations: Any) -> None:
    # Quarters of the coarsest and of other steps, borders between two levels among them, and random numbers.
    quarters = torch.arange(-48, 48).reshape(2, CHANNELS, 12) / 4
    scales = [result.scale.detach() for result in activations.model.results(quarters)]
    for scale in (scales[0], scales[1], torch.randn(2, CHANNELS, 12, generator=torch.Generator().manual_seed(1))):
        x = quarters * scale
        for result, theirs in zip(activations.model.results(x), activations.artifact.run(x), strict=True):
            np.testing.assert_array_equal(theirs.numpy(), result.value.detach().numpy())


def test_the_range_of_the_integers_is_used_to_both_ends(activations: Any) -> None:
    x = torch.linspace(-400, 400, 96).reshape(2, 12, CHANNELS).transpose(1, 2).contiguous()
    for result, theirs in zip(activations.model.results(x), activations.artifact.run(x), strict=True):
        integers = torch.round(theirs / result.scale + result.zero_point)
        signed, narrow = bool(result.signed), bool(result.narrow_range)
        bounds = integer_range(float(result.bit_width), signed=signed, narrow_range=narrow)
        assert (integers.min(), integers.max()) == bounds


def test_cleanup_changes_no_value(activations: Any) -> None:
    x = torch.linspace(-40, 40, 96).reshape(2, CHANNELS, 12) + 0.0123
    for ours, theirs in zip(
        activations.artifact.run(x), activations.outputs(x, model=activations.clean()), strict=True
    ):
        np.testing.assert_array_equal(theirs, ours.numpy())


def test_parameters_are_initializers_of_the_shapes_that_readers_need(activations: Any) -> None:
    for node in activations.nodes("Quant"):
        scale, zero_point, bits = (activations.initializers[name] for name in node.input[1:])
        assert bits.shape == ()
        assert bits.dtype == np.float32
        assert scale.shape in ((), (1, CHANNELS, 1))
        assert zero_point.shape in ((), (1, CHANNELS, 1))
        if not zero_point.any():
            assert zero_point.shape == ()
        attributes = activations.attributes(node)
        assert attributes.keys() == {"signed", "narrow", "rounding_mode"}
        assert attributes["rounding_mode"] in (b"ROUND", b"FLOOR", b"CEIL", b"DOWN", b"HALF_UP")


class Binary(nn.Module):
    """Signs with a scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        options: dict[str, Any] = {"tensor_quant": BinaryQuant, "scaling_impl": ConstScaling, "scaling_init": scale}
        self.sign = qnn.QuantIdentity(**options)

    def forward(self, x: Tensor) -> Tensor:
        return self.sign(x)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_binary_activations_are_bipolar(write: Callable[..., Any], scale: float) -> None:
    x = torch.tensor([[-1.5, -0.0, 0.0, 2.0]])
    file = write("qonnx", Binary(scale), x)
    assert file.kinds == ["BipolarQuant"]
    np.testing.assert_array_equal(file.outputs(x)[0], file.model(x).detach().numpy())


class Ternary(nn.Module):
    """−1, 0 and 1 with a scale."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.register_buffer("scale", torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return quantize_ternary(x, self.scale, self.threshold)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_ternary_activations_are_narrow_integers_of_two_bits(write: Callable[..., Any], threshold: float) -> None:
    x = torch.linspace(-2, 2, 40).reshape(1, 40)
    file = write("qonnx", Ternary(threshold), x)
    assert file.kinds == (["Quant"] if threshold == 0.5 else ["Mul", "Quant"])
    np.testing.assert_array_equal(file.outputs(x)[0], file.model(x).numpy())


class Trunc(nn.Module):
    """Drops bits of what was quantized."""

    def __init__(self, signed: bool, mode: str, output_bits: int) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(scaling_impl=ConstScaling, scaling_init=1.27, narrow_range=True, signed=signed)
        self.signed, self.mode = signed, mode
        grid = {"scale": 0.01 if signed else 1.27 / 254, "zero_point": 0.0, "bits": float(output_bits)}
        grid["output_scale"] = grid["scale"] * 2 ** (8 - output_bits)
        for name, value in grid.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        grid = (self.scale, self.zero_point, self.output_scale, self.bits)
        return quantize_trunc(self.entry(x), *grid, signed=self.signed, rounding_mode=self.mode)


class Truncs(nn.Module):
    """One input with bits dropped in every way."""

    def __init__(self) -> None:
        super().__init__()
        kinds = [(True, "FLOOR"), (False, "FLOOR"), (True, "ROUND"), (True, "CEIL")]
        self.each = nn.ModuleList(Trunc(*kind, bits) for kind, bits in itertools.product(kinds, (2, 5, 8)))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [trunc(x) for trunc in self.each]


def test_dropped_bits_are_a_trunc_node_of_the_second_version(write: Callable[..., Any]) -> None:
    x = torch.linspace(-1.4, 1.4, 64).reshape(1, 64)
    file = write("qonnx", Truncs(), x)
    assert ("qonnx.custom_op.general", 2) in [(entry.domain, entry.version) for entry in file.onnx.opset_import]
    names = ("", "input_scale", "zero_point", "input_bit_width", "scale", "bit_width")
    clean = file.outputs(x, model=file.clean())
    nodes = {node.output[0]: node for node in file.nodes("Trunc")}
    results = [value.name for value in file.onnx.graph.output]
    assert len(nodes) == len(results)
    for result, trunc, theirs, cleaned in zip(results, file.model.each, file.outputs(x), clean, strict=True):
        node = nodes[result]
        operands = dict(zip(names, node.input, strict=True))
        assert file.initializers[operands["input_bit_width"]] == 8
        assert file.initializers[operands["bit_width"]] == float(trunc.bits)
        attributes = file.attributes(node)
        assert (attributes["signed"], attributes["rounding_mode"].decode()) == (trunc.signed, trunc.mode)
        expected = trunc(x).detach().numpy()
        np.testing.assert_array_equal(theirs, expected)
        np.testing.assert_array_equal(cleaned, expected)
