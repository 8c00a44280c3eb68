"""Quantizers: of floats that come in, of integers on another grid, and of constants."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import torch
from torch import fx

from quant_core.export.quantizer import Quantizer
from quant_core.export.ranges import bounds
from quant_core.integers.bench import Bench, Cannot, Pending, Raw, Silent, reference
from quant_core.integers.carried import Carried, along, fractions, whole_numbers
from quant_core.integers.grid import axis_of, bits_of, grid_of
from quant_core.integers.rescaling import rescaling, round_fraction
from quant_core.integers.tables import look_up_results

_SAME_SCALE: Final = 1e-6


def lower_constant(bench: Bench, node: fx.Node) -> None:
    """A quantized weight or bias: its integers, its grid and its bits are arrays of the file."""
    quantizer = bench.quantizers[node.name]
    assert quantizer.integers is not None
    assert quantizer.bit_width is not None
    stored: Any = node.args[0]
    base = bench.names[stored.name]
    scale, zero_point = grid_of(quantizer)
    source = bench.array(base, quantizer.integers)["array"]
    bench.array(f"{base}_scale", scale)
    bench.array(f"{base}_zero_point", zero_point.to(torch.int64))
    bench.array(f"{base}_bit_width", torch.tensor(int(quantizer.bit_width)))
    low, high = bounds(quantizer)
    axis = _channels(quantizer)
    bench.known[node] = Carried(
        source=source,
        is_array=True,
        scale=fractions(scale),
        zero_point=whole_numbers(zero_point),
        axis=axis,
        low=(low,),
        high=(high,),
    )


def lower_activation(bench: Bench, node: fx.Node) -> None:
    """A quantizer of what comes in, of integers on another grid, or of a function that becomes a table."""
    quantizer = bench.quantizers[node.name]
    if quantizer.scale is None or quantizer.zero_point is None or quantizer.bit_width is None:
        raise Silent  # the capabilities refuse it
    if node.meta["val"].dtype != torch.float32:
        raise Cannot(
            f"values of {str(node.meta['val'].dtype).removeprefix('torch.')}",
            "integers takes float32, and converting would move values across rounding borders",
            "Convert the model and its inputs first: model.float(), x.float().",
        )
    scale, zero_point = grid_of(quantizer)
    axis = _channels(quantizer)
    part, (low, high) = quantizer.where.part, bounds(quantizer)
    bench.array(part("scale"), scale)
    bench.array(part("zero_point"), zero_point.to(torch.int64))
    bench.array(part("bit_width"), torch.tensor(int(quantizer.bit_width)))
    operand: Any = node.args[0]
    known = bench.known.get(operand)
    if isinstance(known, Raw):
        name = _of_floats(bench, node, quantizer, known)
    elif isinstance(known, Pending):
        name = look_up_results(bench, node, quantizer, known)
    else:
        name = _of_integers(bench, node, quantizer, bench.carried(operand))
    bench.known[node] = Carried(
        source=name,
        scale=fractions(scale),
        zero_point=whole_numbers(zero_point),
        axis=axis,
        low=(low,),
        high=(high,),
    )


def _channels(quantizer: Quantizer) -> int | None:
    """The axis of the channels, of which scale and zero-point vary along no other one."""
    axis = axis_of(quantizer)
    if axis is None and max(part.numel() for part in grid_of(quantizer)) > 1:
        raise Cannot(
            "a grid for each group",
            "integers takes a scale per tensor or per channel, and zero-points where there are scales",
            "Leave group_size out, or set scaling_per_output to 'tensor' or 'channel'.",
        )
    return axis


def _of_floats(bench: Bench, node: fx.Node, quantizer: Quantizer, raw: Raw) -> str:
    """The model's own function; here floats become integers."""
    part, given = quantizer.where.part, {"input": {"value": raw.source}, "rectified": raw.rectified}
    scale, zero_point = grid_of(quantizer)
    (low, high), bits = bounds(quantizer), bits_of(quantizer)
    reference_of_scale = bench.array(part("scale"), scale)
    if quantizer.op == "quant::binary":
        return bench.step(node, "binarize", given, low, high, **bits)
    if quantizer.op == "quant::ternary":
        arguments = given | {"scale": reference_of_scale, "threshold": node.kwargs["threshold"]}
        return bench.step(node, "ternarize", arguments, low, high, **bits)
    if quantizer.op == "quant::trunc":
        raise Cannot(
            "a float operand",
            "integers truncates sums of integers",
            "Pass the layer a quantized tensor: return_quant_tensor=True on the one before.",
        )
    arguments = given | {
        "scale": reference_of_scale,
        "zero_point": bench.array(part("zero_point"), zero_point.to(torch.int64)),
        "low": low,
        "high": high,
        "rounding_mode": quantizer.rounding_mode,
    }
    return bench.step(node, "quantize", arguments, low, high, **bits)


