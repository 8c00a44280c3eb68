"""What export-qcdq registers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Capabilities, QuantSupport, Target, hookimpl

QUANT_API_VERSION = 1

QCDQ = Capabilities(
    quant={
        "quant::int weight": QuantSupport(bit_widths=range(2, 9), zero_point="any"),
        "quant::int activation": QuantSupport(bit_widths=range(2, 9), zero_point="any"),
        "quant::int bias": QuantSupport(bit_widths=range(2, 33)),
    },
    loops=True,
)


@hookimpl
def quant_targets() -> Iterable[Target]:
    """QuantizeLinear, Clip, DequantizeLinear."""
    yield Target(
        name="qcdq",
        summary="standard ONNX: QuantizeLinear, Clip, DequantizeLinear",
        exporter="export_qcdq.qcdq:lower",
        suffix=".onnx",
        capabilities=QCDQ,
        runtime="onnxruntime",
    )
