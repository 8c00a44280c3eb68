"""Networks of any bits in integers equal the model; what cannot be computed in integers is refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.cli.main import quant
from quant_core.export import capture, check, lower, verify
from quant_core.integers import IntegerArtifact, load
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerChannelFixedPoint,
    Int8WeightPerTensorFloat,
    Int32Bias,
    Uint8ActPerTensorFixedPoint,
)
from quant_core.tensor import QuantTensor

BITS = st.integers(2, 8)


class FixedPoint(nn.Module):
    """Any bits, rounding modes and strides; scales are powers of two, so that floats are exact."""

    def __init__(self, entry: int, weight: int, act: int, mode: str, stride: int, groups: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"weight_quant": Int8WeightPerChannelFixedPoint, "weight_bit_width": weight}
        options |= {"bias_quant": Int32Bias, "return_quant_tensor": True, "padding": 1, "stride": stride}
        self.entry = qnn.QuantIdentity(
            Int8ActPerTensorFixedPoint, bit_width=entry, rounding_mode=mode, return_quant_tensor=True
        )
        self.conv = qnn.QuantConv2d(4, 6, 3, groups=groups, **options)
        self.relu = qnn.QuantReLU(
            Uint8ActPerTensorFixedPoint, bit_width=act, rounding_mode=mode, return_quant_tensor=True
        )
        self.back = qnn.QuantConvTranspose2d(6, 4, 3, groups=groups, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        y = self.back(self.relu(self.conv(x)))
        return y.value if isinstance(y, QuantTensor) else y


@settings(max_examples=8, deadline=None)
@given(
    BITS, BITS, BITS, st.sampled_from(["ROUND", "FLOOR", "CEIL", "TO_ZERO", "HALF_UP", "DPU"]), st.sampled_from([1, 2])
)
def test_powers_of_two_are_equal_to_the_bit(entry: int, weight: int, act: int, mode: str, stride: int) -> None:
    torch.manual_seed(0)
    net = FixedPoint(entry, weight, act, mode, stride, groups=2)
    x = torch.randn(3, 4, 7, 7)
    net(x)
    net.eval()
    artifact = lower(capture(net, (x,)), "integers")
    with torch.no_grad():
        assert torch.equal(artifact.run(x), net(x))


@settings(max_examples=8, deadline=None)
@given(BITS, BITS, BITS, st.booleans(), st.integers(0, 1000))
def test_float_scales_are_equal_up_to_the_rounding_errors_of_floats(
    entry: int, weight: int, act: int, per_channel: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(
        qnn.QuantIdentity(bit_width=entry, return_quant_tensor=True),
        qnn.QuantConv1d(
            2, 4, 3, weight_bit_width=weight, weight_scaling_per_output_channel=per_channel, return_quant_tensor=True
        ),
        qnn.QuantReLU(bit_width=act, return_quant_tensor=True),
        nn.MaxPool1d(2),
        nn.Flatten(),
        qnn.QuantLinear(4 * 4, 5, weight_bit_width=weight, bias_quant=Int32Bias),
    )
    x = torch.randn(16, 2, 10)
    net(x)
    net.eval()
    artifact = lower(capture(net, (x,)), "integers")
    assert artifact.program is not None
    assert verify(artifact.program, artifact, (x,)).equal


class Branches(nn.Module):
    """Sums, differences, products and joins of values on different grids, padding, averages, a clamp, a select."""

    def __init__(self) -> None:
        super().__init__()
        self.one = qnn.QuantIdentity(bit_width=5)
        self.other = qnn.QuantIdentity(bit_width=7)
        self.last = qnn.QuantIdentity(bit_width=6)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.other(x)
        joined = torch.cat([a + b, a - b, (a * b)], 1)
        padded = F.pad(joined, (1, 1))
        pooled = F.adaptive_avg_pool2d(padded, (2, 2)) + padded.mean((2, 3), keepdim=True)
        return self.last(torch.clamp(pooled, -0.5, 0.75) * 3.0)[:, 1]


def test_values_on_different_grids_meet() -> None:
    torch.manual_seed(0)
    net = Branches()
    x = torch.randn(6, 2, 4, 6)
    net(x)
    net.eval()
    artifact = lower(capture(net, (x,)), "integers")
    assert artifact.program is not None
    found = verify(artifact.program, artifact, (x,))
    assert found.equal
    assert found.compared == 3


class Normalized(nn.Sequential):
    """Batch norm behind a convolution, with factors of both signs."""

    def __init__(self, *behind: nn.Module) -> None:
        super().__init__(
            qnn.QuantIdentity(bit_width=6, return_quant_tensor=True),
            qnn.QuantConv2d(2, 5, 3, bias=False, weight_bit_width=3, weight_scaling_per_output_channel=True),
            nn.BatchNorm2d(5),
            *behind,
        )
        self[2].weight.data = torch.tensor([-1.5, -0.2, 0.3, 1.0, 2.0])
        self[2].bias.data = torch.tensor([0.1, -0.4, 0.0, 0.2, -1.0])


def test_batch_norm_changes_the_grid_alone() -> None:
    torch.manual_seed(0)
    net = Normalized(qnn.QuantReLU(bit_width=4), nn.MaxPool2d(2))
    x = torch.randn(8, 2, 10, 10)
    for _ in range(3):
        net(x)
    net.eval()
    artifact = lower(capture(net, (x,)), "integers")
    assert isinstance(artifact, IntegerArtifact)
    assert artifact.program is not None
    assert verify(artifact.program, artifact, (x,)).equal
    assert [step.op for step in artifact.network.plan.steps] == [
        "quantize",
        "aten.conv2d.default",
        "rescale",
        "aten.max_pool2d.default",
    ]


def test_a_pool_of_values_with_a_negative_factor_is_refused() -> None:
    net = Normalized(nn.MaxPool2d(2), qnn.QuantReLU(bit_width=4))
    x = torch.randn(8, 2, 10, 10)
    net(x)
    report = check(capture(net, (x,)), "integers")
    assert [refusal.op for refusal in report.refusals] == ["aten.max_pool2d.default"]
    assert report.refusals[0].fix == "Put the pool behind the quantizer that comes next."


def test_embeddings_and_products_of_activations() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = qnn.QuantEmbedding(20, 8)
            self.act = qnn.QuantIdentity(bit_width=6)

        def forward(self, indices: Tensor) -> Tensor:
            rows = self.table(indices)
            return self.act(rows @ rows.transpose(1, 2))

    net, indices = Attention(), torch.randint(0, 20, (3, 5))
    net(indices)
    net.eval()
    artifact = lower(capture(net, (indices,)), "integers")
    assert artifact.program is not None
    assert verify(artifact.program, artifact, (indices,)).equal


QUANTIZED = {"return_quant_tensor": True}


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(**QUANTIZED)
        self.fc = qnn.QuantLinear(8, 4, weight_scaling_per_output="group", weight_group_size=4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.entry(x))


class Function(nn.Module):
    """A function of one value in front of what is no quantizer."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(**QUANTIZED)
        self.fc = qnn.QuantLinear(8, 4, bias=False)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.function(self.entry(x)))


