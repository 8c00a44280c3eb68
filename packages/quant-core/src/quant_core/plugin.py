"""What quant-core itself registers: its named quantizers. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Quantizer, hookimpl

QUANT_API_VERSION = 1


def _quantizer(name: str, summary: str) -> Quantizer:
    return Quantizer(name=name, summary=summary, quantizer=f"quant_core.quant:{name}")


@hookimpl
def quant_quantizers() -> Iterable[Quantizer]:
    """The named quantizers."""
    yield _quantizer("Int8WeightPerTensorFloat", "signed narrow weights, one float scale from max|w|")
    yield _quantizer("Int8WeightPerChannelFloat", "signed narrow weights, a float scale per output channel")
    yield _quantizer("Int8ActPerTensorFloat", "signed activations, a learned float scale")
    yield _quantizer("Uint8ActPerTensorFloat", "unsigned activations, a learned float scale")
    yield _quantizer("Int8Bias", "8-bit bias at the accumulator's scale")
    yield _quantizer("Int16Bias", "16-bit bias at the accumulator's scale")
    yield _quantizer("Int32Bias", "32-bit bias at the accumulator's scale")
