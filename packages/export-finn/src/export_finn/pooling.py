"""Average pools whose sum is truncated, which FINN computes with integers throughout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from export_finn.integers import Integers
from quant_core.export import Program, Quantizer
from quant_core.export.arguments import arguments, each

_aten = torch.ops.aten
_EXACT: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """``QuantAvgPool2d`` of integers.

    Attributes:
        held: what is pooled.
        options: the sizes and bits of the operation.
    """

    held: Integers
    options: dict[str, Any]


def pooling(
    program: Program, node: fx.Node, quantizer: Quantizer, integers: Mapping[fx.Node, Integers]
) -> Pooling | None:
    """A truncated average pool as ``QuantAvgPool2d``, where that operation computes the same; ``None`` otherwise.

    It adds up ``k·k`` integers, and drops the low bits of the sum so that ``output_bits`` of those that an unsigned sum can have
    stay.
    """
    pool: Any = node.args[0]
    if quantizer.op != "quant::trunc" or pool.op != "call_function" or quantizer.rounding_mode != "FLOOR":
        return None
    sizes = _sizes(pool)
    held = integers.get(pool.args[0]) if sizes is not None else None
    if sizes is None or held is None or not held.per_tensor:
        return None
    kernel, stride = sizes
    scale, output_scale = program.constant(node.args[1]), quantizer.scale
    assert scale is not None  # constant, as the check has found
    assert output_scale is not None
    assert quantizer.bit_width is not None
    bits = int(quantizer.bit_width)
    input_bits = (held.high - held.low).bit_length()
    dropped = max(0, ((2**input_bits - 1) * kernel**2).bit_length() - bits)
    steps = float(scale) / (float(held.scale) / kernel**2), float(output_scale) / (float(scale) * 2**dropped)
    if scale.numel() > 1 or any(abs(step - 1) > _EXACT for step in steps):
        return None
    options = {"kernel": kernel, "stride": stride, "input_bits": input_bits, "output_bits": bits}
    return Pooling(held=held, options=options | {"signed": quantizer.signed})


def _sizes(pool: fx.Node) -> tuple[int, int] | None:
    """Kernel and stride of a square average pool of whole windows without padding."""
    source: Any = pool.args[0] if pool.args else None
    if pool.target is _aten.adaptive_avg_pool2d.default:
        height, width = source.meta["val"].shape[-2:]
        size: Any = pool.args[1]
        return (height, height) if height == width and list(size) == [1, 1] else None
    if pool.target is not _aten.avg_pool2d.default:
        return None
    given = arguments(pool)
    kernel = each(given["kernel_size"], 2)
    step = each(given["stride"], 2) if given["stride"] else kernel
    square = len({*kernel}) == len({*step}) == 1 and not any(each(given["padding"], 2)) and not given["ceil_mode"]
    return (kernel[0], step[0]) if square and given["divisor_override"] is None else None
