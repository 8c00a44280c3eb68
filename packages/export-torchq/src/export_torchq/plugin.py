"""What export-torchq registers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Capabilities, QuantSupport, Target, hookimpl

QUANT_API_VERSION = 1

_WEIGHT = QuantSupport(bit_widths=range(2, 9), zero_point="any")
_BIAS = QuantSupport(bit_widths=range(2, 33))

TORCHQ = Capabilities(
    quant={
        "quant::int weight": _WEIGHT,
        "quant::int activation": QuantSupport(bit_widths=range(2, 9), zero_point="any", granularity={"per_tensor"}),
        "quant::int bias": _BIAS,
    }
)
"""Everything between the quantizers may be any operation of aten: what torch has no integers for is computed in floats."""

PT2E = Capabilities(
    quant={
        "quant::int weight": QuantSupport(bit_widths=range(2, 9)),
        "quant::int activation": QuantSupport(
            bit_widths={8}, zero_point="any", narrow_range={False}, granularity={"per_tensor"}
        ),
        "quant::int bias": _BIAS,
    }
)
"""Activations of 8 bits only: the compilers behind it saturate at the ends of the 8-bit type, not where a graph says."""


@hookimpl
def quant_targets() -> Iterable[Target]:
    """torch's two forms of networks in integers."""
    yield Target(
        name="torchq",
        summary="TorchScript of torch's quantized operators",
        exporter="export_torchq.torchq:lower",
        suffix=".pt",
        capabilities=TORCHQ,
        runtime="torch",
        rules="export_torchq.rules:rules_of_torchq",
    )
    yield Target(
        name="pt2e",
        summary="a program of torch.export with pairs of quantized_decomposed operators, for Inductor and ExecuTorch",
        exporter="export_torchq.pt2e:lower",
        suffix=".pt2",
        capabilities=PT2E,
        runtime="torch",
        rules="export_torchq.rules:rules_of_pt2e",
    )
