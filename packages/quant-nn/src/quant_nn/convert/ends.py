"""Where in a graph layers stand: at its ends, or behind layers of some type."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from quant_nn.convert.rule import Place

CARRIES_FLOATS = "carries_floats"
"""The key under which graph mode notes of each node whether its result is made of float tensors."""


def at_end(graph: fx.GraphModule, place: Place, among: Collection[str], layers: Collection[str]) -> set[str]:
    """The layers that an input reaches, or an output comes from, with no other layer between.

    Args:
        graph: a graph of graph mode.
        place: which end.
        among: the paths of the layers that are asked for.
        layers: the paths of all layers.

    Returns:
        Some of ``among``: one for each branch that begins, or ends, with such a layer.
    """
    first = place == "first"
    pending = list(graph.graph.find_nodes(op="placeholder" if first else "output"))
    seen, found = set(pending), set()
    while pending:
        node = pending.pop()
        for other in node.users if first else node.all_input_nodes:
            if other in seen or not (other.meta.get(CARRIES_FLOATS) or other.op == "output"):
                continue
            seen.add(other)
            if other.op != "call_module" or other.target not in layers:
                pending.append(other)
            elif other.target in among:
                found.add(str(other.target))
    return found


def stands_behind(
    graph: fx.GraphModule, among: Collection[str], sources: Collection[str], layers: Collection[str]
) -> set[str]:
    """The layers that take what one of ``sources`` gives, with no other layer between.

    Args:
        graph: a graph of graph mode.
        among: the paths of the layers that are asked for.
        sources: the paths of the layers that they may stand behind.
        layers: the paths of all layers.
    """
    found = set()
    for node in graph.graph.find_nodes(op="call_module"):
        if node.target not in among:
            continue
        pending, seen = list(node.all_input_nodes), set()
        while pending:
            other = pending.pop()
            if other in seen or not other.meta.get(CARRIES_FLOATS):
                continue
            seen.add(other)
            if other.op != "call_module" or other.target not in layers:
                pending.extend(other.all_input_nodes)
            elif other.target in sources:
                found.add(str(node.target))
    return found
