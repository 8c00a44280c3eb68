"""The core of a quantization-aware-training library: injector, quantizers, quantized tensors, export, plugins.

Importing this package imports neither torch nor onnx; the names below are loaded on first use.

>>> import quant_core
>>> quant_core.Injector
<injector Injector>
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant_core.lazy import lazy_names

if TYPE_CHECKING:
    from quant_core.errors import QuantError as QuantError
    from quant_core.inject import Injector as Injector
    from quant_core.inject import this as this
    from quant_core.inject import value as value
    from quant_core.tensor import QuantTensor as QuantTensor

    __version__: str

__getattr__, __dir__ = lazy_names(
    __name__,
    "quant-core",
    {
        "Injector": "quant_core.inject",
        "QuantError": "quant_core.errors",
        "QuantTensor": "quant_core.tensor",
        "this": "quant_core.inject",
        "value": "quant_core.inject",
    },
)
