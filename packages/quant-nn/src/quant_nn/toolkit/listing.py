"""The switches of all quantizers of a model."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from quant_core.components import Scaling
from quant_core.proxies import QuantProxy
from quant_nn.toolkit.tensor_quantizer import TensorQuantizer


def tensor_quantizers(model: nn.Module) -> Iterator[tuple[str, TensorQuantizer]]:
    """The switches of all quantizers of a model whose scale comes from data, by their path, which errors call them by.

    >>> import quant_nn as qnn
    >>> from quant_nn.toolkit import QuantDescriptor
    >>> net = nn.Sequential(qnn.QuantLinear(3, 2, quant_desc_input=QuantDescriptor()), TensorQuantizer())
    >>> [path for path, quantizer in tensor_quantizers(net)]
    ['0.input_quant', '1']
    """
    for path, module in model.named_modules():
        if isinstance(module, TensorQuantizer):
            switched = TensorQuantizer.of(module.quant, path)
            switched.fake_quant = module.fake_quant
            yield path, switched
        elif isinstance(module, QuantProxy) and not isinstance(module.owners[0], TensorQuantizer):
            quant = module.tensor_quant
            parts = quant.modules() if quant is not None and module.kind == "activation" else ()
            if any(isinstance(part, Scaling) and part.calibratable for part in parts):
                yield path, TensorQuantizer.of(module, path)
