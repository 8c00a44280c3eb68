"""Three losses on learned bit widths: mean bits, weighted by what they cost.

The names are those of Brevitas, and so are values and gradients. There the losses hook into each forward pass and are emptied
after each step; here sizes are noted once, from an example where they depend on one, and the losses can be asked at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_nn.cost.ledger import activations_of, products_of, weights_of


class WeightBitWidthWeightedBySize:
    """``Σ bits · size / Σ size`` over the weights whose bits are learned.

    Args:
        model: any model with quantized layers; looked at once, and asked for its bits by each call.

    Returns by a call: a 0-dim tensor. Gradient: to the bits of each weight, its share of the size.

    Raises:
        ConfigurationError: when no weight learns its bits.

    >>> import quant_nn as qnn
    >>> learned = {"weight_bit_width_impl_type": "parameter", "bias": False}
    >>> four, seven = ({"weight_bit_width": bits, **learned} for bits in (4, 7))
    >>> WeightBitWidthWeightedBySize(nn.Sequential(qnn.QuantLinear(2, 6, **four), qnn.QuantLinear(6, 4, **seven)))()
    tensor(6., grad_fn=<DivBackward0>)
    """

    def __init__(self, model: nn.Module) -> None:
        self.entries = [entry for entry in weights_of(model) if entry.learns]
        check_learned(self.entries, model, "weight", "weight_bit_width_impl_type='parameter'")

    def __call__(self) -> Tensor:
        """The loss."""
        return weighted_mean([entry.bits() for entry in self.entries], [entry.size for entry in self.entries])


class ActivationBitWidthWeightedBySize:
    """``Σ bits · size / Σ size`` over the activations whose bits are learned.

    Args:
        model: any model with quantized activations.
        inputs: an example input, or the tuple of them; the model runs on it once, in eval mode.

    Returns by a call: a 0-dim tensor. Gradient: to the bits of each activation, its share of the size.

    Raises:
        ConfigurationError: when no activation learns its bits.
        InputError: when the example has no batch.

    >>> import quant_nn as qnn
    >>> act = qnn.QuantReLU(bit_width=5, bit_width_impl_type="parameter")
    >>> ActivationBitWidthWeightedBySize(act, torch.ones(2, 3))()
    tensor(5., grad_fn=<DivBackward0>)
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        self.entries = [entry for entry in activations_of(model, inputs) if entry.learns]
        check_learned(self.entries, model, "activation", "bit_width_impl_type='parameter'")

    def __call__(self) -> Tensor:
        """The loss."""
        return weighted_mean([entry.bits() for entry in self.entries], [entry.size for entry in self.entries])


class QuantLayerOutputBitWidthWeightedByOps:
    """``Σ accumulator bits · products / Σ products`` over the layers of which an operand's bits are learned.

    The accumulator of ``K`` products has ``⌈log2((2^b_x − 1) · (2^b_w − 1) · K)⌉`` bits.

    Args:
        model: any model with quantized layers whose inputs are quantized.
        inputs: an example input, or the tuple of them; the model runs on it once, in eval mode.
        layer_types: the layers that count; all with a weight by default.

    Returns by a call: a 0-dim tensor. Gradient: to the bits of input and weight, ``2^b / (2^b − 1)`` times the share of products.

    Raises:
        ConfigurationError: when no such layer has learned bits.
        InputError: when the example has no batch.

    >>> import quant_nn as qnn
    >>> layer = qnn.QuantLinear(16, 4, weight_bit_width=4, weight_bit_width_impl_type="parameter")
    >>> net = nn.Sequential(qnn.QuantReLU(bit_width=4), layer)
    >>> QuantLayerOutputBitWidthWeightedByOps(net, torch.ones(1, 16))()
    tensor(12., grad_fn=<DivBackward0>)
    """

    def __init__(self, model: nn.Module, inputs: Any, layer_types: Sequence[type[nn.Module]] = (nn.Module,)) -> None:
        kinds = tuple(layer_types)
        found = [entry for entry in products_of(model, inputs) if isinstance(entry.weight.owners[0], kinds)]
        self.entries = [entry for entry in found if entry.learns]
        check_learned(self.entries, model, "layer with a quantized input", "weight_bit_width_impl_type='parameter'")

    def __call__(self) -> Tensor:
        """The loss."""
        bits = [entry.accumulator_bits() for entry in self.entries]
        return weighted_mean(bits, [entry.count for entry in self.entries])


def weighted_mean(bits: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """``Σ bits · size / Σ size``.

    >>> weighted_mean([torch.tensor(4.0), torch.tensor(8.0)], [3, 1])
    tensor(5.)
    """
    total: Tensor = torch.stack([one * size for one, size in zip(bits, sizes, strict=True)]).sum() / sum(sizes)
    return total


def check_learned(entries: Sequence[object], model: nn.Module, what: str, option: str) -> None:
    """Refuse a model of which nothing would have a gradient.

    Raises:
        ConfigurationError: when there are no entries.
    """
    if not entries:
        raise ConfigurationError(
            f"no {what} learns its bits",
            where=type(model).__name__,
            why="a loss on bits that are constant has no gradient",
            fix=f"Set {option} on the layers whose bits shall be learned.",
        )
