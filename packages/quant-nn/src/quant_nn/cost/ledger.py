"""What bits are spent on: the weights, the activations and the products of a model, each with its quantizers.

Sizes and products are those of one element of the batch. They are noted once, from the model or from one run of it; the bits are
asked for each time, with their gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.errors import InputError
from quant_core.ops import ceil_ste
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.positional import positional
from quant_nn.report.observing import Observed, Pass, observe
from quant_nn.report.summarizing import multiplied
from quant_nn.weight_layer import QuantWeightLayer


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A weight, or an activation.

    Attributes:
        proxy: its quantizer.
        size: how many elements it has.
    """

    proxy: QuantProxy
    size: int

    @property
    def learns(self) -> bool:
        """Whether its bits are learned."""
        return self.proxy.learns_bit_width

    def bits(self) -> Tensor:
        """Its bits, a 0-dim tensor with gradient."""
        return bits_of(self.proxy)


@dataclass(frozen=True, kw_only=True)
class Multiplied:
    """The products of a layer.

    Attributes:
        weight: the quantizer of the weight.
        input: that of the input, or its bits where they come from no single quantizer.
        centred: whether the integers of the input lie around zero.
        count: how many products there are.
        terms: how many are added up for one output.
    """

    weight: QuantProxy
    input: QuantProxy | float
    centred: bool
    count: int
    terms: int

    @property
    def learns(self) -> bool:
        """Whether the bits of an operand are learned."""
        return self.weight.learns_bit_width or (isinstance(self.input, QuantProxy) and self.input.learns_bit_width)

    def input_bits(self) -> Tensor:
        """Bits of the input."""
        return bits_of(self.input) if isinstance(self.input, QuantProxy) else torch.tensor(self.input)

    def operations(self) -> Tensor:
        """Bit operations: ``count · bits of the input · bits of the weight``."""
        return self.count * self.input_bits() * bits_of(self.weight)

    def accumulator_bits(self) -> Tensor:
        """``⌈log2((2^b_x − 1) · (2^b_w − 1) · terms)⌉``; the gradient passes the rounding.

        What :func:`quant_core.tensor.accumulator_bit_width` gives, but for its second bound, which has no gradient.
        """
        largest = (2.0 ** self.input_bits() - 1) * (2.0 ** bits_of(self.weight) - 1) * self.terms
        return ceil_ste(torch.log2(largest))


def bits_of(proxy: QuantProxy) -> Tensor:
    """The bits of a quantizer as a 0-dim tensor, through which its gradient passes."""
    implementation: Any = getattr(proxy.tensor_quant, "bit_width_impl", None)
    bits: Tensor = proxy.bit_width() if implementation is None else implementation()  # type: ignore[operator]
    return bits.reshape(())


def weights_of(model: nn.Module) -> list[Stored]:
    """The quantized weights; one that several quantizers share counts once."""
    return [
        Stored(proxy=proxy, size=size)
        for proxy in model.modules()
        if isinstance(proxy, QuantProxy) and proxy.kind == "weight" and proxy.is_quant_enabled
        if (size := sum(weight.numel() for weight in {id(w): w for w in _weights(proxy)}.values()))
    ]


def activations_of(model: nn.Module, inputs: Any) -> list[Stored]:
    """The quantized activations of one run, each as often as it is quantized."""
    rows, _ = _observed(model, inputs)
    return [
        Stored(proxy=one.proxy, size=one.after.value.numel() // max(1, one.after.value.shape[0]))
        for row in rows
        for one in row.quantized
        if one.proxy.kind == "activation" and one.after.value.dim()
    ]


def products_of(model: nn.Module, inputs: Any) -> list[Multiplied]:
    """The products of the layers with a quantized weight and a quantized input, of one run."""
    rows, batch = _observed(model, inputs)
    owners = {id(one.after.bit_width): one.proxy for row in rows for one in row.quantized}
    found = (_products(row.layer, call, owners, batch) for row in rows for call in row.passes)
    return [products for products in found if products is not None]


def _products(layer: nn.Module, call: Pass, owners: dict[int, QuantProxy], batch: int) -> Multiplied | None:
    weights = [one for one in call.quantized if one.proxy.kind == "weight"]
    x = multiplied(call)
    if not isinstance(layer, QuantWeightLayer) or not weights or not call.products or not isinstance(x, QuantTensor):
        return None
    return Multiplied(
        weight=weights[-1].proxy,
        input=owners.get(id(x.bit_width), float(x.bit_width)),
        centred=x.signed and x.symmetric,
        count=call.products // batch,
        terms=layer._terms(),
    )


def _observed(model: nn.Module, inputs: Any) -> tuple[list[Observed], int]:
    args = positional(inputs)
    first = args[0] if args else None
    if not isinstance(first, Tensor | QuantTensor) or not first.dim():
        raise InputError(
            "the cost of activations and products needs an example input",
            where=type(model).__name__,
            why="their number depends on its shape, and it is counted for one element of its batch",
            fix="Pass a batch, such as Budget(model, x, activation_bits=4).",
        )
    return list(observe(model, args, {}).values()), int(first.shape[0])


def _weights(proxy: QuantProxy) -> Iterator[Tensor]:
    for owner in proxy.owners:
        weight: Any = getattr(owner, "weight", None)
        if isinstance(weight, Tensor):
            yield weight
