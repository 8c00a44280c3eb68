"""Networks of digits in integers: they equal the model, and the files for other runtimes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import UnsupportedError
from quant_core.export import capture, check, export, lower, verify
from quant_core.export.assertions import ASSERTIONS
from quant_core.integers import IntegerArtifact, load
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8BiasPerTensorFloatInternalScaling,
    Int8WeightPerTensorFixedPoint,
    Int16Bias,
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerChannelFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    Uint8ActPerTensorFixedPoint,
)


class LeNet(nn.Module):
    """Weights of 3 bits, activations of 4, biases of 16 at the scale of the accumulator."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        options = {"weight_bit_width": 3, "bias_quant": Int16Bias, "return_quant_tensor": True} | options
        self.quant_inp = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(1, 6, 3, padding=1, **options)
        self.relu1 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(6, 8, 3, **options)
        self.relu2 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.fc = qnn.QuantLinear(8, 10, bias=False, weight_bit_width=3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu1(self.conv1(self.quant_inp(x))), 2)
        x = F.max_pool2d(self.relu2(self.conv2(x)), 2)
        return self.fc(torch.flatten(x, 1))


class Residual(nn.Module):
    """A sum of two branches on grids of their own, weights per channel, a truncated average."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"weight_scaling_per_output_channel": True, "bias_quant": Int32Bias}
        self.quant_inp = qnn.QuantIdentity(return_quant_tensor=True)
        self.stem = qnn.QuantConv2d(1, 8, 3, padding=1, **options)
        self.relu = qnn.QuantReLU(bit_width=5, return_quant_tensor=True)
        self.branch = qnn.QuantConv2d(8, 8, 3, padding=1, groups=2, **options)
        self.branch_quant = qnn.QuantIdentity(bit_width=6, return_quant_tensor=True)
        self.sum_quant = qnn.QuantReLU(bit_width=8, return_quant_tensor=True)
        self.pool = qnn.TruncAvgPool2d(4, bit_width=6)
        self.fc = qnn.QuantLinear(32, 10, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(self.quant_inp(x)))
        x = self.sum_quant(x + self.branch_quant(self.branch(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


class Shifted(nn.Sequential):
    """Zero-points everywhere, a float bias, a bias of its own scale, and a table for tanh."""

    def __init__(self) -> None:
        shifted: dict[str, Any] = {"weight_quant": ShiftedUint8WeightPerChannelFloat}
        super().__init__(
            qnn.QuantIdentity(ShiftedUint8ActPerTensorFloat, return_quant_tensor=True),
            qnn.QuantConv2d(1, 4, 3, padding=1, stride=2, bias_quant=None, **shifted),
            qnn.QuantIdentity(ShiftedUint8ActPerTensorFloat, bit_width=6, return_quant_tensor=True),
            qnn.QuantTanh(bit_width=7, return_quant_tensor=True),
            nn.Flatten(),
            qnn.QuantLinear(64, 16, bias_quant=Int8BiasPerTensorFloatInternalScaling, **shifted),
            qnn.QuantHardTanh(
                min_val=-2.0, max_val=1.0, act_quant=ShiftedUint8ActPerTensorFloat, return_quant_tensor=True
            ),
            qnn.QuantLinear(16, 10, bias_quant=None, weight_bit_width=4),
        )


class FewLevels(nn.Sequential):
    """Binary and ternary activations, binary weights."""

    def __init__(self, weight_scale: float = 0.125) -> None:
        binary: dict[str, Any] = {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}
        binary |= {"weight_scaling_init": weight_scale}
        super().__init__(
            nn.Flatten(),
            qnn.QuantIdentity(Int8ActPerTensorFixedPoint, bit_width=4),
            qnn.QuantLinear(64, 32, **binary),
            qnn.QuantIdentity(SignedBinaryActPerTensorConst, scaling_init=1.0),
            qnn.QuantLinear(32, 32, **binary),
            qnn.QuantIdentity(Int8ActPerTensorFloat, quant_type="ternary", threshold=0.3),
            qnn.QuantLinear(32, 10, **binary),
        )


class FixedPoint(LeNet):
    """Scales that are powers of two, so that float32 computes without an error as well, and ties are common."""

    def __init__(self) -> None:
        super().__init__(weight_quant=Int8WeightPerTensorFixedPoint)
        self.quant_inp = qnn.QuantIdentity(Int8ActPerTensorFixedPoint, bit_width=4, return_quant_tensor=True)
        self.relu1 = qnn.QuantReLU(Uint8ActPerTensorFixedPoint, bit_width=4, return_quant_tensor=True)
        self.relu2 = qnn.QuantReLU(Uint8ActPerTensorFixedPoint, bit_width=4, return_quant_tensor=True)


NETS: dict[str, type[nn.Module]] = {
    "lenet": LeNet,
    "residual": Residual,
    "shifted": Shifted,
    "few levels": FewLevels,
    "fixed point": FixedPoint,
}
every_net = pytest.mark.parametrize("name", NETS)


@pytest.fixture(scope="module")
def images() -> Tensor:
    pixels = torch.tensor(load_digits().data, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return (pixels - pixels.mean()) / pixels.std()


@pytest.fixture(scope="module")
def trained(images: Tensor) -> dict[str, nn.Module]:
    """Each network after a few steps."""
    labels = torch.tensor(load_digits().target)
    found = {}
    for name, kind in NETS.items():
        torch.manual_seed(0)
        net = kind()
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for step in range(12):
            part = slice(64 * step, 64 * (step + 1))
            optimizer.zero_grad()
            F.cross_entropy(net(images[part]), labels[part]).backward()
            optimizer.step()
        found[name] = net.eval()
    return found


@pytest.fixture(scope="module")
def artifacts(trained: dict[str, nn.Module], images: Tensor) -> dict[str, IntegerArtifact]:
    found = {}
    for name, net in trained.items():
        artifact = lower(capture(net, (images[:4],), dynamic_shapes="batch"), "integers")
        assert isinstance(artifact, IntegerArtifact)
        found[name] = artifact
    return found


@every_net
def test_every_integer_is_that_of_the_model(
    name: str, trained: dict[str, nn.Module], artifacts: dict[str, IntegerArtifact], images: Tensor
) -> None:
    """Each quantizer, on 400 images, without a value on the border between two levels."""
    artifact, tested = artifacts[name], images[-400:]
    assert artifact.program is not None
    found = verify(artifact.program, artifact, (tested,))
    assert (found.equal, found.ties) == (True, 0)
    activations = [q for q in artifact.program.quantizers if q.role == "activation"]
    assert found.compared == len(activations)
    ours, theirs = artifact.run(tested), trained[name](tested)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


class InFloat64(torch.fx.Interpreter):
    """A captured program with sums of float64, whose rounding errors are too small to move a value over a border."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in ASSERTIONS:  # of float32
            return None
        if target is torch.ops.quant.dequantize.default:
            integers, scale, zero_point = args
            return (integers.double() - zero_point.double()) * scale.double()
        return super().call_function(target, torch.utils._pytree.tree_map(_widened, args), kwargs)


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


