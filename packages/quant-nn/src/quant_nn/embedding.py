"""Quantized embedding: rows of a quantized table."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.errors import ConfigurationError, InputError
from quant_core.proxies import QuantProxy
from quant_core.quant import Int8WeightPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_core.tensor.grids import aligned
from quant_nn.layer import QuantLayer, value_of
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy

_INDEX_TYPES = (torch.int64, torch.int32)


class QuantEmbedding(QuantLayer, nn.Embedding):
    """``y = Q_w(W)[indices]``: :class:`torch.nn.Embedding` with a quantized table.

    Args:
        num_embeddings: the number ``V`` of rows of the table.
        embedding_dim: the size ``D`` of each row.
        padding_idx: the row that gets no gradient, and starts with zeros.
        max_norm: rows with a larger norm are scaled down to it, in place, before they are quantized.
        norm_type: the ``p`` of the ``p``-norm.
        scale_grad_by_freq: divide the gradient of a row by how often it occurs.
        sparse: a sparse gradient; only without a weight quantizer, whose scale depends on all rows.
        _weight: the table, ``(V, D)``, in place of a random one.
        _freeze: whether the table stays as it is; with both, ``from_pretrained`` of torch works here as well.
        weight_quant: quantizer of the table, or the proxy of another layer to share, or ``None``. Per channel it has a scale
            for each row, ``(V, 1)``.
        return_quant_tensor: return a ``QuantTensor``: with the scale of the table, or per channel with one for each index,
            ``(*, 1)``.
        device: where the table lives.
        dtype: its float dtype.
        **options: options of the quantizer, with the prefix ``weight_``.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        ConfigurationError: for a sparse gradient together with a quantizer.
        InputError: from ``forward``, for indices that are no integers, or out of range (found on the CPU; on an accelerator it is
            an assertion of the device).

    The keys of its ``state_dict`` for the weight are those of the float layer, whose checkpoints load strictly.

    >>> layer = QuantEmbedding(10, 4, weight_bit_width=4, return_quant_tensor=True)
    >>> out = layer(torch.tensor([[1, 2, 3]]))
    >>> out.shape, out.bit_width
    (torch.Size([1, 3, 4]), tensor(4.))
    """

    output_channel_dim = 0
    weight_quant: QuantProxy | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        if sparse and weight_quant is not None:
            raise ConfigurationError(
                "a quantized embedding has no sparse gradient",
                where=type(self).__name__,
                why="sparse=True, and the scale of the table depends on rows that are not looked up",
                fix="Leave sparse out, or set weight_quant=None.",
            )
        super().__init__(  # nn.Embedding comes next
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            _freeze,
            device=device,
            dtype=dtype,
        )
        found = split_options(type(self), options, {"weight_": weight_quant})
        self.return_quant_tensor = return_quant_tensor
        self.weight_quant = build_proxy(self, weight_quant, "weight_", found["weight_"])

    def quant_weight(self) -> QuantTensor | Tensor:
        """The quantized table, ``(V, D)``; the float one where weight quantization is off."""
        return self._quantized(self.weight)

    def forward(self, input: Tensor) -> Tensor | QuantTensor:  # type: ignore[override]  # may return a quantized tensor
        """Integer indices ``(*)`` → rows ``(*, D)``.

        Raises:
            InputError: for indices that are no integers or out of range.
        """
        self._check_indices(input)
        try:
            weight, value = self._look_up(input)
        except IndexError as failure:
            raise self._out_of_range(input) from failure
        if not self.return_quant_tensor or not isinstance(weight, QuantTensor):
            return value
        if weight.per_tensor:
            return weight.replace(value=value)
        parts = (aligned(part, 2).expand(self.num_embeddings, -1) for part in (weight.scale, weight.zero_point))
        scale, zero_point = (F.embedding(input, part) for part in parts)
        return weight.replace(value=value, scale=scale, zero_point=zero_point, origin=None)

    def _quantized(self, table: Tensor) -> QuantTensor | Tensor:
        quantized: QuantTensor | Tensor = table if self.weight_quant is None else self.weight_quant(table)
        return quantized

    def _look_up(self, indices: Tensor) -> tuple[QuantTensor | Tensor, Tensor]:
        """The quantized table, and rows of it."""
        table = self.weight
        if self.max_norm is not None:
            with torch.no_grad():
                torch.embedding_renorm_(table.detach(), indices.contiguous().flatten(), self.max_norm, self.norm_type)
        weight = self._quantized(table)
        how = (self.padding_idx, None, self.norm_type, self.scale_grad_by_freq, self.sparse)
        return weight, F.embedding(indices, value_of(weight), *how)

    def _out_of_range(self, indices: Tensor) -> InputError:
        return InputError(
            f"indices from {int(indices.min())} to {int(indices.max())} do not fit this layer",
            where=self._named(),
            why=f"the table has rows 0 to {self.num_embeddings - 1}",
            fix="Check the vocabulary that the indices come from, or make num_embeddings larger.",
        )

    def _check_indices(self, indices: Tensor) -> None:
        if isinstance(indices, QuantTensor) or indices.dtype not in _INDEX_TYPES:
            raise InputError(
                f"{indices.dtype} are no indices",
                where=self._named(),
                why="rows are looked up by integers, int64 or int32",
                fix="Convert them with .long(), before anything quantizes them.",
            )
