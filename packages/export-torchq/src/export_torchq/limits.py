"""Which convolutions and linear layers an engine computes in integers; found by comparing each with floats, on torch 2.13."""

from __future__ import annotations

from typing import Any, Final

from export_torchq.levels import Weight
from quant_core.export.arguments import arguments
from quant_core.export.products import TRANSPOSED, Product

_VOLUME: Final = 3


def limit_of(engine: str, found: Product, weight: Weight | None) -> str | None:
    """Why an engine does not compute a product in integers, or computes it wrongly; ``None`` where it is right.

    Args:
        engine: the engine.
        found: the product.
        weight: its weight; ``None`` for one whose scales vary along several axes.
    """
    if weight is None or weight.axis not in (None, found.output_axis):
        return "torch takes weight scales per tensor and per output channel"
    if is_lopsided(found):
        return "torch's integer convolutions pad both sides alike"
    if engine == "onednn" and not weight.is_symmetric:
        return "engine onednn takes weights without a zero-point"
    if engine == "qnnpack" and found.is_convolution and weight.integers.dim() == _VOLUME + 2:
        return "engine qnnpack cannot save convolutions of volumes"
    return _limit_of_transposed(engine, found, weight) if found.node.target in TRANSPOSED else None


def _limit_of_transposed(engine: str, found: Product, weight: Weight) -> str | None:
    if weight.axis is not None and engine != "qnnpack":
        return f"engine {engine} takes weight scales per tensor in transposed convolutions"
    given = arguments(found.node)
    spaced = any(given["output_padding"])
    if engine == "onednn" and spaced:
        return "engine onednn takes transposed convolutions without output_padding"
    outputs = found.node.meta["val"].shape[1]
    through_onednn = engine == "onednn" or (engine == "x86" and not spaced)
    if through_onednn and weight.integers.shape[0] != outputs:
        return (
            f"engine {engine} confuses input and output channels of transposed convolutions where their numbers differ"
        )
    return None


def is_lopsided(found: Product) -> bool:
    """Whether one more zero is put behind the data than before it."""
    given = arguments(found.node)
    if not found.is_convolution or given.get("padding") != "same":
        return False
    kernel = found.weight.meta["val"].shape[2:]
    dilation = each(given["dilation"], len(kernel))
    return any(step * (size - 1) % 2 for size, step in zip(kernel, dilation, strict=True))


def each(given: Any, axes: int) -> list[int]:
    """One number for each axis."""
    numbers = [given] if isinstance(given, int) else list(given)
    return numbers * axes if len(numbers) == 1 else numbers
