"""What acme-backend registers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Capabilities, Quantizer, QuantSupport, Target, hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_quantizers() -> Iterable[Quantizer]:
    """One quantizer."""
    yield Quantizer(
        name="Acme4BitAct",
        summary="signed 4-bit activations",
        quantizer="acme_backend.quant:Acme4BitAct",
    )


@hookimpl
def quant_targets() -> Iterable[Target]:
    """One target, which takes 4 and 8 bits and cannot be run."""
    bits = QuantSupport(bit_widths={4, 8})
    yield Target(
        name="acme-json",
        summary="the operations and integers of a program as JSON",
        exporter="acme_backend.exporter:lower",
        suffix=".json",
        capabilities=Capabilities(quant={"quant::int weight": bits, "quant::int activation": bits}),
    )
