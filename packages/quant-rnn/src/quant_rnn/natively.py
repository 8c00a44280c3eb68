"""Several steps of a sequence as one operation, where the native steps know all of their quantizers."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from quant_core.proxies import QuantProxy
from quant_rnn.collecting import Collected, at_scales, collected, distinct, follow, scales_of
from quant_rnn.native.acceptance import takes
from quant_rnn.native.program import Kind, Program, encoded
from quant_rnn.native.recorder import Recorder
from quant_rnn.native.sequence import all_steps
from quant_rnn.quantizing import MaybeQuantized, on_grid
from quant_rnn.weights import Weights


class Piece(NamedTuple):
    """The next steps of a sequence.

    Attributes:
        out: their outputs, ``(steps, B, …)``; ``None`` where there is none before a quantizer changes its state.
        state: the state after the last of them.
    """

    out: MaybeQuantized | None = None
    state: tuple[MaybeQuantized, ...] = ()


def run_natively(
    cell: Any,
    projected: Tensor,
    state: tuple[Tensor, ...],
    weights: Weights,
    io_quant: QuantProxy | None,
    *,
    reverse: bool,
) -> Piece | None:
    """The next steps in one operation; ``None`` where there is none for these quantizers or tensors.

    It ends where a quantizer has collected all.

    Args:
        cell: a step.
        projected: the projected input of all steps, ``(T, B, G·H)``.
        state: the state before them.
        weights: of the steps.
        io_quant: quantizes the output.
        reverse: whether to start from the end.
    """
    if not takes(projected, weights.hidden, *state):
        return None
    recorder = Recorder(projected, state)
    out, *others = cell.forward(recorder.input, recorder.states, weights, recorder)
    program = recorder.program([recorder.quantized(io_quant, out), *others])
    places = distinct(recorder.quantizers)
    calls = _known(recorder, places, projected)
    if calls is None:
        return None
    collecting = {quantizer: found for quantizer, found in places.items() if calls[found[0]].left is not None}
    part = projected
    if collecting:
        left = min(_left(calls, found) for found in collecting.values())
        if left == 0:
            return Piece()
        part = projected[-left:] if reverse else projected[:left]
    scales = scales_of(calls, projected)
    fields = [number for call in calls for number in _fields(call)]
    out, lasts, used, found, *_ = all_steps(
        part, recorder.matrices, recorder.biases, list(state), scales, encoded(program), fields, reverse
    )
    if collecting:
        if not bool(found.isfinite().all()):
            return None  # step by step, the quantizer that it is raises
        for quantizer, numbers in collecting.items():
            follow(quantizer, (found.flip(0) if reverse else found)[:, numbers].flatten())
    last = used[0 if reverse else -1]
    grids = [_call_of(program, number) for number in program.nexts]
    return Piece(
        _on_grid(recorder, collecting, grids[0], out, used),
        tuple(_on_grid(recorder, collecting, call, part, last) for call, part in zip(grids, lasts, strict=True)),
    )


def _known(recorder: Recorder, places: dict[QuantProxy, list[int]], like: Tensor) -> list[Collected] | None:
    """What the native steps need to know of each call; ``None`` where they do not know one of the quantizers."""
    calls: dict[int, Collected] = {}
    for quantizer, numbers in places.items():
        for number in numbers:
            one = calls.get(numbers[0])
            if one is None or one.left is not None:  # a number of elements decides whether it can be collected
                one = collected(quantizer, like, recorder.elements[number])
            if one is None:
                return None
            calls[number] = one
    return [calls[number] for number in range(len(calls))]


def _left(calls: list[Collected], numbers: list[int]) -> int:
    """How many steps a quantizer goes on collecting that has several calls in each."""
    return (calls[numbers[0]].left or 0) // len(numbers)


def _fields(call: Collected) -> list[float]:
    return [call.low, call.high, call.divisor, call.least, float(call.left is not None)]


def _call_of(program: Program, number: int) -> int:
    """The call of a quantizer that gives a number, −1 where that is not quantized."""
    row = program.rows[number]
    return row.which if row.kind == Kind.QUANT else -1


def _on_grid(
    recorder: Recorder, collecting: dict[QuantProxy, list[int]], call: int, x: Tensor, scales: Tensor
) -> MaybeQuantized:
    if call < 0:
        return x
    quantizer = recorder.quantizers[call]
    if quantizer not in collecting:
        return on_grid(quantizer, x)
    scale = scales[..., call]
    return at_scales(quantizer, x, scale.view(-1, 1, 1) if scale.dim() else scale)