@pytest.mark.parametrize(
    ("net", "actual", "fix"),
    [
        (Function(lambda x: torch.sigmoid(x.value)), "the result of aten.sigmoid.default, which is no integer", "output_quant"),
        (Function(lambda x: x.value * -2.0), "the factor -2", "Put the sign into the weight"),
        (Function(lambda x: x.value.clamp(-0.123, 0.5)), "a bound of -0.123 that is no level of the grid", "QuantHardTanh"),
        (Function(lambda x: F.pad(x.value[:, 1:], (1, 0), value=1.0)), "padding with 1.0", "Pad with zeros"),
        (Function(lambda x: x.value / x.value), "a quotient of two values", "quantized inverse"),
        (Function(lambda x: torch.add(x.value, x.value, alpha=2)), "a factor alpha", "Multiply by the factor"),
        (Grouped(), "a per_group scale", "Leave weight_group_size out"),
    ],
    ids=["function", "sign", "bound", "padding", "quotient", "alpha", "groups"],
)  # fmt: skip
def test_what_integers_cannot_do_is_refused(net: nn.Module, actual: str, fix: str) -> None:
    x = torch.randn(3, 8)
    net(x)
    report = check(capture(net, (x,)), "integers")
    found = [(refusal.actual, refusal.fix) for refusal in report.refusals]
    assert any(one == actual and fix in remedy for one, remedy in found), found


