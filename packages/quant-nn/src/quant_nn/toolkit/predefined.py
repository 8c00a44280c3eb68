"""The descriptors of 8 bits that NVIDIA's toolkit has names for."""

from __future__ import annotations

from typing import Final

from quant_nn.toolkit.descriptor import QuantDescriptor

QUANT_DESC_8BIT_PER_TENSOR: Final = QuantDescriptor()
QUANT_DESC_UNSIGNED_8BIT_PER_TENSOR: Final = QuantDescriptor(unsigned=True)
QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW: Final = QuantDescriptor(axis=0)
QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL: Final = QuantDescriptor(axis=0)
QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL: Final = QuantDescriptor(axis=0)
QUANT_DESC_8BIT_CONV3D_WEIGHT_PER_CHANNEL: Final = QuantDescriptor(axis=0)
QUANT_DESC_8BIT_CONVTRANSPOSE1D_WEIGHT_PER_CHANNEL: Final = QuantDescriptor(axis=1)
"""Output channels of a transposed convolution are along axis 1 of its weight."""
QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL: Final = QuantDescriptor(axis=1)
QUANT_DESC_8BIT_CONVTRANSPOSE3D_WEIGHT_PER_CHANNEL: Final = QuantDescriptor(axis=1)
