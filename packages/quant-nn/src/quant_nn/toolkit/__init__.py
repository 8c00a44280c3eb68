"""The names of NVIDIA's toolkit, as another way to say what the quantizers of this project do."""

from quant_nn.toolkit.amax_scaling import AmaxScaling
from quant_nn.toolkit.descriptor import CALIB_METHODS, QuantDescriptor
from quant_nn.toolkit.functions import fake_tensor_quant, tensor_quant
from quant_nn.toolkit.injectors import AmaxActQuant, AmaxWeightQuant, activation_quantizer, weight_quantizer
from quant_nn.toolkit.listing import tensor_quantizers
from quant_nn.toolkit.predefined import (
    QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_CONV3D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_CONVTRANSPOSE1D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_CONVTRANSPOSE3D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW,
    QUANT_DESC_8BIT_PER_TENSOR,
    QUANT_DESC_UNSIGNED_8BIT_PER_TENSOR,
)
from quant_nn.toolkit.replacing import REPLACED, Initialized, deactivate, initialize
from quant_nn.toolkit.tensor_quantizer import TensorQuantizer

__all__ = [
    "CALIB_METHODS",
    "QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONV3D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE1D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE3D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW",
    "QUANT_DESC_8BIT_PER_TENSOR",
    "QUANT_DESC_UNSIGNED_8BIT_PER_TENSOR",
    "REPLACED",
    "AmaxActQuant",
    "AmaxScaling",
    "AmaxWeightQuant",
    "Initialized",
    "QuantDescriptor",
    "TensorQuantizer",
    "activation_quantizer",
    "deactivate",
    "fake_tensor_quant",
    "initialize",
    "tensor_quant",
    "tensor_quantizers",
    "weight_quantizer",
]
