"""The report agrees with what is counted by hand, and changes nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.cli.main import quant
from quant_core.errors import ArtifactError, ConfigurationError, InputError
from quant_core.quant import Int8ActPerTensorFixedPoint, Int32Bias, SignedBinaryActPerTensorConst
from quant_nn.report import ModelReport, plot, summary
from quant_nn.report.rows import LayerRow


class Net(nn.Module):
    """Small enough to count by hand; no layer returns a quantized tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(bit_width=8)
        self.conv = qnn.QuantConv2d(3, 4, 3, weight_bit_width=4, weight_scaling_per_output_channel=True)
        self.relu = qnn.QuantReLU(bit_width=5)
        self.fc = qnn.QuantLinear(4 * 3 * 3, 10, weight_bit_width=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(self.entry(x)))  # (N, 4, 6, 6)
        return self.fc(torch.flatten(F.max_pool2d(x, 2), 1))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    built = Net()
    built(torch.randn(4, 3, 8, 8))
    return built


def test_it_agrees_with_counts_by_hand(net: Net) -> None:
    report = summary(net, torch.randn(2, 3, 8, 8))
    assert [row.path for row in report.rows] == ["entry", "conv", "relu", "fc"]
    conv, fc = report.row("conv"), report.row("fc")
    # 2 images of 4 · 6 · 6 outputs, each a sum of 3 · 3 · 3 products of 4 and 8 bits
    assert conv.macs == 2 * 4 * 36 * 27 == 7776
    assert conv.bops == 7776 * 4 * 8
    assert (conv.weight_bits, conv.input_bits, conv.bias_bits) == (4, 8, None)
    # 4 · 27 weights and 4 float biases; 108 · 4 bits are 54 bytes
    assert (conv.parameters, conv.float_bytes, conv.quantized_bytes) == (112, 448, 54 + 16)
    assert (conv.granularity, conv.restriction) == ("per_channel", "float")
    # 2 · 10 outputs of 36 products; the input lies on the grid of the ReLU, through the pool and flatten
    assert (fc.macs, fc.input_bits, fc.weight_bits) == (720, 5, 3)
    assert fc.bops == 720 * 5 * 3
    assert (fc.parameters, fc.quantized_bytes) == (360, 360 * 3 // 8)
    assert report.row("entry").output_bits == 8
    assert report.row("relu").output_bits == 5
    assert report.total("macs") == 7776 + 720
    assert report.total("bops") == 7776 * 32 + 720 * 15
    assert report.total("parameters") == 472
    assert report.total("float_bytes") == 4 * 472


def test_accumulators_hold_the_largest_sum(net: Net) -> None:
    row = summary(net, torch.randn(1, 3, 8, 8)).row("fc")
    weight = net.fc.quant_weight().int().to(torch.int64)
    largest, smallest = 31 * weight.clamp(min=0).sum(1).max(), 31 * weight.clamp(max=0).sum(1).min()
    assert row.accumulator_bits == 1 + max(math.ceil(math.log2(largest + 1)), math.ceil(math.log2(-smallest)))


def test_a_float_model_counts_32_bits() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3))
    report = summary(net, torch.randn(5, 2, 6))
    assert report.row("0").macs == 5 * 4 * 4 * 3
    assert report.row("2").macs == 5 * 3 * 16
    assert report.row("2").bops == 240 * 32 * 32
    assert report.row("2").quantized_bytes == report.row("2").float_bytes == 51 * 4
    assert report.row("3").macs == 0
    assert report.row("2").weight_bits is None


def test_transposed_convolutions_count_their_inputs() -> None:
    layer = qnn.QuantConvTranspose2d(4, 6, 3, stride=2, groups=2, weight_bit_width=2)
    row = summary(layer, torch.randn(1, 4, 5, 5)).rows[0]
    assert row.macs == 4 * 25 * 3 * 9
    assert row.bops == row.macs * 32 * 2


def test_recurrent_layers_of_torch() -> None:
    net = nn.GRU(5, 7, num_layers=2, bidirectional=True)
    row = summary(net, torch.randn(11, 2, 5)).rows[0]
    first, second = 3 * 7 * (5 + 7), 3 * 7 * (14 + 7)
    assert row.macs == 22 * 2 * (first + second)
    assert row.parameters == sum(parameter.numel() for parameter in net.parameters())


def test_attention_counts_both_of_its_products() -> None:
    layer = qnn.QuantScaledDotProductAttention()
    query, key = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8)
    layer(query, key, key)
    row = summary(layer, (query, key, key)).rows[0]
    assert row.macs == 2 * 3 * 4 * 5 * (8 + 8)


