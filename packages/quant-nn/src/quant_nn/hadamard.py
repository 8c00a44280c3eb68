"""A last layer whose matrix is fixed: rows of a Hadamard matrix."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.errors import ConfigurationError, InputError
from quant_core.tensor import QuantTensor
from quant_core.tensor.grids import bits
from quant_nn.layer import QuantLayer, value_of
from quant_nn.linear import check_features

_SMALLEST_NORM = 1e-8


def hadamard_matrix(size: int) -> Tensor:
    """The Hadamard matrix of Sylvester's construction, ``(size, size)`` of −1 and 1, for a power of two.

    ``H₁ = [1]``, ``H₂ₙ = [[Hₙ, Hₙ], [Hₙ, −Hₙ]]``.

    >>> hadamard_matrix(2)
    tensor([[ 1.,  1.],
            [ 1., -1.]])
    """
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


class HadamardClassifier(QuantLayer):
    """``y = −a · H x / (‖x‖₂ + 1e−8)`` with the first ``O`` rows and ``C`` columns of a Hadamard matrix and one number ``a``.

    Hoffer, Hubara, Soudry, "Fix your classifier: the marginal value of training the last weight layer", 2018, section 3.

    Args:
        in_channels: the number ``C`` of features.
        out_channels: the number ``O`` of classes.
        fixed_scale: whether ``a`` stays ``1 / √O``; otherwise it starts there and is learned.
        return_quant_tensor: return a ``QuantTensor`` where one comes in: scale ``|a| · s / (‖x‖₂ + 1e−8)``, one for each row.
        device: where the matrix lives.
        dtype: its float dtype.

    Raises:
        ConfigurationError: when a size is not positive.
        InputError: from ``forward``, when the input does not fit, or its scale is not per tensor.

    >>> HadamardClassifier(16, 10)(torch.ones(2, 16)).shape
    torch.Size([2, 10])
    """

    matrix: Tensor
    scale: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        fixed_scale: bool = False,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels) < 1:
            raise ConfigurationError(
                f"in_channels={in_channels}, out_channels={out_channels} are no sizes",
                where=type(self).__name__,
                why="both are at least 1",
                fix="Use the number of features, and that of classes.",
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.fixed_scale = fixed_scale
        self.return_quant_tensor = return_quant_tensor
        size = 2 ** math.ceil(math.log2(max(in_channels, out_channels)))
        matrix = hadamard_matrix(size)[:out_channels, :in_channels].contiguous()
        self.register_buffer("matrix", matrix.to(device=device, dtype=dtype), persistent=False)
        scale = torch.tensor(1 / math.sqrt(out_channels), device=device, dtype=dtype)
        if fixed_scale:
            self.register_buffer("scale", scale, persistent=False)
        else:
            self.scale = nn.Parameter(scale)

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:
        """``(*, C)``, float or quantized; returns ``(*, O)``.

        Raises:
            InputError: when the last axis does not hold ``C`` features, or a per-channel input shall stay quantized.
        """
        check_features(input.shape, "in_channels", self.in_channels, where=self._named())
        x = value_of(input)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True) + _SMALLEST_NORM
        out = F.linear(x / norm, self.matrix) * -self.scale
        if not self.return_quant_tensor or not isinstance(input, QuantTensor):
            return out
        return self._on_its_grid(out, input, norm)

    def _on_its_grid(self, out: Tensor, x: QuantTensor, norm: Tensor) -> QuantTensor:
        """Sums and differences of ``C`` integers, at a scale for each row."""
        if not (x.per_tensor and x.symmetric):
            raise InputError(
                "the output cannot be returned as a quantized tensor",
                where=self._named(),
                why="features are added up, and those of the input have several scales or a zero-point",
                fix="Quantize the input per tensor and symmetrically, or set return_quant_tensor=False.",
            )
        scale = self.scale.abs() * x.scale.reshape(()) / norm
        low, high = x.range()
        largest = torch.maximum(-low, high) * self.in_channels
        width = bits(-largest, largest, signed=True)
        return QuantTensor(
            out, scale, torch.zeros_like(scale), width, signed=True, training=self.training, symmetric=True
        )

    def float_repr(self) -> str:
        """The options."""
        return f"in_channels={self.in_channels}, out_channels={self.out_channels}, fixed_scale={self.fixed_scale}"
