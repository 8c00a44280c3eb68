"""A loss on accumulator-aware weights: how far what is learned lies beyond what the accumulator holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components import AccumulatorAwarePreScaling, InputGrid
from quant_core.errors import ConfigurationError
from quant_core.proxies import QuantProxy
from quant_nn.cost.ledger import products_of


class AccumulatorExcess:
    """``Σ max(g − s · c, 0)`` over the output channels of all accumulator-aware weights.

    ``g`` is the learned length of a channel, ``s`` its scale, and ``s · c`` the length at which its accumulator could overflow,
    see :class:`~quant_core.components.AccumulatorAwarePreScaling`. The weight never exceeds the bound, so that a length beyond it
    has no effect and no gradient. Added to the training loss with a small factor, such as 1e-3, this one brings lengths back.

    Colbert, Pappalardo and Petri-Koenig, "A2Q: accumulator-aware quantization with guaranteed overflow avoidance", ICCV 2023,
    section 4.

    Args:
        model: any model with accumulator-aware weights.
        inputs: an example input, or the tuple of them; the model runs on it once, in eval mode.

    Returns by a call: a 0-dim tensor. Gradient: ``ln 2 · g`` to the logarithm of a length beyond the bound, ``−c`` to its
    scale.

    Raises:
        ConfigurationError: when there is no such weight.
        InputError: when the example has no batch.

    >>> import quant_nn as qnn
    >>> from quant_core.quant import Int8AccumulatorAwareWeightQuant, Int8ActPerTensorFloat
    >>> aware = {"weight_quant": Int8AccumulatorAwareWeightQuant, "input_quant": Int8ActPerTensorFloat}
    >>> wide, narrow = (qnn.QuantLinear(64, 4, weight_accumulator_bit_width=bits, **aware) for bits in (32, 12))
    >>> AccumulatorExcess(wide, torch.ones(1, 64))().item(), AccumulatorExcess(narrow, torch.ones(1, 64))().item() > 0
    (0.0, True)
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        self.entries = [entry for entry in products_of(model, inputs) if _pre_scaling(entry.weight) is not None]
        known = {id(entry.weight) for entry in self.entries}
        self.stated = [
            (module, pre_scaling.stated)
            for module in model.modules()
            if isinstance(module, QuantProxy) and id(module) not in known
            if (pre_scaling := _pre_scaling(module)) is not None and pre_scaling.stated is not None
        ]
        if not self.entries and not self.stated:
            raise ConfigurationError(
                "no weight is aware of its accumulator",
                where=type(model).__name__,
                why="the loss is a sum over such weights",
                fix="Set weight_quant=Int8AccumulatorAwareWeightQuant on layers whose input is quantized.",
            )

    def __call__(self) -> Tensor:
        """The loss."""
        grids = [(entry.weight, InputGrid(entry.input_bits(), entry.centred)) for entry in self.entries]
        found = [_excess(proxy, grid).sum() for proxy, grid in (*grids, *self.stated)]
        return torch.stack(found).sum()


def _excess(proxy: QuantProxy, grid: InputGrid) -> Tensor:
    weight: Any = proxy.owners[0].weight
    pre_scaling = _pre_scaling(proxy)
    assert pre_scaling is not None
    return pre_scaling.excess(proxy.tensor_quant.scaling_impl(weight), grid)


def _pre_scaling(proxy: QuantProxy) -> AccumulatorAwarePreScaling | None:
    found = getattr(proxy.tensor_quant, "pre_scaling_impl", None)
    return found if proxy.is_quant_enabled and isinstance(found, AccumulatorAwarePreScaling) else None
