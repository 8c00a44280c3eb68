"""Programs of pairs: their form in both flavors, that they give every value of the model, and that torch alone reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn

from .grids import EXACT, Act, Lowered, Middle, lowered, values

FLAVORS = ("x86", "xnnpack")
READER = """
import sys, warnings
for name in ("quant_core", "quant_nn", "quant_rnn", "export_torchq"):
    sys.modules[name] = None  # importing one of them fails
warnings.simplefilter("ignore")
import torch
import torch.ao.quantization.fx._decomposed
torch.set_num_threads(1)
model = torch.export.load(sys.argv[1]).module()
x, expected = torch.load(sys.argv[2])
assert torch.equal(model(x), expected)
"""


class Net(nn.Module):
    """Convolution, ReLU, pool, flatten and linear layer, for batches of any size."""

    def __init__(self, **weight: Any) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(Act, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(1, 4, 3, **EXACT, **weight)
        self.relu = qnn.QuantReLU(Act, signed=False, return_quant_tensor=True)
        self.head = qnn.QuantLinear(4 * 9, 3, bias=True, output_quant=Act, **EXACT)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.conv(self.entry(x))), 2)
        scores: Tensor = self.head(x.view(x.shape[0], -1))
        return scores


def operators(found: Lowered) -> list[str]:
    """The calls of the file in short: ``q`` and ``dq`` for a pair."""
    short = {
        "quantize_per_tensor": "q",
        "dequantize_per_tensor": "dq",
        "dequantize_per_channel": "dq_weight",
    }
    names = [
        str(node.target).split(".")[1] for node in found.artifact.exported.graph.nodes if node.op == "call_function"
    ]
    return [short.get(name, name) for name in names if name != "sym_size"]


X = values(3, 1, 8, 8)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_pair_stands_behind_each_quantizer_and_each_operation_that_keeps_a_grid(flavor: str) -> None:
    found = lowered("pt2e", Net(), X, shapes="batch", flavor=flavor)
    assert operators(found) == [
        "dq_weight",
        "dq_weight",
        *("q", "dq", "conv2d", "relu", "q", "dq", "max_pool2d", "q", "dq", "reshape", "q", "dq", "linear", "q", "dq"),
    ]
    result = found.compared(values(5, 1, 8, 8, seed=1))
    assert (result.max_difference, result.ties, result.equal) == (0.0, 0, True)


@pytest.mark.parametrize(
    ("flavor", "dtype", "zero_points"), [("x86", torch.uint8, [128, 0]), ("xnnpack", torch.int8, [0, -128])]
)
def test_activations_are_integers_of_the_flavor(flavor: str, dtype: torch.dtype, zero_points: list[int]) -> None:
    found = lowered("pt2e", Net(), X, flavor=flavor)
    quantizers = [
        node for node in found.artifact.exported.graph.nodes if "quantized_decomposed.quantize" in str(node.target)
    ]
    assert {node.args[5] for node in quantizers} == {dtype}
    assert [node.args[2] for node in quantizers[:2]] == zero_points
    limits = torch.iinfo(dtype)
    assert {(node.args[3], node.args[4]) for node in quantizers} == {(limits.min, limits.max)}


def test_weights_are_buffers_of_int8_with_a_scale_for_each_channel() -> None:
    stored = lowered("pt2e", Net(), X).artifact.exported.state_dict
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in stored.items()} == {
        "conv.weight": (torch.int8, (4, 1, 3, 3)),
        "conv.weight_scale": (torch.float32, (4,)),
        "conv.weight_zero_point": (torch.int64, (4,)),
        "conv.bias": (torch.float32, (4,)),
        "head.weight": (torch.int8, (3, 36)),
        "head.weight_scale": (torch.float32, (3,)),
        "head.weight_zero_point": (torch.int64, (3,)),
        "head.bias": (torch.float32, (3,)),
    }


def test_a_process_with_torch_alone_runs_it_on_a_batch_of_another_size(tmp_path: Path) -> None:
    net = Net().eval()
    path = lowered("pt2e", net, X, shapes="batch").artifact.save(tmp_path / "net.pt2")
    wide = values(5, 1, 8, 8, seed=1)
    with torch.no_grad():
        torch.save((wide, net(wide)), tmp_path / "io.pt")
    command = [sys.executable, "-I", "-c", READER, str(path), str(tmp_path / "io.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_equal_models_give_equal_bytes_without_the_example() -> None:
    torch.manual_seed(2)
    net = Net()
    one, other = (lowered("pt2e", net, x).artifact for x in (X, values(3, 1, 8, 8, seed=1)))
    assert one.content() == other.content()
    assert one.exported.example_inputs is None


@settings(max_examples=10, deadline=None)
@given(
    bits=st.integers(2, 8),
    per_channel=st.booleans(),
    flavor=st.sampled_from(FLAVORS),
    seed=st.integers(0, 99),
    transposed=st.booleans(),
)
def test_any_weights(bits: int, per_channel: bool, flavor: str, seed: int, transposed: bool) -> None:
    kind = qnn.QuantConvTranspose2d if transposed else qnn.QuantConv2d
    layer = kind(4, 3, 3, weight_bit_width=bits, weight_scaling_per_output_channel=per_channel, **EXACT)
    x = values(2, 4, 5, 5, seed=seed)
    found = lowered("pt2e", Middle(layer), x, flavor=flavor)
    result = found.compared(x)
    assert (result.max_difference, result.equal) == (0.0, True)
