"""What quant-core itself registers: its named quantizers, keyword shorthands and target. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.integers.capabilities import TARGET
from quant_core.plugins import Quantizer, Shorthand, Target, hookimpl
from quant_core.shorthand import SHORTHANDS

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
    yield _quantizer("ShiftedUint8WeightPerTensorFloat", "unsigned weights with an integer zero-point, one float scale")
    yield _quantizer("ShiftedUint8WeightPerChannelFloat", "the same with scale and zero-point per output channel")
    yield _quantizer(
        "ShiftedUint8WeightPerTensorFloatHQO", "the same, a float zero-point by half-quadratic optimization"
    )
    yield _quantizer("ShiftedUint8WeightPerChannelFloatHQO", "the same with scale and zero-point per output channel")
    yield _quantizer("ShiftedUint8WeightPerGroupFloatHQO", "the same with scale and zero-point per 32 input channels")
    yield _quantizer(
        "ShiftedUint8WeightGroupQuantFloat", "unsigned weights, scale and zero-point per group_size inputs"
    )
    yield _quantizer(
        "ShiftedUint8ActPerTensorFloat", "unsigned activations, learned float scale and integer zero-point"
    )
    yield _quantizer("ShiftedUint8ActPerTensorFloatHQO", "the same, a float zero-point by half-quadratic optimization")
    yield _quantizer("SignedBinaryWeightPerTensorConst", "weights of two values, a fixed scale")
    yield _quantizer("SignedBinaryActPerTensorConst", "activations of two values, a fixed scale")
    yield _quantizer("SignedTernaryWeightPerTensorConst", "weights of three values, a fixed scale")
    yield _quantizer("SignedTernaryActPerTensorConst", "activations of three values, a fixed scale")
    yield _quantizer("NoneWeightQuant", "weights as they are")
    yield _quantizer("NoneActQuant", "activations as they are")
    yield _quantizer("NoneBiasQuant", "biases as they are")
    yield _quantizer(
        "Int4WeightPerTensorFloatDecoupled", "weights of 4 bits, divided by one scale, times a learned one"
    )
    yield _quantizer("Int4WeightPerTensorFixedPointDecoupled", "the same with scales that are powers of two")
    yield _quantizer("Int8WeightPerChannelFloatDecoupled", "the same with 8 bits, float scales per output channel")
    yield _quantizer("Int8WeightNormL2PerChannelFixedPoint", "normalized weights, a learned length per output channel")
    yield _quantizer("Int8AccumulatorAwareWeightQuant", "weights whose accumulator cannot overflow (A2Q)")
    yield _quantizer("Int8AccumulatorAwareZeroCenterWeightQuant", "the same for weights without their mean (A2Q+)")
    yield _quantizer("TruncTo8bit", "the 8 most significant bits of an accumulator, rounded down")
    yield _quantizer("RoundTo8bit", "the same, rounded to the nearest")
    yield _quantizer("ShiftRoundSaturateTo8bit", "those 8 bits of an accumulator in which the values lie")
    yield _quantizer("ClampTo16bit", "an accumulator that saturates with 16 bits")
    yield _quantizer("LearnedMsbClamp", "an accumulator that saturates with a learned number of bits")
    yield _quantizer("NoneTruncQuant", "accumulators with all of their low bits")
    yield _quantizer("NoneClampQuant", "accumulators with all of their high bits")
    yield _quantizer(
        "ShiftedUint8ActPerTensorFloatMSE", "unsigned activations, starting from the smallest squared error"
    )
    yield _quantizer("ShiftedUint8WeightPerTensorFloatMSE", "unsigned weights, learned from the smallest squared error")
    yield _quantizer("ShiftedUint8WeightPerChannelFloatMSE", "the same with scale and zero-point per output channel")
    yield _quantizer("Int8WeightPerTensorFloatMSE", "signed narrow weights, a scale from the smallest squared error")
    yield _quantizer("Int8WeightPerChannelFloatMSE", "the same with a scale per output channel")
    yield _quantizer("Int8WeightPerTensorFloatHQO", "signed narrow weights, a scale by half-quadratic optimization")
    yield _quantizer("Int8WeightPerChannelFloatHQO", "the same with a scale per output channel")
    yield _quantizer("Int8ActPerTensorFloatMSE", "signed activations, starting from the smallest squared error")
    yield _quantizer("Uint8ActPerTensorFloatMSE", "unsigned activations, starting from the smallest squared error")
    yield _quantizer(
        "Int8ActPerTensorFloatMinMaxInit", "signed activations, learned, starting from min_val and max_val"
    )
    yield _quantizer("Uint8ActPerTensorFloatMaxInit", "unsigned activations, learned, starting from max_val")
    yield _quantizer("Int8WeightPerTensorFixedPoint", "signed narrow weights, one power-of-two scale")
    yield _quantizer("Int8WeightPerChannelFixedPoint", "the same with a scale per output channel")
    yield _quantizer("Int8ActPerTensorFixedPoint", "signed activations, a learned power-of-two scale")
    yield _quantizer("Uint8ActPerTensorFixedPoint", "unsigned activations, a learned power-of-two scale")
    yield _quantizer("Uint8ActPerTensorFixedPointMaxInit", "the same, starting from max_val")
    yield _quantizer(
        "Int8ActPerTensorFixedPointMinMaxInit",
        "signed activations, power-of-two scale starting from min_val and max_val",
    )
    yield _quantizer("Int8BiasPerTensorFixedPointInternalScaling", "8-bit bias with its own power-of-two scale")
    yield _quantizer("Int8BiasPerTensorFloatInternalScaling", "8-bit bias with its own float scale")
    yield _quantizer("Int8ActPerTensorFloatBatchQuant1d", "signed activations of (N, C, L), the scale of each batch")
    yield _quantizer("Uint8ActPerTensorFloatBatchQuant1d", "the same, unsigned")
    yield _quantizer("Int8ActPerTensorFloatBatchQuant2d", "signed activations of (N, C, H, W), the scale of each batch")
    yield _quantizer("Uint8ActPerTensorFloatBatchQuant2d", "the same, unsigned")
    yield _quantizer("IntBias", "bias at the accumulator's scale, with a bit width to be given")
    yield _quantizer("Int24Bias", "24-bit bias at the accumulator's scale")
    yield _quantizer("Int8WeightPerTensorFixedPointMSE", "signed narrow weights, the best scale that is a power of two")
    yield _quantizer("Int8WeightPerChannelFixedPointMSE", "the same with a scale per output channel")
    yield _quantizer("Int8ActPerTensorFixedPointMSE", "signed activations, the best scale that is a power of two")
    yield _quantizer("Uint8ActPerTensorFixedPointMSE", "unsigned activations, the best scale that is a power of two")
    yield _quantizer("ShiftedUint8ActPerTensorFixedPoint", "unsigned activations with a zero-point, power-of-two scale")
    yield _quantizer("ShiftedUint8ActPerTensorFixedPointMSE", "the same, starting from the smallest squared error")
    for code, bits in (("e4m3", "4 exponent and 3 mantissa bits"), ("e5m2", "5 exponent and 2 mantissa bits")):
        for family, codes in (("", ""), ("OCP", ", Open Compute Project"), ("FNUZ", ", larger bias")):
            name = f"Fp8{code}{family}"
            yield _quantizer(f"{name}Weight", f"weights of {bits}{codes}, scale 1")
            yield _quantizer(f"{name}WeightPerTensorFloat", f"weights of {bits}{codes}, one float scale from max|w|")
            yield _quantizer(f"{name}WeightPerChannelFloat", "the same with a float scale per output channel")
            yield _quantizer(f"{name}Act", f"activations of {bits}{codes}, scale 1")
            yield _quantizer(f"{name}ActPerTensorFloat", f"activations of {bits}{codes}, a learned float scale")
    yield _quantizer("Int8Bias", "8-bit bias at the accumulator's scale")
    yield _quantizer("Int16Bias", "16-bit bias at the accumulator's scale")
    yield _quantizer("Int32Bias", "32-bit bias at the accumulator's scale")


@hookimpl
def quant_shorthands() -> Iterable[Shorthand]:
    """The keywords and words of quantizers."""
    yield from SHORTHANDS


@hookimpl
def quant_targets() -> Iterable[Target]:
    """The network in integers."""
    yield TARGET