def test_attention_of_torch_and_of_this_library_agree() -> None:
    """Projections of 5 queries and 3 keys in 2 batches, 16 features: 2 · (2 · 5 + 2 · 3) · 256, and 2 · 2 · 5 · 3 · 16."""
    inputs = torch.randn(5, 2, 16), torch.randn(3, 2, 16), torch.randn(3, 2, 16)
    expected = 2 * (2 * 5 + 2 * 3) * 256 + 2 * 2 * 5 * 3 * 16
    one, other = nn.MultiheadAttention(16, 2), qnn.QuantMultiheadAttention(16, 2)
    assert summary(one, inputs).total("macs") == expected
    other(*inputs)
    report = summary(other, inputs)
    assert report.total("macs") == expected
    assert report.total("bops") == 64 * expected  # 8 bits times 8 bits
    assert report.total("quantized_bytes") == 4 * 256 + 4 * 64  # weights of 8 bits, biases of 32


def test_products_of_two_activations_count_the_bits_of_both() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = qnn.QuantIdentity(bit_width=3)
            self.other = qnn.QuantIdentity(bit_width=6)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) @ self.other(x).transpose(0, 1) * self.scale

    row = summary(Product(), torch.randn(4, 7)).row("")
    assert (row.macs, row.bops) == (4 * 4 * 7, 4 * 4 * 7 * 3 * 6)


