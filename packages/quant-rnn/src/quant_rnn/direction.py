"""One layer of a recurrent network that reads its sequence in one direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from quant_core.ops.loop import loop_input, loop_last, loop_outputs, loop_state
from quant_core.proxies import QuantProxy
from quant_nn.layer import value_of
from quant_rnn.gate_weights import GateParams, GateWeight
from quant_rnn.gates import named
from quant_rnn.natively import run_natively
from quant_rnn.quantizing import MaybeQuantized, concatenate, quantized, stack, with_value
from quant_rnn.sequence import State, run, run_uneven
from quant_rnn.weights import Weights, quantize_weights


class Direction(nn.Module):
    """The gates and the cell of one layer in one direction.

    Args:
        source: the recurrent layer, which holds the float parameters.
        gates: the gates in their order.
        biases: the names of the two biases; none without biases.
        hidden_bias_apart: whether the last gate needs its two biases one by one.
        cell: one step.
        projection: the matrix that projects the output.
        io_quant: quantizes input and output, shared by all layers and directions.
        reverse: whether it reads from the end.
        where: the name of the layer, for errors.

    Attributes:
        gate_params: one :class:`~quant_rnn.gate_weights.GateParams` of a layer with one gate; with several, the attributes
            are ``input_gate_params``, and so on.
        cell: the quantizers inside of a step.
    """

    io_quant: QuantProxy | None

    def __init__(
        self,
        source: nn.Module,
        gates: Mapping[str, GateParams],
        biases: Sequence[str],
        *,
        hidden_bias_apart: bool,
        cell: nn.Module,
        projection: GateWeight | None,
        io_quant: QuantProxy | None,
        reverse: bool,
        where: str,
    ) -> None:
        super().__init__()
        self._source = [source]
        self.gates = tuple(gates)
        self.biases = tuple(biases)
        self.hidden_bias_apart = hidden_bias_apart
        self.reverse = reverse
        self.where = where
        for gate, params in gates.items():
            setattr(self, named(gate, "gate_params"), params)
        self.cell: Any = cell
        self.proj_weight = projection
        self.io_quant = io_quant

    def belong_to(self, source: nn.Module) -> None:
        """Read the parameters of this layer, which may be a replica of the one that it was made with, on another device."""
        if self._source[0] is source:
            return
        self._source = [source]
        for params in map(self.gate, self.gates):
            params.input_weight.belong_to(source)
            params.hidden_weight.belong_to(source)
        if self.proj_weight is not None:
            self.proj_weight.belong_to(source)

    def gate(self, name: str) -> GateParams:
        """The parameters of a gate."""
        found = getattr(self, named(name, "gate_params"))
        assert isinstance(found, GateParams)
        return found

    def weights(self, x: MaybeQuantized) -> Weights:
        """All weights, quantized once for a sequence ``x``."""
        gates = {name: self.gate(name) for name in self.gates}
        return quantize_weights(gates, self._biases(), self.proj_weight, x, self.where)

    def forward(
        self, x: MaybeQuantized, state: State, sizes: Sequence[int] | None = None
    ) -> tuple[MaybeQuantized, State]:
        """The outputs of all steps, in the order of time, and the last state.

        Args:
            x: ``(T, B, I)``; with ``sizes`` all steps joined, ``(N, I)``.
            state: the state before the first step, ``(B, …)`` each.
            sizes: how many sequences take part in each step.
        """
        weights = self.weights(x)
        projected = F.linear(value_of(x), weights.input, weights.bias)
        if sizes is not None:
            return run_uneven(partial(self._run, weights), projected, sizes, state, reverse=self.reverse)
        if not isinstance(projected.shape[0], int):
            return self._capture_loop(projected, tuple(value_of(part) for part in state), weights)
        return self._run(weights, projected, state)

    def _run(self, weights: Weights, projected: Tensor, state: State) -> tuple[MaybeQuantized, State]:
        """All steps ``(T, B, G·H)``, of sequences of one length: in as few operations as there are for the quantizers."""
        outputs: list[MaybeQuantized] = []
        while projected.shape[0]:
            now = tuple(value_of(part) for part in state)
            piece = run_natively(self.cell, projected, now, weights, self.io_quant, reverse=self.reverse)
            if piece is None:
                found, state = run(partial(self._step, weights), projected.unbind(0), state, reverse=self.reverse)
                out = stack(found)
            elif piece.out is None:
                state = self._step(weights, projected[-1 if self.reverse else 0], now)
                out = stack([state[0]])
            else:
                out, state = piece.out, piece.state
            outputs.append(out)
            count = out.shape[0]
            projected = projected[:-count] if self.reverse else projected[count:]
        return concatenate(outputs[::-1] if self.reverse else outputs, 0), state

    def _step(self, weights: Weights, now: Tensor, before: tuple[Tensor, ...]) -> State:
        after = self.cell(now, before, weights)
        return (quantized(self.io_quant, value_of(after[0])), *after[1:])

    def _capture_loop(
        self, projected: Tensor, state: tuple[Tensor, ...], weights: Weights
    ) -> tuple[MaybeQuantized, State]:
        """One step stands for all of them, because their number is not known while the program is captured."""
        now = loop_input(projected, reverse=self.reverse)
        before = tuple(loop_state(part, now, number) for number, part in enumerate(state))
        after = self._step(weights, now, before)
        values = [value_of(part) for part in after]
        outputs = with_value(after[0], loop_outputs(values[0], now, projected, values, before))
        lasts = [with_value(part, loop_last(values, before, number)) for number, part in enumerate(after)]
        return outputs, tuple(lasts)

    def float_biases(self) -> list[Tensor]:
        """The two biases, ``(G·H,)`` each; none without biases."""
        return [getattr(self._source[0], name) for name in self.biases]

    def float_matrices(self) -> tuple[Tensor, Tensor]:
        """The weights from the input and from the hidden state before they are quantized, ``(G·H, features)`` each."""
        first = self.gate(self.gates[0])
        source = self._source[0]
        return getattr(source, first.input_weight.name), getattr(source, first.hidden_weight.name)

    def _biases(self) -> list[list[Tensor]]:
        """The biases of each gate: added up where the layer does not need them apart."""
        if not self.biases:
            return [[] for _ in self.gates]
        parts = [bias.chunk(len(self.gates)) for bias in self.float_biases()]
        pairs = list(zip(*parts, strict=True))
        last = len(pairs) - 1
        return [
            list(pair) if self.hidden_bias_apart and index == last else [pair[0] + pair[1]]
            for index, pair in enumerate(pairs)
        ]

    def extra_repr(self) -> str:
        """Which way it reads."""
        return "from the end" if self.reverse else ""
