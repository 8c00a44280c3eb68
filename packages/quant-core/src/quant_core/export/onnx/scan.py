"""Loops over time as ONNX ``Scan``: each is marked by operators of their own until the model is converted, and then wrapped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from quant_core.export.onnx.custom import custom_op
from quant_core.ops.loop import LOOP_INPUT, LOOP_LAST, LOOP_OUTPUTS, LOOP_STATE

_DOMAIN: Final = "quant.loop"


def loop_translations() -> dict[Any, Any]:
    """The markers of each op of a loop."""
    marker = partial(custom_op, domain=_DOMAIN, version=1)
    step_from_start, step_from_end = (marker(name, inputs=["sequence"]) for name in ("Input", "ReversedInput"))
    state = marker("State", inputs=["initial", "step"], attributes={"number": int})

    def carried(states: Sequence[Any]) -> list[str]:
        return [f"{word}{number}" for word in ("after", "state") for number in range(len(states))]

    def loop_input(sequence: Any, reverse: bool) -> Any:
        return (step_from_end if reverse else step_from_start)(sequence)

    def loop_state(initial: Any, step: Any, number: int) -> Any:
        return state(initial, step, number=number)

    def loop_last(afters: Sequence[Any], states: Sequence[Any], number: int) -> Any:
        last = marker("Last", inputs=carried(states), attributes={"number": int})
        return last(*afters, *states, number=number)

    def loop_outputs(each: Any, step: Any, sequence: Any, afters: Sequence[Any], states: Sequence[Any]) -> Any:
        outputs = marker("Outputs", inputs=["each", "step", "sequence", *carried(states)])
        return outputs(each, step, sequence, *afters, *states)

    return {LOOP_INPUT: loop_input, LOOP_STATE: loop_state, LOOP_LAST: loop_last, LOOP_OUTPUTS: loop_outputs}


def wrap_loops(model: Any) -> None:
    """Put a ``Scan`` with the nodes of one step as its body in the place of each loop of an ``onnx_ir`` model."""
    for step in [node for node in model.graph if node.domain == _DOMAIN and node.op_type.endswith("Input")]:
        _wrap(model.graph, step)
    model.graph.opset_imports.pop(_DOMAIN, None)


def _wrap(graph: Any, step: Any) -> None:
    import onnx_ir as ir

    uses = [(user, place) for user, place in step.outputs[0].uses() if user.domain == _DOMAIN]
    joined = [user for user, place in uses if user.op_type == "Outputs" and place == 1]
    found = [user for user, _ in uses if user.op_type == "State"]
    lasts = list(dict.fromkeys(last for state in found for last in _lasts_of(state)))
    results = [*joined, *lasts]
    afters, states = _carried(results[0])
    body = _between([step, *states], results, graph)
    marks = [step, *states, *results]
    given = [*afters, *(node.inputs[0] for node in joined)]
    # One value cannot be two outputs of a graph, as the hidden state is the next state and the output.
    copies = [ir.node("Identity", [value], outputs=[_like(value)]) for value in given]
    outputs = [
        _like(value) for value in (*(state.outputs[0] for state in states), *(node.outputs[0] for node in joined))
    ]
    places = {node: len(states) + place for place, node in enumerate(joined)}
    places |= {last: int(last.attributes["number"].as_int()) for last in lasts}
    for result, place in places.items():
        copies[place].metadata_props.update(result.metadata_props)
    inputs = [_like(mark.outputs[0]) for mark in (*states, step)]
    scan = ir.node(
        "Scan",
        [*(state.inputs[0] for state in states), step.inputs[0]],
        outputs=outputs,
        metadata_props=dict(step.metadata_props),
    )
    graph.insert_before(results[0], scan)
    for mark, value in zip((*states, step), inputs, strict=True):
        mark.outputs[0].replace_all_uses_with(value)
    for result, place in places.items():
        value = outputs[place]
        value.name, value.type, value.shape = result.outputs[0].name, result.outputs[0].type, result.outputs[0].shape
        result.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(marks)
    graph.remove(body)
    inner = ir.Graph(inputs, [copy.outputs[0] for copy in copies], nodes=[*body, *copies], name="step")
    backwards = int(step.op_type.startswith("Reversed"))
    scan.attributes.update(
        {
            "body": ir.AttrGraph("body", inner),
            "num_scan_inputs": ir.AttrInt64("num_scan_inputs", 1),
            "scan_input_directions": ir.AttrInt64s("scan_input_directions", [backwards]),
            "scan_output_directions": ir.AttrInt64s("scan_output_directions", [backwards] * len(joined)),
        }
    )


def _lasts_of(state: Any) -> list[Any]:
    return [user for user, _ in state.outputs[0].uses() if user.op_type == "Last" and user.domain == _DOMAIN]


def _carried(result: Any) -> tuple[list[Any], list[Any]]:
    """What a step makes of each state, and the nodes of the states."""
    operands = result.inputs[3 if result.op_type == "Outputs" else 0 :]
    count = len(operands) // 2
    return list(operands[:count]), [state.producer() for state in operands[count:]]


def _between(starts: list[Any], ends: list[Any], graph: Any) -> list[Any]:
    """The nodes that depend on the starts and are none of the ends, in order."""
    inside = {id(value) for node in starts for value in node.outputs}
    marks = {id(node) for node in (*starts, *ends)}
    found = []
    for node in graph:
        if id(node) not in marks and any(value is not None and id(value) in inside for value in node.inputs):
            found.append(node)
            inside.update(id(value) for value in node.outputs)
    return found


def _like(value: Any) -> Any:
    import onnx_ir as ir

    return ir.Value(name=value.name, type=value.type, shape=value.shape)
