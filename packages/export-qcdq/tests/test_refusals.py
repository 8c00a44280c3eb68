"""What the target does not take, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling, ConstZeroPoint
from quant_core.errors import ArtifactError, ConfigurationError, QuantError, UnknownNameError, UnsupportedError
from quant_core.export import capture, check, export, lower
from quant_core.plugins import Registry
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias

ALONE = Registry([EntryPoint("export-qcdq", "export_qcdq.plugin", "quant")])
"""This package without others, whose targets would be offered as remedies."""


def message(kind: type[QuantError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


class Refused(nn.Module):
    """Four things that QCDQ of opset 18 cannot say."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=20)
        self.groups = qnn.QuantLinear(4, 3, weight_group_size=2)
        self.wide = qnn.QuantLinear(3, 3, weight_bit_width=12)
        self.exit = qnn.QuantIdentity(bit_width=9, rounding_mode="FLOOR")

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(self.wide(self.groups(self.entry(x))))


@pytest.fixture
def refused() -> Any:
    net, x = Refused(), torch.randn(2, 4)
    net(x)
    return net.eval(), (x,)


def test_everything_that_it_cannot_take_is_said_at_once(refused: Any) -> None:
    report = check(capture(*refused), "qcdq", plugins=ALONE)
    assert str(report) == (
        "target 'qcdq' cannot take this model: 4 refusals\n"
        "quant::int with bit_width=20\n"
        "  at entry.act_quant (quant_nn.QuantIdentity)\n"
        "  qcdq supports bit_width 2 to 16 for activations\n"
        "  Set bit_width=16 on this layer.\n"
        "quant::int with a per_group scale\n"
        "  at groups.weight_quant (quant_nn.QuantLinear)\n"
        "  qcdq holds groups as blocks of DequantizeLinear, which came with opset 21, got opset_version=18\n"
        "  Set opset_version=21, or leave weight_group_size out.\n"
        "quant::int with bit_width=12\n"
        "  at wide.weight_quant (quant_nn.QuantLinear)\n"
        "  qcdq holds more than 8 bits as integers of 16, which came with opset 21, got opset_version=18\n"
        "  Set opset_version=21, or a weight_bit_width of 8 or less on this layer.\n"
        "quant::int with bit_width=9\n"
        "  at exit.act_quant (quant_nn.QuantIdentity)\n"
        "  qcdq holds more than 8 bits as integers of 16, which came with opset 21, got opset_version=18\n"
        "  Set opset_version=21, or a bit_width of 8 or less on this layer."
    )


def test_a_refused_model_is_not_written(refused: Any, tmp_path: Path) -> None:
    net, args = refused
    with pytest.raises(UnsupportedError) as caught:
        export(net, args, target="qcdq", path=tmp_path / "net.onnx")
    assert len(caught.value.refusals) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_of_another_precision_is_refused(dtype: torch.dtype) -> None:
    net = qnn.QuantLinear(4, 3, input_quant=Int8ActPerTensorFloat, bias_quant=Int8Bias).to(dtype)
    x = torch.ones(2, 4, dtype=dtype)
    net(x)
    assert message(UnsupportedError, lambda: lower(capture(net, (x,)), "qcdq")) == (
        f"target 'qcdq' cannot lower quantizers of {str(dtype).removeprefix('torch.')}\n"
        "  at weight_quant (quant_nn.QuantLinear)\n"
        "  qcdq writes float32, and 3 of the model's 3 quantizers compute in another dtype; converting them would move "
        "values across rounding borders\n"
        "  Convert the model and its inputs first: model.float(), x.float()."
    )


def test_a_scale_and_a_zero_point_along_different_axes_are_refused() -> None:
    grid = {"zero_point_impl": ConstZeroPoint, "zero_point_init": [[1], [2]]}
    channels = {"scaling_per_output_channel": True, "per_channel_broadcastable_shape": (3,)}
    net = qnn.QuantIdentity(scaling_impl=ConstScaling, scaling_init=torch.ones(3), **grid, **channels).eval()
    assert message(UnsupportedError, lambda: lower(capture(net, (torch.zeros(2, 3),)), "qcdq")) == (
        "standard ONNX cannot hold quant::int with a scale and a zero-point per channel of different axes\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  both vary along one axis at most, the same for both, got shapes (3,) and (2, 1)\n"
        "  Give both the same shape, or one of them the shape ()."
    )


