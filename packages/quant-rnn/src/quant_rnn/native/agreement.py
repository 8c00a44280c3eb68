"""Whether freshly compiled steps compute what the step loop does: compilers have defects, above all in vectorised loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from quant_core.ops import quantize_int
from quant_rnn.native import steps
from quant_rnn.stages import ON_TENSORS, Number, Stages

_STEPS, _BATCH, _SIZE, _OUTPUTS = 3, 2, 37, 21  # a last vector that is not full
_BITS = 5
_SCALES = (0.11, 0.031, 0.12, 0.06, 0.1, 0.07, 0.05, 0.055)
_UNSIGNED = (1, 5)
"""What comes out of a sigmoid and of a ReLU."""
_LEAST = 1e-10

Quantized = Callable[[int, Number], Number]
"""A call of a quantizer, by its number."""


@cache
def agrees() -> bool:
    """Compare a few steps, forward and backward, with the same in torch operations: settled, and while statistics are found.

    Where they differ, torch is to form the matrix products, and they are compared again. Modes and hooks around the first call of
    a layer, in which this runs, are not for the comparison.
    """
    library = steps()
    if library is None:
        return False
    with torch.inference_mode(False), saved_tensors_hooks(_as_it_is, _as_it_is):
        for multiply in dict.fromkeys((library.multiply, None)):
            library.multiply = multiply
            if _same(_settled, collects=False) and _same(_found, collects=True):
                return True
    return False


def _as_it_is(saved: Tensor) -> Tensor:
    return saved


def _step(
    stages: Stages, quantized: Quantized, x: Number, states: Sequence[Number], matrices: Sequence[Tensor]
) -> tuple[Number, Number]:
    """Every operation there is: functions between quantizers, in front of one, and without any."""
    hidden, cell = states
    parts = stages.split(stages.linear(hidden, matrices[0], x), 4)
    i = quantized(1, stages.sigmoid(quantized(0, parts[0])))
    g = quantized(3, stages.tanh(quantized(2, parts[1])))
    r = quantized(5, stages.relu(quantized(4, parts[2])))
    after = quantized(6, (1 - i) * cell + i * g)
    out = quantized(7, stages.sigmoid(parts[3]) * stages.tanh(after) + stages.relu(r))
    return stages.linear(out, matrices[1]), after


def _same(composed: Callable[[Tensor, int, Tensor], Tensor], *, collects: bool) -> bool:
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    numbers = [
        draw(_STEPS, _BATCH, 4 * _SIZE),
        draw(4 * _SIZE, _OUTPUTS) * 0.2,
        draw(_OUTPUTS, _SIZE),
        draw(_BATCH, _OUTPUTS),
        draw(_BATCH, _SIZE),
        torch.tensor(_SCALES, dtype=torch.float32, device="cpu") * (not collects),
    ]

    def natively(x: Tensor, matrix: Tensor, projection: Tensor, hidden: Tensor, cell: Tensor, scales: Tensor) -> Tensor:
        from quant_rnn.native.program import Kind, encoded
        from quant_rnn.native.recorder import Recorder
        from quant_rnn.native.sequence import all_steps

        recorder = Recorder(x, [hidden, cell])
        after = _step(
            recorder,
            lambda number, part: recorder.record(Kind.QUANT, part, None, number),
            recorder.input,
            recorder.states,
            [matrix, projection],
        )
        fields = [
            field for number in range(len(_SCALES)) for field in (*_range(number), _largest(number), _LEAST, collects)
        ]
        code = encoded(recorder.program(after))
        out: Tensor = all_steps(x, recorder.matrices, [], [hidden, cell], scales, code, fields, False)[0]
        return out

    def one_by_one(
        x: Tensor, matrix: Tensor, projection: Tensor, hidden: Tensor, cell: Tensor, scales: Tensor
    ) -> Tensor:
        outputs, states = [], (hidden, cell)
        for now in x:
            states = _step(
                ON_TENSORS,
                lambda number, part: composed(part, number, scales),
                now,
                states,
                [matrix, projection],
            )
            outputs.append(states[0])
        return torch.stack(outputs)

    (ours, our_gradients), (wanted, wanted_gradients) = _outcome(natively, numbers), _outcome(one_by_one, numbers)
    return torch.equal(ours, wanted) and all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
        for one, other in zip(our_gradients, wanted_gradients, strict=True)
    )


def _outcome(run: Callable[..., Tensor], numbers: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and the gradients of everything."""
    leaves = [number.clone().requires_grad_() for number in numbers]
    with torch.enable_grad():
        out = run(*leaves)
        torch.autograd.backward(out, torch.arange(out.numel()).to(out).cos().view_as(out))
    return out.detach(), [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


def _range(number: int) -> tuple[float, float]:
    half = 2.0 ** (_BITS - 1)
    return (0.0, 2.0 * half - 1.0) if number in _UNSIGNED else (-half, half - 1.0)


def _largest(number: int) -> float:
    """The largest magnitude of the range."""
    low, high = _range(number)
    return high if number in _UNSIGNED else -low


def _settled(x: Tensor, number: int, scales: Tensor) -> Tensor:
    return quantize_int(x, scales[number], 0, _BITS, signed=number not in _UNSIGNED)


def _found(x: Tensor, number: int, scales: Tensor) -> Tensor:
    """Quantized at the scale of the largest magnitude, whose gradient goes to the first element that has it."""
    largest = x.flatten()[x.detach().abs().flatten().argmax()].abs()
    return quantize_int(x, largest / _largest(number), 0, _BITS, signed=number not in _UNSIGNED)