def _of_integers(bench: Bench, node: fx.Node, quantizer: Quantizer, held: Carried) -> str:
    """An exact change of the grid."""
    if quantizer.op == "quant::trunc":
        return _truncated(bench, node, quantizer, held)
    steps, zero_points = _steps(quantizer, node)
    if quantizer.op != "quant::int" and held.between != (None, None):
        held = bench.settled(node, held)
    axis = _common_axis(held, quantizer)
    count = max(map(len, (held.scale, held.offset, held.zero_point, steps, zero_points, held.low)))
    rows = [_row(held, steps, zero_points, index) for index in range(count)]
    ranges = [(_at(held.low, index), _at(held.high, index)) for index in range(count)]
    factors, offsets = zip(*rows, strict=True)
    arguments = {"input": reference(held)} | _numbers(bench, quantizer, factors, offsets, ranges, axis)
    (low, high), bits = bounds(quantizer), bits_of(quantizer)
    if quantizer.op != "quant::int":
        op = "rescale_sign" if quantizer.op == "quant::binary" else "rescale_ternary"
        return bench.step(node, op, arguments, low, high, **bits)
    limits = [_limits(held, quantizer, step, zero, (low, high)) for step, zero in _pairs(steps, zero_points)]
    own_axis = axis_of(quantizer)
    for word, column in zip(("low", "high"), zip(*limits, strict=True), strict=True):
        same = len(set(column)) == 1
        tensor = along(column, own_axis, torch.int64)
        arguments[word] = column[0] if same else bench.array(quantizer.where.part(word), tensor)
    arguments["rounding_mode"] = quantizer.rounding_mode
    return bench.step(node, "rescale", arguments, low, high, **bits)


def _row(
    held: Carried, steps: tuple[Fraction, ...], zero_points: tuple[Fraction, ...], index: int
) -> tuple[Fraction, Fraction]:
    """``a`` and ``b`` of ``value / step + zero_point = a · q + b`` for one channel."""
    scale, step = _at(held.scale, index), _at(steps, index)
    rest = _at(held.offset, index) - _at(held.zero_point, index) * scale
    return scale / step, rest / step + _at(zero_points, index)


def _truncated(bench: Bench, node: fx.Node, quantizer: Quantizer, held: Carried) -> str:
    """``round((q − zero_point) / 2^k)``: low bits are dropped."""
    plain = bench.plain(node, held)
    scale, output = bench.program.constant(node.args[1]), quantizer.scale
    if scale is None or output is None or scale.numel() > 1 or output.numel() > 1:
        raise Cannot(
            "scales for each channel",
            "integers truncates accumulators of one scale",
            "Set weight_scaling_per_output_channel=False on the layer before.",
        )
    if abs(float(scale) / float(plain.scale[0]) - 1) > _SAME_SCALE:
        raise Cannot(
            f"an operand of the scale {float(plain.scale[0]):g} where it truncates the scale {float(scale):g}",
            "integers truncates what is on the grid that the truncation was told",
            "Pass it the quantized tensor of the layer before, unchanged.",
        )
    (low, high), zero = bounds(quantizer), int(grid_of(quantizer)[1].reshape(()))
    part = Fraction(1, 2) ** round(torch.log2(output / scale).item())
    factors, offsets = [part], [(zero - plain.zero_point[0]) * part]
    ranges = [(plain.least, plain.most)]
    arguments = {"input": reference(plain)} | _numbers(bench, quantizer, factors, offsets, ranges, None)
    arguments |= {"rounding_mode": quantizer.rounding_mode, "low": low, "high": high}
    return bench.step(node, "rescale", arguments, low, high, **bits_of(quantizer))


def _numbers(
    bench: Bench, quantizer: Quantizer, factors: Any, offsets: Any, ranges: Any, axis: int | None
) -> dict[str, Any]:
    found = rescaling(factors, offsets, ranges)
    shape = (-1,) + (1,) * (-(axis or -1) - 1)
    columns = {"multiplier": found.multiplier, "offset": found.offset, "divisor": found.divisor}
    return {
        word: bench.array(quantizer.where.part(word), column.reshape(shape) if column.numel() > 1 else column)
        for word, column in columns.items()
    }


def _steps(quantizer: Quantizer, node: fx.Node) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """What a value is divided by, and what is added then."""
    scale, zero_point = grid_of(quantizer)
    if quantizer.op == "quant::binary":
        return (Fraction(1),), (Fraction(0),)  # only the sign matters
    if quantizer.op == "quant::ternary":
        threshold: Any = node.kwargs["threshold"]
        return fractions(threshold * scale), (Fraction(0),)
    return fractions(scale), fractions(zero_point)


def _limits(
    held: Carried, quantizer: Quantizer, step: Fraction, zero_point: Fraction, limits: tuple[int, int]
) -> tuple[int, int]:
    """The range of the quantizer, and of the levels that bounds in units are rounded to: rounding keeps the order."""
    low, high = limits
    below, above = held.between
    if below is not None:
        low = min(high, max(low, round_fraction(below / step + zero_point, quantizer.rounding_mode)))
    if above is not None:
        high = max(low, min(high, round_fraction(above / step + zero_point, quantizer.rounding_mode)))
    return low, high


def _common_axis(held: Carried, quantizer: Quantizer) -> int | None:
    own, theirs = held.axis, axis_of(quantizer)
    if own is not None and theirs is not None and own != theirs:
        raise Cannot(
            f"a scale for each element of axis {theirs} where its operand has one for each of axis {own}",
            "integers takes scales along one axis",
            "Quantize per tensor here, or the weight of the layer before.",
        )
    return theirs if own is None else own


def _at(column: tuple[Any, ...], index: int) -> Any:
    return column[index] if len(column) > 1 else column[0]


def _pairs(one: tuple[Any, ...], other: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    return [(_at(one, index), _at(other, index)) for index in range(max(len(one), len(other)))]
