"""What quant-rnn registers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Layer, hookimpl

QUANT_API_VERSION = 1


def _layer(kind: str, summary: str) -> Layer:
    return Layer(
        name=f"Quant{kind}", summary=summary, float_type=f"torch.nn:{kind}", quant_type=f"quant_rnn:Quant{kind}"
    )


@hookimpl
def quant_layers() -> Iterable[Layer]:
    """The recurrent layers."""
    yield _layer("GRU", "gated recurrent unit")
    yield _layer("LSTM", "long short-term memory")
    yield _layer("RNN", "plain recurrent layer")
