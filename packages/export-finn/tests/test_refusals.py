"""What the targets do not take, and how they say so."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling, ConstZeroPoint
from quant_core.errors import ArtifactError, ConfigurationError, QuantError, UnknownNameError, UnsupportedError
from quant_core.export import capture, check, export, lower
from quant_core.ops import quantize_int, quantize_trunc
from quant_core.plugins import Registry
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias, SignedBinaryActPerTensorConst

ALONE = Registry([EntryPoint("export-finn", "export_finn.plugin", "quant")])
"""This package without others, whose targets would be offered as remedies."""

GRID: dict[str, Any] = {"scaling_impl": ConstScaling, "scaling_init": 1.5}


def message(kind: type[QuantError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def refusals(net: nn.Module, *args: Tensor, target: str = "finn", **options: Any) -> list[str]:
    report = check(capture(net.eval(), args, **options), target, plugins=ALONE)
    return [str(refusal) for refusal in report.refusals]


class Finer(nn.Module):
    """A weight with a scale for each input feature."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(**GRID)
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.register_buffer("scale", torch.full((1, 4), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        weight = quantize_int(self.weight, self.scale, 0, 4, signed=True)
        return nn.functional.linear(self.entry(x), weight)


class Truncated(nn.Module):
    """Drops bits by another rounding than that of shifts."""

    def forward(self, x: Tensor) -> Tensor:
        one, two, bits = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)
        return quantize_trunc(x, one, torch.tensor(0.0), two, bits, signed=True, rounding_mode="ROUND")


class ComputedBias(nn.Module):
    """Takes the bias of a product from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(**GRID)
        self.layer = qnn.QuantLinear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.entry(x), self.layer.quant_weight().value, x[0])


SQUARE = torch.zeros(2, 4)


class Squared(nn.Module):
    """A product of a value that is rounded with one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(**GRID)

    def forward(self, x: Tensor) -> Tensor:
        return self.entry(x) @ x.t()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "zero-points": (
        lambda: qnn.QuantIdentity(zero_point_impl=ConstZeroPoint, zero_point_init=3, **GRID),
        "quant::int with a zero_point other than 0\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  finn supports zero_point 0 for activations\n"
        "  Use a symmetric quantizer, such as Int8ActPerTensorFloat, or export to a target that takes it (qonnx).",
    ),
    "unsigned without a ReLU": (
        lambda: qnn.QuantIdentity(signed=False, **GRID),
        "quant::int with unsigned integers without a ReLU before them\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  FINN makes unsigned levels of a ReLU only\n"
        "  Use QuantReLU here, or set signed=True on this layer.",
    ),
    "signed after a ReLU": (
        lambda: qnn.QuantReLU(Int8ActPerTensorFloat, **GRID),
        "quant::int with signed integers after a ReLU\n"
        "  at act_quant (quant_nn.QuantReLU)\n"
        "  FINN takes unsigned integers after a ReLU\n"
        "  Set signed=False on this layer.",
    ),
    "narrow after a ReLU": (
        lambda: qnn.QuantReLU(narrow_range=True, **GRID),
        "quant::int with narrow_range=True of unsigned integers\n"
        "  at act_quant (quant_nn.QuantReLU)\n"
        "  FINN takes the full range after a ReLU\n"
        "  Set narrow_range=False on this layer.",
    ),
    "binary with a scale": (
        lambda: qnn.QuantIdentity(SignedBinaryActPerTensorConst, scaling_init=0.5),
        "quant::binary with a scale of 0.5\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  FINN takes binary activations of the scale 1\n"
        "  Use a constant scale of 1 here: scaling_impl=ConstScaling, scaling_init=1.0.",
    ),
    "rounding modes": (
        lambda: qnn.QuantIdentity(rounding_mode="FLOOR", **GRID),
        "quant::int with rounding_mode='FLOOR'\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  finn supports rounding_mode ROUND for activations\n"
        "  Set rounding_mode='ROUND' on this layer, or export to a target that takes it (qonnx).",
    ),
    "scales per row": (
        lambda: qnn.QuantIdentity(
            scaling_impl=ConstScaling,
            scaling_init=torch.tensor([[0.5], [0.7]]),
            scaling_per_output_channel=True,
            per_channel_broadcastable_shape=(2, 1),
        ),
        "quant::int with a scale for each element of axis 0\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  FINN takes scales per channel on axis 1\n"
        "  Set per_channel_broadcastable_shape to (1, C, 1, 1), or quantize per tensor.",
    ),
    "scales finer than per output channel": (
        Finer,
        "quant::int with a scale for each element of axis 1\n"
        "  at the model ({here}.Finer)\n"
        "  FINN takes weight scales per tensor and per output channel, axis 0\n"
        "  Set weight_scaling_per_output_channel=True on this layer.",
    ),
    "other truncations than shifts": (
        Truncated,
        "quant::trunc with rounding_mode='ROUND'\n"
        "  at the model ({here}.Truncated)\n"
        "  finn supports rounding_mode FLOOR for activations\n"
        "  Set rounding_mode='FLOOR' on this layer, or export to a target that takes it (qonnx).",
    ),
    "wide activations": (
        lambda: qnn.QuantIdentity(bit_width=12, **GRID),
        "quant::int with bit_width=12\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  finn supports bit_width 2 to 8 for activations\n"
        "  Set bit_width=8 on this layer, or export to a target that takes it (qonnx).",
    ),
    "float weights": (
        lambda: nn.Sequential(qnn.QuantIdentity(**GRID), nn.Linear(4, 3)),
        "aten.linear.default with a float weight\n"
        "  at 1 (torch.nn.Linear)\n"
        "  FINN computes with integer weights\n"
        "  Use the quantized layer of quant_nn (or set weight_quant on this one), or keep it out of the exported part.",
    ),
    "biases that are computed": (
        ComputedBias,
        "aten.linear.default with a bias that is computed at run time\n"
        "  at the model ({here}.ComputedBias)\n"
        "  FINN stores biases, as it does weights\n"
        "  Give the layer a constant bias, or add the computed one to its result.",
    ),
    "products inside of a layer": (
        lambda: nn.Sequential(qnn.QuantIdentity(**GRID), nn.RNN(4, 3)),
        "aten.rnn_tanh.input with products of floats inside of it\n"
        "  at 1 (torch.nn.RNN)\n"
        "  FINN computes with integers, in convolutions, linear layers and products of two matrices\n"
        "  Use layers whose products are quantized one by one, or keep this one out of the exported part.",
    ),
    "products of float values": (
        Squared,
        "aten.matmul.default with a float input\n"
        "  at the model ({here}.Squared)\n"
        "  FINN computes with integer activations\n"
        "  Quantize what comes before: with QuantIdentity or QuantReLU, or input_quant on this layer.",
    ),
    "float inputs": (
        lambda: nn.Sequential(qnn.QuantLinear(4, 3)),
        "aten.linear.default with a float input\n"
        "  at 0 (quant_nn.QuantLinear)\n"
        "  FINN computes with integer activations\n"
        "  Quantize what comes before: with QuantIdentity or QuantReLU, or input_quant on this layer.",
    ),
}