@every_net
def test_the_integers_are_exact(
    name: str, trained: dict[str, nn.Module], artifacts: dict[str, IntegerArtifact], images: Tensor
) -> None:
    """Those of the model, in all of 1797 images, where its sums have no rounding errors of float32: none on the other side."""
    artifact = artifacts[name]
    assert artifact.program is not None
    exact = InFloat64(artifact.program.exported.module())
    with torch.no_grad():
        exact.run(images)
    integers = artifact.integers(images)
    activations = [q for q in artifact.program.quantizers if q.role == "activation"]
    assert activations
    for quantizer in activations:
        assert quantizer.scale is not None
        assert quantizer.zero_point is not None
        levels = exact.values[quantizer.name] / quantizer.scale.double() + quantizer.zero_point.double()
        assert torch.equal(levels.round().to(torch.int64), integers[quantizer.name]), quantizer.name


def test_powers_of_two_are_equal_to_the_bit(
    trained: dict[str, nn.Module], artifacts: dict[str, IntegerArtifact], images: Tensor
) -> None:
    hidden = artifacts["fixed point"].integers(images)
    with torch.no_grad():
        net: Any = trained["fixed point"]
        x = net.relu1(net.conv1(net.quant_inp(images)))
        assert torch.equal(hidden["relu1_act_quant"], x.int())
        accumulator = net.conv2(F.max_pool2d(x, 2))
        assert torch.equal(hidden["conv2_conv2d"], accumulator.int().to(torch.int64))
        assert torch.equal(hidden["relu2_act_quant"], net.relu2(accumulator).int())


def test_sums_that_are_zero_may_be_on_either_side_in_floats(images: Tensor) -> None:
    """A sum of signs that is 0 is +1 in integers; float32 adds up rounding errors, which verification counts as ties."""
    torch.manual_seed(0)
    net = FewLevels(weight_scale=0.1).eval()
    artifact = lower(capture(net, (images[:4],), dynamic_shapes="batch"), "integers")
    assert artifact.program is not None
    assert verify(artifact.program, artifact, (images,)).equal


def test_accumulators_are_those_of_the_quantized_tensor(
    trained: dict[str, nn.Module], artifacts: dict[str, IntegerArtifact], images: Tensor
) -> None:
    net: Any = trained["lenet"]
    hidden = artifacts["lenet"].integers(images)
    with torch.no_grad():
        accumulator = net.conv1(net.quant_inp(images))
    assert torch.equal(hidden["conv1_conv2d"], accumulator.int().to(torch.int64))
    step = next(step for step in artifacts["lenet"].network.plan.steps if step.name == "conv1_conv2d")
    low, high = step.result["low"], step.result["high"]
    assert low <= int(hidden["conv1_conv2d"].min())
    assert int(hidden["conv1_conv2d"].max()) <= high
    assert step.result["bits"] <= int(accumulator.bit_width)


