"""Where the bit width comes from: a constant, a learned parameter, or the bit width of the accumulator that comes in."""

from quant_core.components.bit_width.accumulator import MsbClampBitWidth, RemoveBitWidth
from quant_core.components.bit_width.base import BitWidth, RelativeBitWidth, bit_width_for
from quant_core.components.bit_width.constant import ConstBitWidth
from quant_core.components.bit_width.parameter import ParameterBitWidth
from quant_core.components.bit_width.restriction import BitWidthRestriction, FractionalBits, PowerOfTwoBits, WholeBits

__all__ = [
    "BitWidth",
    "BitWidthRestriction",
    "ConstBitWidth",
    "FractionalBits",
    "MsbClampBitWidth",
    "ParameterBitWidth",
    "PowerOfTwoBits",
    "RelativeBitWidth",
    "RemoveBitWidth",
    "WholeBits",
    "bit_width_for",
]
