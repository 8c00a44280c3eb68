"""Sums of products of integers, and the operators that compute them.

What comes to a quantizer is rounded by the operator itself: ``QLinearConv``, ``QLinearMatMul``. Everything else is summed up as
int32, and multiplied with the product of both scales by ``DequantizeLinear``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, fx

from export_qcdq.channels import filled, sides
from export_qcdq.grid import grid, kind_of
from export_qcdq.held import Held, shift_of, shown
from export_qcdq.integer_ops import FROM_ACCUMULATOR, INTEGER_CONV, INTEGER_MATMUL, LINEAR_CONV, LINEAR_MATMUL
from export_qcdq.lowering import Lowering
from export_qcdq.naming import literal
from quant_core.export import Quantizer
from quant_core.export.arguments import arguments, each, zeros_around
from quant_core.export.products import CONVOLUTIONS, Product
from quant_core.export.ranges import bounds, sums_of_products

_aten = torch.ops.aten
_LARGEST: Final = 2**31 - 1
_SAME_SCALE: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class IntegerProduct:
    """A convolution or product of matrices of two operands of integers of 8 bits.

    Attributes:
        node: the node of the old program.
        first: the first operand, and the constants of its scale and its zero-point.
        second: the same of the second one.
        scale: the scale of the sums, ``()`` or ``(C,)``.
        name: that of the constant that holds it.
        bias: int32 on the grid of the sums, in a shape that is added to them; ``None`` where there is none.
        addend: a bias that is not on that grid: a new node of floats that are added to the values.
        window: strides, pads, dilations and groups of a convolution; ``None`` for a product of matrices.
    """

    node: fx.Node
    first: tuple[fx.Node, fx.Node, fx.Node]
    second: tuple[fx.Node, fx.Node, fx.Node]
    scale: Tensor
    name: str
    bias: Tensor | None = None
    addend: fx.Node | None = None
    window: Mapping[str, Any] | None = field(default=None)

    @property
    def can_land(self) -> bool:
        """Whether an operator can round the result; that of matrices has no bias."""
        return self.addend is None and (self.window is not None or self.bias is None)

    def landed(self, lowering: Lowering, quantizer: Quantizer) -> fx.Node:
        """The integers that the result is rounded to."""
        shift = shift_of(quantizer)
        target = Held(node=self.node, quantizer=quantizer, name=shown(self.node))
        low, high = (bound + shift for bound in bounds(quantizer))
        clipped = [] if (low, high) == (0, 255) else [low, high]
        limits = [literal(lowering.builder, _byte(bound)) for bound in clipped]
        output = (target.step(lowering), target.zero(lowering))
        given: tuple[Any, ...] = (*self.first, *self.second, *output)
        if self.window is None:
            return self._call(lowering, LINEAR_MATMUL, (*given, limits), {"name": shown(self.node)}, torch.uint8)
        window = {**self.window, "name": shown(self.node)}
        bias = None if self.bias is None else lowering.builder.constant(self._bias_name, self.bias.flatten())
        return self._call(lowering, LINEAR_CONV, (*given, bias, limits), window, torch.uint8)

    def value(self, lowering: Lowering) -> fx.Node:
        """The floats that the result stands for."""
        (a, _, a_zero), (b, _, b_zero) = self.first, self.second
        bias = None if self.bias is None else lowering.builder.constant(self._bias_name, self.bias)
        operation, window = (INTEGER_MATMUL, {}) if self.window is None else (INTEGER_CONV, dict(self.window))
        sums = self._call(lowering, operation, (a, b, a_zero, b_zero, bias), window, torch.int32)
        axis = 1 if self.window is not None else len(self.node.meta["val"].shape) - 1
        scale = lowering.builder.constant(self.name, self.scale)
        name = self.node.name if self.addend is None else f"{self.node.name}_product"
        value = lowering.builder.call(FROM_ACCUMULATOR, (sums, scale), {"axis": axis}, like=self.node, name=name)
        if self.addend is None:
            return value
        return lowering.builder.call(_aten.add.Tensor, (value, self.addend), like=self.node, name=self.node.name)

    @property
    def _bias_name(self) -> str:
        return f"{self.name.removesuffix('.output_scale')}.bias"

    def _call(
        self, lowering: Lowering, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], kind: torch.dtype
    ) -> fx.Node:
        return lowering.call(target, args, kwargs, like=self.node, name=f"{self.node.name}_integers", kind=kind)


def of_two(lowering: Lowering, node: fx.Node, a: Held, b: Held) -> IntegerProduct:
    """A product of two activations."""
    first, second = ((held.node, held.step(lowering), held.zero(lowering)) for held in (a, b))
    name = lowering.program.where(node).part("output_scale")
    return IntegerProduct(node=node, first=first, second=second, scale=a.scale * b.scale, name=name)


def of_constant(lowering: Lowering, found: Product, x: Held, *, unsigned: bool, lacks: int) -> IntegerProduct | None:
    """A product with a weight; ``None`` where no operator of integers takes it.

    Args:
        lowering: the program in the making.
        found: the product.
        x: its data.
        unsigned: whether the weight is written as uint8 also where it is signed.
        lacks: how many input channels of zeros both operands get.
    """
    quantizer = lowering.quantizers[found.weight.name]
    window = _window(found) if found.node.target in CONVOLUTIONS else None
    if not _has_operator(found, quantizer, x, window):
        return None
    assert quantizer.integers is not None
    on, base = grid(quantizer), lowering.base(found.weight)
    shift = shift_of(quantizer) if unsigned else 0
    kind = torch.uint8 if unsigned or not kind_of(quantizer).is_signed else torch.int8
    integers = (quantizer.integers.to(torch.int16) + shift).to(kind)
    if lacks:
        integers = filled(integers, torch.as_tensor(quantizer.zero_point) + shift, lacks)
    if found.output_axis == 0 and window is None:
        integers = integers.t().contiguous()
    constant = lowering.builder.constant
    zero_point = on.zero_point + shift
    if window is not None:
        zero_point = zero_point.flatten()[0]  # kernels of convolutions take one for all channels
    scale = on.scale * x.scale
    bias, addend = _bias(lowering, found, scale, window)
    return IntegerProduct(
        node=found.node,
        first=(_filled(lowering, found.x, x, lacks) if lacks else x.node, x.step(lowering), x.zero(lowering)),
        second=(
            constant(base, integers),
            constant(f"{base}_scale", on.scale),
            _zero_point(lowering, f"{base}_zero_point", zero_point.to(kind)),
        ),
        scale=scale,
        name=lowering.program.where(found.node).part("output_scale"),
        bias=bias,
        addend=addend,
        window=window,
    )


def _filled(lowering: Lowering, x: fx.Node, held: Held, lacks: int) -> fx.Node:
    """The integers of an activation with more channels."""
    pads, name = sides(x.meta["val"].dim(), lacks), f"{x.name}_filled"
    new = lowering.builder.call(_aten.constant_pad_nd.default, (held.node, pads, held.zero_point), like=x, name=name)
    new.meta["val"] = _aten.constant_pad_nd.default(x.meta["val"].to(torch.uint8), pads)
    return new


def _zero_point(lowering: Lowering, name: str, value: Tensor) -> fx.Node:
    return lowering.builder.constant(name, value) if value.dim() else literal(lowering.builder, value)


def _has_operator(found: Product, quantizer: Quantizer, x: Held, window: Mapping[str, Any] | None) -> bool:
    """Whether kernels take the weight: of 8 bits, scales per output channel, sums that fit into 32 bits.

    Those of convolutions take one zero-point for all channels.
    """
    value = found.weight.meta["val"]
    if window is None and (found.is_convolution or value.dim() != 2):
        return False
    if kind_of(quantizer) not in (torch.int8, torch.uint8) or quantizer.axis not in (None, found.output_axis):
        return False
    if quantizer.granularity == "per_group":
        return False
    assert quantizer.zero_point is not None
    assert quantizer.integers is not None
    one_zero = bool(torch.all(quantizer.zero_point == quantizer.zero_point.flatten()[0]))
    if window is not None and not (one_zero and len(found.x.meta["val"].shape) == value.dim()):
        return False
    low, high = (bound + x.shift - x.zero_point for bound in bounds(x.quantizer))
    whole = quantizer.integers.to(torch.int64) - quantizer.zero_point.to(torch.int64)
    least, most = sums_of_products(low, high, whole, found.output_axis)
    return max(-int(least.min()), int(most.max())) <= _LARGEST // 2


def _window(found: Product) -> dict[str, Any]:
    """The attributes of a convolution as ONNX names them."""
    given = arguments(found.node)
    kernel = found.weight.meta["val"].shape[2:]
    strides, dilations = (each(given[name], len(kernel)) for name in ("stride", "dilation"))
    before, behind = zip(*zeros_around(given, kernel), strict=True)
    return {"strides": strides, "pads": [*before, *behind], "dilations": dilations, "group": int(given["groups"])}


def _bias(
    lowering: Lowering, found: Product, scale: Tensor, window: Mapping[str, Any] | None
) -> tuple[Tensor | None, fx.Node | None]:
    """A bias as int32 on the grid of the sums, or as floats where it is not on it."""
    if found.bias is None:
        return None, None
    channels = (-1, *[1] * (0 if window is None else len(window["strides"])))
    quantizer = lowering.quantizers.get(found.bias.name)
    if quantizer is not None and quantizer.integers is not None and _on_grid(quantizer, scale):
        return quantizer.integers.to(torch.int32).reshape(channels), None
    value = lowering.value(found.bias)
    if window is None:
        return None, value
    shape = (1, *found.bias.meta["val"].shape, *channels[1:])
    reshaped = lowering.builder.call(
        _aten.reshape.default, (value, list(shape)), like=found.bias, name=f"{found.node.name}_bias"
    )
    reshaped.meta["val"] = found.bias.meta["val"].reshape(shape)
    return None, reshaped


def _on_grid(quantizer: Quantizer, scale: Tensor) -> bool:
    assert quantizer.scale is not None
    own = quantizer.scale.detach().to(torch.float32).reshape(-1)
    wanted = scale.reshape(-1)
    if own.numel() not in (1, wanted.numel()) and wanted.numel() != 1:
        return False
    return bool(torch.all((own - wanted).abs() <= _SAME_SCALE * wanted))


def _byte(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.uint8)