class Calls(nn.Module):
    """Code of its own, and layers."""

    def __init__(self, call: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.call = call
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.call(self, x)
        return found


def test_products_in_the_code_of_a_module_without_parameters_count() -> None:
    """At any depth; the products of layers are not counted twice."""
    one, other = qnn.QuantIdentity(bit_width=3), qnn.QuantIdentity(bit_width=6)
    inner = Calls(lambda net, x: net.one(x) @ net.other(x).t(), one=one, other=other)
    fc = nn.Linear(4, 4, bias=False)
    report = summary(nn.Sequential(nn.Sequential(inner), fc), torch.randn(4, 7))
    assert [(row.path, row.macs, row.bops) for row in report.rows if row.macs] == [
        ("0.0", 4 * 4 * 7, 4 * 4 * 7 * 3 * 6),
        ("1", 4 * 4 * 4, 4 * 4 * 4 * 11 * 32),  # sums of up to 4 · 32 · 7, with the sign
    ]


IMAGE, WEIGHT = torch.randn(2, 4, 5, 5), torch.randn(6, 2, 3, 3)


@pytest.mark.parametrize(
    ("call", "macs"),
    [
        (lambda x: F.conv2d(x, WEIGHT, groups=2), 2 * 6 * 3 * 3 * 2 * 9),
        (lambda x: F.conv2d(input=x, weight=WEIGHT, groups=2, padding=1), 2 * 6 * 5 * 5 * 2 * 9),
        (lambda x: F.conv_transpose2d(x, torch.ones(4, 3, 2, 2), groups=2), 2 * 4 * 25 * 3 * 4),
        (lambda x: F.linear(x, weight=torch.ones(7, 5)), 2 * 4 * 5 * 7 * 5),
        (lambda x: torch.matmul(input=x, other=x), 2 * 4 * 5 * 5 * 5),
        (lambda x: torch.bmm(x[0], mat2=x[1]), 4 * 5 * 5 * 5),
        (lambda x: torch.addmm(x[0, 0], x[0, 1], x[0, 2]), 5 * 5 * 5),
        (lambda x: torch.baddbmm(x[0], x[0], batch2=x[1]), 4 * 5 * 5 * 5),
        (lambda x: torch.einsum("nchw, ndhw -> ncd", x, x), 2 * 4 * 4 * 25),
        (lambda x: torch.einsum("...ij,...jk", x[0], x[1]), 4 * 5 * 5 * 5),
        (lambda x: x * x, 0),
    ],
)
def test_functions_that_multiply(call: Any, macs: int) -> None:
    assert summary(Calls(lambda net, x: call(x)), IMAGE).total("macs") == macs


def test_layers_may_be_called_by_keyword() -> None:
    x = torch.randn(2, 3, 6, 6)
    up = qnn.QuantConvTranspose2d(3, 5, 3, weight_bit_width=2)
    entry = qnn.QuantIdentity(bit_width=4)
    by_name = summary(Calls(lambda net, x: net.up(input=net.entry(x)), up=up, entry=entry), x).row("up")
    by_place = summary(Calls(lambda net, x: net.up(net.entry(x)), up=up, entry=entry), x).row("up")
    assert by_name == by_place
    assert (by_name.macs, by_name.bops) == (2 * 3 * 36 * 5 * 9, by_name.macs * 4 * 2)
    attention, tokens = nn.MultiheadAttention(4, 2), torch.randn(5, 1, 4)
    named = summary(Calls(lambda net, x: net.a(query=x, key=x, value=x)[0], a=attention), tokens)
    assert named.total("macs") == summary(attention, (tokens, tokens, tokens)).total("macs")


def test_each_call_of_a_layer_counts_its_own_bits() -> None:
    layer = qnn.QuantLinear(4, 4, weight_bit_width=2, bias=False)
    net = nn.Sequential(qnn.QuantIdentity(bit_width=8), layer, qnn.QuantReLU(bit_width=3), layer)
    row = summary(net, torch.randn(2, 4)).row("1")
    assert (row.macs, row.bops) == (2 * 32, 32 * 8 * 2 + 32 * 3 * 2)
    assert row.input_bits == (8 + 3) / 2
    alone = summary(net[:2], torch.randn(2, 4)).row("1")
    assert row.accumulator_bits == alone.accumulator_bits  # those of the wider input


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_a_parametrized_weight_is_one_row_and_what_the_layer_computes_with(kind: str) -> None:
    torch.manual_seed(0)
    layer = qnn.QuantLinear(6, 4, weight_bit_width=3)
    net = nn.Sequential(getattr(nn.utils.parametrizations, kind)(layer))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    (row,) = summary(net, torch.randn(2, 6)).rows
    assert (row.path, row.type, row.weight_bits) == ("0", "QuantLinear", 3)
    assert (row.parameters, row.float_bytes, row.quantized_bytes) == (28, 28 * 4, 24 * 3 // 8 + 4 * 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_noise_and_saturation_of_known_values() -> None:
    act = qnn.QuantIdentity(Int8ActPerTensorFixedPoint, bit_width=3, collect_stats_steps=1)
    act(torch.full((100,), 3.0))  # the threshold becomes 4: steps of 1, from -4 to 3
    assert act.act_quant.scale() == 1
    x = torch.tensor([1.0, 2.0, 3.25, 5.0, -9.0, 0.0, 0.0, 0.0])
    row = summary(act, x).rows[0]
    assert row.saturation == 2 / 8
    signal, noise = 1 + 4 + 3.25**2 + 25 + 81, 0.25**2 + 2.0**2 + 5.0**2
    assert row.sqnr == pytest.approx(10 * math.log10(signal / noise))
    assert summary(act, x, data=False).rows[0].sqnr is None


def test_rounding_in_the_outermost_half_steps_is_no_saturation() -> None:
    act = qnn.QuantIdentity(Int8ActPerTensorFixedPoint, bit_width=3, collect_stats_steps=1)
    act(torch.full((100,), 3.0))
    assert summary(act, torch.tensor([3.4, -4.4])).rows[0].saturation == 0


def test_binary_values_do_not_saturate() -> None:
    row = summary(qnn.QuantIdentity(SignedBinaryActPerTensorConst), torch.randn(9)).rows[0]
    assert row.saturation is None
    assert row.output_bits == 1


def test_a_quantized_bias_has_its_bits() -> None:
    layer = qnn.QuantLinear(6, 4, bias_quant=Int32Bias, weight_bit_width=5)
    net = nn.Sequential(qnn.QuantIdentity(return_quant_tensor=True), layer)
    row = summary(net, torch.randn(2, 6)).row("1")
    assert row.bias_bits == 32
    assert row.quantized_bytes == 6 * 4 * 5 // 8 + 4 * 4


def test_shared_parameters_count_once_and_products_each_time() -> None:
    layer = qnn.QuantLinear(6, 6, bias=False)
    twin = qnn.QuantLinear(6, 6, bias=False)
    twin.weight = layer.weight
    report = summary(nn.Sequential(layer, nn.ReLU(), layer, twin), torch.randn(1, 6))
    assert [(row.parameters, row.macs) for row in report.rows] == [(36, 72), (0, 36)]


def test_a_layer_that_is_not_called_has_its_parameters_only() -> None:
    class Partial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.used = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Any:
            return self.used(x)

    report = summary(Partial(), torch.ones(1, 2))
    assert [(row.path, row.macs, row.parameters) for row in report.rows] == [("used", 4, 6), ("unused", 0, 6)]


def test_nothing_of_the_model_changes(net: Net) -> None:
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()]
    summary(net, torch.randn(2, 3, 8, 8))
    with pytest.raises(InputError):
        summary(net, torch.randn(2, 5, 8, 8))
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()] == hooks


