"""What export-dpu registers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from quant_core.plugins import Capabilities, QuantSupport, Target, hookimpl

QUANT_API_VERSION = 1

_POSITIONS: Final[dict[str, Any]] = {"signed": {True}, "granularity": {"per_tensor"}, "scale": "power_of_two"}

DPU = Capabilities(
    quant={
        "quant::int weight": QuantSupport(bit_widths=range(2, 9), **_POSITIONS),
        "quant::int bias": QuantSupport(bit_widths=range(2, 9), **_POSITIONS),
        "quant::int activation": QuantSupport(
            bit_widths={8}, narrow_range={False}, rounding_modes={"DPU", "HALF_UP", "ROUND"}, **_POSITIONS
        ),
    },
    aten={
        "adaptive_avg_pool2d.default",
        "add.Tensor",
        "avg_pool2d.default",
        "cat.default",
        "clone.default",
        "constant_pad_nd.default",
        "contiguous.default",
        "conv2d.default",
        "conv2d.padding",
        "conv_transpose2d.input",
        "flatten.using_ints",
        "linear.default",
        "max_pool2d.default",
        "mean.dim",
        "mul.Tensor",
        "pad.default",
        "permute.default",
        "relu.default",
        "reshape.default",
        "squeeze.dim",
        "squeeze.dims",
        "sum.dim_IntList",
        "transpose.int",
        "unsqueeze.default",
        "view.default",
    },
)
"""Both DPUs compute the same; their files differ."""


@hookimpl
def quant_targets() -> Iterable[Target]:
    """The DPUs of Vitis AI, through PyXIR."""
    for name, padding in (("dpuv1", "padding on the operators"), ("dpuv2", "padding apart")):
        yield Target(
            name=name,
            summary=f"ONNX of 8-bit integers for Xilinx DPUs, as PyXIR reads it: {padding}",
            exporter=f"export_dpu.dpu:lower_to_{name}",
            suffix=".onnx",
            capabilities=DPU,
            runtime="onnx",
            rules=f"export_dpu.reader:rules_of_{name}",
        )
