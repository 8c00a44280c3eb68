"""A preset derived from one of quant-core's."""

from __future__ import annotations

from quant_core.quant import Int8ActPerTensorFloat


class Acme4BitAct(Int8ActPerTensorFloat):
    """As :class:`quant_core.quant.Int8ActPerTensorFloat`, with 4 bits."""

    bit_width = 4