@pytest.mark.parametrize(("name", "target"), [("lenet", "qcdq"), ("lenet", "qonnx"), ("residual", "qcdq")])
def test_the_files_of_other_targets_give_the_same(
    name: str, target: str, trained: dict[str, nn.Module], artifacts: dict[str, IntegerArtifact], images: Tensor
) -> None:
    tested = images[-32:]
    program = capture(trained[name], (tested,))
    other = lower(program, target)
    ours, theirs = artifacts[name].trace([tested]), other.trace([tested])
    for quantizer in program.quantizers:
        if quantizer.role == "activation" and quantizer.name in theirs.values:
            assert quantizer.scale is not None
            steps = (ours.values[quantizer.name] - theirs.values[quantizer.name]).abs() / quantizer.scale
            assert float(steps.max()) < 0.5
    assert torch.allclose(ours.outputs[0], theirs.outputs[0], rtol=1e-5, atol=1e-5)


def test_numpy_reads_the_arrays_by_module_path(
    trained: dict[str, nn.Module], artifacts: dict[str, IntegerArtifact], tmp_path: Path
) -> None:
    net: Any = trained["lenet"]
    path = artifacts["lenet"].save(tmp_path / "lenet.npz")
    with np.load(path) as arrays:
        assert np.array_equal(arrays["conv1.weight"], net.conv1.quant_weight().int().numpy())
        assert arrays["conv1.weight_scale"] == net.conv1.quant_weight().scale.detach().numpy()
        assert int(arrays["conv1.weight_bit_width"]) == 3
        assert int(arrays["relu1.act_quant.bit_width"]) == 4
        assert arrays["relu1.act_quant.scale"] == net.relu1.act_quant.scale().detach().numpy()
        assert arrays["conv1.bias"].dtype == np.int16
        graph = json.loads(arrays["graph.json"])
    assert [step["op"] for step in graph["steps"]][:4] == [
        "quantize",
        "aten.conv2d.default",
        "rescale",
        "aten.max_pool2d.default",
    ]
    assert graph["steps"][1]["module"] == "conv1"


@every_net
def test_the_file_alone_computes_the_same(
    name: str, artifacts: dict[str, IntegerArtifact], images: Tensor, tmp_path: Path
) -> None:
    network = load(artifacts[name].save(tmp_path / "net.npz"))
    assert torch.equal(network.run(images[:50])[0], artifacts[name].run(images[:50]))
    integers = network.integers(images[:50])
    assert all(value.dtype == torch.int64 for value in integers.values())


@every_net
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_header_compiles(name: str, artifacts: dict[str, IntegerArtifact], tmp_path: Path) -> None:
    (tmp_path / "model.h").write_text(artifacts[name].header)
    (tmp_path / "main.c").write_text('#include "model.h"\nint main(void) { return 0; }\n')
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    done = subprocess.run(["gcc", *strict, "main.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_same_model_gives_the_same_bytes(trained: dict[str, nn.Module], images: Tensor) -> None:
    one, other = (lower(capture(trained["residual"], (images[:2],)), "integers") for _ in range(2))
    assert one.content() == other.content()


def test_export_writes_one_file_and_leaves_the_model_alone(images: Tensor, tmp_path: Path) -> None:
    net = LeNet()
    for start in (0, 64):
        net(images[start : start + 64])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    done = export(net, (images[:8],), target="integers", path=tmp_path / "net.npz", options={"name": "digits"})
    assert done.verification is not None
    assert done.verification.equal
    assert "#ifndef DIGITS_H" in load(tmp_path / "net.npz").header
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.npz"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training


class Mixed(nn.Module):
    """Everything that integers cannot do, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.quant = qnn.QuantIdentity(return_quant_tensor=True)
        self.fc = qnn.QuantLinear(144, 10)
        self.last = qnn.QuantIdentity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.quant(self.norm(self.conv(x)))
        return F.softmax(self.fc(torch.flatten(y, 1)), 1), torch.tanh(self.last(x))


def test_everything_is_refused_at_once(images: Tensor) -> None:
    net = Mixed()
    net(images[:8])
    report = check(capture(net, (images[:2],)), "integers")
    assert [(refusal.op, refusal.where.partition(" ")[0]) for refusal in report.refusals] == [
        ("aten.softmax.int", "the"),
        ("aten.conv2d.default", "conv"),
        ("aten.tanh.default", "the"),
    ]
    assert str(report.refusals[1]) == (
        "aten.conv2d.default with a float weight\n  at conv (torch.nn.Conv2d)\n  integers computes with integer weights\n"
        "  Use the quantized layer of quant_nn, or set weight_quant on this one."
    )
    assert report.refusals[2].actual == "a result that is not quantized"
    with pytest.raises(UnsupportedError, match=r"target 'integers' cannot lower aten\.softmax\.int"):
        lower(capture(net, (images[:2],)), "integers")
