"""From one run of a model to its report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quant_core.components import restriction
from quant_core.errors import InputError, QuantError
from quant_core.export.eval_mode import in_eval_mode
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.positional import positional
from quant_nn.report.observing import Observed, Pass, Quantized, observe
from quant_nn.report.quality import saturation, sqnr
from quant_nn.report.rows import LayerRow, ModelReport
from quant_nn.weight_layer import QuantWeightLayer

_WORDS: Mapping[type, str] = {
    restriction.FloatRestriction: "float",
    restriction.LogFloatRestriction: "log_float",
    restriction.PowerOfTwoRestriction: "power_of_two",
    restriction.IntRestriction: "int",
}


_OF_INPUTS = ("input_quant", "io_quant")
"""The names under which layers hold the quantizer of what they multiply."""


def summary(
    model: nn.Module, inputs: Any, kwargs: Mapping[str, Any] | None = None, *, data: bool = True
) -> ModelReport:
    """What each layer of a model costs, and what quantization loses in it.

    The model runs once, in eval mode and without gradients; nothing of it changes. A float model has a report as well.

    Args:
        model: any module.
        inputs: a tensor, or the tuple of its positional inputs.
        kwargs: its keyword inputs.
        data: whether the inputs are data, on which noise and saturation of activations mean something.

    Raises:
        InputError: when the inputs do not fit the model.

    >>> import quant_nn as qnn, torch
    >>> net = nn.Sequential(qnn.QuantReLU(bit_width=4), qnn.QuantLinear(8, 2, weight_bit_width=3))
    >>> report = summary(net, torch.ones(1, 8))
    >>> row = report.row("1")
    >>> row.macs, row.weight_bits, row.input_bits, row.bops == 16 * 3 * 4
    (16, 3.0, 4.0, True)
    """
    if isinstance(inputs, list | Mapping):
        raise InputError(
            f"the inputs are a {type(inputs).__name__}",
            where=type(model).__name__,
            why="a tuple holds the positional inputs, and kwargs the others",
            fix="Write summary(model, (x, y)), or summary(model, (), {'input': x}); a list that is one input is ([x, y],).",
        )
    args = positional(inputs)
    if not args and not kwargs:
        raise InputError(
            "there are no inputs to run the model on",
            where=type(model).__name__,
            why="products and the bits of activations are counted in one run",
            fix="Pass the example inputs as a tuple: summary(model, (x,)).",
        )
    seen: set[int] = set()
    rows = observe(model, args, dict(kwargs or {}))
    stored = [one for row in rows.values() for one in row.quantized if one.proxy.kind in ("weight", "bias")]
    with torch.no_grad(), in_eval_mode(model):
        return ModelReport(rows=tuple(_row(path, row, seen, stored, data=data) for path, row in rows.items()))


def _row(path: str, row: Observed, seen: set[int], stored: list[Quantized], *, data: bool) -> LayerRow:
    weights = _latest(row.quantized, "weight")
    biases = _latest(row.quantized, "bias")
    inputs = [one for one in row.quantized if _is_of_input(one)]
    results = [one for one in row.quantized if one.proxy.kind not in ("weight", "bias") and not _is_of_input(one)]
    told = (weights or results or inputs)[-1:]
    parameters = _parameters(row.layer, seen)
    measured = (results or inputs)[-1:] if data else []
    bops = sum(_bit_operations(row.layer, call) for call in row.passes)
    accumulators = [_accumulator_bits(row.layer, multiplied(call)) for call in row.passes]
    return LayerRow(
        path=path,
        type=parametrize.type_before_parametrizations(row.layer).__name__,
        weight_bits=_mean_bits(weights),
        bias_bits=_mean_bits(biases),
        input_bits=_mean_input_bits(row.passes),
        output_bits=None if row.output is None else float(row.output.bit_width),
        granularity=_granularity(told),
        restriction=_restriction(told),
        parameters=sum(parameter.numel() for parameter in parameters.values()),
        float_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters.values()),
        quantized_bytes=sum(_bytes(name, parameter, row, stored) for name, parameter in parameters.items()),
        macs=sum(call.products for call in row.passes) + sum(number for number, _, _ in row.calls),
        bops=round(bops + sum(number * one * two for number, one, two in row.calls)),
        accumulator_bits=max((bits for bits in accumulators if bits is not None), default=None),
        weight_sqnr=_mean_sqnr(weights),
        sqnr=next((sqnr(one.before, one.after) for one in measured), None),
        saturation=next((saturation(one.before, one.after) for one in measured), None),
    )


def multiplied(call: Pass) -> Any:
    """What a call multiplies by its weight: its first input, as the layer itself quantizes it."""
    given = [one.after for one in call.quantized if _is_of_input(one)]
    return given[0] if given else call.inputs


def _bit_operations(layer: nn.Module, call: Pass) -> float:
    x, weights = multiplied(call), [one for one in call.quantized if one.proxy.kind == "weight"]
    bits = float(x.bit_width) if isinstance(x, QuantTensor) else _dtype_bits(x)
    return call.products * bits * (_mean_bits(weights) or _dtype_bits(next(layer.parameters(), None)))


def _mean_input_bits(passes: Sequence[Pass]) -> float | None:
    """Of a layer that is called several times, on average over its products."""
    known = [(float(x.bit_width), call.products) for call in passes if isinstance(x := multiplied(call), QuantTensor)]
    if len({bits for bits, _ in known}) > 1 and (total := sum(products for _, products in known)):
        return sum(bits * products for bits, products in known) / total
    return known[-1][0] if known else None


def _is_of_input(quantized: Quantized) -> bool:
    return quantized.name.rpartition(".")[2] in _OF_INPUTS


def _latest(quantized: Iterable[Quantized], kind: str) -> list[Quantized]:
    """The last call of each quantizer of a kind."""
    return list({one.name: one for one in quantized if one.proxy.kind == kind}.values())


def _mean_bits(quantized: list[Quantized]) -> float | None:
    count = sum(one.before.numel() for one in quantized)
    return sum(float(one.after.bit_width) * one.before.numel() for one in quantized) / count if count else None


def _mean_sqnr(quantized: list[Quantized]) -> float | None:
    found = [ratio for one in quantized if (ratio := sqnr(one.before, one.after)) is not None]
    return sum(found) / len(found) if found else None


def _parameters(layer: nn.Module, seen: set[int]) -> dict[str, Tensor]:
    """Those of the layer that no earlier row has; a layer that counts its products itself has those of its parts.

    Of a parametrization it is what the layer computes with.
    """
    whole = hasattr(layer, "count_products")
    inside = {id(p) for module in layer.modules() if isinstance(module, QuantProxy) for p in module.parameters()}
    found: dict[str, Tensor] = {}
    if parametrize.is_parametrized(layer):
        tables: Any = layer.parametrizations
        found = {name: getattr(layer, name) for name, table in tables.items() if id(table) not in seen}
        seen.update(id(table) for table in tables.values())
        inside |= {id(p) for p in tables.parameters()}
    fresh = {name: p for name, p in layer.named_parameters(recurse=whole) if id(p) not in seen and id(p) not in inside}
    seen.update(id(parameter) for parameter in fresh.values())
    return found | fresh


def _bytes(name: str, parameter: Tensor, row: Observed, stored: list[Quantized]) -> int:
    """What a parameter takes: as integers where a quantizer takes it, or one that it is a part of."""
    computed = parametrize.is_parametrized(row.layer, name)
    for one in _latest(row.quantized, name) if computed else stored:
        if computed or one.before is parameter or _shares_memory(one.before, parameter):
            return math.ceil(parameter.numel() * float(one.after.bit_width) / 8)
    return parameter.numel() * parameter.element_size()


def _shares_memory(part: Tensor, whole: Tensor) -> bool:
    return part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr() and whole.numel() > 0


def _dtype_bits(x: Any) -> float:
    return float(x.element_size() * 8) if isinstance(x, Tensor) else 32.0


def _granularity(told: list[Quantized]) -> str | None:
    if not told:
        return None
    larger = sum(size != 1 for size in told[0].after.scale.shape)
    return ("per_tensor", "per_channel")[larger] if larger < 2 else "per_group"


def _restriction(told: list[Quantized]) -> str | None:
    if not told:
        return None
    scaling: Any = getattr(told[0].proxy.tensor_quant, "scaling_impl", None)
    found = getattr(scaling, "restrict_scaling_impl", None)
    return None if found is None else _WORDS.get(type(found), type(found).__name__)


def _accumulator_bits(layer: nn.Module, x: Any) -> int | None:
    if not isinstance(layer, QuantWeightLayer) or not isinstance(x, QuantTensor):
        return None
    try:
        return int(layer.accumulator(x).bit_width)
    except QuantError:
        return None  # it has no scale, and so no integers
