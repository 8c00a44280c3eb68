"""The compiled kernels as functions of tensors."""

from __future__ import annotations

from quant_core.native.quantizing import QuantizingKernels
from quant_core.native.searching import SearchingKernels


class Kernels(QuantizingKernels, SearchingKernels):
    """The kernels of one shared library."""
