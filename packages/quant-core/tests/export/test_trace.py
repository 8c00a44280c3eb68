"""Traces: each tensor from torch and from the artifact side by side, the first divergence marked."""

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import ArtifactError
from quant_core.export import Trace, capture, lower
from quant_core.plugins import Registry


def test_each_tensor_stands_beside_that_of_torch(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    program = capture(net, (x,))
    trace = lower(program, "listing", plugins=plugins).trace([x])
    assert [row.name for row in trace.rows] == ["entry_act_quant", "relu_act_quant"]
    for row in trace.rows:
        assert torch.equal(row.model, row.artifact)
        assert (row.difference, row.steps, row.ties, row.equal) == (0, 0, 0, True)
    assert trace.first_divergence is None
    assert "!" not in str(trace)


def test_the_first_divergence_is_marked(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    program = capture(net, (x,))
    step = net.relu.act_quant.scale().item()
    trace = lower(program, "listing", plugins=plugins, error=step, at="relu_act_quant").trace([x])
    assert trace.first_divergence.name == "relu_act_quant"
    assert trace.first_divergence.steps == pytest.approx(1)
    head, entry, relu = str(trace).splitlines()
    assert head.split() == ["tensor", "shape", "largest", "difference", "steps", "ties"]
    assert entry.startswith("   entry.act_quant (")
    assert relu.startswith("!  relu.act_quant (")
    assert relu.split()[-3:] == ["4x5", f"{trace.first_divergence.difference:.3g}", "1"]


def test_a_difference_of_a_tensor_that_is_not_quantized_is_found_there(
    net: nn.Module, x: Tensor, plugins: Registry
) -> None:
    program = capture(net, (x,))
    honest = lower(program, "listing", plugins=plugins).trace([x])
    wrong = {"first_linear": net.eval().first(net.entry(x)) + 1}
    trace = Trace(outputs=honest.outputs, values={**honest.values, **wrong}, program=program, inputs=[x])
    assert trace.first_divergence.name == "first_linear"
    assert trace.first_divergence.where.startswith("first (")
    assert trace.first_divergence.difference == pytest.approx(1)
    assert trace.first_divergence.steps is None


def test_a_trace_without_a_program_says_what_to_do() -> None:
    with pytest.raises(ArtifactError) as caught:
        str(Trace(outputs=[], values={}))
    assert str(caught.value) == (
        "this trace has nothing to stand beside\n"
        "  the artifact does not keep the program that it was lowered from\n"
        "  Compare them with quant_core.export.verify(program, artifact, args)."
    )
