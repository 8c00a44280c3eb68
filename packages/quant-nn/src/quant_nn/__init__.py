"""Feed-forward layers with quantized weights, biases, inputs and outputs.

Importing this package does not import torch; the layers are loaded on first use.

>>> import torch
>>> import quant_nn as qnn
>>> net = torch.nn.Sequential(
...     qnn.QuantIdentity(return_quant_tensor=True),
...     qnn.QuantLinear(16, 8, weight_bit_width=4),
...     qnn.QuantReLU(bit_width=4),
... )
>>> net(torch.zeros(2, 16)).shape
torch.Size([2, 8])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant_core.lazy import lazy_names

if TYPE_CHECKING:
    from quant_nn.accumulation import Accumulator as Accumulator
    from quant_nn.accumulator import ClampQuantAccumulator as ClampQuantAccumulator
    from quant_nn.accumulator import TruncQuantAccumulator as TruncQuantAccumulator
    from quant_nn.activation import QuantActivation as QuantActivation
    from quant_nn.activation import QuantIdentity as QuantIdentity
    from quant_nn.activation import QuantReLU as QuantReLU
    from quant_nn.attention import QuantScaledDotProductAttention as QuantScaledDotProductAttention
    from quant_nn.attention_multihead import QuantMultiheadAttention as QuantMultiheadAttention
    from quant_nn.batch_norm import BatchNorm1dToQuantScaleBias as BatchNorm1dToQuantScaleBias
    from quant_nn.batch_norm import BatchNorm2dToQuantScaleBias as BatchNorm2dToQuantScaleBias
    from quant_nn.calibration import calibrate as calibrate
    from quant_nn.convert import RECIPES as RECIPES
    from quant_nn.convert import Conversion as Conversion
    from quant_nn.convert import Rule as Rule
    from quant_nn.convert import functional_calls as functional_calls
    from quant_nn.convert import quantize as quantize
    from quant_nn.convert import read_rules as read_rules
    from quant_nn.convert import recipe as recipe
    from quant_nn.convert import write_rules as write_rules
    from quant_nn.convolution import QuantConv as QuantConv
    from quant_nn.convolution import QuantConv1d as QuantConv1d
    from quant_nn.convolution import QuantConv2d as QuantConv2d
    from quant_nn.convolution import QuantConv3d as QuantConv3d
    from quant_nn.embedding import QuantEmbedding as QuantEmbedding
    from quant_nn.folding import Folding as Folding
    from quant_nn.folding import finish_folding as finish_folding
    from quant_nn.folding import fold_batch_norms as fold_batch_norms
    from quant_nn.folding import fold_while_training as fold_while_training
    from quant_nn.folding import freeze_statistics as freeze_statistics
    from quant_nn.functions import Cat as Cat
    from quant_nn.functions import EltwiseAdd as EltwiseAdd
    from quant_nn.functions import ScaledDotProductAttention as ScaledDotProductAttention
    from quant_nn.hadamard import HadamardClassifier as HadamardClassifier
    from quant_nn.joining import QuantCat as QuantCat
    from quant_nn.joining import QuantEltwiseAdd as QuantEltwiseAdd
    from quant_nn.layer import QuantLayer as QuantLayer
    from quant_nn.linear import QuantLinear as QuantLinear
    from quant_nn.passing import QuantDropout as QuantDropout
    from quant_nn.passing import QuantMaxPool1d as QuantMaxPool1d
    from quant_nn.passing import QuantMaxPool2d as QuantMaxPool2d
    from quant_nn.report import summary as summary
    from quant_nn.scale_bias import QuantScaleBias as QuantScaleBias
    from quant_nn.scale_bias import ScaleBias as ScaleBias
    from quant_nn.squashing import QuantHardTanh as QuantHardTanh
    from quant_nn.squashing import QuantSigmoid as QuantSigmoid
    from quant_nn.squashing import QuantTanh as QuantTanh
    from quant_nn.transposed_convolution import QuantConvTranspose as QuantConvTranspose
    from quant_nn.transposed_convolution import QuantConvTranspose1d as QuantConvTranspose1d
    from quant_nn.transposed_convolution import QuantConvTranspose2d as QuantConvTranspose2d
    from quant_nn.transposed_convolution import QuantConvTranspose3d as QuantConvTranspose3d
    from quant_nn.trunc_pooling import TruncAdaptiveAvgPool2d as TruncAdaptiveAvgPool2d
    from quant_nn.trunc_pooling import TruncAvgPool2d as TruncAvgPool2d
    from quant_nn.upsampling import QuantUpsample as QuantUpsample
    from quant_nn.upsampling import QuantUpsamplingBilinear2d as QuantUpsamplingBilinear2d
    from quant_nn.upsampling import QuantUpsamplingNearest2d as QuantUpsamplingNearest2d
    from quant_nn.weight_layer import QuantWeightLayer as QuantWeightLayer

    __version__: str

__getattr__, __dir__ = lazy_names(
    __name__,
    "quant-nn",
    {
        "Accumulator": "quant_nn.accumulation",
        "BatchNorm1dToQuantScaleBias": "quant_nn.batch_norm",
        "BatchNorm2dToQuantScaleBias": "quant_nn.batch_norm",
        "Cat": "quant_nn.functions",
        "ClampQuantAccumulator": "quant_nn.accumulator",
        "Conversion": "quant_nn.convert",
        "EltwiseAdd": "quant_nn.functions",
        "Folding": "quant_nn.folding",
        "HadamardClassifier": "quant_nn.hadamard",
        "QuantActivation": "quant_nn.activation",
        "QuantCat": "quant_nn.joining",
        "QuantConv": "quant_nn.convolution",
        "QuantConv1d": "quant_nn.convolution",
        "QuantConv2d": "quant_nn.convolution",
        "QuantConv3d": "quant_nn.convolution",
        "QuantConvTranspose": "quant_nn.transposed_convolution",
        "QuantConvTranspose1d": "quant_nn.transposed_convolution",
        "QuantConvTranspose2d": "quant_nn.transposed_convolution",
        "QuantConvTranspose3d": "quant_nn.transposed_convolution",
        "QuantDropout": "quant_nn.passing",
        "QuantEltwiseAdd": "quant_nn.joining",
        "QuantEmbedding": "quant_nn.embedding",
        "QuantHardTanh": "quant_nn.squashing",
        "QuantIdentity": "quant_nn.activation",
        "QuantLayer": "quant_nn.layer",
        "QuantLinear": "quant_nn.linear",
        "QuantMaxPool1d": "quant_nn.passing",
        "QuantMaxPool2d": "quant_nn.passing",
        "QuantMultiheadAttention": "quant_nn.attention_multihead",
        "QuantReLU": "quant_nn.activation",
        "QuantScaleBias": "quant_nn.scale_bias",
        "QuantScaledDotProductAttention": "quant_nn.attention",
        "QuantSigmoid": "quant_nn.squashing",
        "QuantTanh": "quant_nn.squashing",
        "QuantUpsample": "quant_nn.upsampling",
        "QuantUpsamplingBilinear2d": "quant_nn.upsampling",
        "QuantUpsamplingNearest2d": "quant_nn.upsampling",
        "QuantWeightLayer": "quant_nn.weight_layer",
        "RECIPES": "quant_nn.convert",
        "Rule": "quant_nn.convert",
        "ScaleBias": "quant_nn.scale_bias",
        "ScaledDotProductAttention": "quant_nn.functions",
        "TruncAdaptiveAvgPool2d": "quant_nn.trunc_pooling",
        "TruncAvgPool2d": "quant_nn.trunc_pooling",
        "TruncQuantAccumulator": "quant_nn.accumulator",
        "calibrate": "quant_nn.calibration",
        "finish_folding": "quant_nn.folding",
        "fold_batch_norms": "quant_nn.folding",
        "fold_while_training": "quant_nn.folding",
        "freeze_statistics": "quant_nn.folding",
        "functional_calls": "quant_nn.convert",
        "quantize": "quant_nn.convert",
        "read_rules": "quant_nn.convert",
        "recipe": "quant_nn.convert",
        "summary": "quant_nn.report",
        "write_rules": "quant_nn.convert",
    },
)
