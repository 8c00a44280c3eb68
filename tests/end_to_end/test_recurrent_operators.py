"""Recurrent layers with quantized weights alone, in every combination of their options, as the standard ONNX operators.

They are one model, so that all of them cost one export. Its time axis is dynamic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import cycle, product
from pathlib import Path
from typing import Any, Final

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quant_core.export import export
from quant_rnn import QuantGRU, QuantLSTM, QuantRecurrent, QuantRNN

OFF_RNN: Final = dict.fromkeys(("bias_quant", "io_quant", "gate_acc_quant"))
OFF_GRU: Final = {**OFF_RNN, **dict.fromkeys(("sigmoid_quant", "tanh_quant"))}
OFF_LSTM: Final = {**OFF_GRU, "cell_state_quant": None}
KINDS: Final[dict[str, tuple[type[QuantRecurrent], dict[str, Any]]]] = {
    "RNN, tanh": (QuantRNN, OFF_RNN),
    "RNN, ReLU": (QuantRNN, {**OFF_RNN, "nonlinearity": "relu"}),
    "GRU": (QuantGRU, OFF_GRU),
    "LSTM": (QuantLSTM, OFF_LSTM),
    "LSTM, coupled gates": (QuantLSTM, {**OFF_LSTM, "coupled_input_forget_gates": True}),
}
ONE_WAY: Final[dict[str, Any]] = {}
BOTH_WAYS: Final[dict[str, Any]] = {"bidirectional": True}
SHARED: Final[dict[str, Any]] = {"bidirectional": True, "shared_input_hidden_weights": True}
CONSTANT: Final[dict[str, Any]] = {"weight_scaling_impl_type": "const", "weight_scaling_init": 0.5}
"""A scale that takes little to capture; those from statistics are those of the other tests."""


class SideBySide(nn.Module):
    """Layers that read the same sequence."""

    def __init__(self, layers: list[QuantRecurrent]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Any]:
        return [layer(x.transpose(0, 1) if layer.batch_first else x) for layer in self.layers]


def all_layers(kind: str, widths: Iterator[int]) -> list[QuantRecurrent]:
    """Every combination of layers, directions, shared weights and shared quantizers.

    What lies around the operator, ``batch_first``, comes with each number of layers and each choice of directions; biases and
    widths of weights take turns.
    """
    layer, common = KINDS[kind]
    biased = cycle((True, True, False))
    built = []
    for layers, directions, second in product((1, 2), (ONE_WAY, BOTH_WAYS, SHARED), (False, True)):
        one_quantizer = {"shared_intra_layer_weight_quant": True} if second and layer is not QuantRNN else {}
        options = {**common, **CONSTANT, **directions, **one_quantizer}
        built.append(
            layer(
                3,
                4,
                num_layers=layers,
                batch_first=second != (directions is BOTH_WAYS),
                bias=next(biased),
                weight_bit_width=next(widths),
                **options,
            )
        )
    return built


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[SideBySide, Path]:
    """All of them in one model, and its file, which onnxruntime has found equal to the model."""
    torch.manual_seed(0)
    widths = cycle(range(2, 9))
    model = SideBySide([layer for kind in KINDS for layer in all_layers(kind, widths)]).eval()
    path = tmp_path_factory.mktemp("layers") / "model.onnx"
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    export(model, (torch.randn(3, 2, 3),), target="qcdq", path=path, dynamic_shapes=dynamic, verify=True)
    return model, path


def places(layer: QuantRecurrent) -> int:
    """How many matrices a layer has: two for each layer and direction; directions that share that of the input read one."""
    return 2 * len(layer.directions) - layer.num_layers * layer.sizes.shared_input


def test_every_combination_is_a_standard_operator(exported: tuple[SideBySide, Path]) -> None:
    model, path = exported
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    layers: list[QuantRecurrent] = list(model.layers)  # type: ignore[arg-type]
    assert len(layers) == len(KINDS) * 12
    operators = Counter(node.op_type for node in file.graph.node)
    for operator in ("RNN", "GRU", "LSTM"):
        alike = [layer for layer in layers if type(layer).__name__ == f"Quant{operator}"]
        assert operators[operator] == sum(layer.num_layers for layer in alike)
    assert operators["DequantizeLinear"] == sum(map(places, layers))
    around = {"Concat", "Reshape", "Split", "Squeeze", "Transpose"}
    assert set(operators) == {"RNN", "GRU", "LSTM", "DequantizeLinear", *around}
    coupled = [
        node for node in file.graph.node if any(part.name == "input_forget" and part.i for part in node.attribute)
    ]
    assert len(coupled) == operators["LSTM"] // 2


def test_weights_are_integers_of_every_width(exported: tuple[SideBySide, Path]) -> None:
    model, path = exported
    file = onnx.load(path)
    weights = {part.name: onnx.numpy_helper.to_array(part) for part in file.graph.initializer}
    for index, layer in enumerate(model.layers):
        found = [
            weight for name, weight in weights.items() if name.startswith(f"layers.{index}.weight") and weight.ndim == 3
        ]
        assert len(found) == places(layer)  # type: ignore[arg-type]
        highest = 2 ** (index % 7 + 1) - 1  # of 2 to 8 bits
        for weight in found:
            assert weight.dtype == "int8"
            assert abs(weight).max() <= highest


@pytest.mark.parametrize("length", [1, 6])
def test_onnxruntime_runs_it_at_any_length(exported: tuple[SideBySide, Path], length: int) -> None:
    model, path = exported
    x = torch.randn(length, 2, 3)
    results = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    for ours, theirs in zip(pytree.tree_leaves(model(x)), results, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours.detach(), rtol=0, atol=1e-6)
