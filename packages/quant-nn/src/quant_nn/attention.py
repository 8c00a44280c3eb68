"""Scaled dot product attention with quantized operands, as a layer without parameters of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import InputError
from quant_core.proxies import QuantProxy
from quant_core.quant import Int8ActPerTensorFloat, Uint8ActPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_nn.attention_masks import check_broadcast_mask
from quant_nn.attention_products import QuantAttention
from quant_nn.layer import value_of
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer


class QuantScaledDotProductAttention(QuantAttention):
    """:func:`torch.nn.functional.scaled_dot_product_attention` with quantized operands, as a layer.

        S = Q_softmax(Q_q(scale · q) · Q_k(kᵀ)) + M,    A = Q_a(dropout(softmax(S))),    out = Q_out(A · Q_v(v))

    Args:
        softmax_input_quant: quantizer of the scores ``(..., L, S)``; the mask ``M`` is added behind it.
        attn_output_weights_quant: quantizer of the attention weights ``(..., L, S)``, which are not negative.
        q_scaled_quant: quantizer of the scaled queries ``(..., L, E)``.
        k_transposed_quant: quantizer of the transposed keys ``(..., E, S)``.
        v_quant: quantizer of the values ``(..., S, Ev)``.
        sdpa_output_quant: quantizer of the output ``(..., L, Ev)``.
        return_quant_tensor: return a ``QuantTensor``: on the grid of ``sdpa_output_quant``, or else the accumulator.
        **options: options of the quantizers, with the prefix ``softmax_input_``, ``attn_output_weights_``, ``q_scaled_``,
            ``k_transposed_``, ``v_`` or ``sdpa_output_``.

    Each quantizer may be the proxy of another layer to share, or ``None``. What it quantizes may be a ``QuantTensor`` already;
    without the quantizer it is taken as it is.

    *Accumulators.* With quantized operands ``q · kᵀ`` lies on the grid ``scale of q · scale of k``, a sum of ``E`` products,
    and ``A · v`` on ``scale of A · scale of v``, a sum of ``S`` products; their bits are those that
    :func:`quant_core.tensor.accumulator_bit_width` gives for as many terms. The second is the output where there is no
    ``sdpa_output_quant``.

    *Speed.* Torch's fused kernel computes both products where neither the scores nor the attention weights are quantized. It
    never writes them to memory, so that it is not used where they are: they have to be rounded.

    *Gradient.* That of the formula, with each quantizer's own.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        InputError: from ``forward``, when shapes do not fit, or the output has no grid to be returned on.

    Vaswani et al., "Attention is all you need", NeurIPS 2017, equation 1.

    >>> attention = QuantScaledDotProductAttention(q_scaled_bit_width=4, return_quant_tensor=True)
    >>> x = torch.linspace(-1, 1, 24).reshape(1, 2, 3, 4)
    >>> out = attention(x, x, x, is_causal=True)
    >>> out.shape, out.is_valid
    (torch.Size([1, 2, 3, 4]), True)
    """

    sdpa_output_quant: QuantProxy | None

    def __init__(
        self,
        softmax_input_quant: Quantizer = None,
        attn_output_weights_quant: Quantizer = Uint8ActPerTensorFloat,
        q_scaled_quant: Quantizer = Int8ActPerTensorFloat,
        k_transposed_quant: Quantizer = Int8ActPerTensorFloat,
        v_quant: Quantizer = Int8ActPerTensorFloat,
        sdpa_output_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        quantizers = {
            "softmax_input_": softmax_input_quant,
            "attn_output_weights_": attn_output_weights_quant,
            "q_scaled_": q_scaled_quant,
            "k_transposed_": k_transposed_quant,
            "v_": v_quant,
            "sdpa_output_": sdpa_output_quant,
        }
        self.return_quant_tensor = return_quant_tensor
        self._build(self, "", quantizers, split_options(type(self), options, quantizers))

    def forward(
        self,
        query: Tensor | QuantTensor,
        key: Tensor | QuantTensor,
        value: Tensor | QuantTensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor | QuantTensor:
        """Attention of each query to the keys.

        Args:
            query: ``(..., Hq, L, E)``.
            key: ``(..., H, S, E)``.
            value: ``(..., H, S, Ev)``.
            attn_mask: broadcastable to ``(..., Hq, L, S)``: bool, true where a key takes part, or float, added to the scores.
            dropout_p: the probability with which an attention weight is dropped; as in torch, in every mode.
            is_causal: a query attends to keys up to its own position.
            scale: what the scores are multiplied by; ``1/√E`` by default.
            enable_gqa: the heads of queries may be a multiple of those of keys and values, which they share.

        Returns:
            ``(..., Hq, L, Ev)``.

        Raises:
            InputError: when shapes do not fit, or the output has no grid to be returned on.
        """
        where = self._named()
        groups = _check_shapes(query.shape, key.shape, value.shape, enable_gqa, where)
        scores_shape = (*query.shape[:-1], key.shape[-2])
        check_broadcast_mask(attn_mask, scores_shape, is_causal, where=where)
        out, _ = self._attend(
            query,
            key,
            value,
            scale=1.0 / math.sqrt(query.shape[-1]) if scale is None else scale,
            mask=attn_mask,
            is_causal=is_causal,
            dropout_p=dropout_p,
            groups=groups,
            keep_grid=self.return_quant_tensor and self.sdpa_output_quant is None,
        )
        if self.sdpa_output_quant is not None:
            quantized: Tensor | QuantTensor = self.sdpa_output_quant(out)
            return quantized if self.return_quant_tensor else value_of(quantized)
        if self.return_quant_tensor and not isinstance(out, QuantTensor):
            raise InputError(
                "the output cannot be returned as a quantized tensor without an output quantizer",
                where=where,
                why="its scale is scale of the attention weights · scale of the values, and one of them is not quantized to "
                "integers, per tensor and around zero",
                fix="Set sdpa_output_quant, or attn_output_weights_quant and v_quant.",
            )
        return out


def _check_shapes(query: torch.Size, key: torch.Size, value: torch.Size, enable_gqa: bool, where: str) -> int:
    """How many heads of queries share one head of keys.

    Raises:
        InputError: when the shapes do not fit together.
    """
    groups = 1
    if not len(query) == len(key) == len(value) or len(query) < 2:
        reason = "all three have the same number of axes, at least 2"
    elif query[-1] != key[-1]:
        reason = f"queries and keys have one size E, here {query[-1]} and {key[-1]}"
    elif key[-2] != value[-2]:
        reason = f"each of the S keys has a value, here S is {key[-2]} and {value[-2]}"
    else:
        heads = -3 if enable_gqa and len(query) > 2 else -2
        if query[:heads] != key[:heads] or key[:-2] != value[:-2]:
            reason = "the axes before the last two are the same" + (
                " up to the heads" if enable_gqa else "; enable_gqa=True lets heads of queries share keys and values"
            )
        elif heads == -3 and query[-3] % key[-3] != 0:
            reason = f"the {query[-3]} heads of queries are a multiple of the {key[-3]} heads of keys"
        else:
            return query[-3] // key[-3] if heads == -3 else groups
    raise InputError(
        f"query {tuple(query)}, key {tuple(key)} and value {tuple(value)} do not fit together",
        where=where,
        why=f"they are (..., L, E), (..., S, E) and (..., S, Ev): {reason}",
        fix="Check the order of the axes: heads stand before positions, and features last.",
    )
