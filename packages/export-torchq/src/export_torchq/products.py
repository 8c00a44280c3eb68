"""Convolutions and linear layers: one operator with packed weights and bias, the rounding of the result, and a ReLU."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, fx

from export_torchq.engines import computing_with
from export_torchq.levels import Weight, unsigned_levels, weight_of
from export_torchq.limits import limit_of
from export_torchq.lowering import Lowering
from quant_core.export import Quantizer
from quant_core.export.arguments import arguments, each, zeros_around
from quant_core.export.products import CONVOLUTIONS, TRANSPOSED, Product, product

_aten = torch.ops.aten
_NEAR: Final = 1e-3
_RELATIVE: Final = 2.0**-21


def lower_product(lowering: Lowering, node: fx.Node) -> bool:
    """Lower a product to an operator of integers; ``False`` where it stays one of floats."""
    stored = {name for name, quantizer in lowering.quantizers.items() if quantizer.integers is not None}
    found = product(node, frozenset(stored | lowering.program.constants.keys()))
    landing = lowering.landings.get(node.name)
    if found is None or landing is None or not _is_batch(found) or lowering.integer_of(found.x) is None:
        return False
    weight = _weight(lowering, found)
    if weight is None:
        return False
    relu = relu_behind(node) if node.target not in TRANSPOSED else None
    path = lowering.name_of(found.weight)
    bias = None if found.bias is None else lowering.value_of(found.bias).to(torch.float32).contiguous()
    if bias is not None and lowering.engine == "qnnpack" and not _is_whole(bias, lowering.on[found.x], weight):
        lowering.refuse(
            node,
            "a bias between the integers of its accumulator",
            "engine qnnpack adds biases that are whole multiples of input scale times weight scale",
            "Set bias_quant=Int32Bias on this layer, or use engine x86, fbgemm or onednn, which add biases of floats.",
        )
    with computing_with(lowering.engine):
        kind, packed = _packed(found, weight, bias)
    to = unsigned_levels(landing)
    operator = getattr(torch.ops.quantized, f"{kind}_relu" if relu else kind)
    attribute = lowering.script.attribute(f"{path.rpartition('.')[0] or path}_packed", packed)
    x = lowering.integer_of(found.x)
    made = lowering.script.call(operator, x, attribute, to.scale, to.zero_point, name=node.name)
    lowering.keep(node, made, landing)
    if relu is not None:
        lowering.rectified.add(node)
    return True


def relu_behind(node: fx.Node) -> fx.Node | None:
    """The ReLU that alone uses a value."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target is _aten.relu.default else None


def lower_relu(lowering: Lowering, node: fx.Node) -> bool:
    """Lower a ReLU of a quantized tensor: a part of the operator before it, or one that keeps the grid."""
    used: Any = node.args[0]
    if used not in lowering.integers:
        return False
    made = lowering.integers[used]
    if used not in lowering.rectified:
        made = lowering.script.call(_aten.relu, made, name=node.name)
    lowering.keep(node, made, lowering.on[used])
    return True


def _is_whole(bias: Tensor, x: Quantizer, weight: Weight) -> bool:
    """Whether a bias is whole multiples of the accumulator's scale, but for the rounding of floats."""
    steps = bias.to(torch.float64) / (float(x.scale) * weight.scale.to(torch.float64))  # type: ignore[arg-type]
    return bool(torch.all((steps - steps.round()).abs() <= _NEAR + _RELATIVE * steps.abs()))


def _is_batch(found: Product) -> bool:
    """Whether the data has the axis of the batch."""
    axes, of_weight = len(found.x.meta["val"].shape), len(found.weight.meta["val"].shape)
    return axes == of_weight if found.is_convolution else axes >= 2 and of_weight == 2


def _weight(lowering: Lowering, found: Product) -> Weight | None:
    """The integers of a weight that the engine takes, output channels first; ``None``, with a note, where it takes none."""
    quantizer = lowering.parameter(found.weight)
    if quantizer is None:
        return None
    weight = weight_of(quantizer)
    limit = limit_of(lowering.engine, found, weight, unsigned_levels(lowering.on[found.x]).high)
    if limit is not None:
        lowering.note(
            found.node, f"this layer is computed in floats, between a dequantization and a quantization: {limit}"
        )
        return None
    assert weight is not None
    if not found.is_convolution and found.output_axis == 1:
        axis = None if weight.axis is None else 0
        turned = weight.integers.t().contiguous()
        return Weight(integers=turned, scale=weight.scale, zero_point=weight.zero_point, axis=axis)
    return weight


def _packed(found: Product, weight: Weight, bias: Any) -> tuple[str, Any]:
    """The operator, and the weight and the bias as it takes them."""
    node = found.node
    if not found.is_convolution:
        return "linear", torch.ops.quantized.linear_prepack(weight.quantized(), bias)
    given, axes = arguments(node), weight.integers.dim() - 2
    window: dict[str, list[int]] = {
        word: each(given[word], axes) for word in ("stride", "dilation", "output_padding") if word in given
    }
    padding = [before for before, _ in zeros_around(given, weight.integers.shape[2:])]
    groups = int(given["groups"])
    if node.target in CONVOLUTIONS:
        kind = f"conv{axes}d"
        shape = (window["stride"], padding, window["dilation"], groups)
    else:
        kind = f"conv_transpose{axes}d"
        shape = (window["stride"], padding, window["output_padding"], window["dilation"], groups)  # type: ignore[assignment]
    return kind, getattr(torch.ops.quantized, f"{kind}_prepack")(weight.quantized(), bias, *shape)
