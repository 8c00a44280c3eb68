"""One weight quantizer node per layer: readers refuse one whose result several layers take."""

from __future__ import annotations

from typing import Any, Final

from torch import fx
from torch.export import ExportedProgram

from export_finn.ops import BIPOLAR, FLOAT, QUANT
from quant_core.export.onnx import SCOPES, Step, origin

_OPS: Final = (QUANT, BIPOLAR, FLOAT)
_QUANTIZERS: Final = ("Quant", "BipolarQuant", "FloatQuant")


def split_weights(exported: ExportedProgram) -> Step:
    """A step that gives each layer a node of its own for a quantized constant; the constant itself is stored once.

    Each call of a layer counts as one. The steps of a recurrent layer are all of one call, and share their node.
    """
    calls = {node.name: _call(node) for node in exported.graph.nodes if node.op == "call_function"}

    def step(model: Any) -> None:
        for node in list(model.graph):
            if node.op_type not in _QUANTIZERS or not node.inputs[0].is_initializer():
                continue
            given: dict[Any, Any] = {}
            for user, index in list(node.outputs[0].uses()):
                call = calls.get(origin(user)) or user
                if call not in given:
                    given[call] = _copy(model, node, user) if given else node.outputs[0]
                user.replace_input_with(index, given[call])

    return step


def _call(user: fx.Node) -> tuple[str, ...]:
    """The call of a layer in which an operation takes a quantized constant; empty where it takes none.

    It is told by the calls of modules that the operation and the quantizer are both in, and by the module of the operation.
    """
    around: dict[str, Any] = user.meta.get("nn_module_stack") or {}
    for used in user.all_input_nodes:
        if used.target in _OPS and used.all_input_nodes[0].op == "placeholder":
            shared = [key for key in around if key in (used.meta.get("nn_module_stack") or {})]
            return (*shared, *(path for path, _ in list(around.values())[-1:]))
    return ()


def _copy(model: Any, node: Any, user: Any) -> Any:
    """The result of another node like this one, named after a user."""
    copy = type(node)(node.domain, node.op_type, node.inputs, list(node.attributes.values()), num_outputs=1)
    copy.outputs[0].shape, copy.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    copy.metadata_props[SCOPES] = user.metadata_props.get(SCOPES, "['', '']")
    model.graph.insert_after(node, copy)
    return copy.outputs[0]
