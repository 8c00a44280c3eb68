"""What export-finn registers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Capabilities, QuantSupport, Target, hookimpl

QUANT_API_VERSION = 1

QONNX = Capabilities(
    quant={
        "quant::int weight": QuantSupport(bit_widths=range(2, 17), zero_point="any"),
        "quant::binary weight": QuantSupport(bit_widths={1}),
        "quant::int activation": QuantSupport(
            bit_widths=range(2, 17),
            zero_point="any",
            rounding_modes={"ROUND", "FLOOR", "CEIL", "TO_ZERO", "HALF_UP"},
        ),
        "quant::binary activation": QuantSupport(bit_widths={1}),
        "quant::ternary activation": QuantSupport(bit_widths={2}),
        "quant::trunc activation": QuantSupport(
            bit_widths=range(2, 17), rounding_modes={"ROUND", "FLOOR", "CEIL", "TO_ZERO", "HALF_UP"}
        ),
        "quant::int bias": QuantSupport(bit_widths=range(2, 33)),
        "quant::float weight": QuantSupport(bit_widths=range(2, 20)),
        "quant::float activation": QuantSupport(
            bit_widths=range(2, 20), rounding_modes={"ROUND", "FLOOR", "CEIL", "TO_ZERO"}
        ),
    }
)

FINN = Capabilities(
    quant={
        "quant::int weight": QuantSupport(bit_widths=range(2, 9)),
        "quant::binary weight": QuantSupport(bit_widths={1}),
        "quant::int activation": QuantSupport(bit_widths=range(2, 9)),
        "quant::binary activation": QuantSupport(bit_widths={1}),
        "quant::ternary activation": QuantSupport(bit_widths={2}),
        "quant::trunc activation": QuantSupport(bit_widths=range(2, 9), rounding_modes={"FLOOR"}),
        "quant::int bias": QuantSupport(bit_widths=range(2, 33)),
    }
)


@hookimpl
def quant_targets() -> Iterable[Target]:
    """QONNX, and the form of it that FINN works on."""
    yield Target(
        name="qonnx",
        summary="ONNX with Quant, BipolarQuant, Trunc and FloatQuant, as QONNX and hls4ml read it",
        exporter="export_finn.qonnx:lower",
        suffix=".onnx",
        capabilities=QONNX,
        runtime="qonnx",
        rules="export_finn.rules:of_qonnx",
    )
    yield Target(
        name="finn",
        summary="FINN-ONNX: integer weights, MultiThreshold, separate scales",
        exporter="export_finn.finn:lower",
        suffix=".onnx",
        capabilities=FINN,
        runtime="qonnx",
        rules="export_finn.rules:of_finn",
    )
