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
    from quant_nn.activation import QuantActivation as QuantActivation
    from quant_nn.activation import QuantIdentity as QuantIdentity
    from quant_nn.activation import QuantReLU as QuantReLU
    from quant_nn.attention import QuantScaledDotProductAttention as QuantScaledDotProductAttention
    from quant_nn.attention_multihead import QuantMultiheadAttention as QuantMultiheadAttention
    from quant_nn.convolution import QuantConv as QuantConv
    from quant_nn.convolution import QuantConv1d as QuantConv1d
    from quant_nn.convolution import QuantConv2d as QuantConv2d
    from quant_nn.convolution import QuantConv3d as QuantConv3d
    from quant_nn.linear import QuantLinear as QuantLinear
    from quant_nn.transposed_convolution import QuantConvTranspose as QuantConvTranspose
    from quant_nn.transposed_convolution import QuantConvTranspose1d as QuantConvTranspose1d
    from quant_nn.transposed_convolution import QuantConvTranspose2d as QuantConvTranspose2d
    from quant_nn.transposed_convolution import QuantConvTranspose3d as QuantConvTranspose3d
    from quant_nn.weight_layer import QuantWeightLayer as QuantWeightLayer

    __version__: str

__getattr__, __dir__ = lazy_names(
    __name__,
    "quant-nn",
    {
        "QuantActivation": "quant_nn.activation",
        "QuantConv": "quant_nn.convolution",
        "QuantConv1d": "quant_nn.convolution",
        "QuantConv2d": "quant_nn.convolution",
        "QuantConv3d": "quant_nn.convolution",
        "QuantConvTranspose": "quant_nn.transposed_convolution",
        "QuantConvTranspose1d": "quant_nn.transposed_convolution",
        "QuantConvTranspose2d": "quant_nn.transposed_convolution",
        "QuantConvTranspose3d": "quant_nn.transposed_convolution",
        "QuantIdentity": "quant_nn.activation",
        "QuantLinear": "quant_nn.linear",
        "QuantMultiheadAttention": "quant_nn.attention_multihead",
        "QuantReLU": "quant_nn.activation",
        "QuantScaledDotProductAttention": "quant_nn.attention",
        "QuantWeightLayer": "quant_nn.weight_layer",
    },
)
