"""Layers without quantizers of their own, which hand on a quantized tensor: dropout and max-pooling."""

from __future__ import annotations

from torch import Tensor, nn

from quant_core.tensor import QuantTensor
from quant_core.tensor.grids import plain
from quant_nn.layer import QuantLayer


class QuantPassing(QuantLayer):
    """Mixin for a float layer that computes on quantized tensors by their rules; the float layer comes after it among the bases.

    Torch's own layers take quantized tensors as well. These say with ``return_quant_tensor=False`` that the scale ends here.
    """

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:
        """Float tensor or ``QuantTensor``, in the shape that the float layer takes; returns what came in, as far as asked for."""
        out: Tensor | QuantTensor = super().forward(input)  # with indices, a tuple
        return out if self.return_quant_tensor else plain(out)


class QuantDropout(QuantPassing, nn.Dropout):  # type: ignore[misc]  # takes quantized tensors as well
    """:class:`torch.nn.Dropout` that hands on quantized tensors.

    In training, elements become the level 0 with probability ``p`` and the scale becomes ``scale / (1 − p)``: the integers of
    what is left stay as they are.

    Args:
        p: the probability.
        return_quant_tensor: return a ``QuantTensor`` where one comes in.

    >>> QuantDropout(0.1)
    QuantDropout(p=0.1)
    """

    def __init__(self, p: float = 0.5, return_quant_tensor: bool = True) -> None:
        super().__init__(p)  # nn.Dropout comes next
        self.return_quant_tensor = return_quant_tensor

    def float_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class QuantMaxPool(QuantPassing):
    """What the max-pooling layers share: the largest of each window, on the grid of the input.

    Args:
        kernel_size: the size of the window.
        stride: the distance of windows; ``kernel_size`` by default.
        padding: how much is padded with −∞, which no window takes.
        dilation: the distance of the elements of a window.
        return_indices: return ``(values, indices)``.
        ceil_mode: let the last window reach beyond the edge.
        return_quant_tensor: return a ``QuantTensor`` where one comes in.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        return_quant_tensor: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self.return_quant_tensor = return_quant_tensor


class QuantMaxPool1d(QuantMaxPool, nn.MaxPool1d):  # takes quantized tensors as well
    """:class:`torch.nn.MaxPool1d` that hands on quantized tensors; arguments as :class:`QuantMaxPool`.

    >>> import torch
    >>> QuantMaxPool1d(2)(torch.tensor([[1.0, 3.0, 2.0, 0.0]]))
    tensor([[3., 2.]])
    """


class QuantMaxPool2d(QuantMaxPool, nn.MaxPool2d):  # takes quantized tensors as well
    """:class:`torch.nn.MaxPool2d` that hands on quantized tensors; arguments as :class:`QuantMaxPool`.

    >>> import torch
    >>> QuantMaxPool2d(2)(torch.tensor([[[1.0, 3.0], [2.0, 0.0]]]))
    tensor([[[3.]]])
    """
