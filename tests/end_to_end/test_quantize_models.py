"""Architectures in small: every recipe converts them, trains a step and passes the check of its target."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture, check, export
from quant_core.plugins import registry
from quant_nn import RECIPES, fold_batch_norms, quantize, recipe


def conv_bn(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Sequential:
    """Convolution without bias, batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options), nn.BatchNorm2d(outputs)
    )


class ResidualBlock(nn.Module):
    """With one rectifier for both places, as torchvision has it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = conv_bn(inputs, outputs, stride=stride), conv_bn(outputs, outputs)
        self.relu = nn.ReLU(inplace=True)
        self.down = conv_bn(inputs, outputs, 1, stride=stride) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        same = x if self.down is None else self.down(x)
        return self.relu(self.two(self.relu(self.one(x))) + same)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 4), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(ResidualBlock(4, 4, 1), ResidualBlock(4, 6, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class InvertedResidual(nn.Module):
    """With a shortcut where nothing changes its size; the last convolution has no rectifier behind it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 2 * inputs
        self.layers = nn.Sequential(
            *(conv_bn(inputs, wide, 1), nn.ReLU6(), conv_bn(wide, wide, groups=wide, stride=stride), nn.ReLU6()),
            conv_bn(wide, outputs, 1),
        )
        self.same = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.same else self.layers(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = (InvertedResidual(4, 4, 1), InvertedResidual(4, 6, 2), InvertedResidual(6, 6, 1))
        self.features = nn.Sequential(conv_bn(1, 4), nn.ReLU6(), *blocks)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


class DenseNet(nn.Module):
    """Each layer takes the outputs of all before it; batch norm and rectifier stand before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 2 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 2 * i, 2, 3, padding=1, bias=False) for i in range(3))
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        return self.head(F.adaptive_avg_pool2d(torch.cat(features, 1), (1, 1)).flatten(1))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn(1, 2, 1), nn.Sequential(conv_bn(1, 2, 1), conv_bn(2, 2))])
        self.pooled = conv_bn(1, 2, 1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        outs = [F.relu(branch(x)) for branch in self.branches]
        outs.append(F.relu(self.pooled(F.max_pool2d(x, 3, 1, 1))))
        return self.head(torch.cat(outs, 1)).mean((2, 3))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(conv_bn(1, 4), nn.ReLU())
        self.bottom = nn.Sequential(nn.MaxPool2d(2), conv_bn(4, 6), nn.ReLU())
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.out = nn.Sequential(conv_bn(8, 4), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        return self.out(torch.cat([skip, self.up(self.bottom(skip))], dim=1))


class ViTBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(x)).reshape(x.shape[0], -1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.proj(out)
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


class MLPMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.tokens = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.channels = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        return self.head((x + self.channels(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(10, 4, batch_first=True)
        self.rnn = nn.RNN(4, 4, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.gru(self.lstm(x.squeeze(1))[0])[0])[0][:, -1])


MODELS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind for kind in (ResNet, MobileNetV2, DenseNet, Inception, UNet, ViTBlock, MLPMixer, Recurrent)
}


def model_and_input(name: str) -> tuple[nn.Module, Tensor]:
    """The model after some steps of training, so that its batch norms have statistics."""
    torch.manual_seed(0)
    model, x = MODELS[name](), torch.randn(4, 1, 8, 8)
    for _ in range(3):
        model(x)
    return model, x


@pytest.mark.parametrize("graph", [False, True], ids=["modules", "graph"])
@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_converted_and_trains(name: str, graph: bool) -> None:
    """With the recipe for integer CPUs: near to the float model, every float parameter gets a gradient, and it pickles."""
    model, x = model_and_input(name)
    expected = copy.deepcopy(model).eval()(x)
    floats = {id(parameter): path for path, parameter in model.named_parameters()}
    conversion = quantize(model, recipe("w8a8_integer_cpu"), inputs=(x,), graph=graph)
    quantized = conversion.model
    assert {
        one.path for one in conversion.left if one.float_type.endswith(("Conv2d", "Linear", "LSTM", "GRU", "RNN"))
    } == set()
    state = {key: buffer.clone() for key, buffer in quantized.state_dict().items() if "running_" in key}
    quantized.train()
    quantized(x).sum().backward()
    trained = {id(parameter) for parameter in quantized.parameters() if parameter.grad is not None}
    assert {path for one, path in floats.items() if one not in trained} == set()
    quantized.load_state_dict(state, strict=False)
    difference = (quantized.eval()(x) - expected).abs().max()
    assert 0 < difference < 0.15 * expected.abs().max()
    assert all(not call.rewritten for call in conversion.calls) or not graph
    assert torch.equal(pickle.loads(pickle.dumps(quantized))(x), quantized(x))


def test_what_module_replacement_cannot_reach() -> None:
    """The reports of the architectures, by operation."""
    found = {name: sorted({call.op for call in qnn.functional_calls(*_arguments(name))}) for name in MODELS}
    assert found == {
        "ResNet": ["add"],
        "MobileNetV2": ["add", "mean"],
        "DenseNet": ["adaptive_avg_pool2d", "cat", "relu"],
        "Inception": ["cat", "max_pool2d", "mean", "relu"],
        "UNet": ["cat"],
        "ViTBlock": ["add", "mean", "scaled_dot_product_attention"],
        "MLPMixer": ["add", "mean"],
        "Recurrent": [],
    }


def _arguments(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    model, x = model_and_input(name)
    return model, (x,)


CASES = [
    (name, model)
    for name, models in {
        "weight_only": ["ViTBlock", "Recurrent"],
        "w8a8_integer_cpu": [name for name in MODELS if name != "Recurrent"],  # quant-rnn exports these
        "w4a4_finn": ["ResNet", "MobileNetV2", "DenseNet", "Inception"],
        "fixed_point_dpu": ["ResNet", "MobileNetV2", "UNet"],
        "torch_native": ["ResNet", "Inception"],
    }.items()
    for model in models
]


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_a_recipe_passes_the_check_of_its_target(name: str, architecture: str) -> None:
    model, x = model_and_input(architecture)
    target = RECIPES[name].target
    if target not in registry().targets:
        pytest.skip(f"{target} is not installed")
    if name in ("fixed_point_dpu", "torch_native"):
        fold_batch_norms(model, (x,))
    graph = name not in ("weight_only", "w8a8_integer_cpu")
    quantized = quantize(model, recipe(name), inputs=(x,), graph=graph).model
    for _ in range(2):
        quantized(x)
    program = capture(quantized, (x[:1],))
    for taker in (target, "dpuv1") if target == "dpuv2" else (target,):
        report = check(program, taker)
        assert report.ok, str(report)


@pytest.mark.parametrize("architecture", ["ResNet", "MLPMixer"])
def test_what_a_recipe_gives_runs_in_the_runtime_of_its_target(architecture: str, tmp_path: Path) -> None:
    """Batch normalizations are kept, and the target writes them."""
    model, x = model_and_input(architecture)
    quantize(model, recipe("w8a8_integer_cpu"))
    for _ in range(2):
        model(x)
    exported = export(model, (x[:1],), target="qcdq", path=tmp_path / "model.onnx", verify=True)
    assert exported.verification is not None
    assert exported.verification.equal


def test_every_recipe_is_among_these() -> None:
    assert {name for name, _ in CASES} == set(RECIPES)
