"""The two products of attention on quantized operands, which all attention layers share.

With ``q`` already multiplied by the scale of the scores, and ``M`` the mask:

    S = Q_softmax(Q_q(q) · Q_k(kᵀ)) + M,    A = Q_a(dropout(softmax(S))),    out = A · Q_v(v)

The mask is added after the quantizer of the scores: ``−∞`` lies on no grid, and clamped to one a masked key would take part.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor, accumulator_bit_width
from quant_nn.attention_masks import masked_scores
from quant_nn.layer import QuantLayer, value_of
from quant_nn.quantizers import Quantizer, build_proxy

PRODUCT_QUANTIZERS = ("softmax_input_", "attn_output_weights_", "q_scaled_", "k_transposed_", "v_")


class QuantAttention(QuantLayer):
    """Mixin for attention layers: the quantizers of both products, and the products.

    Attributes:
        q_scaled_quant: quantizer of the scaled queries ``(..., L, E)``.
        k_transposed_quant: quantizer of the transposed keys ``(..., E, S)``.
        softmax_input_quant: quantizer of the scores ``(..., L, S)``, before the mask.
        attn_output_weights_quant: quantizer of the attention weights ``(..., L, S)``, after dropout.
        v_quant: quantizer of the values ``(..., S, Ev)``.
    """

    q_scaled_quant: QuantProxy | None
    k_transposed_quant: QuantProxy | None
    softmax_input_quant: QuantProxy | None
    attn_output_weights_quant: QuantProxy | None
    v_quant: QuantProxy | None

    def _build(
        self, layer: nn.Module, prefix: str, quantizers: dict[str, Quantizer], options: dict[str, dict[str, Any]]
    ) -> None:
        """Give ``layer`` the quantizers whose prefix starts with ``prefix``, as ``weight_quant`` for ``in_proj_weight_``."""
        names = [name for name in quantizers if name.startswith(prefix)]
        # Shared proxies come last, so that a layer that cannot be built does not become an owner of one.
        for name in sorted(names, key=lambda name: isinstance(quantizers[name], QuantProxy)):
            proxy = build_proxy(layer, quantizers[name], name, options[name])
            setattr(layer, f"{name.removeprefix(prefix)}quant", proxy)

    def _attend(
        self,
        query: Tensor | QuantTensor,
        key: Tensor | QuantTensor,
        value: Tensor | QuantTensor,
        *,
        scale: float,
        mask: Tensor | None,
        is_causal: bool,
        dropout_p: float,
        groups: int = 1,
        need_weights: bool = False,
        keep_grid: bool = False,
    ) -> tuple[Tensor | QuantTensor, Tensor | None]:
        """Attention over the last two axes; the axes before them are batches and heads.

        Args:
            query: ``(..., L, E)``, not yet scaled.
            key: ``(..., S, E)``.
            value: ``(..., S, Ev)``.
            scale: what the products of queries and keys are multiplied by.
            mask: broadcastable to ``(..., L, S)``: bool, true where a key takes part, or float, added to the scores.
            is_causal: a query attends to keys up to its own position; without a mask.
            dropout_p: the probability with which an attention weight is dropped.
            groups: how many heads of queries share one head of keys and values.
            need_weights: return the attention weights as well.
            keep_grid: return the accumulator of ``A · v`` with its grid, where both are quantized.

        Returns:
            ``(..., L, Ev)``, and the quantized weights ``(..., L, S)`` as a plain tensor, or ``None``.
        """
        k = _quantized(self.k_transposed_quant, key.transpose(-2, -1))
        v = _quantized(self.v_quant, value)
        if self._fuses(need_weights):
            return self._fused(query, k, v, scale, mask, is_causal, dropout_p, groups), None
        if groups > 1:
            k, v = (x.repeat_interleave(groups, -3) for x in (k, v))
        q = _quantized(self.q_scaled_quant, query * scale)
        scores = torch.matmul(value_of(q), value_of(k))
        scores = masked_scores(value_of(_quantized(self.softmax_input_quant, scores)), mask, is_causal)
        weights = torch.softmax(scores, dim=-1)
        if dropout_p > 0.0:
            weights = F.dropout(weights, dropout_p)
        quantized = _quantized(self.attn_output_weights_quant, weights)
        out: Tensor | QuantTensor = torch.matmul(value_of(quantized), value_of(v))
        if keep_grid and isinstance(quantized, QuantTensor) and isinstance(v, QuantTensor):
            out = self._accumulator(value_of(out), quantized, v)
        return out, value_of(quantized) if need_weights else None

    def _fuses(self, need_weights: bool) -> bool:
        """Whether neither scores nor attention weights are wanted, to be rounded or returned."""
        return not need_weights and self.softmax_input_quant is None and self.attn_output_weights_quant is None

    def _fused(
        self,
        query: Tensor | QuantTensor,
        k: Tensor | QuantTensor,
        v: Tensor | QuantTensor,
        scale: float,
        mask: Tensor | None,
        is_causal: bool,
        dropout_p: float,
        groups: int,
    ) -> Tensor:
        """Torch's kernel, which never writes scores and weights to memory."""
        if self.q_scaled_quant is not None:
            query, scale = self.q_scaled_quant(query * scale), 1.0
        operands = (value_of(query), value_of(k).transpose(-2, -1), value_of(v))
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(operands[0].dtype)
        return F.scaled_dot_product_attention(
            *operands, mask, dropout_p, is_causal=is_causal, scale=scale, enable_gqa=groups > 1
        )

    def _accumulator(self, out: Tensor, weights: QuantTensor, v: QuantTensor) -> Tensor | QuantTensor:
        """``A · v`` on the grid ``weights scale · v scale``; plain unless both are integers, per tensor and symmetric."""
        if not all(x.per_tensor and x.symmetric and x.float_format is None for x in (weights, v)):
            return out
        scale = weights.scale.reshape(()) * v.scale.reshape(())
        return QuantTensor(
            out,
            scale,
            torch.zeros_like(scale),
            accumulator_bit_width(weights, v, terms=v.shape[-2]),
            signed=weights.signed or v.signed,
            training=self.training,
            symmetric=True,
        )


def _quantized(proxy: QuantProxy | None, x: Tensor | QuantTensor) -> Tensor | QuantTensor:
    """Heads are views of a projection; a copy costs less than passes over memory with gaps, forward and backward."""
    return x if proxy is None else proxy(x.contiguous())
