"""Whether freshly compiled steps compute what the step loop does: compilers have defects, above all in vectorised loops."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from quant_core.ops import quantize_int

Run = Callable[..., Tensor]

_STEPS, _BATCH, _SIZE = 3, 2, 37  # a last vector that is not full
_BITS = 5
_SCALES = (0.11, 0.13, 0.12, 0.1, 0.031, 0.029, 0.06, 0.033, 0.07, 0.055, 0.05)
_UNSIGNED = (4, 5, 7)
"""What comes out of a sigmoid."""
_GRU_PLACES = (0, 0, 0, 0, 4, 4, 6, 10)
_GRU_SCALES = (0.11, 0.13, 0.12, 0.1, 0.031, 0.029, 0.06, 0.05)
_CALL_PLACES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 9, 10)
"""Which of the scales of an LSTM each call of a step that collects belongs to."""
_LEAST = 1e-10


@functools.cache
def agrees() -> bool:
    """Compare a few steps of each kind of layer, forward and backward, with the same in torch operations."""
    from quant_rnn.native.collecting import lstm_collecting  # which need what is checked here
    from quant_rnn.native.gru import gru
    from quant_rnn.native.lstm import lstm
    from quant_rnn.native.rnn import rnn

    ranges = [bound for place in range(len(_SCALES)) for bound in _range(place)]
    of_gru = [bound for place in _GRU_PLACES for bound in _range(place)]
    calls = [number for place in _CALL_PLACES for number in (*_range(place), _largest(place), _LEAST, 1.0)]
    return (
        _same(lambda x, w, h, c, scales: lstm(x, w, h, c, scales, ranges, False, False)[0], _lstm, 4, _SCALES)
        and _same(
            lambda x, w, h, c, scales: lstm_collecting(x, w, h, c, scales, calls, False)[0], _collecting, 4, (0.0,) * 13
        )
        and _same(lambda x, w, h, c, scales: gru(x, w, c[0], h, scales, of_gru, False)[0], _gru, 3, _GRU_SCALES)
        and _same(lambda x, w, h, c, scales: rnn(x, w, h, scales, ranges[:4], "tanh", False)[0], _rnn, 1, _SCALES[:2])
    )


def _same(native: Run, composed: Run, gates: int, scales: tuple[float, ...]) -> bool:
    generator = torch.Generator().manual_seed(0)
    numbers = [
        torch.randn(_STEPS, _BATCH, gates * _SIZE, generator=generator),
        torch.randn(gates * _SIZE, _SIZE, generator=generator) * 0.2,
        torch.randn(_BATCH, _SIZE, generator=generator),
        torch.randn(_BATCH, _SIZE, generator=generator),
        torch.tensor(scales),
    ]
    results = []
    for run in (native, composed):
        leaves = [number.clone().requires_grad_() for number in numbers]
        with torch.enable_grad():
            out = run(*leaves)
            out.backward(torch.cos(torch.arange(out.numel())).view_as(out))
        results.append((out.detach(), [torch.zeros(()) if leaf.grad is None else leaf.grad for leaf in leaves]))
    (ours, our_gradients), (wanted, wanted_gradients) = results
    return torch.equal(ours, wanted) and all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
        for one, other in zip(our_gradients, wanted_gradients, strict=True)
    )


def _range(place: int) -> tuple[float, float]:
    half = 2.0 ** (_BITS - 1)
    return (0.0, 2.0 * half - 1.0) if place in _UNSIGNED else (-half, half - 1.0)


def _quantized(x: Tensor, scales: Tensor, place: int) -> Tensor:
    return quantize_int(x, scales[place], 0, _BITS, signed=place not in _UNSIGNED)


def _found(x: Tensor, scales: Tensor, place: int) -> Tensor:
    """Quantized at the scale of the largest magnitude, whose gradient goes to the first element that has it."""
    largest = x.flatten()[x.detach().abs().flatten().argmax()].abs()
    return quantize_int(x, largest / _largest(place), 0, _BITS, signed=place not in _UNSIGNED)


def _largest(place: int) -> float:
    """The largest magnitude of the range."""
    return max(-_range(place)[0], _range(place)[1] if place in _UNSIGNED else 0.0)


def _lstm(
    projected: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, scales: Tensor, quantized: Run = _quantized
) -> Tensor:
    outputs = []
    functions = (torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid)
    for step in projected:
        accumulators = torch.addmm(step, hidden, weight.t()).chunk(4, dim=1)
        i, f, g, o = (
            quantized(function(quantized(part, scales, gate)), scales, 4 + gate)
            for gate, (part, function) in enumerate(zip(accumulators, functions, strict=True))
        )
        kept, added = quantized(f * cell, scales, 8), quantized(i * g, scales, 8)
        cell = quantized(kept + added, scales, 8)
        hidden = quantized(o * quantized(torch.tanh(cell), scales, 9), scales, 10)
        outputs.append(hidden)
    return torch.stack(outputs)


def _collecting(projected: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, scales: Tensor) -> Tensor:
    return _lstm(projected, weight, hidden, cell, scales, _found)


def _gru(projected: Tensor, weight: Tensor, hidden: Tensor, bias: Tensor, scales: Tensor) -> Tensor:
    def quantized(x: Tensor, number: int) -> Tensor:
        return quantize_int(x, scales[number], 0, _BITS, signed=_GRU_PLACES[number] not in _UNSIGNED)

    outputs, size = [], hidden.shape[1]
    for step in projected:
        gates = torch.addmm(step[:, : 2 * size], hidden, weight[: 2 * size].t()).chunk(2, dim=1)
        r, z = (quantized(torch.sigmoid(quantized(part, gate)), 4 + gate) for gate, part in enumerate(gates))
        product = quantized(torch.addmm(bias[0], hidden, weight[2 * size :].t()), 3)
        n = quantized(torch.tanh(quantized(step[:, 2 * size :] + r * product, 2)), 6)
        hidden = quantized((1 - z) * n + z * hidden, 7)
        outputs.append(hidden)
    return torch.stack(outputs)


def _rnn(projected: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, scales: Tensor) -> Tensor:
    outputs = []
    for step in projected:
        accumulator = _quantized(torch.addmm(step, hidden, weight.t()), scales, 0)
        hidden = _quantized(torch.tanh(accumulator), scales, 1)
        outputs.append(hidden)
    return torch.stack(outputs)
