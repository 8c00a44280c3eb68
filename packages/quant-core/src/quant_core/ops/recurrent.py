"""torch's recurrent operators for sequences whose number of steps is not known while a program is captured.

torch looks at each step of ``aten.lstm``, ``aten.gru``, ``aten.rnn_tanh`` and ``aten.rnn_relu`` while it captures them, so that
they are captured for one number of steps. ``quant::lstm``, ``quant::gru``, ``quant::rnn_tanh`` and ``quant::rnn_relu`` take the
same arguments, compute the same, and know the shapes of their results without that. Only captured programs hold them.

>>> from torch.export import Dim, export
>>> class Reader(torch.nn.LSTM):
...     def forward(self, x):
...         state = torch.zeros(1, x.shape[1], 4)
...         return lengthwise("LSTM")(x, (state, state), self._flat_weights, True, 1, 0.0, False, False, False)[0]
>>> program = export(Reader(3, 4), (torch.ones(5, 2, 3),), dynamic_shapes=({0: Dim.DYNAMIC},))
>>> program.module()(torch.ones(7, 2, 3)).shape
torch.Size([7, 2, 4])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

_library = torch.library.Library("quant", "FRAGMENT")
_REST = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first"
)
_ATEN: Final[Mapping[str, Any]] = {
    "lstm": torch.ops.aten.lstm.input,
    "gru": torch.ops.aten.gru.input,
    "rnn_tanh": torch.ops.aten.rnn_tanh.input,
    "rnn_relu": torch.ops.aten.rnn_relu.input,
}


def _shapes(
    input: Tensor,
    hx: Tensor | Sequence[Tensor],
    params: Any,
    has_biases: Any,
    num_layers: Any,
    dropout: Any,
    train: Any,
    *how: bool,
) -> tuple[Tensor, ...]:
    """Outputs in the shape of the input, and states in their own: a projected output has the features of the hidden state."""
    bidirectional, _ = how
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    features = states[0].shape[-1] * (2 if bidirectional else 1)
    return (input.new_empty((*input.shape[:-1], features)), *(torch.empty_like(state) for state in states))


def _define(name: str) -> Any:
    states = "Tensor[] hx" if name == "lstm" else "Tensor hx"
    results = "(Tensor, Tensor, Tensor)" if name == "lstm" else "(Tensor, Tensor)"
    _library.define(f"{name}(Tensor input, {states}, {_REST}) -> {results}", tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, _ATEN[name], "CompositeExplicitAutograd")
    torch.library.register_fake(f"quant::{name}", _shapes, lib=_library)
    return getattr(torch.ops.quant, name).default


STANDS_FOR: Final[Mapping[Any, Any]] = {_define(name): aten for name, aten in _ATEN.items()}
"""Each of these ops, and the one of torch whose results it has."""


def lengthwise(kind: str) -> Callable[..., Any]:
    """The op of a kind of layer, ``"LSTM"``, ``"GRU"``, ``"tanh"`` or ``"relu"``, with the arguments of torch's."""
    name = kind.lower() if kind in ("LSTM", "GRU") else f"rnn_{kind}"
    op: Callable[..., Any] = getattr(torch.ops.quant, name)
    return op
