"""What a DPU does not compute, and how the targets say so."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstZeroPoint
from quant_core.errors import ArtifactError, ConfigurationError, QuantError, UnknownNameError, UnsupportedError
from quant_core.export import capture, check, export, lower
from quant_core.plugins import Registry
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8Bias,
    Int8BiasPerTensorFixedPointInternalScaling,
    Int8WeightPerChannelFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Int8WeightPerTensorFloat,
    Int16Bias,
    Uint8ActPerTensorFixedPointMaxInit,
)

ALONE = Registry([EntryPoint("export-dpu", "export_dpu.plugin", "quant")])
"""This package without others, whose targets would be offered as remedies."""

LAYER: dict[str, Any] = {
    "weight_quant": Int8WeightPerTensorFixedPoint,
    "bias_quant": Int8BiasPerTensorFixedPointInternalScaling,
}
IMAGE = torch.zeros(1, 4, 8, 8)


class Act(Int8ActPerTensorFixedPoint):
    """Rounds as the DPU does, with a scale of 2^-5 that needs no data."""

    rounding_mode = "DPU"
    scaling_impl_type = "const"
    scaling_init = 4.0


def message(kind: type[QuantError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def report(net: nn.Module, *inputs: Tensor, target: str = "dpuv2", **options: Any) -> Any:
    return check(capture(net.eval(), inputs or (IMAGE,), **options), target, plugins=ALONE)


def refusals(net: nn.Module, *inputs: Tensor, target: str = "dpuv2", **options: Any) -> list[str]:
    return [str(refusal) for refusal in report(net, *inputs, target=target, **options).refusals]


class Middle(nn.Module):
    """A function of a value on a grid, and the rounding of its result."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.entry, self.out = qnn.QuantIdentity(Act), qnn.QuantIdentity(Act)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.function(self.entry(x)))


