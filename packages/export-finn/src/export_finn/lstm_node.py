"""A pass of an LSTM as one node, ``QuantLSTMCell``: its 48 operands, from the weights and the quantizers of the program."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, fx

from export_finn.lstm import Pass, passes
from export_finn.lstm_step import SLOTS, Unlike
from export_finn.operands import ROUNDING_MODES, dequantized, scale_and_zero_point
from export_finn.ops import LSTM_CELL, QUANT
from quant_core.errors import ConfigurationError, did_you_mean
from quant_core.export import Program, ProgramBuilder, Quantizer, Refusal, grids
from quant_core.ops.loop import LOOP_INPUT

_FORMS: Final = ("unrolled", "cell")
_LETTERS: Final = {"input": "i", "forget": "f", "cell": "c", "output": "o"}
_BIAS_BITS: Final = 32
_FIX: Final = "Leave the option recurrent away (or 'unrolled'): the layer is then written in standard operators."


def check_form(recurrent: str) -> None:
    """Raise where the option ``recurrent`` has no such value.

    Raises:
        ConfigurationError: for another word than ``unrolled`` and ``cell``.
    """
    if recurrent not in _FORMS:
        raise ConfigurationError(
            f"recurrent={recurrent!r} is not known",
            where="target 'qonnx'",
            why="recurrent layers are written as 'unrolled' or as 'cell'",
            fix=did_you_mean(recurrent, _FORMS),
        )


def refusals(program: Program) -> Iterator[Refusal]:
    """What cannot be a ``QuantLSTMCell``, of what computes step after step; also that there is nothing of the kind."""
    found = False
    for one in passes(program):
        found = True
        try:
            if isinstance(one, Unlike):
                raise one
            Operands(program, one)
        except Unlike as unlike:
            yield Refusal(
                where=str(program.where(unlike.node)),
                op="a recurrent layer",
                actual=unlike.actual,
                constraint="QuantLSTMCell is an LSTM with all of its quantizers: integers, one scale for each activation",
                fix=_FIX,
            )
    if not found and not program.graph.find_nodes(op="call_function", target=LOOP_INPUT):
        yield Refusal(
            where=f"the model ({program.modules.types['']})",
            op="recurrent='cell'",
            actual="no recurrent layer",
            constraint="the option says how an LSTM is written",
            fix="Leave the option away.",
        )


class Parameter(NamedTuple):
    """Weights or biases of one gate.

    Attributes:
        value: the values that they are rounded to.
        scale: 0-dim where it is one number.
        bit_width: the number of bits.
        signed: whether the integers can be negative.
        narrow: whether one level is left out.
    """

    value: Tensor
    scale: Tensor
    bit_width: float
    signed: bool
    narrow: bool


class Operands:
    """What ``QuantLSTMCell`` is told of a pass.

    Args:
        program: the captured model.
        found: a pass in it.

    Attributes:
        parameters: by the name of their operand, such as ``W_ii``; those of biases only where there are some.
        quantizers: by their slot.

    Raises:
        Unlike: where a weight, a bias or an activation is on no grid that the node can tell.
    """

    def __init__(self, program: Program, found: Pass) -> None:
        known = {quantizer.name: quantizer for quantizer in program.quantizers}
        first = found.steps[0]
        self.quantizers = {slot: known[first.quantizers[slot].name] for slot in SLOTS}
        for slot, quantizer in self.quantizers.items():
            if quantizer.scale is None or quantizer.scale.numel() != 1 or quantizer.bit_width is None:
                raise Unlike(found.linear, f"a scale of {slot}_quant that is not one constant")
        gates = ("input", "cell", "output") if found.coupled else tuple(_LETTERS)
        x, weight, *bias = found.linear.args
        inputs = _rows(known.get(getattr(weight, "name", "")), found.linear, gates)
        hidden = _rows(known.get(getattr(first.product.args[2], "name", "")), first.product, gates, turned=True)
        grid = grids(program).get(getattr(x, "name", ""))
        if grid is None or grid.scale is None or grid.scale.numel() != 1:
            raise Unlike(found.linear, "an input that is not quantized, or on several scales")
        biases: dict[str, Parameter] = {}
        if bias and bias[0] is not None:
            stored = program.constants[bias[0].name].chunk(len(gates))  # type: ignore[union-attr, index]
            for gate, values in zip(gates, stored, strict=True):
                biases[gate] = _bias(values, grid.scale * inputs[gate].scale, found.linear)
        self.parameters: dict[str, Parameter] = {}
        for kind, parts in (("W_i", inputs), ("W_h", hidden), ("b_", biases)):
            if found.coupled and parts:
                parts["forget"] = parts["input"]  # which the node does not read
            self.parameters |= {f"{kind}{letter}": parts[gate] for gate, letter in _LETTERS.items() if parts}


def _rows(quantizer: Quantizer | None, node: fx.Node, gates: tuple[str, ...], *, turned: bool = False) -> Any:
    """The weights of each gate, ``(H, features)``."""
    if quantizer is None or quantizer.integers is None or quantizer.op != "quant::int":
        raise Unlike(node, "weights that are not integers")
    assert quantizer.scale is not None
    assert quantizer.bit_width is not None
    assert quantizer.zero_point is not None
    if bool(torch.any(quantizer.zero_point != 0)):
        raise Unlike(node, "weights with a zero-point")
    values, scale = dequantized(quantizer), quantizer.scale.to(torch.float32)
    if turned:
        values, scale = values.t(), scale.t()
    rows = scale.expand(len(values), 1) if scale.numel() in (1, len(values)) else scale
    if rows.shape != (len(values), 1):
        raise Unlike(node, "weights with several scales for an output")
    return {
        gate: Parameter(
            part.contiguous(), _one_or_all(scales), quantizer.bit_width, quantizer.signed, quantizer.narrow_range
        )
        for gate, part, scales in zip(gates, values.chunk(len(gates)), rows.chunk(len(gates)), strict=True)
    }


def _one_or_all(scale: Tensor) -> Tensor:
    """0-dim where it is one number."""
    return scale[0, 0].clone() if bool(torch.all(scale == scale[0, 0])) else scale.contiguous()


def _bias(values: Tensor, scale: Tensor, node: fx.Node) -> Parameter:
    """A bias, which the program holds rounded: on the grid of the products that it is added to."""
    scale = scale.reshape(-1).to(torch.float32)
    wide, steps = values.to(torch.float64), values.to(torch.float64) / scale.to(torch.float64)
    off = (wide - steps.round() * scale.to(torch.float64)).abs()
    if bool(torch.any(off > 2.0**-22 * wide.abs())) or bool(torch.any(steps.abs() >= 2.0 ** (_BIAS_BITS - 1))):
        raise Unlike(node, "a bias that is not quantized at the scale of the products")
    return Parameter(values.to(torch.float32), scale, float(_BIAS_BITS), signed=True, narrow=False)


class LSTMNodes:
    """The passes of a program, to be written as nodes.

    Args:
        program: the captured model.
        builder: the program in the making.
    """

    def __init__(self, program: Program, builder: ProgramBuilder) -> None:
        self.program, self.builder = program, builder
        found = [one for one in passes(program) if isinstance(one, Pass)]
        self._at = {one.entry: one for one in found}
        self._inside = {node for one in found for node in one.body}

    def takes(self, node: fx.Node) -> bool:
        """Whether a node is inside of a pass."""
        return node in self._inside

    def write(self, node: fx.Node, value: Any) -> None:
        """Write the pass that starts here, if one does; ``value`` gives the new node in the place of an old one."""
        found = self._at.get(node)
        if found is None:
            return
        start = found.steps[0]
        x, hidden, cell = found.linear.args[0], start.product.args[1], start.entry.args[1]
        operands = Operands(self.program, found)
        given = [value(x), value(hidden), value(cell), *self._parameters(found, operands), *self._grids(operands)]
        told = operands.quantizers.values()
        options = {
            "reverse": found.reverse,
            "coupled": found.coupled,
            "narrow": [int(quantizer.narrow_range) for quantizer in told],
            "signed": [int(quantizer.signed) for quantizer in told],
            "rounding": ",".join(ROUNDING_MODES[quantizer.rounding_mode] for quantizer in told),
        }
        path = found.linear.name.removesuffix("_linear")
        made = self.builder.call(LSTM_CELL, (given,), options, like=found.linear, name=f"{path}_lstm")
        made.meta["val"] = tuple(LSTM_CELL(*_fakes((given,)), **options))
        results = (found.outputs, found.steps[-1].hidden, found.steps[-1].cell)
        for index, result in enumerate(results):
            if result is not None:
                self.builder.replace(result, operator.getitem, (made, index), {})

    def _parameters(self, found: Pass, operands: Operands) -> Iterator[fx.Node]:
        """Each weight and each bias behind its node; where there are no biases, one zero."""
        path = self.program.where(found.linear)
        made: dict[int, fx.Node] = {}
        for word in (f"{kind}{letter}" for kind in ("W_i", "W_h", "b_") for letter in "ifco"):
            parameter = operands.parameters.get(word)
            if parameter is None:
                yield self.builder.constant(path.part("no_bias"), torch.zeros(()))
                continue
            if id(parameter) not in made:
                made[id(parameter)] = self._quant(found, path.part(word), word, parameter)
            yield made[id(parameter)]

    def _quant(self, found: Pass, base: str, word: str, parameter: Parameter) -> fx.Node:
        zero = torch.zeros_like(parameter.scale) if word.startswith("b_") else torch.zeros(())
        operands = {
            base: parameter.value,
            f"{base}_scale": parameter.scale,
            f"{base}_zero_point": zero,
            f"{base}_bit_width": torch.tensor(parameter.bit_width),
        }
        name = f"{found.linear.name}_{word}"
        options = {"signed": parameter.signed, "narrow": parameter.narrow, "rounding_mode": "ROUND", "name": name}
        constants = tuple(self.builder.constant(key, tensor) for key, tensor in operands.items())
        new = self.builder.call(QUANT, constants, options, like=found.linear, name=name)
        new.meta["val"] = constants[0].meta["val"]
        return new

    def _grids(self, operands: Operands) -> Iterator[fx.Node]:
        for quantizer in operands.quantizers.values():
            scale, zero_point = scale_and_zero_point(quantizer)
            assert quantizer.bit_width is not None
            numbers = {"scale": scale, "zero_point": zero_point, "bit_width": torch.tensor(quantizer.bit_width)}
            for name, number in numbers.items():
                yield self.builder.constant(quantizer.where.part(name), number)


def _fakes(given: Any) -> Any:
    return fx.map_arg(given, lambda node: node.meta["val"])