def test_another_precision_is_refused() -> None:
    net = nn.Sequential(qnn.QuantIdentity()).double()
    x = torch.randn(3, 8, dtype=torch.float64)
    net(x)
    report = check(capture(net, (x,)), "integers")
    assert str(report.refusals[0]) == (
        "quant::int with values of float64\n  at 0.act_quant (quant_nn.QuantIdentity)\n"
        "  integers takes float32, and converting would move values across rounding borders\n"
        "  Convert the model and its inputs first: model.float(), x.float()."
    )


def test_scales_too_far_apart_are_refused() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = qnn.QuantIdentity(
                min_val=-1e-12, max_val=1e-12, scaling_impl_type="const", scaling_min_val=1e-30
            )
            self.other = qnn.QuantIdentity(min_val=-1e6, max_val=1e6, scaling_impl_type="const")

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.other(x)

    report = check(capture(Apart(), (torch.randn(3, 8),)), "integers")
    assert str(report.refusals[0]).splitlines()[0] == "aten.add.Tensor with integers of more than 62 bits"
    assert report.refusals[0].fix.startswith("Use fewer bits here")


def test_the_number_of_inputs_is_checked(tmp_path: Path) -> None:
    net = nn.Sequential(qnn.QuantIdentity())
    artifact = lower(capture(net, (torch.randn(2, 3),)), "integers")
    assert isinstance(artifact, IntegerArtifact)
    with pytest.raises(Exception, match="2 inputs were given") as caught:
        load(artifact.save(tmp_path / "net.npz")).run(torch.zeros(2, 3), torch.zeros(2, 3))
    assert "the network takes 1: input" in str(caught.value)


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import quant_nn as qnn\nfrom torch import nn\n"
        "def net():\n    return nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(6, 2))\n"
        "def floats():\n    return nn.Linear(6, 2)\n"
    )
    arguments = [
        "export",
        "integers",
        f"{tmp_path}/net.py:net",
        "--input",
        "3x6",
        "-o",
        str(tmp_path / "net.npz"),
        "--json",
    ]
    done = CliRunner().invoke(quant, [*arguments, "--option", "name=tiny"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["verified"] is True
    assert load(tmp_path / "net.npz").header.startswith("#ifndef TINY_H")
    done = CliRunner().invoke(quant, ["export", "integers", f"{tmp_path}/net.py:floats", "--input", "3x6", "--check"])
    assert done.exit_code == 1
    assert "aten.linear.default with a float weight" in done.output


def test_weights_alone_are_not_enough() -> None:
    layer = qnn.QuantLinear(4, 2, weight_quant=Int8WeightPerTensorFloat)
    report = check(capture(layer, (torch.zeros(1, 4),)), "integers")
    assert str(report) == (
        "target 'integers' cannot take this model: 1 refusal\naten.linear.default with a float operand\n"
        "  at the model (quant_nn.QuantLinear)\n  integers computes with quantized values only\n"
        "  Put a quantizer before it: QuantIdentity or QuantReLU, or input_quant on this layer."
    )


class Viewed(nn.Module):
    """An average over a sequence, and a view that names the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity()
        self.pool = nn.AvgPool1d(2)
        self.middle = qnn.QuantIdentity()
        self.fc = qnn.QuantLinear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self.pool(self.entry(x))).view(x.size(0), -1))


def test_a_size_that_varies_is_refused_and_a_fixed_one_is_not() -> None:
    net, x = Viewed(), torch.randn(4, 2, 8)
    net(x)
    net.eval()
    program = capture(net, (x,))
    assert verify(program, lower(program, "integers"), (x,)).equal
    report = check(capture(net, (x,), dynamic_shapes="batch"), "integers")
    assert str(report.refusals[0]) == (
        "aten.view.default with the argument sym_size, a size that varies\n"
        f"  at the model ({Viewed.__module__}.Viewed)\n  integers takes sizes that are fixed\n"
        "  Leave dynamic_shapes (--dynamic-batch) out, or write flatten(1) in place of a view of x.shape[0] rows."
    )


@pytest.mark.parametrize("words", [{"quant_type": "binary"}, {"quant_type": "ternary", "threshold": 0.4}])
def test_inputs_may_be_rectified_before_few_levels(words: dict[str, Any]) -> None:
    net, x = nn.Sequential(nn.ReLU(), qnn.QuantIdentity(Int8ActPerTensorFixedPoint, **words)), torch.randn(5, 7)
    net(x)
    net.eval()
    assert torch.equal(lower(capture(net, (x,)), "integers").run(x), net(x))
