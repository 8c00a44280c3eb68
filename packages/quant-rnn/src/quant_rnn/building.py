"""Building the gates of one layer in one direction, and deciding which of their quantizers are one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from quant_core.errors import QuantError
from quant_core.proxies import QuantProxy
from quant_nn.layer import QuantLayer
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy
from quant_rnn.direction import Direction
from quant_rnn.gate_weights import GateParams, GateWeight
from quant_rnn.parameters import Sizes, suffix


@dataclass(frozen=True, kw_only=True)
class ParameterQuantizers:
    """The quantizers of weights and biases, with their options.

    Attributes:
        weight: quantizer of the weights.
        bias: quantizer of the biases.
        options: the options of both, by prefix.
        one_for_all_gates: whether the gates of a direction share one quantizer of their weights.
    """

    weight: Quantizer
    bias: Quantizer
    options: Mapping[str, dict[str, Any]]
    one_for_all_gates: bool = False

    def of_weights(self, weights: Sequence[GateWeight], shared: QuantProxy | None) -> QuantProxy | None:
        """Give weights one quantizer: a new one, or the one of other weights."""
        proxy = shared
        for weight in weights:
            quantizer, options = (self.weight, self.options["weight_"]) if proxy is None else (proxy, {})
            try:
                weight.weight_quant = proxy = build_proxy(weight, quantizer, "weight_", options)
            except QuantError as error:
                error.where = weight.owner  # the user knows the layer, and not its parts
                raise
        return proxy


def build_gates(
    source: nn.Module,
    gates: Sequence[str],
    sizes: Sizes,
    layer: int,
    direction: int,
    quantizers: ParameterQuantizers,
    first: Mapping[str, GateParams] | None,
) -> dict[str, GateParams]:
    """The gates of one direction.

    Args:
        source: the recurrent layer.
        gates: their names.
        sizes: the shapes of the parameters.
        layer: which layer.
        direction: 1 for the one that reads from the end.
        quantizers: the quantizers.
        first: the gates of the other direction, where the weights of the input are theirs.
    """
    end, hidden = suffix(layer, direction), sizes.hidden
    built: dict[str, GateParams] = {}
    common: QuantProxy | None = None
    for index, gate in enumerate(gates):
        rows = index * hidden, (index + 1) * hidden
        from_hidden = GateWeight(source, f"weight_hh{end}", *rows)
        if first is None:
            from_input = GateWeight(source, f"weight_ih{end}", *rows)
            proxy = quantizers.of_weights([from_input, from_hidden], common)
        else:
            from_input = first[gate].input_weight
            proxy = quantizers.of_weights([from_hidden], from_input.weight_quant)
        common = proxy if quantizers.one_for_all_gates else None
        built[gate] = GateParams(from_input, from_hidden)
        if sizes.bias:
            built[gate].bias_quant = build_proxy(source, quantizers.bias, "bias_", quantizers.options["bias_"])
    return built


def build_projection(
    source: nn.Module, sizes: Sizes, layer: int, direction: int, quantizers: ParameterQuantizers
) -> GateWeight | None:
    """The matrix that projects the output, with a quantizer of its own; ``None`` where the output is not projected."""
    if sizes.outputs == sizes.hidden:
        return None
    weight = GateWeight(source, f"weight_hr{suffix(layer, direction)}", 0, sizes.outputs)
    quantizers.of_weights([weight], None)
    return weight


def bias_names(sizes: Sizes, layer: int, direction: int) -> tuple[str, ...]:
    """The names of the two biases of one direction; none without biases."""
    end = suffix(layer, direction)
    return (f"bias_ih{end}", f"bias_hh{end}") if sizes.bias else ()


CellsOf = Callable[["ActivationQuantizers"], Callable[[], nn.Module]]
"""Takes the quantizers inside of a step, and returns what makes the cell of each layer and direction."""


def build_layers(
    source: QuantLayer,
    gates: Sequence[str],
    sizes: Sizes,
    quantizers: Mapping[str, Quantizer],
    options: Mapping[str, Any],
    cells_of: CellsOf,
    *,
    one_for_all_gates: bool = False,
    hidden_bias_apart: bool = False,
) -> tuple[QuantProxy | None, nn.ModuleList]:
    """``io_quant`` and ``layers`` of a recurrent layer.

    Args:
        source: the recurrent layer.
        gates: the names of its gates.
        sizes: the shapes of its parameters.
        quantizers: by prefix.
        options: the options of the quantizers as they were given to the layer.
        cells_of: makes the cells.
        one_for_all_gates: whether the gates of a direction share one quantizer of their weights.
        hidden_bias_apart: whether the last gate needs its two biases one by one.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
    """
    given = dict(quantizers) if sizes.bias else {**quantizers, "bias_": None}
    found = split_options(type(source), dict(options), given, {} if sizes.bias else {"bias_": "this layer has no bias"})
    of_parameters = ParameterQuantizers(
        weight=given["weight_"], bias=given["bias_"], options=found, one_for_all_gates=one_for_all_gates
    )
    io_quant = build_proxy(source, given["io_"], "io_", found["io_"], kind="activation")
    new_cell = cells_of(ActivationQuantizers(source, given, found))
    layers = nn.ModuleList()
    for layer in range(sizes.layers):
        first, sides = None, nn.ModuleList()
        for side in range(sizes.directions):
            params = build_gates(source, gates, sizes, layer, side, of_parameters, first)
            first = params if sizes.shared_input else None
            direction = Direction(
                source,
                params,
                bias_names(sizes, layer, side),
                hidden_bias_apart=hidden_bias_apart,
                cell=new_cell(),
                projection=build_projection(source, sizes, layer, side, of_parameters),
                io_quant=io_quant,
                reverse=side == 1,
                where=source._named(),
            )
            sides.append(direction)
        layers.append(sides)
    return io_quant, layers


class ActivationQuantizers:
    """Builds the quantizers inside of a step, each with the options of its kind.

    Args:
        layer: the recurrent layer.
        quantizers: by prefix.
        options: by prefix.
    """

    def __init__(
        self, layer: nn.Module, quantizers: Mapping[str, Quantizer], options: Mapping[str, dict[str, Any]]
    ) -> None:
        self.layer, self.quantizers, self.options = layer, quantizers, options

    def new(self, prefix: str) -> QuantProxy | None:
        """One more quantizer of a kind, such as ``"sigmoid_"``; ``None`` where it is off."""
        return build_proxy(self.layer, self.quantizers[prefix], prefix, self.options[prefix], kind="activation")
