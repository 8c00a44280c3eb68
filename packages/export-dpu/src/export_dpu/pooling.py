"""Maxima and averages over windows of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx

from export_dpu.averaging import average_factor
from export_dpu.operation import Value, pair, shape_of
from export_dpu.padding import pad_before
from export_dpu.reading import Reading
from quant_core.export.arguments import arguments

_aten = torch.ops.aten
_PRECISION: Final = 2.0**-20
"""How near a factor of the model must come to that of the hardware: that of float32 numbers."""


def read_max_pool(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.max_pool2d``."""
    given = arguments(node)
    used: Any = node.args[0]
    x = reading.operand(node, used)
    kernel = pair(given["kernel_size"])
    strides = pair(given["stride"] or kernel)
    height, width = pair(given["padding"])
    dilation = pair(given["dilation"])
    if dilation != (1, 1):
        reading.refuse(node, f"dilation={dilation}", "PyXIR pools without dilation", "Set dilation=1 on this pool.")
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    _check_windows(reading, node, reach, strides, (height, width))
    if reading.pads_apart and (height or width) and not x.positive:
        reading.refuse(
            node,
            f"padding={(height, width)} of values that can be below zero",
            f"{reading.target} pads with zeros, and torch leaves padding out of the maximum",
            "Put the pool behind the ReLU, or set padding=0.",
        )
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": (1, 1), "ceil_mode": 0}
    pads = (height, width, height, width)
    if reading.pads_apart:
        x, attributes = pad_before(reading, node, x, shape_of(used), pads), attributes | {"auto_pad": "VALID"}
    else:
        attributes["pads"] = pads
    landing = reading.landing(node)
    position = x.position if landing is None else landing
    reading.values[node] = reading.add(node, "MaxPool", (x,), position, attributes, {}, positive=x.positive)


def read_average_pool(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.avg_pool2d``."""
    given = arguments(node)
    kernel = pair(given["kernel_size"])
    strides, padding = pair(given["stride"] or kernel), pair(given["padding"])
    _check_windows(reading, node, kernel, strides, padding)
    if any(padding) and not given["count_include_pad"]:
        reading.refuse(
            node,
            "count_include_pad=False and padding",
            f"{reading.target} averages over whole windows, zeros included",
            "Set count_include_pad=True on this pool, or padding=0.",
        )
    _average(reading, node, kernel, strides, padding, given["divisor_override"] or math.prod(kernel))


def read_adaptive_pool(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.adaptive_avg_pool2d``."""
    before, after = shape_of(node.all_input_nodes[0])[-2:], shape_of(node)[-2:]
    if any(size % parts for size, parts in zip(before, after, strict=True)):
        reading.refuse(
            node,
            f"windows of different sizes, from {tuple(before)} to {tuple(after)}",
            f"{reading.target} averages over windows of one size",
            "Choose an output size that divides the size of the input.",
        )
    kernel = pair([size // parts for size, parts in zip(before, after, strict=True)])
    _average(reading, node, kernel, kernel, (0, 0), math.prod(kernel))


def read_mean(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.mean.dim`` and ``aten.sum.dim_IntList`` over height and width."""
    given = arguments(node)
    shape = shape_of(node.all_input_nodes[0])
    axes = sorted(axis % len(shape) for axis in given["dim"] or ())
    if len(shape) != 4 or axes != [2, 3]:
        reading.refuse(
            node,
            f"dim={tuple(given['dim'] or ())} of {len(shape)} axes",
            f"{reading.target} averages images over height and width",
            "Take the mean over the last two axes of an image, or keep the operation out of the exported part.",
        )
        reading.values[node] = Value(name="", position=None)
        return
    kernel = pair(shape[-2:])
    divisor = math.prod(kernel) if node.target is _aten.mean.dim else 1
    _average(reading, node, kernel, kernel, (0, 0), divisor, flatten=not given["keepdim"])


def _average(
    reading: Reading,
    node: fx.Node,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int],
    divisor: int,
    flatten: bool = False,
) -> None:
    used: Any = node.args[0]
    x = reading.operand(node, used)
    shape = shape_of(used)
    scaled = _scaled(reading, node)
    last, by = (node, 1.0) if scaled is None else scaled
    _check_factor(reading, node, kernel, by / divisor)
    position = reading.rounded(last)
    whole = kernel == tuple(shape[-2:]) and padding == (0, 0)
    out = (*shape[:2], 1, 1) if flatten else shape_of(node)
    if whole:
        result = reading.add(node, "GlobalAveragePool", (x,), position, {}, {}, shape=out, positive=x.positive)
    else:
        attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": (*padding, *padding)}
        if any(padding):
            attributes["count_include_pad"] = 1
        result = reading.add(node, "AveragePool", (x,), position, attributes, {}, positive=x.positive)
    if flatten:
        result = reading.add(node, "Flatten", (result,), position, {"axis": 1}, positive=x.positive)
    reading.values[last] = reading.values[node] = result


def _scaled(reading: Reading, node: fx.Node) -> tuple[fx.Node, float] | None:
    """The product with a constant number that alone uses an average, and the number."""
    user = next(iter(node.users), None)
    if user is None or len(node.users) != 1 or user.target is not _aten.mul.Tensor or len(user.args) != 2:
        return None
    other: Any = user.args[1] if user.args[0] is node else user.args[0]
    if isinstance(other, fx.Node):
        constant = reading.program.constant(other)
        if not isinstance(constant, Tensor) or constant.numel() != 1:
            return None
        other = constant.item()
    return (user, float(other)) if isinstance(other, int | float) else None


def _check_factor(reading: Reading, node: fx.Node, kernel: tuple[int, int], factor: float) -> None:
    """Refuse an average that the hardware does not compute as the model does."""
    multiplier, bits = average_factor(kernel)
    wanted = multiplier / 2**bits
    if abs(factor - wanted) > _PRECISION * wanted:
        reading.refuse(
            node,
            f"{factor:.6g} times the sum of {kernel[0]}x{kernel[1]} values",
            f"a DPU does not divide: of this window it gives {multiplier}/{2**bits} times the sum, {wanted:.6g}",
            f"Write it as the DPU computes it, avg_pool2d(x, {kernel}, divisor_override=1) * ({multiplier} / {2**bits}), "
            "or use a window whose size is a power of two.",
        )


def _check_windows(
    reading: Reading, node: fx.Node, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int]
) -> None:
    """Refuse windows that reach over the edge of the image."""
    before, after = shape_of(node.all_input_nodes[0])[-2:], shape_of(node)[-2:]
    sizes = zip(before, kernel, strides, padding, strict=True)
    if tuple((size + 2 * pad - window) // step + 1 for size, window, step, pad in sizes) != tuple(after):
        reading.refuse(
            node,
            "ceil_mode=True, with windows that reach over the edge",
            f"{reading.target} pools whole windows only",
            "Set ceil_mode=False on this pool, and pad the image before it if the edge matters.",
        )