class Greatest(nn.Module):
    """An operation that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cummax(x, 0).values


def test_an_operation_without_an_onnx_operator_is_named_with_its_place() -> None:
    net = nn.Sequential(nn.ReLU(), Greatest())
    text = message(UnsupportedError, lambda: lower(capture(net, (torch.zeros(2, 2),)), "qcdq"))
    what, where, why, fix = text.splitlines()
    assert what == "target 'qcdq' cannot lower aten.cummax.default"
    assert where.startswith("  at 1 (") and where.endswith(".Greatest)")  # noqa: PT018
    assert why.startswith("  torch's ONNX exporter refuses it: No ONNX function found for")
    assert fix == "  Replace the operation, or keep it out of the exported part of the model."


class Several(nn.Module):
    """Three operations that ONNX does not have, of which torch decomposes one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.lgamma(torch.cummax(x, 0).values) + torch.cummin(x, 0).values


def test_every_operation_without_an_onnx_operator_is_named_at_once() -> None:
    text = message(UnsupportedError, lambda: lower(capture(nn.Sequential(Several()), (torch.ones(2, 2),)), "qcdq"))
    lines = text.splitlines()
    assert lines[0] == "target 'qcdq' cannot lower aten.cummax.default"
    assert lines[4] == "  and 2 more:"
    assert [line.strip() for line in lines[5::3]] == ["prims.lgamma.default", "aten.cummin.default"]
    assert [line.strip() for line in lines[6::3]] == [f"at 0 ({__name__}.Several)"] * 2


class Decomposed(nn.Module):
    """An operation that torch replaces by others before it looks for ONNX operators."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x)


@pytest.mark.parametrize(
    ("operation", "namespace", "name"),
    [(torch.lgamma, "prims", "lgamma"), (torch.linalg.svdvals, "aten", "_linalg_svd")],
)
def test_an_operation_that_torch_decomposes_is_named_with_its_place(
    operation: Callable[[Tensor], Tensor], namespace: str, name: str
) -> None:
    net = nn.Sequential(nn.ReLU(), Decomposed(operation))
    assert message(UnsupportedError, lambda: lower(capture(net, (torch.ones(2, 2),)), "qcdq")) == (
        f"target 'qcdq' cannot lower {namespace}.{name}.default\n"
        f"  at 1 ({__name__}.Decomposed)\n"
        f"  torch's ONNX exporter refuses it: No ONNX function found for <OpOverload(op='{namespace}.{name}', "
        "overload='default')>. Failure message: No decompositions registered for the real-valued input\n"
        "  Replace the operation, or keep it out of the exported part of the model."
    )


class WithNumbers(nn.Module):
    """Returns more than tensors."""

    def forward(self, x: Tensor) -> tuple[Tensor, int, None]:
        return x + 1, 3, None


def test_outputs_that_are_no_tensors_are_refused() -> None:
    assert message(UnsupportedError, lambda: lower(capture(WithNumbers(), (torch.ones(2),)), "qcdq")) == (
        "target 'qcdq' cannot lower what the model returns: output 1 is 3 (int), output 2 is None (NoneType)\n"
        f"  at the model ({__name__}.WithNumbers)\n"
        "  an ONNX file returns tensors\n"
        "  Return tensors only from the exported model."
    )


@pytest.mark.parametrize("opset", [12, 26, "18"])
def test_an_opset_that_it_cannot_write(opset: object) -> None:
    program = capture(nn.ReLU(), (torch.zeros(2),))
    assert message(ConfigurationError, lambda: lower(program, "qcdq", opset_version=opset)) == (
        f"opset_version={opset!r} cannot be written\n"
        "  this target writes 13 to 25\n"
        "  Use 18, which every current runtime reads."
    )


def test_an_option_that_it_does_not_have() -> None:
    program = capture(nn.ReLU(), (torch.zeros(2),))
    assert message(UnknownNameError, lambda: lower(program, "qcdq", opset_verson=18)) == (
        "target 'qcdq' has no option 'opset_verson'\n  its options are opset_version, packed, exact_ties, tensorrt, "
        "fill_channels\n"
        "  Did you mean 'opset_version'?"
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (torch.zeros(2, 5), "for the following indices index: 1 Got: 5 Expected: 4 Please fix"),
        (torch.zeros(2, 4, dtype=torch.float64), "Unexpected input data type. Actual: (tensor(double))"),
    ],
)
def test_inputs_that_the_runtime_refuses(given: Tensor, reason: str) -> None:
    artifact = lower(capture(qnn.QuantLinear(4, 3), (torch.zeros(2, 4),)), "qcdq")
    what, why, fix = message(ArtifactError, lambda: artifact.run(given)).splitlines()
    assert what == "onnxruntime refuses the inputs of the qcdq artifact"
    assert why.startswith("  InvalidArgument: ")
    assert reason in why
    assert fix == (
        "  Pass inputs of the shapes and dtypes that the model was captured with; if they are right, report this as a "
        "defect of the target."
    )
