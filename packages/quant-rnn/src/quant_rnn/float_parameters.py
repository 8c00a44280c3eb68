"""The float parameters of a recurrent layer: their sizes, their names, and checkpoints of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from quant_core.proxies import QuantProxy
from quant_nn.layer import QuantLayer, value_of
from quant_rnn.checkpoint import check_checkpoint
from quant_rnn.parameters import Sizes, check_options, register, reset


class FloatParameters(QuantLayer):
    """What a recurrent layer has in common with that of torch.nn: options, and parameters under the same names.

    Attributes:
        sizes: how large the parameters are.
    """

    sizes: Sizes

    def _init_sizes(
        self,
        *,
        gates: int,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        shared_input_hidden_weights: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Check the options of torch.nn, and make the parameters."""
        check_options(
            type(self).__name__,
            {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers},
            dropout=dropout,
            proj_size=proj_size,
            shares_without_need=shared_input_hidden_weights and not bidirectional,
        )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self.sizes = Sizes(
            inputs=input_size,
            hidden=hidden_size,
            outputs=proj_size or hidden_size,
            gates=gates,
            layers=num_layers,
            directions=2 if bidirectional else 1,
            bias=bias,
            shared_input=shared_input_hidden_weights,
        )
        register(self, self.sizes, device, dtype)

    def reset_parameters(self) -> None:
        """Draw the float parameters again, as torch.nn does, and build the weight quantizers again from them."""
        reset(self, self.sizes)
        for proxy in (module for module in self.modules() if isinstance(module, QuantProxy)):
            if proxy.rebuilds_on_load:
                proxy.init_tensor_quant()

    def flatten_parameters(self) -> None:
        """Does nothing. It is there because that of torch.nn is called, to store the weights side by side for cuDNN, which here
        are quantized before each use.
        """

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The float parameters of each layer and direction, in the order of torch.nn.

        >>> import quant_rnn as qrnn
        >>> [tuple(weight.shape) for weight in qrnn.QuantRNN(3, 4).all_weights[0]]
        [(4, 3), (4, 4), (4,), (4,)]
        """
        sizes = self.sizes
        places = product(range(sizes.layers), range(sizes.directions))
        return [[getattr(self, name) for name, _ in sizes.shapes(*place)] for place in places]

    def count_products(self, x: Any, *states: Any) -> int:
        """How many products are added up for an input: for each step, layer, direction and gate ``H · (I + P)``, and ``P · H``
        of a projection, with ``P`` features of the output.

        >>> import quant_rnn as qrnn
        >>> qrnn.QuantLSTM(3, 4).count_products(torch.zeros(7, 2, 3)) == 7 * 2 * 4 * 4 * (3 + 4)
        True
        """
        value = x.data if isinstance(x, PackedSequence) else value_of(x)
        return self.sizes.products * (value.numel() // self.input_size)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        check_checkpoint(state_dict, prefix, self, self.sizes, self._named())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def float_repr(self) -> str:
        """The options of torch.nn that differ from their default."""
        options: Mapping[str, tuple[Any, Any]] = {
            "num_layers": (self.num_layers, 1),
            "bias": (self.bias, True),
            "batch_first": (self.batch_first, False),
            "dropout": (self.dropout, 0.0),
            "bidirectional": (self.bidirectional, False),
            "proj_size": (self.proj_size, 0),
        }
        shown = [f"{name}={now}" for name, (now, default) in options.items() if now != default]
        return ", ".join([str(self.input_size), str(self.hidden_size), *shown])
