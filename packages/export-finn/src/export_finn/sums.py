"""Products of integers: the accumulator, its bias and its scale."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from export_finn import datatypes
from export_finn.integers import Integers
from export_finn.workbench import Workbench
from quant_core.export import Program
from quant_core.export.arguments import arguments
from quant_core.export.products import CONVOLUTIONS, Product
from quant_core.export.ranges import sums_of_products

_aten = torch.ops.aten


def added_product(node: fx.Node, weights: frozenset[str]) -> tuple[Product, fx.Node] | None:
    """``aten.addmm`` of a weight, a step of a recurrent layer: the product, and what it is added to; ``None`` for others."""
    if node.target is not _aten.addmm.default or node.kwargs:
        return None
    added, x, weight = node.args
    if not isinstance(added, fx.Node) or not isinstance(x, fx.Node) or not isinstance(weight, fx.Node):
        return None
    if weight.name not in weights:
        return None
    return Product(node=node, x=x, weight=weight, bias=None, output_axis=1), added


def lower_added_product(work: Workbench, found: Product, added: fx.Node) -> None:
    """Put a product that is added to another value in the new program; of a state of zeros, that value is all of it."""
    if is_zero(work.program, found.x) and added.meta["val"].shape == found.node.meta["val"].shape:
        work.builder.new[found.node] = work.value(added)
        return
    lower_product(work, found, added=added)


def is_zero(program: Program, node: fx.Node) -> bool:
    """Whether a value is a constant of zeros, such as the state that a recurrent layer starts from."""
    constant = program.constants.get(node.name)
    return constant is not None and not bool(torch.any(constant))


def lower_product(work: Workbench, found: Product, added: fx.Node | None = None) -> None:
    """Put a product in the new program, of integers where its data are.

    Args:
        work: the new program so far.
        found: the product.
        added: a value that is added to it.
    """
    node, quantizer = found.node, work.quantizers[found.weight.name]
    assert quantizer.integers is not None
    assert quantizer.scale is not None
    held = work.integers.get(found.x)
    held = held if held is not None and (held.per_tensor or _is_depthwise(found)) else None
    x = work.value(found.x) if held is None else held.node
    turned = node.target is _aten.linear.default
    weight = work.whole(found.weight, quantizer.integers.t() if turned else quantizer.integers)
    name = f"{node.name}_integers"
    if found.is_convolution:
        args = (x, weight, None, *node.args[3:])
        kwargs = {word: value for word, value in node.kwargs.items() if word != "bias"}
        total = work.builder.call(node.target, args, kwargs, like=node, name=name)
    else:
        total = work.builder.call(_aten.matmul.default, (x, weight), like=node, name=name)
    scale = _along_channels(found, quantizer.scale.detach().to(torch.float32))
    part = work.program.where(node).part
    if held is None:
        work.floats.append(node)
        _finish(work, found, total, scale, part("weight_scale"), added)
        return
    lows, highs = sums_of_products(held.low, held.high, quantizer.integers, found.output_axis)
    low, high = int(lows.min()), int(highs.max())
    kind = datatypes.of_range(low, high)
    of_data = held.scale.reshape(()) if held.per_tensor else _of_each_output(found, held.scale)
    result = Integers(node=total, scale=of_data * scale, name=part("scale"), low=low, high=high, datatype=kind)
    if added is None:
        _accumulate(work, found, result)
    else:
        work.result_datatypes[total.name] = kind
        _finish(work, found, total, result.scale, result.name, added)


def _is_depthwise(found: Product) -> bool:
    """Whether each output is the sum of products of one channel, whose scale is one of the result then."""
    if found.node.target not in CONVOLUTIONS:
        return False
    return bool(arguments(found.node)["groups"] == found.x.meta["val"].shape[1])


def _of_each_output(found: Product, scale: Tensor) -> Tensor:
    """The scale of the channel that each output of a depthwise convolution is computed from."""
    count = int(found.node.meta["val"].shape[1])
    return _along_channels(found, scale.reshape(-1).repeat_interleave(count // scale.numel()))


def _accumulate(work: Workbench, found: Product, total: Integers) -> None:
    """Add the bias to an accumulator of integers: as integers where it is on the same grid."""
    if found.bias is None:
        work.hold(found.node, total)
        return
    quantizer = work.quantizers.get(found.bias.name)
    scale = None if quantizer is None else _along_channels(found, quantizer.scale)  # type: ignore[arg-type]
    if quantizer is None or not torch.equal(*torch.broadcast_tensors(scale, total.scale)):
        work.result_datatypes[total.node.name] = total.datatype
        _finish(work, found, total.node, total.scale, total.name)
        return
    assert quantizer.integers is not None
    work.result_datatypes[total.node.name] = total.datatype
    bias = work.whole(found.bias, _along_channels(found, quantizer.integers))
    name = f"{found.node.name}_with_bias"
    added = work.builder.call(_aten.add.Tensor, (total.node, bias), like=found.node, name=name)
    low, high = (
        total.low + min(0, int(quantizer.integers.min())),
        total.high + max(0, int(quantizer.integers.max())),
    )
    kind = datatypes.of_range(low, high)
    held = Integers(node=added, scale=total.scale, name=total.name, low=low, high=high, datatype=kind)
    work.hold(found.node, held)


def _finish(
    work: Workbench, found: Product, total: fx.Node, scale: Tensor, name: str, added: fx.Node | None = None
) -> None:
    """Multiply an accumulator with its scale, and add a bias that is on no grid or on another one, or what is added besides."""
    node, call = found.node, work.builder.call
    last = node.name if found.bias is None and added is None else f"{node.name}_scaled"
    value = call(_aten.mul.Tensor, (total, work.builder.constant(name, scale)), like=node, name=last)
    if found.bias is not None and found.bias.name in work.quantizers:
        quantizer = work.quantizers[found.bias.name]
        assert quantizer.integers is not None
        grid = work.builder.constant(
            f"{work.base(found.bias)}_scale",
            _along_channels(found, quantizer.scale),  # type: ignore[arg-type]
        )
        bias = work.whole(found.bias, _along_channels(found, quantizer.integers))
        steps = call(_aten.div.Tensor, (value, grid), like=node, name=f"{node.name}_steps")
        steps = call(_aten.add.Tensor, (steps, bias), like=node, name=f"{node.name}_with_bias")
        value = call(_aten.mul.Tensor, (steps, grid), like=node, name=node.name)
    elif found.bias is not None:
        bias = work.builder.constant(
            work.names[found.bias.name], _along_channels(found, work.program.constants[found.bias.name])
        )
        value = call(_aten.add.Tensor, (value, bias), like=node, name=node.name)
    if added is not None:
        value = call(_aten.add.Tensor, (value, work.value(added)), like=node, name=node.name)
    work.builder.new[node] = value


def _along_channels(found: Product, tensor: Tensor) -> Tensor:
    """One number for each output channel, in a shape that broadcasts to the result."""
    if tensor.numel() == 1:
        return tensor.detach().reshape(())
    if not found.is_convolution:
        return tensor.detach().reshape(-1)
    axes, result = len(found.weight.meta["val"].shape) - 2, found.node.meta["val"]
    channels = result.shape[result.dim() - axes - 1]
    each = tensor.detach().reshape(-1)
    each = each.repeat(channels // each.numel())  # groups of a transposed convolution share them
    return each.reshape((1,) * (result.dim() - axes - 1) + (-1,) + (1,) * axes)
