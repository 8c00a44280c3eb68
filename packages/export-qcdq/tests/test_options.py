"""Options: versions of the operators, packed weights, exact ties, what TensorRT reads; and what excludes what."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling, ConstZeroPoint
from quant_core.errors import ConfigurationError, QuantError, UnsupportedError
from quant_core.export import capture, check, lower, verify
from quant_core.quant import Int8Bias, SignedBinaryWeightPerTensorConst, SignedTernaryActPerTensorConst

IR_VERSIONS = {13: 7, 15: 8, 18: 8, 19: 9, 20: 9, 21: 10, 23: 11, 24: 12, 25: 13}


def message(kind: type[QuantError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def trained(*layers: nn.Module, shape: tuple[int, ...] = (2, 4, 6, 6)) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    net, x = nn.Sequential(*layers), torch.randn(shape)
    net(x)
    return net.eval(), x


def assert_equal(net: nn.Module, x: Tensor, target: str = "qcdq", **options: Any) -> onnx.ModelProto:
    program = capture(net, (x,))
    artifact = lower(program, target, **options)
    assert verify(program, artifact, (x,), reference=net(x)).equal
    model = onnx.load_from_string(artifact.content())
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="module")
def common() -> tuple[nn.Module, Tensor]:
    return trained(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(4, 4, 3, bias_quant=Int8Bias),
        qnn.QuantReLU(bit_width=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@pytest.mark.parametrize(
    ("target", "opset"), [*(("qcdq", opset) for opset in IR_VERSIONS), ("qop", 13), ("qop", 21), ("qop", 25)]
)
def test_each_opset_has_the_format_of_its_time(common: Any, target: str, opset: int) -> None:
    model = assert_equal(*common, target, opset_version=opset)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version == IR_VERSIONS[opset]


def test_operators_that_an_older_opset_lacks_are_all_named() -> None:
    net = nn.Sequential(nn.LayerNorm(4), nn.ReLU(), nn.LayerNorm(4))
    program = capture(net, (torch.zeros(2, 4),))
    assert message(UnsupportedError, lambda: lower(program, "qcdq", opset_version=13)) == (
        "target 'qcdq' cannot write 2 of the model's operators for opset 13\n"
        "  at node_layer_norm: LayerNormalization is not among its operators; node_layer_norm_1: LayerNormalization is not among "
        "its operators\n"
        "  they came, or came to do what is asked of them here, with a later version\n"
        "  Use opset_version=18 or later."
    )


def test_wide_integers_need_a_version_that_has_them() -> None:
    net, x = trained(qnn.QuantIdentity(bit_width=12), qnn.QuantConv2d(4, 3, 3, weight_group_size=2))
    report = check(capture(net, (x,)), "qcdq")
    assert [str(refusal) for refusal in report.refusals] == [
        "quant::int with a per_group scale\n"
        "  at 1.weight_quant (quant_nn.QuantConv2d)\n"
        "  qcdq holds groups as blocks of DequantizeLinear, which came with opset 21, got opset_version=18\n"
        "  Set opset_version=21, or leave weight_group_size out.",
        "quant::int with bit_width=12\n"
        "  at 0.act_quant (quant_nn.QuantIdentity)\n"
        "  qcdq holds more than 8 bits as integers of 16, which came with opset 21, got opset_version=18\n"
        "  Set opset_version=21, or a bit_width of 8 or less on this layer.",
    ]
    assert check(capture(net, (x,)), "qcdq", options={"opset_version": 21}).ok
    model = assert_equal(net, x, opset_version=21)
    (blocked,) = [node for node in model.graph.node if any(one.name == "block_size" for one in node.attribute)]
    assert {one.name: one.i for one in blocked.attribute if one.name in ("axis", "block_size")} == {"block_size": 2}


class SideBySide(nn.Module):
    """Layers that all read the same input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)


