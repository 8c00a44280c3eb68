"""What the recurrent layers share: layers and directions around the cells, and the shapes that torch.nn takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from quant_core.components import StepCounter
from quant_core.components.step_counter import one_forward
from quant_core.errors import ConfigurationError, InputError
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.describe import describe
from quant_nn.layer import value_of
from quant_rnn.direction import Direction
from quant_rnn.float_parameters import FloatParameters
from quant_rnn.float_path import flat_weights, is_off, run_in_float
from quant_rnn.quantizing import MaybeQuantized, concatenate, quantized, stack
from quant_rnn.states import check_dtype, check_features, check_input, first_states

if TYPE_CHECKING:
    from quant_nn.correction import BiasError

States = tuple[MaybeQuantized, ...]


class QuantRecurrent(FloatParameters):
    """Base of :class:`~quant_rnn.QuantRNN`, :class:`~quant_rnn.QuantLSTM` and :class:`~quant_rnn.QuantGRU`.

    Attributes:
        layers: one list for each layer, with a :class:`~quant_rnn.direction.Direction` for each direction.
        io_quant: quantizes input and outputs of all layers and directions, ``None`` where they are not.
    """

    layers: nn.ModuleList
    io_quant: QuantProxy | None
    kind: str
    state_names: tuple[str, ...] = ("hidden state",)
    _settled = False
    """Whether no quantizer counts steps any more, so that those of a forward need not be told apart."""

    def bias_errors(self) -> list[BiasError]:
        """What rounding weights adds to the sums of the gates, for :func:`quant_nn.correction.correct_bias`."""
        from quant_rnn.bias_errors import bias_errors  # loads calibration, which layers do without

        return [error for direction in self.directions for error in bias_errors(self, direction)]

    def forward(self, input: Tensor | QuantTensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """``(output, h_n)``: the hidden states of the last layer at all steps, and those of all layers after the last step.

        Args:
            input: the sequence; a quantized one is quantized again by ``io_quant``.
            hx: the hidden state before the first step, ``(L·D, B, H)``; zeros by default.

        Raises:
            InputError: when input or state does not fit, or a bias cannot be quantized.
        """
        out, (hidden,) = self._compute(input, None if hx is None else (hx,))
        return self._given_back(out), self._joined(hidden)

    def _check_returned(self, return_quant_tensor: bool, io_quant: Any) -> None:
        """Without a quantizer of outputs there is nothing to return as a quantized tensor."""
        if return_quant_tensor and io_quant is None:
            raise ConfigurationError(
                "return_quant_tensor=True has nothing to return",
                where=type(self).__name__,
                why="the output is quantized by io_quant, which is None",
                fix="Pass a quantizer as io_quant, or set return_quant_tensor=False.",
            )

    @property
    def directions(self) -> list[Direction]:
        """All directions of all layers, in the order of torch.nn."""
        return [direction for sides in self._sides() for direction in sides]

    def _sides(self) -> list[list[Direction]]:
        """The directions of each layer."""
        return [list(sides) for sides in self.layers]  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> Self:
        """Switch the mode, and see again which quantizers count steps."""
        self._settled = False
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._settled = False
        super()._load_from_state_dict(*args)

    def _compute(self, x: Any, given: Sequence[Any] | None) -> tuple[Any, list[Any]]:
        """The output, and for each kind of state the states of all layers and directions."""
        for direction in self.directions:
            direction.belong_to(self)
        if torch.compiler.is_compiling() or self._settled or not self.training:
            return self._compute_one(x, given)
        counters = [module for module in self.modules() if isinstance(module, StepCounter) and module.steps is not None]
        self._settled = all(counter.over for counter in counters)
        with one_forward(counters):
            return self._compute_one(x, given)

    def _compute_one(self, x: Any, given: Sequence[Any] | None) -> tuple[Any, list[Any]]:
        if isinstance(x, PackedSequence):
            return self._compute_packed(x, given)
        check_input(x, self.input_size, self._named(), batch_first=self.batch_first)
        check_dtype(x, self.all_weights[0][0].dtype, self._named())
        single = x.ndim == 2
        if single:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        out, states = self._run(x, self._start(x, given, x.shape[1], single=single))
        if single:
            return out.squeeze(1), [[part.squeeze(0) for part in kind] for kind in states]
        return (out.transpose(0, 1) if self.batch_first else out), states

    def _compute_packed(self, packed: PackedSequence, given: Sequence[Any] | None) -> tuple[Any, list[Any]]:
        data, sizes, order, back = packed
        if torch.compiler.is_exporting():
            raise InputError(
                "packed sequences cannot be captured for export",
                where=self._named(),
                why="how many of them take part in a step is in the values of batch_sizes, and a program knows shapes only",
                fix="Export the layer with a padded batch, or with one sequence, of any length (dynamic_shapes).",
            )
        if self.return_quant_tensor:
            raise InputError(
                "a packed sequence cannot be returned as a quantized tensor",
                where=self._named(),
                why="return_quant_tensor is True, and torch packs plain tensors only",
                fix="Set return_quant_tensor=False, or pad the sequences instead of packing them.",
            )
        check_features(data.shape[-1], self.input_size, self._named())
        check_dtype(data, self.all_weights[0][0].dtype, self._named())
        start = self._start(data, given, int(sizes[0]), single=False)
        if order is not None:
            start = [[part.index_select(0, order) for part in kind] for kind in start]
        out, states = self._run(data, start, sizes)
        if back is not None:
            states = [[value_of(part).index_select(0, back) for part in kind] for kind in states]
        return PackedSequence(value_of(out), sizes, order, back), states

    def _start(
        self, x: MaybeQuantized, given: Sequence[Any] | None, batch: int, *, single: bool
    ) -> list[list[MaybeQuantized]]:
        """The states before the first step: for each kind, one ``(B, …)`` for each layer and direction."""
        start = first_states(self.sizes, self.state_names, x, given, batch, self._named(), single=single)
        if given is not None:
            start[0] = [quantized(self.io_quant, value_of(row)) for row in start[0]]
        return start

    def _run(
        self, x: MaybeQuantized, start: list[list[MaybeQuantized]], sizes: Tensor | None = None
    ) -> tuple[Any, list[list[MaybeQuantized]]]:
        """All layers, ``(T, B, I)`` or the joined steps of sequences of several lengths."""
        if self._runs_in_float():
            return self._run_in_float(x, start, sizes)
        counts = None if sizes is None else sizes.tolist()
        last: list[list[MaybeQuantized]] = [[] for _ in start]
        for index, sides in enumerate(self._sides()):
            outputs = []
            floats = value_of(x)
            for side, direction in enumerate(sides):
                if index == 0 and not (side > 0 and isinstance(x, QuantTensor) and x.origin is not None):
                    x = quantized(self.io_quant, floats)  # once, but for each direction while statistics are collected
                at = index * self.sizes.directions + side
                out, state = direction(x, tuple(kind[at] for kind in start), counts)
                outputs.append(out)
                for kind, part in zip(last, state, strict=True):
                    kind.append(part)
            x = concatenate(outputs, -1)
            if self.dropout and self.training and index + 1 < self.num_layers:
                x = quantized(self.io_quant, F.dropout(value_of(x), self.dropout))
        return x, last

    def _runs_in_float(self) -> bool:
        """Whether torch has an operator for it: nothing but weights is quantized, and nobody looks at a direction.

        No runtime has an operator that projects. In a compiled graph torch's operators are taken apart, step by step, and the
        backward pass of an LSTM fails.
        """
        if torch.compiler.is_exporting():
            if self.proj_size:
                return False
        elif torch.compiler.is_compiling():
            return False
        if any(direction._forward_hooks for direction in self.directions):
            return False
        inside = [child for direction in self.directions for child in direction.cell.children()]
        biases = [direction.gate(gate).bias_quant for direction in self.directions for gate in direction.gates]
        return is_off([self.io_quant, *inside, *biases])

    def _run_in_float(
        self, x: MaybeQuantized, start: list[list[MaybeQuantized]], sizes: Tensor | None
    ) -> tuple[Any, list[list[MaybeQuantized]]]:
        states = tuple(torch.stack([value_of(part) for part in kind]) for kind in start)
        out, *last = run_in_float(
            self.kind,
            value_of(x),
            states,
            flat_weights(self.directions),
            sizes=sizes,
            biased=self.bias,
            layers=self.num_layers,
            dropout=self.dropout,
            training=self.training,
            bidirectional=self.bidirectional,
        )
        return out, [list(kind.unbind(0)) for kind in last]

    def _given_back(self, out: Any) -> Any:
        """The output, with its scale where the layer was asked for it."""
        return out if isinstance(out, PackedSequence) else self._hand_on(out)

    def _joined(self, states: Sequence[MaybeQuantized]) -> MaybeQuantized:
        """The states of all layers and directions as one tensor, ``(L·D, B, …)``."""
        return self._hand_on(stack(states))

    def extra_repr(self) -> str:
        """The options of the float layer, and what the quantizers of the first layer make of their tensors."""
        first = self.directions[0]
        gate = first.gate(first.gates[0])
        cell = {name.removesuffix("_quant"): child for name, child in first.cell.named_children()}
        shown = {"weight": gate.input_weight.weight_quant, "bias": gate.bias_quant, "io": self.io_quant, **cell}
        words = [f"{name}: {describe(proxy)}" for name, proxy in shown.items() if isinstance(proxy, QuantProxy)]
        return ", ".join([self.float_repr(), *words])

    def __repr__(self) -> str:
        """One line; print ``layers`` to see all parts."""
        return f"{type(self).__name__}({self.extra_repr()})"