@pytest.mark.parametrize(("build", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_finn_refuses_is_said_with_its_place_and_a_remedy(build: Callable[[], nn.Module], text: str) -> None:
    assert refusals(build(), SQUARE) == [text.replace("{here}", __name__)]


class Everything(nn.Module):
    """All that FINN refuses, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(build() for build, _ in REFUSED.values())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [net(x) for net in self.nets]


def test_everything_is_reported_at_once() -> None:
    program = capture(Everything().eval(), (SQUARE,))
    found = {str(refusal).splitlines()[0] for refusal in check(program, "finn", plugins=ALONE).refusals}
    assert found == {text.splitlines()[0] for _, text in REFUSED.values()}
    with pytest.raises(UnsupportedError) as caught:
        lower(program, "finn", plugins=ALONE)
    assert len(caught.value.refusals) == len(REFUSED)


def test_qonnx_takes_it_and_notes_what_finn_refuses() -> None:
    report = check(capture(Everything().eval(), (SQUARE,)), "qonnx")
    assert report.ok
    assert len(report.notes) == len(REFUSED)
    text = str(report)
    assert text.startswith("target 'qonnx' takes this model\nnote: FINN refuses ")
    assert (
        "note: FINN refuses quant::int with rounding_mode='FLOOR'\n  at nets.5.act_quant (quant_nn.QuantIdentity)"
        in text
    )


def test_functions_of_floats_are_noted() -> None:
    net = nn.Sequential(qnn.QuantIdentity(**GRID), nn.GELU(), qnn.QuantIdentity(**GRID), nn.Softmax(-1))
    report = check(capture(net, (SQUARE,)), "finn", plugins=ALONE)
    assert report.ok
    assert [note.where for note in report.notes] == ["1 (torch.nn.GELU)", "3 (torch.nn.Softmax)"]
    assert report.notes[0].what == (
        "aten.gelu.default is computed in floats: FINN makes thresholds of quantizers and of ReLUs only, and leaves other "
        "functions as they are, in the graph around the hardware"
    )


@pytest.mark.parametrize(
    ("between", "noted"),
    [
        (nn.AvgPool2d(2), True),
        (nn.MaxPool2d(2), False),
        (nn.Sequential(nn.AvgPool2d(2), qnn.QuantIdentity(**GRID)), False),
    ],
)
def test_products_whose_data_are_no_integers_are_noted(between: nn.Module, noted: bool) -> None:
    net = nn.Sequential(qnn.QuantIdentity(**GRID), between, qnn.QuantConv2d(2, 3, 1))
    report = check(capture(net, (torch.randn(1, 2, 4, 4),)), "finn", plugins=ALONE)
    assert report.ok
    assert [note.where for note in report.notes] == ["2 (quant_nn.QuantConv2d)"] * noted
    for note in report.notes:
        assert note.what == (
            "the data of this product are no integers but averages, sums of values on several grids, or values with a scale for "
            "each channel, so that the product is one of floats. Quantize them per tensor in front of it: with QuantIdentity or "
            "QuantReLU, or TruncAvgPool2d for an average"
        )


@pytest.mark.parametrize(("target", "name"), [("qonnx", "QONNX"), ("finn", "FINN")])
def test_shapes_that_vary_are_refused(target: str, name: str) -> None:
    net = nn.Sequential(qnn.QuantIdentity(**GRID), qnn.QuantLinear(4, 3))
    (text,) = refusals(net, SQUARE, target=target, dynamic_shapes="batch")
    what, where, why, fix = text.splitlines()
    assert what == "input with a shape that varies"
    assert where == "  at input 'input'"
    assert why.startswith(f"  {name} needs every shape fixed, got (s")
    assert fix == (
        f"  Leave dynamic_shapes (--dynamic-batch) out: target '{target}' then takes the shapes of the example inputs. For "
        "another batch, export with an example of that batch."
    )


def test_qonnx_rounds_half_up_otherwise_below_zero() -> None:
    assert refusals(qnn.QuantIdentity(rounding_mode="HALF_UP", **GRID), SQUARE, target="qonnx") == [
        "quant::int with rounding_mode='HALF_UP' of signed integers\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  QONNX rounds ties away from zero in this mode, and this model upwards\n"
        "  Set rounding_mode='ROUND' on this layer, or signed=False behind a ReLU."
    ]
    assert refusals(qnn.QuantReLU(rounding_mode="HALF_UP", **GRID), SQUARE, target="qonnx") == []


def test_an_activation_needs_an_axis_of_channels() -> None:
    (text,) = refusals(qnn.QuantIdentity(**GRID), torch.zeros(4))
    assert text == (
        "quant::int with a tensor of 1 axes\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  FINN finds the channels on axis 1\n"
        "  Give the model inputs with an axis for the batch."
    )


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_another_precision_is_refused(target: str) -> None:
    net = qnn.QuantLinear(4, 3, input_quant=Int8ActPerTensorFloat, bias_quant=Int8Bias).double()
    net(SQUARE.double() + 1)
    text = message(UnsupportedError, lambda: lower(capture(net.eval(), (SQUARE.double(),)), target))
    assert text.splitlines()[:2] == [
        f"target '{target}' cannot lower quantizers of float64",
        "  at weight_quant (quant_nn.QuantLinear)",
    ]


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_options(target: str) -> None:
    program = capture(nn.ReLU(), (SQUARE,))
    known = {"qonnx": "opset_version, recurrent", "finn": "opset_version"}[target]
    assert message(UnknownNameError, lambda: lower(program, target, opset_verson=18)) == (
        f"target '{target}' has no option 'opset_verson'\n  its options are {known}\n  Did you mean 'opset_version'?"
    )
    assert message(ConfigurationError, lambda: lower(program, target, opset_version=11)) == (
        "opset_version=11 cannot be written\n"
        "  this target writes 18 to 21\n"
        "  Use 18, which every current runtime reads."
    )


def test_inputs_of_another_shape() -> None:
    artifact = lower(capture(qnn.QuantIdentity(**GRID).eval(), (SQUARE,)), "qonnx")
    assert message(ArtifactError, lambda: artifact.run(torch.zeros(3, 4))) == (
        "the qonnx artifact takes no input 'input' of shape (3, 4)\n"
        "  every shape in the file is fixed, and this one is (2, 4)\n"
        "  Pass inputs of the shape that the model was captured with, or export it again with this one."
    )


def test_a_refused_model_is_not_written(tmp_path: Any) -> None:
    with pytest.raises(UnsupportedError):
        export(nn.Linear(4, 3), (SQUARE,), target="finn", path=tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
