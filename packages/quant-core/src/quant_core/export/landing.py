"""Which quantizer a value is rounded by: what fuses an operation and the rounding of its result into one of integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import fx

from quant_core.export.assertions import ASSERTIONS
from quant_core.export.grid import keeps_grid, same_grid
from quant_core.export.program import Program
from quant_core.export.quantizer import Quantizer


def landings(program: Program) -> Mapping[str, Quantizer]:
    """For each node whose value is used rounded to one grid only, by name, the quantizer that it comes to.

    A value comes to a quantizer directly, or through operations that move or select values, such as a ReLU or a max pool:
    rounding before or after them gives the same.

    Law: when ``q`` is the quantizer of a node, quantizing the result of the node by ``q`` changes no output of the program.

    >>> import torch
    >>> from quant_core.export import capture
    >>> from quant_core.ops import quantize_int
    >>> class Net(torch.nn.Module):
    ...     def forward(self, x):
    ...         return quantize_int(torch.relu(x + x), torch.tensor(0.5), 0, 8, signed=True)
    >>> {name: quantizer.name for name, quantizer in landings(capture(Net(), (torch.zeros(2),))).items()}
    {'relu': 'int_1', 'add': 'int_1'}
    """
    activations = {quantizer.name: quantizer for quantizer in program.quantizers if quantizer.integers is None}
    found: dict[str, Quantizer] = {}
    for node in reversed(list(program.graph.nodes)):
        ends = list(_ends(node, activations, found))
        first = ends[0] if ends else None
        if first is not None and all(end is not None and same_grid(first, end) for end in ends):
            found[node.name] = first
    return MappingProxyType(found)


def _ends(
    node: fx.Node, activations: Mapping[str, Quantizer], found: Mapping[str, Quantizer]
) -> Iterator[Quantizer | None]:
    """The quantizer that each use of a value comes to."""
    for user in node.users:
        if user.target in ASSERTIONS:
            continue
        quantizer = activations.get(user.name)
        if quantizer is not None:
            yield quantizer if quantizer.op == "quant::int" and user.args[0] is node else None
        else:
            after = found.get(user.name)
            moved = after is not None and keeps_grid(user, [after] * len(user.all_input_nodes))
            yield after if moved else None
