"""Modules of torch that hand the weights of their parts to one kernel for inference, past the quantizers of the parts."""

from __future__ import annotations

from torch import nn

from quant_core.proxies import QuantProxy


def call_parts(model: nn.Module) -> None:
    """Let transformer encoders with quantized parts call these in eval mode, too.

    Without gradients ``nn.TransformerEncoderLayer`` computes all that it does in one kernel, from the weights of its parts, and
    ``nn.TransformerEncoder`` packs padded sequences for that kernel. Both have an attribute that says whether they may.

    Args:
        model: a model whose layers are replaced; encoders of float layers stay as they are.

    >>> import quant_nn as qnn
    >>> encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> encoder.linear1 = qnn.QuantLinear(8, 16)
    >>> call_parts(encoder)
    >>> encoder.activation_relu_or_gelu
    0
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _is_quantized(module):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder) and _is_quantized(module):
            module.use_nested_tensor = False


def _is_quantized(module: nn.Module) -> bool:
    return any(isinstance(part, QuantProxy) for part in module.modules())