def test_activations_of_up_to_16_bits() -> None:
    kinds = [(True, 9, False), (False, 12, True), (True, 16, False), (False, 16, True)]
    layers = [qnn.QuantIdentity(bit_width=bits, signed=signed, narrow_range=narrow) for signed, bits, narrow in kinds]
    net, x = trained(SideBySide(*layers), shape=(3, 50))
    model = assert_equal(net, 3 * x, opset_version=21)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found = [types[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert found == [TensorProto.INT16 if signed else TensorProto.UINT16 for signed, _, _ in kinds]


@pytest.mark.parametrize(
    ("opset", "cases"),
    [
        (
            21,
            [
                (2, True, TensorProto.INT4, {}),
                (4, True, TensorProto.INT4, {"weight_group_size": 2}),
                (5, True, TensorProto.INT8, {"weight_scaling_per_output_channel": True}),
            ],
        ),
        (
            25,
            [
                (2, True, TensorProto.INT2, {"weight_group_size": 2}),
                (2, False, TensorProto.UINT2, {"weight_scaling_per_output_channel": True}),
                (3, False, TensorProto.UINT4, {}),
            ],
        ),
    ],
)
def test_packed_weights_are_of_the_smallest_type(
    opset: int, cases: list[tuple[int, bool, int, dict[str, Any]]]
) -> None:
    layers = [
        qnn.QuantLinear(4, 3, weight_bit_width=bits, weight_signed=signed, weight_narrow_range=False, **groups)
        for bits, signed, _, groups in cases
    ]
    net, x = trained(SideBySide(*layers), shape=(2, 4))
    model = assert_equal(net, x, opset_version=opset, packed=True)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, (layer, (_, _, kind, _)) in enumerate(zip(layers, cases, strict=True)):
        weight = weights[f"0.layers.{index}.weight"]
        assert weight.data_type == kind
        stored = onnx.numpy_helper.to_array(weight).astype(np.int64)
        np.testing.assert_array_equal(stored, layer.quant_weight().int().numpy())


@pytest.mark.parametrize("target", ["qcdq", "qop"])
def test_binary_and_ternary_levels(target: str) -> None:
    net, x = trained(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(4, 4, 3, weight_quant=SignedBinaryWeightPerTensorConst, bias=False),
        qnn.QuantIdentity(act_quant=SignedTernaryActPerTensorConst, return_quant_tensor=True),
        qnn.QuantConv2d(4, 2, 3, weight_bit_width=2),
    )
    assert_equal(net, x, target)


@pytest.mark.parametrize("target", ["qcdq", "qop"])
def test_each_rounding_mode_is_exact_also_on_the_border(target: str) -> None:
    modes = ("ROUND", "FLOOR", "CEIL", "TO_ZERO", "HALF_UP", "DPU")
    grid = {"scaling_impl": ConstScaling, "scaling_init": 32.0, "bit_width": 7, "narrow_range": False}
    net = SideBySide(*(qnn.QuantIdentity(rounding_mode=mode, **grid) for mode in modes)).eval()
    x = torch.arange(-160, 160, dtype=torch.float32) / 8  # quarters of steps, all of which are exact
    results, wanted = lower(capture(net, (x,)), target).run(x), net(x)
    assert len({tuple(one.tolist()) for one in wanted}) == len(modes)
    for mode, ours, theirs in zip(modes, wanted, results, strict=True):
        assert torch.equal(theirs, ours), mode


def test_ties_of_shifted_levels_are_noted_or_exact() -> None:
    options = {
        "zero_point_impl": ConstZeroPoint,
        "zero_point_init": 3,
        "scaling_impl": ConstScaling,
        "scaling_init": 128.0,
    }
    net = qnn.QuantIdentity(**options).eval()
    x = torch.arange(-40, 40, dtype=torch.float32) / 2
    program = capture(net, (x,))
    (note,) = check(program, "qcdq").notes
    assert str(note) == (
        "QuantizeLinear adds the zero-point after rounding: a value exactly halfway between two levels may go to the other one; "
        "exact_ties=True rounds it as the model does\n  at act_quant (quant_nn.QuantIdentity)"
    )
    assert not torch.equal(lower(program, "qcdq").run(x), net(x))
    assert check(program, "qcdq", options={"exact_ties": True}).notes == ()
    assert torch.equal(lower(program, "qcdq", exact_ties=True).run(x), net(x))


def test_what_tensorrt_reads(common: Any) -> None:
    net, x = trained(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(4, 3, 3, bias_quant=Int8Bias),
        nn.ReLU(),
        qnn.QuantIdentity(),
    )
    model = assert_equal(net, x, tensorrt=True)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["1.bias"] == TensorProto.FLOAT
    assert set(kinds.values()) == {TensorProto.FLOAT, TensorProto.INT8}
    assert "Clip" not in [node.op_type for node in model.graph.node]
    refusals = check(capture(common[0], (common[1],)), "qcdq", options={"tensorrt": True}).refusals
    assert [(refusal.where, refusal.actual, refusal.constraint) for refusal in refusals] == [
        (
            "2.act_quant (quant_nn.QuantReLU)",
            "bit_width=4",
            "qcdq with tensorrt=True supports bit_width 8 for activations",
        ),
        (
            "2.act_quant (quant_nn.QuantReLU)",
            "signed=False",
            "qcdq with tensorrt=True supports signed=True for activations",
        ),
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"packed": True},
            "packed=True cannot be written with opset_version=18\n  integers of 4 bits came with opset 21\n"
            "  Set opset_version=21, or leave packed out.",
        ),
        (
            {"packed": True, "tensorrt": True, "opset_version": 21},
            "tensorrt=True and packed=True exclude each other\n"
            "  TensorRT reads signed integers of 8 bits, rounded by QuantizeLinear\n  Leave one of them out.",
        ),
        (
            {"packed": "yes"},
            "packed='yes' is not a truth value\n  it is True or False, got a str\n  Write packed=True or packed=False.",
        ),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], text: str) -> None:
    program = capture(nn.ReLU(), (torch.zeros(2),))
    assert message(ConfigurationError, lambda: lower(program, "qcdq", **options)) == text


def test_a_file_tells_where_it_comes_from(common: Any) -> None:
    model = assert_equal(*common, "qop", unsigned_weights=True)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert list(told) == sorted(told)
    assert told["quant.target"] == "qop"
    assert json.loads(told["quant.options"]) == {
        "fill_channels": False,
        "opset_version": 18,
        "unsigned_weights": True,
    }
    assert json.loads(told["quant.bit_widths"]) == {"1.bias": 8, "2": 4}  # the types tell the others
    assert set(json.loads(told["quant.versions"])) == {"export-qcdq", "quant-core"}
