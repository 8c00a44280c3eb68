"""Loops over time in a captured program: where they are, and running them. See :mod:`quant_core.ops.loop`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx

from quant_core.ops.loop import LOOP_INPUT, LOOP_LAST, LOOP_OPS, LOOP_OUTPUTS, LOOP_STATE


@dataclass(frozen=True)
class Loop:
    """One loop.

    Attributes:
        step: the slice of its sequence at one step.
        states: the states before the step.
        body: what is computed at each step, in order.
        results: last states and joined outputs, of which there is at least one.
    """

    step: fx.Node
    states: tuple[fx.Node, ...]
    body: tuple[fx.Node, ...]
    results: tuple[fx.Node, ...]

    @property
    def reverse(self) -> bool:
        """Whether it starts from the end."""
        return bool(self.step.kwargs["reverse"])

    @property
    def carried(self) -> dict[fx.Node, fx.Node]:
        """Each state, and what a step makes of it."""
        afters, states = self.results[0].args[-2:]
        return dict(zip(states, afters, strict=True))  # type: ignore[arg-type]


def loops_of(graph: fx.Graph) -> Iterator[Loop]:
    """The loops of a graph, in order."""
    for step in graph.find_nodes(op="call_function", target=LOOP_INPUT):
        states = tuple(user for user in step.users if user.target is LOOP_STATE)
        inside: dict[fx.Node, None] = dict.fromkeys((step, *states))
        joined = [user for user in step.users if user.target is LOOP_OUTPUTS and user.args[1] is step]
        lasts = [user for state in states for user in state.users if user.target is LOOP_LAST]
        results = dict.fromkeys([*joined, *lasts])
        body: dict[fx.Node, None] = {}
        for node in graph.nodes:  # in order, so that one pass finds all that depends on the step
            if node not in inside and node not in results and any(used in inside for used in node.all_input_nodes):
                inside[node] = None
                body[node] = None
        yield Loop(step, states, tuple(body), tuple(results))


def holds_loops(graph: fx.Graph) -> bool:
    """Whether a graph holds a loop."""
    return any(node.target in LOOP_OPS for node in graph.nodes)


class LoopInterpreter(fx.Interpreter):
    """Runs a graph node by node, and what lies inside of a loop once for each step.

    Values inside of a loop are those of one step, and are not kept.

    Args:
        module: the graph module of an exported program.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        found = list(loops_of(module.graph))
        super().__init__(module, garbage_collect_values=not found)  # a loop reads again what came before it
        self._loop_of = {result: loop for loop in found for result in loop.results}
        self._inside = {node for loop in found for node in (loop.step, *loop.states, *loop.body)}
        self._results: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node; that of a loop with its first result, and nothing before."""
        if n in self._inside:
            return None
        if n not in self._loop_of:
            return super().run_node(n)
        if n not in self._results:
            self._results.update(self._run(self._loop_of[n]))
        return self._results.pop(n)

    def _run(self, loop: Loop) -> dict[fx.Node, Any]:
        sequence = self._outer(loop.step.args[0])
        now = {state: self._outer(state.args[0]) for state in loop.states}
        parts: dict[fx.Node, list[Any]] = {result: [] for result in loop.results if result.target is LOOP_OUTPUTS}
        for x in sequence.flip(0) if loop.reverse else sequence:
            env = {loop.step: x, **now}
            for node in loop.body:
                args, kwargs = fx.map_arg((node.args, node.kwargs), partial(self._value, env))
                env[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            for result, values in parts.items():
                values.append(self._value(env, result.args[0]))
            now = {state: self._value(env, after) for state, after in loop.carried.items()}
        joined = {result: torch.stack(values[::-1] if loop.reverse else values) for result, values in parts.items()}
        lasts = [result for result in loop.results if result.target is LOOP_LAST]
        return joined | {result: now[_state_of(result)] for result in lasts}

    def _value(self, env: dict[fx.Node, Any], node: Any) -> Any:
        return env[node] if node in env else self._outer(node)

    def _outer(self, node: Any) -> Any:
        return self.env[node]


def _state_of(last: fx.Node) -> fx.Node:
    states: Any = last.args[1]
    found: fx.Node = states[last.kwargs["number"]]
    return found
