"""Which layers and pools an engine computes in integers; found by comparing each with floats, on torch 2.13."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from export_torchq.levels import Weight
from quant_core.export.arguments import arguments, each, zeros_around
from quant_core.export.products import CONVOLUTIONS, TRANSPOSED, Product

_aten = torch.ops.aten
_IMAGE: Final = 2
_VOLUME: Final = 3
_PACKED: Final = 8
"""fbgemm has kernels of its own for multiples of so many channels."""
_FEW_GROUPS: Final = 100
"""Up to here, the engine x86 computes through onednn."""
_HALF: Final = 2**15 - 1


def limit_of(engine: str, found: Product, weight: Weight | None, high: int) -> str | None:
    """Why an engine does not compute a product in integers, or computes it wrongly; ``None`` where it is right.

    Args:
        engine: the engine.
        found: the product.
        weight: its weight; ``None`` for one whose scales vary along several axes.
        high: the largest integer that its data can be.
    """
    if weight is None or weight.axis not in (None, found.output_axis):
        return "torch takes weight scales per tensor and per output channel"
    if is_lopsided(found):
        return "torch's integer convolutions pad both sides alike"
    if engine == "onednn" and not weight.is_symmetric:
        return "engine onednn takes weights without a zero-point"
    if engine == "qnnpack" and found.is_convolution and weight.integers.dim() == _VOLUME + 2:
        return "engine qnnpack cannot save convolutions of volumes"
    if found.node.target in TRANSPOSED:
        return _limit_of_transposed(engine, found, weight)
    if _is_depthwise_of_fbgemm(engine, found, weight) and _pairs_overflow(weight, high):
        return (
            f"engine {engine} adds pairs of products of a depthwise convolution in 16 bits, which these weights overflow "
            "with 8-bit activations; unsigned activations of 7 bits fit"
        )
    return None


def _is_depthwise_of_fbgemm(engine: str, found: Product, weight: Weight) -> bool:
    """Whether fbgemm takes its kernel for depthwise convolutions, by itself or for the engine x86."""
    if not found.is_convolution or weight.integers.dim() < _IMAGE + 2:
        return False
    groups = int(arguments(found.node)["groups"])
    if groups != found.x.meta["val"].shape[1] or groups % _PACKED != 0:
        return False
    return engine == "fbgemm" or (engine == "x86" and (groups > _FEW_GROUPS or not weight.is_symmetric))


def _pairs_overflow(weight: Weight, high: int) -> bool:
    """Whether two products of an output channel can add up to more than 16 bits hold."""
    sizes = weight.integers.to(torch.int32).abs().flatten(1)
    return bool((sizes.topk(min(2, sizes.shape[1])).values.sum(1) * high > _HALF).any())


def _limit_of_transposed(engine: str, found: Product, weight: Weight) -> str | None:
    given = arguments(found.node)
    if weight.axis is not None and (engine != "qnnpack" or given["groups"] != 1):
        groups = " of several groups" if engine == "qnnpack" else ""
        return f"engine {engine} takes weight scales per tensor in transposed convolutions{groups}"
    spaced = any(given["output_padding"])
    if engine == "onednn" and spaced:
        return "engine onednn takes transposed convolutions without output_padding"
    outputs = found.node.meta["val"].shape[1]
    if engine in ("fbgemm", "x86") and _is_narrow(weight, given, outputs):
        return (
            f"engine {engine} may compute a transposed convolution of images wrongly that has a kernel of height 2, multiples "
            "of 8 channels, and neither groups nor padding"
        )
    through_onednn = engine == "onednn" or (engine == "x86" and not spaced)
    if through_onednn and weight.integers.shape[0] != outputs:
        return (
            f"engine {engine} confuses input and output channels of transposed convolutions where their numbers differ"
        )
    return None


def _is_narrow(weight: Weight, given: dict[str, Any], outputs: int) -> bool:
    """Whether fbgemm takes a kernel that is wrong; the engine x86 computes through it on processors without VNNI."""
    if weight.integers.dim() != _IMAGE + 2 or weight.integers.shape[2] != 2 or given["groups"] != 1:
        return False
    return not any(given["padding"]) and weight.integers.shape[0] % _PACKED == 0 and outputs % _PACKED == 0


def is_wrong(engine: str, node: fx.Node) -> bool:
    """Whether an engine computes an operation that moves, selects or averages quantized values wrongly, or not at all."""
    if node.target in _ENLARGING:
        return not _is_extended(node.args[0])
    if engine != "qnnpack":
        return False
    given = arguments(node)
    if node.target is _aten.avg_pool2d.default:
        whole = given["count_include_pad"] or not any(each(given["padding"], _IMAGE))
        return not whole or given["divisor_override"] is not None
    if node.target is _aten.max_pool2d.default:
        return set(each(given["kernel_size"], _IMAGE)) == {1}
    return node.target is _aten.max_pool3d.default


def _is_extended(used: Any) -> bool:
    """Whether an image has more than one value along each axis: else torch takes its channels for rows."""
    return all(statically_known_true(size > 1) for size in used.meta["val"].shape[2:])


_ENLARGING: Final = (
    _aten.adaptive_avg_pool2d.default,
    _aten.upsample_nearest2d.default,
    _aten.upsample_nearest2d.vec,
    _aten.upsample_nearest3d.default,
    _aten.upsample_nearest3d.vec,
)
"""Operations whose result may be larger than their operand."""


def is_lopsided(found: Product) -> bool:
    """Whether one more zero is put behind the data than before it."""
    given = arguments(found.node)
    if found.node.target not in CONVOLUTIONS:
        return False
    return any(before != behind for before, behind in zeros_around(given, found.weight.meta["val"].shape[2:]))
