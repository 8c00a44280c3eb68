"""Running a plan: a loop over its steps, with integers of 64 bits in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import InputError
from quant_core.integers.operations import OPERATIONS, run_aten
from quant_core.integers.plan import Output, Plan


def run_plan(plan: Plan, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """The integers of every value of a plan, by name; inputs are there as they were given.

    Raises:
        InputError: when there are more or fewer inputs than the plan has.
    """
    if len(inputs) != len(plan.inputs):
        names = ", ".join(entry["name"] for entry in plan.inputs)
        raise InputError(
            f"{len(inputs)} inputs were given",
            why=f"the network takes {len(plan.inputs)}: {names}",
            fix="Pass one tensor for each, in this order.",
        )
    values = {entry["name"]: given for entry, given in zip(plan.inputs, inputs, strict=True)}
    arrays = {name: _wide(array) for name, array in plan.arrays.items()}
    for step in plan.steps:
        arguments = {name: resolve(given, values, arrays) for name, given in step.arguments.items()}
        if step.op in OPERATIONS:
            values[step.name] = OPERATIONS[step.op](**arguments)
        else:
            values[step.name] = run_aten(step.op, arguments)
    return values


def resolve(argument: Any, values: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Any:
    """An argument with tensors in the place of references."""
    if isinstance(argument, dict):
        if "value" in argument:
            return values[argument["value"]]
        if "array" in argument:
            return arrays[argument["array"]]
        return {name: resolve(given, values, arrays) for name, given in argument.items()}
    if isinstance(argument, list):
        return [resolve(given, values, arrays) for given in argument]
    return argument


def dequantized(output: Output, values: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Any:
    """An output as float32: computed in float64, and rounded once."""
    found = resolve(output.value, values, arrays)
    if output.scale is None:
        return found
    scale, zero_point, offset = (
        resolve(part, values, arrays).to(torch.float64) for part in (output.scale, output.zero_point, output.offset)
    )
    real = (found.to(torch.float64) - zero_point) * scale + offset
    return torch.clamp(real, output.low, output.high).to(torch.float32) if _bounded(output) else real.to(torch.float32)


def _bounded(output: Output) -> bool:
    return output.low is not None or output.high is not None


def _wide(array: Tensor) -> Tensor:
    return array if array.is_floating_point() else array.to(torch.int64)
