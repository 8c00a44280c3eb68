"""The projections of queries, keys and values, on weights that belong to the attention layer."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quant_core.tensor import QuantTensor
from quant_nn.layer import QuantLayer, value_of
from quant_nn.linear import check_features
from quant_nn.weight_layer import QuantWeightLayer


class QuantInProjection(QuantWeightLayer):
    """``x_i ↦ Q_in(x_i) · Q_w(W)[i]ᵀ + Q_b(b[i])`` for the blocks ``W[0], W[1], …`` of rows of one weight.

    The weight and the bias are parameters of the attention layer, under torch's names, so that float checkpoints load. This
    layer holds the quantizers of (some rows of) them; it has no parameters of its own but those of its quantizers.

    Args:
        attention: the layer that holds the parameters.
        name: the name of this one in it.
        weight_name: the name of the parameter of which this one multiplies by rows.
        weight_rows: which rows of it, from and to; all by default.
        bias_rows: which elements of ``in_proj_bias``, from and to; all by default.

    Raises:
        InputError: from ``forward``, when a quantized bias has no scale.
    """

    option_prefix = "in_proj_"

    def __init__(
        self,
        attention: QuantLayer,
        name: str,
        weight_name: str,
        weight_rows: tuple[int, int] | None = None,
        bias_rows: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self._attention = (attention,)  # in a tuple, so that it does not become a submodule
        self.name = name
        self.weight_name = weight_name
        self.weight_rows = weight_rows
        self.bias_rows = bias_rows
        self.input_quant = self.weight_quant = self.bias_quant = self.output_quant = None
        self.return_quant_tensor = False

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # a parameter of the attention layer
        """The rows of the weight, ``(O, I)``."""
        weight: Tensor = getattr(self._attention[0], self.weight_name)
        return weight if self.weight_rows is None else weight[slice(*self.weight_rows)]

    @property
    def bias(self) -> Tensor | None:
        """The elements of the bias, ``(O,)``."""
        bias: Tensor | None = getattr(self._attention[0], "in_proj_bias", None)
        return bias if bias is None or self.bias_rows is None else bias[slice(*self.bias_rows)]

    def belong_to(self, attention: QuantLayer) -> None:
        """Read the parameters of this layer, which may be a replica of the one that it was made with, on another device."""
        if self._attention[0] is not attention:
            self._attention = (attention,)

    def forward(self, *inputs: Tensor | QuantTensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # several inputs
        """Project each input by a block of rows of its own; neighbours that are the same tensor are quantized once.

        Args:
            inputs: float tensors or ``QuantTensor``, ``(*, I)``.

        Returns:
            One plain ``(*, O / number of inputs)`` for each.
        """
        runs = [(x if self.input_quant is None else self.input_quant(x), count) for x, count in _runs(inputs)]
        first = runs[0][0]
        weight = self.quant_weight(first)
        bias: Tensor | QuantTensor | None = self.bias
        if bias is not None and not self._bias_is_on_grid():  # it has one scale of its own for all elements
            bias = self._quantized_bias(self.bias, None, first, weight)
        if len(runs) == 1:  # self-attention: one product, on the whole weight
            return self._project(first, weight, bias, len(inputs))
        sizes = [count * (weight.shape[0] // len(inputs)) for _, count in runs]
        weights = weight.split(sizes)
        biases: Any = () if bias is None else bias.split(sizes)
        projected: list[Tensor] = []
        for (x, count), rows, elements in zip_longest(runs, weights, biases):
            projected += self._project(x, rows, elements, count)
        return tuple(projected)

    def _project(
        self, x: Tensor | QuantTensor, weight: Tensor | QuantTensor, bias: Tensor | QuantTensor | None, count: int
    ) -> tuple[Tensor, ...]:
        if bias is not None and self._bias_is_on_grid():
            bias = self._quantized_bias(value_of(bias), self._accumulator_scale(x, weight), x, weight)
        out = F.linear(value_of(x), value_of(weight), None if bias is None else value_of(bias))
        return (out,) if count == 1 else out.chunk(count, dim=-1)

    def _check_input(self, shape: torch.Size) -> None:
        check_features(shape, "in_features", self.weight.shape[1], where=self._named())

    def _named(self) -> str:
        return f"{self._attention[0]._named()}.{self.name}"

    def float_repr(self) -> str:
        """The parameter and its rows."""
        rows = "" if self.weight_rows is None else "[{}:{}]".format(*self.weight_rows)
        return f"weight={self.weight_name}{rows}"


def _runs(inputs: tuple[Tensor | QuantTensor, ...]) -> list[tuple[Tensor | QuantTensor, int]]:
    """Each input, and how many times it stands there in a row."""
    runs: list[tuple[Tensor | QuantTensor, int]] = []
    for x in inputs:
        if runs and runs[-1][0] is x:
            runs[-1] = (x, runs[-1][1] + 1)
        else:
            runs.append((x, 1))
    return runs