class Layer(nn.Module):
    """One layer between two quantizers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.entry, self.out = qnn.QuantIdentity(Act), qnn.QuantIdentity(Act)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.entry(x)))


def conv(**options: Any) -> nn.Module:
    return Layer(qnn.QuantConv2d(4, 2, 1, **(LAYER | options)))


def small_bias(value: float) -> nn.Module:
    """A convolution with weights of 1 and a bias of that value."""
    layer = qnn.QuantConv2d(4, 2, 1, bias_scaling_min_val=1e-30, **LAYER)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(value)
    return Layer(layer)


def activation(quantizer: Any = Act, **options: Any) -> nn.Module:
    """A convolution with another quantizer behind it."""
    return nn.Sequential(qnn.QuantIdentity(Act), qnn.QuantConv2d(4, 2, 1, **LAYER), qnn.QuantReLU(quantizer, **options))


class TwoGrids(nn.Module):
    """Concatenates values of two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = qnn.QuantIdentity(Act), qnn.QuantIdentity(Act, scaling_init=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(torch.cat([self.one(x), self.other(x)], 1))


class TwoUses(nn.Module):
    """Uses a result rounded and as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.conv, self.out = (
            qnn.QuantIdentity(Act),
            qnn.QuantConv2d(4, 2, 1, **LAYER),
            qnn.QuantIdentity(Act),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.entry(x))
        return self.out(torch.relu(y) + self.out(y))


class InPlace(nn.Module):
    """Changes a value, through a view, that is used elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.conv, self.out = (
            qnn.QuantIdentity(Act),
            qnn.QuantConv2d(4, 2, 1, **LAYER),
            qnn.QuantIdentity(Act),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.out(self.conv(self.entry(x)))
        rows = F.relu_(y.flatten(2))
        return F.max_pool2d(y, 2), rows


class Matrices(nn.Module):
    """Multiplies two values."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.out = qnn.QuantIdentity(Act), qnn.QuantIdentity(Act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.entry(x)
        return self.out(F.conv2d(y, y))


PLACE = "Middle"
BIAS = "Int8BiasPerTensorFixedPointInternalScaling"
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "scales that are no power of two": (
        lambda: conv(
            weight_quant=Int8WeightPerTensorFloat, weight_scaling_impl_type="const", weight_scaling_init=126.5
        ),
        "quant::int with scale 0.996",
    ),
    "weights above 8 bits": (
        lambda: conv(weight_bit_width=9),
        "quant::int with bit_width=9\n"
        "  at layer.weight_quant (quant_nn.QuantConv2d)\n"
        "  dpuv2 supports bit_width 2 to 8 for weights\n"
        "  Set weight_bit_width=8 on this layer.",
    ),
    "biases above 8 bits": (
        lambda: Layer(
            qnn.QuantConv2d(4, 2, 1, input_quant=Act, weight_quant=Int8WeightPerTensorFixedPoint, bias_quant=Int16Bias)
        ),
        "quant::int with bit_width=16\n"
        "  at layer.bias_quant (quant_nn.QuantConv2d)\n"
        "  dpuv2 supports bit_width 2 to 8 for biases\n"
        "  Set bias_bit_width=8 on this layer.",
    ),
    "activations of fewer bits": (
        lambda: activation(bit_width=4),
        "quant::int with bit_width=4\n"
        "  at 2.act_quant (quant_nn.QuantReLU)\n"
        "  dpuv2 supports bit_width 8 for activations\n"
        "  Set bit_width=8 on this layer.",
    ),
    "unsigned activations": (
        lambda: activation(Uint8ActPerTensorFixedPointMaxInit, max_val=4.0, rounding_mode="DPU"),
        "quant::int with signed=False\n"
        "  at 2.act_quant (quant_nn.QuantReLU)\n"
        "  dpuv2 supports signed=True for activations\n"
        "  Set signed=True.",
    ),
    "activations of a narrow range": (
        lambda: activation(narrow_range=True),
        "quant::int with narrow_range=True\n"
        "  at 2.act_quant (quant_nn.QuantReLU)\n"
        "  dpuv2 supports narrow_range=False for activations\n"
        "  Set narrow_range=False on this layer.",
    ),
    "zero-points": (
        lambda: activation(zero_point_impl=ConstZeroPoint, zero_point_init=3),
        "quant::int with a zero_point other than 0\n"
        "  at 2.act_quant (quant_nn.QuantReLU)\n"
        "  dpuv2 supports zero_point 0 for activations\n"
        "  Use a symmetric quantizer, such as Int8ActPerTensorFloat.",
    ),
    "scales per channel": (
        lambda: conv(weight_quant=Int8WeightPerChannelFixedPoint),
        "quant::int with a per_channel scale\n"
        "  at layer.weight_quant (quant_nn.QuantConv2d)\n"
        "  dpuv2 supports per_tensor scales for weights\n"
        "  Set weight_scaling_per_output_channel=False on this layer.",
    ),
    "roundings that no DPU has": (
        lambda: activation(rounding_mode="FLOOR"),
        "quant::int with rounding_mode='FLOOR'\n"
        "  at 2.act_quant (quant_nn.QuantReLU)\n"
        "  dpuv2 supports rounding_mode DPU, HALF_UP, ROUND for activations\n"
        "  Set rounding_mode='DPU' on this layer.",
    ),
    "float layers": (
        lambda: Layer(nn.Conv2d(4, 2, 1, bias=False)),
        "aten.conv2d.default with a float weight\n"
        "  at layer (torch.nn.Conv2d)\n"
        "  dpuv2 computes with integer weights\n"
        "  Use the quantized layer of quant_nn with weight_quant=Int8WeightPerTensorFixedPoint, or keep this one out of the "
        "exported part.",
    ),
    "float biases": (
        lambda: conv(bias_quant=None),
        "aten.conv2d.default with a float bias\n"
        "  at layer (quant_nn.QuantConv2d)\n"
        "  dpuv2 adds integer biases of at most 8 bits\n"
        f"  Set bias_quant={BIAS} on this layer, or bias=False.",
    ),
    "float inputs": (
        lambda: qnn.QuantConv2d(4, 2, 1, output_quant=Act, **LAYER),
        "aten.conv2d.default with a float input\n"
        "  at the model (quant_nn.QuantConv2d)\n"
        "  dpuv2 computes with 8-bit integers only\n"
        "  Set input_quant=Int8ActPerTensorFixedPoint on this layer, or put QuantIdentity(Int8ActPerTensorFixedPoint) before it.",
    ),
    "results that nothing rounds": (
        lambda: qnn.QuantConv2d(4, 2, 1, input_quant=Act, **LAYER),
        "aten.conv2d.default with a result that is not rounded to one grid\n"
        "  at the model (quant_nn.QuantConv2d)\n"
        "  dpuv2 rounds the result of every operation to 8 bits\n"
        "  Set output_quant=Int8ActPerTensorFixedPoint on this layer, or put one QuantReLU or "
        "QuantIdentity(Int8ActPerTensorFixedPoint) behind it, before anything else uses the result.",
    ),
    "results that are rounded twice": (
        lambda: Layer(qnn.QuantConv2d(4, 2, 1, output_quant=Act, output_scaling_init=1.0, **LAYER)),
        "quant::int with values that are rounded already, to steps of 2^-7 and here to 2^-5\n"
        "  at out.act_quant (quant_nn.QuantIdentity)\n"
        "  dpuv2 rounds the result of an operation once\n"
        "  Remove one of the two quantizers: output_quant of the layer before, or this one (input_quant=None).",
    ),
    "values of two scales side by side": (
        TwoGrids,
        "aten.cat.default with values of the scales 2^-5, 2^-7\n"
        "  at the model (HERE.TwoGrids)\n"
        "  dpuv2 concatenates values of one scale\n"
        "  Give all of them one quantizer: QuantCat with input_quant=Int8ActPerTensorFixedPoint, and no output_quant before it.",
    ),
    "values changed in place": (
        InPlace,
        "aten.relu_.default with a value that is changed in place and used elsewhere\n"
        "  at the model (HERE.InPlace)\n"
        "  dpuv2 takes operations that give new values\n"
        "  Use the operation that gives a new value (inplace=False), or a copy of the operand: x.clone().",
    ),
    "linear layers on more axes": (
        lambda: Layer(qnn.QuantLinear(8, 2, **LAYER)),
        "aten.linear.default with an input of 4 axes\n"
        "  at layer (quant_nn.QuantLinear)\n"
        "  dpuv2 multiplies matrices: a batch of rows\n"
        "  Flatten the input to two axes before this layer.",
    ),
    "transposed convolutions with output_padding": (
        lambda: Layer(qnn.QuantConvTranspose2d(4, 4, 3, stride=2, output_padding=1, **LAYER)),
        "aten.conv_transpose2d.input with output_padding=(1, 1)\n"
        "  at layer (quant_nn.QuantConvTranspose2d)\n"
        "  PyXIR reads transposed convolutions without output_padding\n"
        "  Choose kernel size, stride and padding so that output_padding is 0.",
    ),
    "dilated pools": (
        lambda: Layer(nn.MaxPool2d(2, dilation=2)),
        "aten.max_pool2d.default with dilation=(2, 2)\n"
        "  at layer (torch.nn.MaxPool2d)\n"
        "  PyXIR pools without dilation\n"
        "  Set dilation=1 on this pool.",
    ),
    "maxima of padding": (
        lambda: Layer(nn.MaxPool2d(3, padding=1)),
        "aten.max_pool2d.default with padding=(1, 1) of values that can be below zero\n"
        "  at layer (torch.nn.MaxPool2d)\n"
        "  dpuv2 pads with zeros, and torch leaves padding out of the maximum\n"
        "  Put the pool behind the ReLU, or set padding=0.",
    ),
    "windows over the edge": (
        lambda: Layer(nn.MaxPool2d(3, 2, ceil_mode=True)),
        "aten.max_pool2d.default with ceil_mode=True, with windows that reach over the edge\n"
        "  at layer (torch.nn.MaxPool2d)\n"
        "  dpuv2 pools whole windows only\n"
        "  Set ceil_mode=False on this pool, and pad the image before it if the edge matters.",
    ),
    "averages that leave padding out": (
        lambda: Layer(nn.AvgPool2d(2, padding=1, count_include_pad=False)),
        "aten.avg_pool2d.default with count_include_pad=False and padding\n"
        "  at layer (torch.nn.AvgPool2d)\n"
        "  dpuv2 averages over whole windows, zeros included\n"
        "  Set count_include_pad=True on this pool, or padding=0.",
    ),
    "averages by division": (
        lambda: Layer(nn.AvgPool2d(7)),
        "aten.avg_pool2d.default with 0.0204082 times the sum of 7x7 values\n"
        "  at layer (torch.nn.AvgPool2d)\n"
        "  a DPU does not divide: of this window it gives 21/1024 times the sum, 0.0205078\n"
        "  Write it as the DPU computes it, avg_pool2d(x, (7, 7), divisor_override=1) * (21 / 1024), or use a window whose size "
        "is a power of two.",
    ),
    "windows of different sizes": (
        lambda: Layer(nn.AdaptiveAvgPool2d(3)),
        "aten.adaptive_avg_pool2d.default with windows of different sizes, from (8, 8) to (3, 3)\n"
        "  at layer (torch.nn.AdaptiveAvgPool2d)\n"
        "  dpuv2 averages over windows of one size\n"
        "  Choose an output size that divides the size of the input.",
    ),
    "means over channels": (
        lambda: Middle(lambda x: x.mean(1)),
        "aten.mean.dim with dim=(1,) of 4 axes\n"
        "  at the model (HERE.Middle)\n"
        "  dpuv2 averages images over height and width\n"
        "  Take the mean over the last two axes of an image, or keep the operation out of the exported part.",
    ),
    "products": (
        lambda: Middle(lambda x: x * x),
        "aten.mul.Tensor with a product that is not the factor of an average\n"
        "  at the model (HERE.Middle)\n"
        "  dpuv2 multiplies by weights, and by the factor of an average\n"
        "  Put the factor into the weight or the scale of the layer before, or keep the operation out of the exported part.",
    ),
    "sums with constants": (
        lambda: Middle(lambda x: x + 1),
        "aten.add.Tensor with a constant where it takes a value\n"
        "  at the model (HERE.Middle)\n"
        "  dpuv2 computes with values that depend on the inputs\n"
        "  Compute what is constant before the export, or keep the operation out of the exported part.",
    ),
    "sums with factors": (
        lambda: Middle(lambda x: torch.add(x, x, alpha=2)),
        "aten.add.Tensor with alpha=2\n"
        "  at the model (HERE.Middle)\n"
        "  dpuv2 adds two values as they are\n"
        "  Multiply before the export.",
    ),
    "sums of several shapes": (
        lambda: Middle(lambda x: x + F.max_pool2d(x, 8)),
        "aten.add.Tensor with operands of shapes (1, 4, 8, 8) and (1, 4, 1, 1)\n"
        "  at the model (HERE.Middle)\n"
        "  dpuv2 adds values of one shape\n"
        "  Give both the same shape before they are added.",
    ),
    "padding with other numbers": (
        lambda: Middle(lambda x: F.pad(x, (1, 1), value=0.5)),
        "aten.pad.default with the value 0.5\n"
        "  at the model (HERE.Middle)\n"
        "  dpuv2 puts zeros around images\n"
        "  Pad with zeros.",
    ),
    "padding with what is inside": (
        lambda: Middle(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
        "aten.pad.default with mode='reflect'\n"
        "  at the model (HERE.Middle)\n"
        "  dpuv2 puts zeros around images\n"
        "  Pad with zeros.",
    ),
    "cropping": (
        lambda: Middle(lambda x: F.pad(x, (-1, 1))),
        "aten.pad.default with pad=(-1, 1)\n"
        "  at the model (HERE.Middle)\n"
        "  dpuv2 puts zeros around images\n"
        "  Pad height and width of images, by 0 or more; crop before the export.",
    ),
    "biases of almost nothing": (
        lambda: small_bias(2.0**-60),
        "aten.conv2d.default with a bias 55 bits finer than its accumulator\n"
        "  at layer (quant_nn.QuantConv2d)\n"
        "  no accumulator has more than 30 bits behind those of its products\n"
        "  Set bias=False on this layer if its bias is zero, or give bias_scaling_min_val a larger value.",
    ),
    "outputs that nothing computes": (
        lambda: qnn.QuantIdentity(Act),
        "output with nothing that an operation of the file computes\n"
        "  at output 0\n"
        "  dpuv2 gives results of operations on 8-bit integers\n"
        "  Return results of quantized layers; return inputs and constants outside of the exported part.",
    ),
}


@pytest.mark.parametrize(("build", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_said_with_its_place_and_a_remedy(build: Callable[[], nn.Module], text: str) -> None:
    torch.manual_seed(0)
    (found,) = refusals(build())
    assert found.startswith(text.replace("HERE", __name__))


def test_a_scale_that_is_no_power_of_two_names_the_option() -> None:
    (found,) = refusals(REFUSED["scales that are no power of two"][0]())
    assert found.splitlines()[1:] == [
        "  at layer.weight_quant (quant_nn.QuantConv2d)",
        "  dpuv2 supports power-of-two scales for weights",
        "  Set weight_restrict_scaling_type='power_of_two' on this layer.",
    ]
    restricted = conv(weight_quant=Int8WeightPerTensorFloat, weight_restrict_scaling_type="power_of_two")
    assert refusals(restricted) == []


def test_a_value_used_rounded_and_unrounded_is_refused() -> None:
    found = refusals(TwoUses())
    assert len(found) == 1
    assert found[0].startswith("aten.conv2d.default with a result that is not rounded to one grid\n  at conv ")


def test_weights_that_are_computed_are_refused() -> None:
    assert refusals(Matrices(), torch.zeros(4, 4, 1, 1)) == [
        "aten.conv2d.default with a weight that is computed at run time\n"
        f"  at the model ({__name__}.Matrices)\n"
        "  dpuv2 stores weights\n"
        "  Keep the operation out of the exported part, or make its second operand a parameter."
    ]


def test_a_batch_normalization_is_refused_once_with_the_way_to_fold_it() -> None:
    net = nn.Sequential(qnn.QuantConv2d(4, 2, 1, input_quant=Act, **LAYER), nn.BatchNorm2d(2), qnn.QuantReLU(Act))
    (text,) = refusals(net)
    what, where, _, fix = text.splitlines()
    assert (what, where) == ("aten.batch_norm.default with node '_1_batch_norm'", "  at 1 (torch.nn.BatchNorm2d)")
    assert fix == "  Fold it into the layer beside it first: quant_nn.fold_batch_norms(model, inputs)."
    qnn.fold_batch_norms(net, (IMAGE,))
    assert refusals(net) == []


def test_float_layers_are_named_one_by_one() -> None:
    net = nn.Sequential(
        qnn.QuantIdentity(Act), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(128, 3)
    )
    found = [text.splitlines()[:2] for text in refusals(net)]
    assert ["aten.batch_norm.default with node '_1_batch_norm'", "  at 1 (torch.nn.BatchNorm2d)"] in found
    assert ["aten.sigmoid.default with node '_2_sigmoid'", "  at 2 (torch.nn.Sigmoid)"] in found
    for kind, place in (("conv2d", "3 (torch.nn.Conv2d)"), ("linear", "5 (torch.nn.Linear)")):
        for what in ("a float weight", "a float bias", "a result that is not rounded to one grid"):
            assert [f"aten.{kind}.default with {what}", f"  at {place}"] in found


class Everything(nn.Module):
    """All that is refused, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(build() for build, _ in REFUSED.values())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [net(x) for net in self.nets]


def test_everything_is_reported_at_once() -> None:
    torch.manual_seed(0)
    program = capture(Everything().eval(), (IMAGE,))
    found = [str(refusal).splitlines()[0] for refusal in check(program, "dpuv2", plugins=ALONE).refusals]
    for _, text in REFUSED.values():
        assert any(line.startswith(text.splitlines()[0]) for line in found), text
    with pytest.raises(UnsupportedError) as caught:
        lower(program, "dpuv2", plugins=ALONE)
    assert len(caught.value.refusals) == len(found) == len(REFUSED)


def test_dpuv1_leaves_padding_out_of_the_maximum_itself() -> None:
    assert refusals(Layer(nn.MaxPool2d(3, padding=1)), target="dpuv1") == []


@pytest.mark.parametrize("target", ["dpuv1", "dpuv2"])
def test_shapes_that_vary_are_refused(target: str) -> None:
    net = nn.Sequential(qnn.QuantIdentity(Act), nn.Flatten(), qnn.QuantLinear(16, 3, output_quant=Act, **LAYER))
    (text,) = refusals(net, torch.zeros(2, 4, 4), target=target, dynamic_shapes="batch")
    what, where, why, fix = text.splitlines()
    assert what == "input with a shape that varies"
    assert where == "  at input 'input'"
    assert why.startswith("  PyXIR needs every shape fixed, got (s")
    assert fix == (
        f"  Leave dynamic_shapes (--dynamic-batch) out: target '{target}' then takes the shapes of the example inputs. For "
        "another batch, export with an example of that batch."
    )


def test_a_rounding_that_is_not_that_of_the_dpu_is_noted() -> None:
    net = nn.Sequential(
        qnn.QuantIdentity(Act), qnn.QuantConv2d(4, 2, 1, **LAYER), qnn.QuantReLU(Act, rounding_mode="ROUND")
    )
    found = report(net)
    assert found.ok
    assert [str(note) for note in found.notes] == [
        "values halfway between two steps are rounded by ROUND in 1 of 2 quantizers, and by DPU on the DPU: they may differ by "
        "one step. Set rounding_mode='DPU' on these quantizers to train with what the hardware computes\n"
        "  at 2.act_quant (quant_nn.QuantReLU)"
    ]
    assert report(conv()).notes == ()
    with_option = check(capture(conv().eval(), (IMAGE,)), "dpuv2", options={"rounding_mode": "HALF_UP"}, plugins=ALONE)
    assert [note.what.partition(":")[0] for note in with_option.notes] == [
        "values halfway between two steps are rounded by DPU in 2 of 2 quantizers, and by HALF_UP on the DPU"
    ]


def test_a_relu_that_rounds_again_is_noted() -> None:
    net = nn.Sequential(
        qnn.QuantIdentity(Act),
        qnn.QuantConv2d(4, 2, 1, output_quant=Act, output_scaling_init=1.0, **LAYER),
        qnn.QuantReLU(Act),
    )
    assert [str(note) for note in report(net).notes] == [
        "this ReLU rounds from steps of 2^-7 to 2^-5; PyXIR reads no quantization of Relu. Leave output_quant of the layer "
        "before out, so that its result is rounded once, to the steps behind the ReLU\n"
        "  at 2.act_quant (quant_nn.QuantReLU)"
    ]


def test_shifts_beyond_those_of_vitis_ai_are_noted() -> None:
    layer = qnn.QuantConv2d(4, 2, 1, **LAYER)
    with torch.no_grad():
        layer.weight.fill_(2.0**-13)
        layer.bias.fill_(100.0)
    assert [note.what for note in report(Layer(layer)).notes] == [
        "the accumulator is shifted by 20 bits to the result; Vitis AI keeps this within 0 and 16, and a DPU compiler may "
        "refuse it",
        "the bias is shifted by 25 bits to the accumulator; Vitis AI keeps this within 0 and 16, and a DPU compiler may "
        "refuse it",
    ]


def test_channels_of_transposed_convolutions_are_noted() -> None:
    (note,) = report(Layer(qnn.QuantConvTranspose2d(4, 2, 2, **LAYER))).notes
    assert note.what == (
        "4 input and 2 output channels of a transposed convolution: the file holds its weight as ONNX defines it, inputs first; "
        "PyXIR's own reader takes outputs first, and stops when the two numbers differ"
    )


def test_options() -> None:
    program = capture(conv().eval(), (IMAGE,))
    assert message(ConfigurationError, lambda: lower(program, "dpuv2", form="0.5")) == (
        "form='0.5' is not known\n"
        "  the forms are '0.6', '0.7'\n"
        "  Use '0.7', with weights as int32, or '0.6', with weights as floats that are whole numbers."
    )
    assert message(ConfigurationError, lambda: lower(program, "dpuv1", rounding_mode="FLOOR")) == (
        "rounding_mode='FLOOR' is not one of a DPU\n"
        "  values halfway between two integers are rounded by DPU, HALF_UP, ROUND\n"
        "  Known names: DPU, HALF_UP, ROUND."
    )
    assert message(UnknownNameError, lambda: lower(program, "dpuv1", form="0.6")) == (
        "target 'dpuv1' has no option 'form'\n  its options are rounding_mode\n  Known names: rounding_mode."
    )


@pytest.mark.parametrize("target", ["dpuv1", "dpuv2"])
def test_another_precision_is_refused(target: str) -> None:
    text = message(UnsupportedError, lambda: lower(capture(conv().double().eval(), (IMAGE.double(),)), target))
    assert text.splitlines()[0] == f"target '{target}' cannot lower quantizers of float64"


def test_a_refused_model_is_not_written(tmp_path: Any) -> None:
    with pytest.raises(UnsupportedError):
        export(nn.Linear(4, 3), (torch.zeros(2, 4),), target="dpuv1", path=tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_inputs_of_another_shape() -> None:
    artifact = lower(capture(conv().eval(), (IMAGE,)), "dpuv2")
    assert message(ArtifactError, lambda: artifact.run(torch.zeros(3, 4, 8, 8))) == (
        "the file takes no input 'x' of shape (3, 4, 8, 8)\n"
        "  every shape in the file is fixed, and this one is (1, 4, 8, 8)\n"
        "  Pass inputs of the shape that the model was captured with, or export it again with this one."
    )


def test_biases_at_the_scale_of_the_accumulator_are_taken() -> None:
    layer = qnn.QuantConv2d(
        4, 2, 1, input_quant=Act, weight_quant=Int8WeightPerTensorFixedPoint, bias_quant=Int8Bias, output_quant=Act
    )
    assert refusals(layer) == []
