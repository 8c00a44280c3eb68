"""Each layer, on plain and on quantized inputs: eager, compiled and captured agree, and each target is exact or refuses.

The layers are those of the table in quant_nn, and so is the matrix in docs/layers.md.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor

from quant_core.export import capture
from quant_nn.samples import SAMPLES

ROOT = Path(__file__).parents[2]
RANDOM = ("QuantDropout",)
BETWEEN_LEVELS = ("QuantUpsample, bilinear", "QuantUpsamplingBilinear2d")
"""Their values lie on the border between two levels so often that another order of additions is seen."""
every_layer = pytest.mark.parametrize("name", SAMPLES)
plain_or_quantized = pytest.mark.parametrize("quantized", [False, True], ids=["plain", "quantized"])


@pytest.fixture(scope="module")
def script() -> Any:
    """The script that writes the matrix."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        module: ModuleType = importlib.import_module("layer_matrix")
    finally:
        sys.path.pop(0)
    return module


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")


def steps_apart(one: Tensor, other: Tensor, step: Tensor | float) -> float:
    return float(((one - other).detach().abs() / step).max())


@every_layer
@plain_or_quantized
def test_the_captured_program_is_the_layer(script: Any, name: str, quantized: bool) -> None:
    net, inputs = script.trained(name, quantized=quantized), SAMPLES[name].inputs(5)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    program = capture(net, inputs)
    for seed in (5, 6):
        fresh = SAMPLES[name].inputs(seed)
        assert torch.equal(program.run(*fresh), net(*fresh))
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@every_layer
@plain_or_quantized
def test_training_and_evaluation_compile_as_one_graph(script: Any, name: str, quantized: bool) -> None:
    net, inputs = script.trained(name, quantized=quantized), SAMPLES[name].inputs(5)
    net.requires_grad_()
    step = 1.0 if net.entry is None else net.entry.act_quant.scale().detach()
    for training in (True, False):
        torch._dynamo.reset()
        net.train(training)
        # That what is captured can be traced once more for its gradients, training shows.
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager" if training else "eager")
        results = []
        for model in (net, compiled):
            net.zero_grad()
            leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
            out = model(*leaves)
            if out.requires_grad:
                out.square().sum().backward()
            found = [t.grad for t in (*net.parameters(), *leaves) if t.grad is not None]
            results.append((out, found))
        (eager, eager_gradients), (graph, graph_gradients) = results
        assert len(eager_gradients) == len(graph_gradients)
        if training and name in RANDOM:
            continue
        if quantized and name in BETWEEN_LEVELS:
            assert steps_apart(graph, eager, step) < 1.01
            continue
        assert torch.allclose(graph, eager, atol=1e-5)
        for one, other in zip(eager_gradients, graph_gradients, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)


@every_layer
def test_each_target_is_exact_or_refuses_as_the_matrix_says(script: Any, page: str, name: str) -> None:
    assert script.row(name) in page
