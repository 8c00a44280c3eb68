"""The weights of one gate, as slices of the matrices that torch.nn stacks, and their quantizers."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor


class GateWeight(nn.Module):
    """Rows of a matrix of the recurrent layer: what a weight quantizer takes for the layer that it belongs to.

    It holds no parameter itself. The rows are looked up each time, so that they are those of a parametrization, of
    ``torch.func.functional_call`` and of a loaded checkpoint.

    Args:
        source: the recurrent layer.
        name: the name of its matrix.
        start: the first row of the gate.
        stop: the row after its last one.
    """

    output_channel_dim = 0
    weight_quant: QuantProxy | None

    def __init__(self, source: nn.Module, name: str, start: int, stop: int) -> None:
        super().__init__()
        self._source = [source]  # in a list, because the recurrent layer is no part of its own part
        self.name, self.start, self.stop = name, start, stop
        self.weight_quant = None

    @property
    def weight(self) -> Tensor:
        """The float rows of this gate, ``(H, features)``."""
        matrix: Tensor = getattr(self._source[0], self.name)
        return matrix if self.stop - self.start == len(matrix) else matrix[self.start : self.stop]

    def belong_to(self, source: nn.Module) -> None:
        """Read the rows of the matrix of this layer, which may be a replica of the one that it was made with."""
        self._source = [source]

    @property
    def owner(self) -> str:
        """The kind of the recurrent layer."""
        return type(self._source[0]).__name__

    def quant_weight(self) -> QuantTensor | Tensor:
        """The quantized rows; the float ones where weight quantization is off."""
        return self.weight if self.weight_quant is None else self.weight_quant(self.weight)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The matrix that the rows are of: a quantizer stands on its device."""
        matrix = getattr(self._source[0], self.name)
        if isinstance(matrix, nn.Parameter):
            yield matrix

    def extra_repr(self) -> str:
        """Where the rows are."""
        return f"{self.name}[{self.start}:{self.stop}]"


class GateParams(nn.Module):
    """The weights of one gate with the quantizers of weight and bias.

    Attributes:
        input_weight: from the input, ``(H, I)``.
        hidden_weight: from the hidden state, ``(H, P)``. It shares its quantizer with ``input_weight``, because the products of
            both are added.
        bias_quant: quantizes the sum of the two biases of the gate.
    """

    bias_quant: QuantProxy | None

    def __init__(self, input_weight: GateWeight, hidden_weight: GateWeight) -> None:
        super().__init__()
        self.input_weight = input_weight
        self.hidden_weight = hidden_weight
        self.bias_quant = None
