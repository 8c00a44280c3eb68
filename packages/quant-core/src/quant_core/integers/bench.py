"""What a lowering to integers works with: the plan so far, and what is known of the value of each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import torch
from torch import Tensor, fx

from quant_core.export.builder import constant_inputs
from quant_core.export.program import Program
from quant_core.export.ranges import bits_of
from quant_core.integers.carried import Carried, along, common_unit
from quant_core.integers.plan import Plan, Step

QUANTIZE_BEFORE: Final = "Put a quantizer before it: QuantIdentity or QuantReLU, or input_quant on this layer."


@dataclass(frozen=True)
class Cannot(Exception):
    """Why a node cannot be computed in integers; becomes a refusal at the place of the node."""

    actual: str
    constraint: str
    fix: str


class Silent(Exception):
    """A node that cannot be computed for a reason that is reported elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A value as it came in: floats, or the indices of an embedding."""

    source: str
    rectified: bool = False


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A function of one value, whose results the next quantizer puts in a table."""

    origin: Carried
    functions: tuple[fx.Node, ...]


Known = Carried | Raw | Pending


class Bench:
    """A plan in the making.

    Attributes:
        program: the captured model.
        plan: the steps and arrays so far.
        known: what is known of the value of each node.
        names: the qualified name of each constant, by its node.
        quantizers: by the name of their node.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.plan = Plan()
        self.known: dict[fx.Node, Known] = {}
        self.names = constant_inputs(program.exported)
        self.quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
        self.constants = frozenset(q.name for q in program.quantizers if q.integers is not None)

    def carried(self, node: Any) -> Carried:
        """What is known of a value that is in integers.

        Raises:
            Cannot: when it is not.
        """
        found = self.known.get(node) if isinstance(node, fx.Node) else None
        if isinstance(found, Carried):
            return found
        if isinstance(found, Pending):
            raise Cannot(
                f"the result of {found.functions[-1].target}, which is no integer",
                "integers takes such a function where the next operation is a quantizer",
                "Quantize the result: output_quant on this layer, or QuantIdentity behind it.",
            )
        raise Cannot("a float operand", "integers computes with quantized values only", QUANTIZE_BEFORE)

    def array(self, name: str, tensor: Tensor) -> dict[str, str]:
        """A reference to an array of that name; equal arrays under one name are one, others get a number."""
        candidate, number = name, 0
        while candidate in self.plan.arrays and not _same(self.plan.arrays[candidate], tensor):
            number += 1
            candidate = f"{name}_{number}"
        self.plan.arrays[candidate] = tensor.detach().clone()
        return {"array": candidate}

    def step(
        self, node: fx.Node, op: str, arguments: dict[str, Any], low: int, high: int, *, name: str = "", **more: Any
    ) -> str:
        """Add a step for a node, and return the name of its result."""
        bits, signed = bits_of(low, high)
        shape = [size if isinstance(size, int) else str(size) for size in node.meta["val"].shape]
        result = {"shape": shape, "low": low, "high": high, "bits": bits, "signed": signed} | more
        module = self.program.where(node).path
        free, number = name or node.name, 0
        while any(step.name == free for step in self.plan.steps):
            number += 1
            free = f"{name or node.name}_{number}"
        self.plan.steps.append(Step(name=free, op=op, module=module, arguments=arguments, result=result))
        return free

    def aten(self, node: fx.Node, carried: Carried, given: dict[str, Any]) -> Carried:
        """Add an operation of torch as it is, with other arguments in the place of some; the result has this grid and range."""
        others = {name: argument for name, argument in named_arguments(node).items() if name not in given}
        arguments = {name: self._argument(argument) for name, argument in others.items()}
        result = self.step(node, str(node.target), arguments | given, carried.least, carried.most)
        return replace(carried, source=result, is_array=False)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node) and isinstance(argument.meta["val"], Tensor):
            return reference(self.carried(argument))
        if isinstance(argument, list | tuple):
            return [self._argument(part) for part in argument]
        if argument is None or isinstance(argument, bool | int | float | str):
            return argument
        raise Cannot(
            f"the argument {argument}, a size that varies",
            "integers takes sizes that are fixed",
            "Leave dynamic_shapes (--dynamic-batch) out, or write flatten(1) in place of a view of x.shape[0] rows.",
        )

    def settled(self, node: fx.Node, carried: Carried) -> Carried:
        """The value with nothing added, and clamped to where it was to be clamped to.

        Raises:
            Cannot: when a bias stands between two integers, or a bound does.
        """
        if any(carried.offset):
            raise Cannot(
                "a value with a bias that is not on the grid of its accumulator",
                "integers adds a bias as an integer, or inside the quantizer that comes next",
                "Set bias_quant=Int32Bias on the layer before, or quantize its result.",
            )
        low, high = (self._level(carried, bound) for bound in carried.between)
        if low is None and high is None:
            return carried
        arguments = {"input": reference(carried), "low": low, "high": high}
        least = carried.least if low is None else max(low, carried.least)
        most = carried.most if high is None else min(high, carried.most)
        least, most = min(least, most), max(least, most)
        name = self.step(node, "clamp", arguments, least, most, name=f"{carried.source}_clamped")
        return replace(carried, source=name, is_array=False, low=(least,), high=(most,), between=(None, None))

    def _level(self, carried: Carried, bound: Fraction | None) -> int | None:
        if bound is None:
            return None
        levels = {bound / scale + zero for scale in carried.scale for zero in carried.zero_point}
        level = next(iter(levels))
        if len(levels) > 1 or level.denominator != 1 or min(carried.scale) < 0:
            raise Cannot(
                f"a bound of {float(bound):g} that is no level of the grid",
                "integers clamps integers, or in the quantizer that comes next",
                "Quantize the result: with QuantReLU or QuantHardTanh in its place.",
            )
        return int(level)

    def plain(self, node: fx.Node, carried: Carried) -> Carried:
        """The value with one scale for all channels, which divides those that it had."""
        held = self.settled(node, carried)
        if held.is_plain:
            return held
        return self.in_units_of(node, held, common_unit(held.scale))

    def in_units_of(self, node: fx.Node, carried: Carried, unit: Fraction) -> Carried:
        """``(q − zero_point) · (scale / unit)``, whole numbers all, on a grid of that scale around 0."""
        factors = [int(scale / unit) for scale in carried.scale]
        count = max(len(factors), len(carried.zero_point), len(carried.low))
        columns = (factors, carried.zero_point, carried.low, carried.high)
        rows = list(zip(*(_repeated(column, count) for column in columns), strict=True))
        ends = [(end - zero) * factor for factor, zero, *bounds in rows for end in bounds]
        low, high = min(ends), max(ends)
        result = Carried(source="", scale=(unit,), low=(low,), high=(high,))
        part = self.program.where(node).part
        arguments = {
            "input": reference(carried),
            "zero_point": self.zero_point(node, carried),
            "factor": self.array(part("factor"), along(factors, carried.axis, torch.int64)),
        }
        name = self.step(node, "multiply", arguments, low, high, name=f"{carried.source}_aligned")
        return replace(result, source=name)

    def aligned(self, node: fx.Node, values: Sequence[Carried]) -> list[Carried]:
        """Values on one grid: as they are where they are on one, else in the largest unit that divides their scales."""
        plain = [self.plain(node, value) for value in values]
        if all(value.on_the_grid_of(plain[0]) for value in plain):
            return plain
        unit = common_unit([value.scale[0] for value in plain])
        return [self.in_units_of(node, value, unit) for value in plain]

    def zero_point(self, node: fx.Node, carried: Carried) -> dict[str, str]:
        """A reference to the zero-point of a value."""
        axis = carried.axis if len(carried.zero_point) > 1 else None
        return self.array(f"{carried.source}.zero_point", along(carried.zero_point, axis, torch.int64))


def reference(carried: Carried) -> dict[str, str]:
    """A reference to the integers of a value."""
    return {"array" if carried.is_array else "value": carried.source}


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an operation of torch by their names."""
    target: Any = node.target
    names = [argument.name for argument in target._schema.arguments]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def _repeated(column: Sequence[Any], count: int) -> Sequence[Any]:
    return column if len(column) > 1 else [column[0]] * count


def _same(known: Tensor, value: Tensor) -> bool:
    return known.dtype == value.dtype and known.shape == value.shape and torch.equal(known, value)
