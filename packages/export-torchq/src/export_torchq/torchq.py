"""Target ``torchq``: TorchScript of torch's quantized operators, which any process with torch loads and runs.

- A convolution or linear layer between two quantizers is one operator with packed int8 weights; a ReLU behind it is a part of it.
- Activations are quantized tensors of unsigned integers. Signed ones are shifted by 128, which changes no value.
- What only moves values is done on quantized tensors. Everything that torch has no integers for, or that nothing rounds, is
  computed in floats between a dequantization and a quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx

from export_torchq.engines import computing_with, engine_of
from export_torchq.joining import lower_embedding, lower_pair
from export_torchq.lowering import Lowering
from export_torchq.moving import AVERAGED, MOVED, lower_average, lower_concatenation, lower_move
from export_torchq.products import lower_product, lower_relu
from export_torchq.script import compiled
from export_torchq.script_artifact import ScriptArtifact
from quant_core.export import Program, is_quantizer
from quant_core.export.onnx.requirements import check_precision
from quant_core.export.products import CONVOLUTIONS, TRANSPOSED

_aten = torch.ops.aten
_LOWERED: Final[Mapping[Any, Callable[[Lowering, fx.Node], bool]]] = {
    **dict.fromkeys((*CONVOLUTIONS, *TRANSPOSED, _aten.linear.default, _aten.matmul.default), lower_product),
    **dict.fromkeys((_aten.add.Tensor, _aten.mul.Tensor), lower_pair),
    _aten.relu.default: lower_relu,
    **dict.fromkeys(MOVED, lower_move),
    **dict.fromkeys(AVERAGED, lower_average),
    _aten.cat.default: lower_concatenation,
    _aten.embedding.default: lower_embedding,
}
"""How an operation is lowered to integers; it stays one of floats where that gives ``False``."""


def lower(program: Program, engine: str | None = None) -> ScriptArtifact:
    """Lower a program to TorchScript.

    Args:
        program: a captured model that the target takes.
        engine: what packs the weights and computes here: ``"x86"``, ``"fbgemm"``, ``"onednn"`` or ``"qnnpack"``; by default
            the one that torch computes with now. A process that loads the file computes with its own.

    Raises:
        ConfigurationError: for another engine, or one that this build of torch lacks.
        UnsupportedError: when a quantizer does not compute in float32.
    """
    check_precision(program, "torchq")
    chosen = engine_of(engine)
    lowering = read(program, chosen)
    outputs = tuple(lowering.float_of(output) for output in program.outputs)
    graph = lowering.script.graph
    graph.output(outputs[0] if len(outputs) == 1 else outputs)
    graph.eliminate_dead_code()
    left = {node.name for node in graph.nodes}
    shown = {
        quantizer.name: made.name
        for node, made in lowering.integers.items()
        if (quantizer := lowering.quantizers.get(node.name)) is not None and made.name in left
    }
    used = {node.target: lowering.script.attributes[str(node.target)] for node in graph.nodes if node.op == "get_attr"}
    with computing_with(chosen):
        content = compiled(graph, {str(name): value for name, value in used.items()})
        module = lowering.script.module()
    return ScriptArtifact("torchq", program.signature, content, module, shown, chosen)


def read(program: Program, engine: str) -> Lowering:
    """Lower every operation of a program, in order."""
    lowering = Lowering(program, engine)
    with computing_with(engine):
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name not in program.constants:
                is_tensor = isinstance(node.meta.get("val"), Tensor)
                lowering.floats[node] = lowering.script.input(node.name) if is_tensor else node.meta.get("val")
            elif node.op == "call_function" and lowering.parameter(node) is None and not _is_assertion(node):
                _lower(lowering, node)
    return lowering


def _is_assertion(node: fx.Node) -> bool:
    """Whether a call gives nothing: what torch.export has found to hold."""
    return isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.returns


def _lower(lowering: Lowering, node: fx.Node) -> None:
    if is_quantizer(node):
        lowering.lower_quantizer(node)
    elif node.target not in _LOWERED or not _LOWERED[node.target](lowering, node):
        lowering.floats[node] = lowering.copy(node)
