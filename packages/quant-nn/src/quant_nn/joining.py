"""Layers that join several tensors on one grid: the sum of two, and concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import ConfigurationError, InputError
from quant_core.proxies import QuantProxy
from quant_core.quant import Int8ActPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_core.tensor.grids import constant_along
from quant_nn.layer import QuantLayer, value_of
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy

Operand = Tensor | QuantTensor


class QuantJoin(QuantLayer):
    """What joining layers share: one quantizer for all operands, so that they lie on one grid, and one for the result.

    In training and in eval mode alike, all operands of one call are quantized at one scale. While the quantizer of the operands
    collects statistics, it therefore sees them as one tensor, and counts one step for each call.

    Args:
        input_quant: quantizer of the operands, or ``None`` for operands that are on one grid already.
        output_quant: quantizer of the result, or ``None`` for the grid that follows from the operands.
        tie_input_output_quant: quantize the result with the quantizer of the operands.
        return_quant_tensor: return a ``QuantTensor`` (with its scale) instead of a plain tensor.
        **options: options of the quantizers, with the prefix ``input_`` or ``output_``.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        ConfigurationError: when the quantizers are tied, and there is none of the operands or another one of the result.
        InputError: from ``forward``, when a ``QuantTensor`` is asked for and the operands are not on one grid.
    """

    input_quant: QuantProxy | None
    output_quant: QuantProxy | None

    def __init__(
        self,
        input_quant: Quantizer = Int8ActPerTensorFloat,
        output_quant: Quantizer = Int8ActPerTensorFloat,
        tie_input_output_quant: bool = False,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if tie_input_output_quant:
            self._check_tie(input_quant, output_quant)
            output_quant = None
        absent = {"output_": "tie_input_output_quant=True gives the result the quantizer of the operands"}
        found = split_options(
            type(self),
            options,
            {"input_": input_quant, "output_": output_quant},
            absent if tie_input_output_quant else {},
        )
        self.return_quant_tensor = return_quant_tensor
        self.input_quant = build_proxy(self, input_quant, "input_", found["input_"])
        tied = self.input_quant if tie_input_output_quant else None
        self.output_quant = tied or build_proxy(self, output_quant, "output_", found["output_"])

    def _check_tie(self, input_quant: Quantizer, output_quant: Quantizer) -> None:
        if input_quant is None or output_quant not in (None, input_quant, Int8ActPerTensorFloat):
            raise ConfigurationError(
                "the quantizers of operands and result cannot be tied",
                where=type(self).__name__,
                why="there is none of the operands" if input_quant is None else "output_quant is another quantizer",
                fix="Pass input_quant alone together with tie_input_output_quant=True.",
            )

    def _on_one_grid(self, operands: Sequence[Operand]) -> list[Operand]:
        """The operands, quantized at one scale."""
        quantize = self.input_quant
        if quantize is None:
            return list(operands)
        if not quantize.reads_input:  # a scale that is stored is one for all calls
            return [quantize(operand) for operand in operands]
        values = [value_of(operand) for operand in operands]
        if all(value.dim() > 0 and value.shape[1:] == values[0].shape[1:] for value in values):
            joint = quantize(torch.cat(values))
            return _parts(joint, [len(value) for value in values])
        try:
            flat = quantize(torch.cat([value.flatten() for value in values]))
        except InputError as failure:
            scale: Any = quantize.scale
            if scale().dim() == 0:
                raise
            raise self._no_channels([tuple(value.shape) for value in values]) from failure
        parts = flat.split([value.numel() for value in values])
        return [part.reshape(value.shape) for part, value in zip(parts, values, strict=True)]

    def _no_channels(self, shapes: Sequence[tuple[int, ...]]) -> InputError:
        return InputError(
            f"operands of shapes {' and '.join(map(str, shapes))} cannot be quantized per channel together",
            where=type(self).__name__,
            why="while input_quant collects statistics it sees them as one tensor, whose parts may differ along axis 0 only",
            fix="Bring them to one shape before, such as other.expand_as(input), or quantize the operands per tensor.",
        )

    def _finish(self, out: Operand, operands: Sequence[Operand]) -> Operand:
        """Quantize the result, or hand on the grid that it has."""
        if self.output_quant is not None:
            return self._hand_on(self.output_quant(out))
        if self.return_quant_tensor and not isinstance(out, QuantTensor):
            raise self._no_grid(operands)
        return self._hand_on(out)

    def _no_grid(self, operands: Sequence[Operand]) -> InputError:
        if torch.compiler.is_compiling():  # there are no numbers to tell
            reason = "they come from different quantizers, or one of them is a plain tensor"
            return self._no_grid_because(reason)
        first = operands[0]
        other = next((x for x in operands[1:] if _differ(first, x)), operands[-1])
        if not (isinstance(first, QuantTensor) and isinstance(other, QuantTensor)):
            reason = "one of them is a plain tensor"
        elif first.signed != other.signed:
            reason = f"one is signed and the other is not: signed={first.signed} and signed={other.signed}"
        elif first.dtype != other.dtype:
            reason = f"their dtypes are {first.dtype} and {other.dtype}"
        elif first.float_format != other.float_format:
            numbers = [x.float_format or "integers" for x in (first, other)]
            reason = f"their numbers are {numbers[0]} and {numbers[1]}"
        else:
            reason = f"their scales are {_numbers(first.scale)} and {_numbers(other.scale)}"
            if first.value.dtype not in (torch.float32, torch.float64):
                reason = f"{first.dtype} does not tell the levels of a sum apart"
            elif torch.equal(first.scale, other.scale):
                reason += ", from different quantizers, so that they may become unequal"
        return self._no_grid_because(reason)

    def _no_grid_because(self, reason: str) -> InputError:
        return InputError(
            "the operands are not on one grid, and the result has none",
            where=type(self).__name__,
            why=reason,
            fix="Set input_quant or output_quant on this layer, or share one quantizer between the layers before it.",
        )


class QuantEltwiseAdd(QuantJoin):
    """``y = Q_out(Q_in(a) + Q_in(b))``: the sum of two tensors on one grid. Arguments as :class:`QuantJoin`.

    >>> layer = QuantEltwiseAdd(output_quant=None, input_bit_width=4, return_quant_tensor=True)
    >>> out = layer(torch.tensor([1.0, -1.0]), torch.tensor([0.5, -1.0]))
    >>> out.int(), out.bit_width, out.scale
    (tensor([ 11, -16], dtype=torch.int8), tensor(5.), tensor(0.1250))
    """

    def forward(self, input: Operand, other: Operand) -> Operand:
        """Two float tensors or ``QuantTensor`` of shapes that broadcast; returns the shape of their sum.

        Raises:
            InputError: when the shapes do not fit, or a ``QuantTensor`` is asked for and the operands are not on one grid.
        """
        self._check_shapes(input.shape, other.shape)
        operands = self._on_one_grid([input, other])
        return self._finish(operands[0] + operands[1], operands)

    def _no_grid(self, operands: Sequence[Operand]) -> InputError:
        if not any(isinstance(x, QuantTensor) and x.float_format is not None for x in operands):
            return super()._no_grid(operands)
        return InputError(
            "the sum cannot be returned as a quantized tensor without an output quantizer",
            where=type(self).__name__,
            why="minifloats are not equally far apart, so that sums of them are none",
            fix="Set output_quant on this layer, or return_quant_tensor=False.",
        )

    def _check_shapes(self, one: torch.Size, other: torch.Size) -> None:
        if all(a == b or a == 1 or b == 1 for a, b in zip(reversed(one), reversed(other), strict=False)):
            return
        raise InputError(
            f"tensors of shape {tuple(one)} and {tuple(other)} cannot be added",
            where=type(self).__name__,
            why="along each axis, counted from the last, the sizes are equal or one of them is 1",
            fix="Check the strides and channels of the two branches that meet here.",
        )


class QuantCat(QuantJoin):
    """``y = Q_out(cat(Q_in(x₁), Q_in(x₂), …))``: tensors on one grid, one after the other. Arguments as :class:`QuantJoin`.

    >>> layer = QuantCat(output_quant=None, input_bit_width=4, return_quant_tensor=True)
    >>> out = layer([torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5]])])
    >>> out.int(), out.bit_width, out.scale
    (tensor([[ 7, -8,  4]], dtype=torch.int8), tensor(4.), tensor(0.1250))
    """

    def forward(self, tensor_list: Sequence[Operand], dim: int = 1) -> Operand:
        """Float tensors or ``QuantTensor`` whose shapes are equal but for axis ``dim``.

        Raises:
            InputError: when there is no tensor, the shapes do not fit, or a ``QuantTensor`` is asked for and the operands are
                not on one grid.
        """
        operands = list(tensor_list)
        self._check_shapes([tuple(x.shape) for x in operands], dim)
        operands = self._on_one_grid(operands)
        return self._finish(torch.cat(operands, dim), operands)  # type: ignore[arg-type]  # by the rule of cat

    def _check_shapes(self, shapes: list[tuple[int, ...]], dim: int) -> None:
        axes = len(shapes[0]) if shapes else 0
        if -axes <= dim < axes and all(len(shape) == axes for shape in shapes):
            others = [axis for axis in range(axes) if axis != dim % axes]
            if all(shape[axis] == shapes[0][axis] for shape in shapes for axis in others):
                return
        raise InputError(
            f"tensors of shapes {', '.join(map(str, shapes)) or 'none'} cannot be joined along axis {dim}",
            where=type(self).__name__,
            why="there is at least one, and their sizes are equal along every other axis",
            fix="Check the branches that meet here, or pass another dim.",
        )


def _parts(joint: Operand, sizes: list[int]) -> list[Operand]:
    """Pieces along the first axis; a scale that does not vary along it is that of each of them."""
    parts: list[Operand] = list(joint.split(sizes))
    if not isinstance(joint, QuantTensor) or not constant_along(joint, (0,)):
        return parts
    return [joint.replace(value=value_of(part)) for part in parts]


def _differ(one: Operand, other: Operand) -> bool:
    """Whether two operands cannot be on one grid, as far as their parts tell."""
    if not (isinstance(one, QuantTensor) and isinstance(other, QuantTensor)):
        return True
    if one.signed != other.signed or one.dtype != other.dtype or one.float_format != other.float_format:
        return True
    return one.scale.shape != other.scale.shape or not torch.equal(one.scale, other.scale)


def _numbers(scale: Tensor) -> str:
    """``0.25``, or ``0.25 … 0.5`` for a scale that varies."""
    low, high = float(scale.detach().amin()), float(scale.detach().amax())
    return f"{low:g}" if low == high else f"{low:g} … {high:g}"