def test_no_inputs(net: Net) -> None:
    with pytest.raises(InputError) as caught:
        summary(net, ())
    assert str(caught.value) == (
        "there are no inputs to run the model on\n  at Net\n  products and the bits of activations are counted in one run\n"
        "  Pass the example inputs as a tuple: summary(model, (x,))."
    )


@pytest.mark.parametrize("inputs", [[torch.ones(1)], {"x": torch.ones(1)}])
def test_inputs_are_a_tensor_or_a_tuple(net: Net, inputs: Any) -> None:
    with pytest.raises(InputError) as caught:
        summary(net, inputs)
    assert str(caught.value) == (
        f"the inputs are a {type(inputs).__name__}\n  at Net\n  a tuple holds the positional inputs, and kwargs the others\n"
        "  Write summary(model, (x, y)), or summary(model, (), {'input': x}); a list that is one input is ([x, y],)."
    )


def test_the_table_has_a_line_for_each_layer_and_the_sums(net: Net) -> None:
    lines = str(summary(net, torch.randn(2, 3, 8, 8), data=False)).splitlines()
    heads = "layer type weight in out granularity scale parameters float quantized MACs BOPs accumulator weight dB"
    assert " ".join(lines[0].split()) == heads
    assert [line.split()[0] for line in lines[1:]] == ["entry", "conv", "relu", "fc", "total"]
    assert "7.78 k" in lines[2]


def test_json_holds_every_row(net: Net) -> None:
    report = summary(net, torch.randn(2, 3, 8, 8))
    found = json.loads(json.dumps(report.as_dict()))
    assert found["layers"] == [vars(row) for row in report.rows]
    assert found["total"]["bops"] == report.total("bops")


MODEL = """
import quant_nn as qnn
from torch import nn

print("a model that talks")

def net():
    return nn.Sequential(qnn.QuantIdentity(bit_width=4), qnn.QuantLinear(6, 2, weight_bit_width=2))
"""


def test_the_command_prints_json_and_a_table(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    place = f"{tmp_path}/net.py:net"
    done = CliRunner().invoke(quant, ["summary", place, "--input", "3x6", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["total"]["macs"] == 36
    assert found["layers"][0]["sqnr"] is None
    done = CliRunner().invoke(quant, ["summary", place, "--input", "3x6"])
    assert "QuantLinear" in done.stdout
    assert "total" in done.stdout


def test_the_command_measures_on_data(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    torch.save(torch.randn(5, 6), tmp_path / "x.pt")
    arguments = ["summary", f"{tmp_path}/net.py:net", "--data", str(tmp_path / "x.pt"), "--json"]
    found = json.loads(CliRunner().invoke(quant, arguments).stdout)
    assert found["layers"][0]["sqnr"] is not None
    assert found["total"]["macs"] == 60


def test_the_command_refuses_data_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    torch.save({"a": 1}, tmp_path / "x.pt")
    done = CliRunner().invoke(quant, ["summary", f"{tmp_path}/net.py:net", "--data", str(tmp_path / "x.pt")])
    assert done.exit_code == 2
    assert "the data 'x.pt' are no tensors" in done.output
    done = CliRunner().invoke(quant, ["summary", f"{tmp_path}/net.py:net", "--data", str(tmp_path / "none.pt")])
    assert "cannot read the data 'none.pt'" in done.output


def test_the_command_needs_inputs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    done = CliRunner().invoke(quant, ["summary", f"{tmp_path}/net.py:net"])
    assert done.exit_code == 2
    assert done.stderr == (
        "ArgumentError: no inputs to run the model on\n  at --input\n"
        "  products and the bits of activations are counted in one run\n"
        "  Give the shape of each input, for example --input 1x3x32x32, or a file of tensors with --data.\n"
    )


def test_a_plot_needs_a_name_that_says_its_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plot(ModelReport(rows=()), tmp_path / "net.pdf")
    assert str(caught.value) == (
        f"'net.pdf' is no name of a picture\n  at {tmp_path / 'net.pdf'}\n  a plot is written as .png or .svg\n"
        f"  Write, for example, {tmp_path / 'net.svg'}."
    )


def test_a_plot_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ArtifactError, match="the report cannot be drawn") as caught:
        plot(ModelReport(rows=(LayerRow(path="a", type="b"),)), tmp_path / "net.png")
    assert "Install it: pip install 'quant-nn[plot]'" in str(caught.value)
