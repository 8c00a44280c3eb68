"""One weight quantizer node per layer: readers refuse one whose result several layers take."""

from __future__ import annotations

from typing import Any, Final

from quant_core.export.onnx import SCOPES

_QUANTIZERS: Final = ("Quant", "BipolarQuant", "FloatQuant")


def split_weights(model: Any) -> None:
    """Give each layer that takes a quantized constant a quantizer node of its own, in an ``onnx_ir`` model in place.

    The constant itself is stored once.
    """
    for node in list(model.graph):
        if node.op_type not in _QUANTIZERS or not node.inputs[0].is_initializer():
            continue
        for user, index in list(node.outputs[0].uses())[1:]:
            copy = type(node)(node.domain, node.op_type, node.inputs, list(node.attributes.values()), num_outputs=1)
            copy.outputs[0].shape, copy.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
            copy.metadata_props[SCOPES] = user.metadata_props.get(SCOPES, "['', '']")
            model.graph.insert_before(user, copy)
            user.replace_input_with(index, copy.outputs[0])
