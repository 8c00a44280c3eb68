"""What export-qcdq registers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from quant_core.plugins import Capabilities, QuantSupport, Target, hookimpl
from quant_core.plugins.capabilities import GranularityName

QUANT_API_VERSION = 1

_MODES: Final = {"ROUND", "HALF_UP", "DPU", "FLOOR", "CEIL", "TO_ZERO"}
_WEIGHTS: Final[frozenset[GranularityName]] = frozenset({"per_tensor", "per_channel", "per_group"})

QCDQ = Capabilities(
    quant={
        "quant::int weight": QuantSupport(bit_widths=range(2, 17), zero_point="any", granularity=_WEIGHTS),
        "quant::binary weight": QuantSupport(bit_widths={1}, granularity=_WEIGHTS),
        "quant::int activation": QuantSupport(bit_widths=range(2, 17), zero_point="any", rounding_modes=_MODES),
        "quant::binary activation": QuantSupport(bit_widths={1}),
        "quant::ternary activation": QuantSupport(bit_widths={2}),
        "quant::trunc activation": QuantSupport(bit_widths=range(2, 17), rounding_modes=_MODES),
        "quant::int bias": QuantSupport(bit_widths=range(2, 33)),
    },
    loops=True,
)

QOP = QCDQ
"""What an integer operator does not take is written as QCDQ: the two take the same."""

TENSORRT = Capabilities(
    quant={
        "quant::int weight": QuantSupport(bit_widths=range(2, 9), signed={True}),
        "quant::binary weight": QuantSupport(bit_widths={1}),
        "quant::int activation": QuantSupport(
            bit_widths={8}, signed={True}, narrow_range={False}, granularity={"per_tensor"}
        ),
        "quant::int bias": QuantSupport(bit_widths=range(2, 33)),
    }
)
"""What ``qcdq`` takes with the option ``tensorrt``."""


@hookimpl
def quant_targets() -> Iterable[Target]:
    """Standard ONNX in two forms: with QuantizeLinear and DequantizeLinear around float operators, and with integer operators."""
    yield Target(
        name="qcdq",
        summary="standard ONNX: QuantizeLinear, Clip, DequantizeLinear",
        exporter="export_qcdq.qcdq:lower",
        suffix=".onnx",
        capabilities=QCDQ,
        runtime="onnxruntime",
        rules="export_qcdq.rules:of_qcdq",
    )
    yield Target(
        name="qop",
        summary="standard ONNX: QLinearConv, QLinearMatMul, integer operators",
        exporter="export_qcdq.qop:lower",
        suffix=".onnx",
        capabilities=QOP,
        runtime="onnxruntime",
        rules="export_qcdq.rules:of_qop",
    )
