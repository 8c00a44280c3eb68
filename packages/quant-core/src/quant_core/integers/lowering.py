"""From a program to a plan: every node once, in order, and everything that cannot be done with its reason."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, fx

from quant_core.export.check_report import Refusal
from quant_core.export.products import product
from quant_core.export.program import Program, is_quantizer
from quant_core.integers.bench import QUANTIZE_BEFORE, Bench, Cannot, Pending, Raw, Silent, reference
from quant_core.integers.carried import Carried, along
from quant_core.integers.moving import RULES
from quant_core.integers.multiplying import lower_product
from quant_core.integers.plan import Output, Plan
from quant_core.integers.quantizing import lower_activation, lower_constant
from quant_core.integers.rescaling import TooWideError

_TOO_WIDE: Final = Cannot(
    "integers of more than 62 bits",
    "integers computes with 64 bits, and approximates nothing",
    "Use fewer bits here, a quantizer before this operation, or scales that differ by less.",
)


class Lowering:
    """A plan in the making.

    Attributes:
        plan: the plan, whole when there are no refusals.
        refusals: what cannot be computed in integers.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.bench = Bench(program)
        self.plan: Plan = self.bench.plan
        self.refusals: list[Refusal] = []
        self._lost: set[fx.Node] = set()  # nodes that were refused, and all that is computed from them
        self._inputs()
        for node in program.graph.nodes:
            if node.op == "call_function" and node.users and isinstance(node.meta["val"], Tensor):
                self._try(node)
        self._outputs()
        self._drop_unused()

    def _inputs(self) -> None:
        for node in self.program.graph.find_nodes(op="placeholder"):
            if node.name in self.bench.names:
                continue
            value = node.meta.get("val")
            self.bench.known[node] = Raw(source=node.name)
            if isinstance(value, Tensor):
                shape = [size if isinstance(size, int) else str(size) for size in value.shape]
                dtype = str(value.dtype).removeprefix("torch.")
                self.plan.inputs.append({"name": node.name, "shape": shape, "dtype": dtype})
            else:
                self.plan.inputs.append({"name": node.name, "shape": [], "dtype": type(value).__name__})

    def _try(self, node: fx.Node) -> None:
        if any(used in self._lost for used in node.all_input_nodes):
            self._lost.add(node)
            return
        try:
            self._lower(node)
        except Silent:
            self._lost.add(node)
        except Cannot as reason:
            self._refuse(node, reason)
        except TooWideError:
            self._refuse(node, _TOO_WIDE)

    def _refuse(self, node: fx.Node, reason: Cannot) -> None:
        self._lost.add(node)
        op = self.bench.quantizers[node.name].op if is_quantizer(node) else str(node.target)
        where = str(self.program.where(node))
        self.refusals.append(
            Refusal(where=where, op=op, actual=reason.actual, constraint=reason.constraint, fix=reason.fix)
        )

    def _lower(self, node: fx.Node) -> None:
        if node.name in self.bench.constants:
            lower_constant(self.bench, node)
        elif is_quantizer(node):
            lower_activation(self.bench, node)
        elif (found := product(node, self.bench.constants | self.program.constants.keys())) is not None:
            if found.weight.name not in self.bench.constants:
                raise Cannot(
                    "a float weight",
                    "integers computes with integer weights",
                    "Use the quantized layer of quant_nn, or set weight_quant on this one.",
                )
            lower_product(self.bench, found)
        elif (rule := RULES.get(str(node.target).removeprefix("aten."))) is not None:
            rule(self.bench, node)
        else:
            raise Silent  # the capabilities refuse it

    def _outputs(self) -> None:
        for index, returned in enumerate(self.program.outputs):
            if isinstance(returned, fx.Node) and returned in self._lost:
                continue
            try:
                self.plan.outputs.append(self._output(index, returned))
            except Cannot as reason:
                self._refuse(returned, reason)

    def _output(self, index: int, returned: Any) -> Output:
        if not isinstance(returned, fx.Node):
            return Output(value=returned)
        constant = self.program.constant(returned)
        if constant is not None:
            return Output(value=self.bench.array(self.bench.names[returned.name], constant))
        known = self.bench.known[returned]
        if isinstance(known, Raw) and not known.rectified:
            return Output(value={"value": known.source})
        if isinstance(known, Pending | Raw):
            raise Cannot("a result that is not quantized", "integers returns quantized values", QUANTIZE_BEFORE)
        return self._scaled_output(f"output_{index}", known)

    def _scaled_output(self, name: str, held: Carried) -> Output:
        low, high = (None if bound is None else float(bound) for bound in held.between)
        numbers = {
            word: self.bench.array(f"{name}.{word}", along([kind(x) for x in column], held.axis, dtype))
            for word, column, kind, dtype in (
                ("scale", held.scale, float, torch.float64),
                ("zero_point", held.zero_point, int, torch.int64),
                ("offset", held.offset, float, torch.float64),
            )
        }
        return Output(value=reference(held), low=low, high=high, **numbers)

    def _drop_unused(self) -> None:
        """Steps whose results nothing takes are left out, such as a clamp that two users asked for."""
        used = {name for output in self.plan.outputs for name in _values(output.value)}
        for step in reversed(list(self.plan.steps)):
            if step.name in used:
                used |= set(_values(step.arguments))
            else:
                self.plan.steps.remove(step)


def _values(argument: Any) -> list[str]:
    """The names of the values in an argument."""
    if isinstance(argument, dict):
        if "value" in argument and isinstance(argument["value"], str):
            return [argument["value"]]
        return [name for part in argument.values() for name in _values(part)]
    return [name for part in argument for name in _values(part)] if isinstance(argument, list) else []
