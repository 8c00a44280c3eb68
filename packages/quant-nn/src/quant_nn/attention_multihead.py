"""Multi-head attention with quantized projections, products and output."""

from __future__ import annotations

import math
from textwrap import indent
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import QuantError
from quant_core.proxies import QuantProxy
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Int32Bias, Uint8ActPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_nn.attention_heads import join_heads, split_heads, with_added_keys
from quant_nn.attention_masks import merged_mask
from quant_nn.attention_parameters import MultiheadParameters
from quant_nn.attention_products import PRODUCT_QUANTIZERS, QuantAttention
from quant_nn.attention_shapes import check_attention_inputs, check_attention_masks
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer


class QuantMultiheadAttention(QuantAttention, MultiheadParameters):
    """:class:`torch.nn.MultiheadAttention` with quantized projections, products and output.

        q, k, v = in_proj(query, key, value),    out = out_proj(concat over heads (A · Q_v(v)))

    with the attention weights ``A`` of each head as :class:`QuantScaledDotProductAttention` has them, and both projections as
    :class:`QuantLinear`.

    Args:
        embed_dim: the size ``E`` of queries and of the output.
        num_heads: the number ``H`` of heads, each of size ``D = E / H``.
        dropout: the probability with which an attention weight is dropped in training mode.
        bias: whether the projections have a bias.
        add_bias_kv: add a learned key and value to those of the input.
        add_zero_attn: add a key and value of zeros.
        kdim: the size of keys, ``E`` by default.
        vdim: the size of values, ``E`` by default.
        batch_first: batches stand before positions, ``(N, L, E)`` in place of ``(L, N, E)``.
        device: where the parameters live.
        dtype: their float dtype.
        packed_in_proj: one quantizer of each kind for the three projections to queries, keys and values; otherwise each has
            its own. By default ``True`` where ``kdim`` and ``vdim`` are ``E``, and ``False`` where not.
        in_proj_input_quant: quantizer of ``query``, ``key`` and ``value``.
        in_proj_weight_quant: quantizer of the weight of the projection into heads.
        in_proj_bias_quant: quantizer of its bias.
        softmax_input_quant: quantizer of the scores ``(N, H, L, S)``; masks are added behind it.
        attn_output_weights_quant: quantizer of the attention weights ``(N, H, L, S)``, which are not negative.
        q_scaled_quant: quantizer of the projected queries times ``1/√D``, ``(N, H, L, D)``.
        k_transposed_quant: quantizer of the projected and transposed keys ``(N, H, D, S)``.
        v_quant: quantizer of the projected values ``(N, H, S, D)``.
        out_proj_input_quant: quantizer of the input of the output projection.
        out_proj_weight_quant: quantizer of its weight.
        out_proj_bias_quant: quantizer of its bias.
        out_proj_output_quant: quantizer of its output.
        return_quant_tensor: return the output as a ``QuantTensor``: on the grid of ``out_proj_output_quant``, or else the
            accumulator of the output projection. Attention weights are always returned as a plain tensor.
        **options: options of the quantizers, with the name of the quantizer without ``quant`` as prefix:
            ``in_proj_weight_bit_width``, ``v_bit_width``.

    *Parameters* are those of the float layer, under the same names, and start from the same values under the same seed; float
    checkpoints load strictly. ``in_proj_weight`` stays one parameter when ``packed_in_proj=False``; only its quantizers are
    three: ``q_proj``, ``k_proj`` and ``v_proj``, in place of ``in_proj``.

    *One input several times.* Where ``query``, ``key`` and ``value`` are the same tensor, it is quantized and projected once.
    Where they are not, the quantizer of the packed projection is called for each of them, and its statistics are over all.

    *Accumulators.* Those of the projections are as in :class:`QuantLinear`; those of ``q · kᵀ`` and ``A · v`` as in
    :class:`QuantScaledDotProductAttention`, with ``D`` and ``S`` terms. With ``out_proj_input_quant=None`` the output
    projection takes the accumulator of ``A · v`` as its input.

    *Speed.* Torch's fused kernel computes both products where neither the scores nor the attention weights are quantized and
    ``need_weights`` is false. Torch's inference kernels for whole layers, which know nothing of quantizers, are never used,
    also not by :class:`torch.nn.TransformerEncoderLayer` around this layer.

    *Gradient.* That of the formula, with each quantizer's own.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        ConfigurationError: when ``embed_dim`` is no multiple of ``num_heads``, a number is out of range, or
            ``packed_in_proj=True`` meets keys or values of another size.
        InputError: from ``forward``, when inputs or masks do not fit, or a quantized bias has no scale.

    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.2.

    >>> attention = QuantMultiheadAttention(16, 4, batch_first=True, in_proj_weight_bit_width=4)
    >>> x = torch.linspace(-1, 1, 96).reshape(2, 3, 16)
    >>> out, weights = attention(x, x, x)
    >>> out.shape, weights.shape
    (torch.Size([2, 3, 16]), torch.Size([2, 3, 3]))
    >>> attention.in_proj.quant_weight().bit_width
    tensor(4.)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        packed_in_proj: bool | None = None,
        in_proj_input_quant: Quantizer = Int8ActPerTensorFloat,
        in_proj_weight_quant: Quantizer = Int8WeightPerTensorFloat,
        in_proj_bias_quant: Quantizer = Int32Bias,
        softmax_input_quant: Quantizer = None,
        attn_output_weights_quant: Quantizer = Uint8ActPerTensorFloat,
        q_scaled_quant: Quantizer = Int8ActPerTensorFloat,
        k_transposed_quant: Quantizer = Int8ActPerTensorFloat,
        v_quant: Quantizer = Int8ActPerTensorFloat,
        out_proj_input_quant: Quantizer = Int8ActPerTensorFloat,
        out_proj_weight_quant: Quantizer = Int8WeightPerTensorFloat,
        out_proj_bias_quant: Quantizer = Int32Bias,
        out_proj_output_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        self._init_parameters(
            embed_dim,
            num_heads,
            dropout=dropout,
            bias=bias,
            add_bias_kv=add_bias_kv,
            add_zero_attn=add_zero_attn,
            kdim=kdim,
            vdim=vdim,
            batch_first=batch_first,
            packed_in_proj=packed_in_proj,
            device=device,
            dtype=dtype,
        )
        quantizers = {
            "in_proj_input_": in_proj_input_quant,
            "in_proj_weight_": in_proj_weight_quant,
            "in_proj_bias_": in_proj_bias_quant if bias else None,
            "softmax_input_": softmax_input_quant,
            "attn_output_weights_": attn_output_weights_quant,
            "q_scaled_": q_scaled_quant,
            "k_transposed_": k_transposed_quant,
            "v_": v_quant,
            "out_proj_input_": out_proj_input_quant,
            "out_proj_weight_": out_proj_weight_quant,
            "out_proj_bias_": out_proj_bias_quant if bias else None,
            "out_proj_output_": out_proj_output_quant,
        }
        absent = {} if bias else dict.fromkeys(("in_proj_bias_", "out_proj_bias_"), "this layer has no bias")
        found = split_options(type(self), options, quantizers, absent)

        for name, projection in self._in_projections().items():
            self.add_module(name, projection)
            self._build_part(name, "in_proj_", quantizers, found)
        self._build_part("out_proj", "out_proj_", quantizers, found)
        self._build(self, "", {name: quantizers[name] for name in PRODUCT_QUANTIZERS}, found)
        self.out_proj.return_quant_tensor = return_quant_tensor
        where = self.out_proj.weight.device
        if where.type not in ("cpu", "meta"):
            self.to(where)  # the in-projections have no parameter that would tell their quantizers where to stand

    def _build_part(
        self, name: str, prefix: str, quantizers: dict[str, Quantizer], options: dict[str, dict[str, Any]]
    ) -> None:
        """The quantizers of a submodule; an error names it."""
        try:
            self._build(self.get_submodule(name), prefix, quantizers, options)
        except QuantError as error:
            raise error.at(f"{type(self).__name__}.{name}") from None

    def forward(  # type: ignore[override]  # takes and returns quantized tensors as well
        self,
        query: Tensor | QuantTensor,
        key: Tensor | QuantTensor,
        value: Tensor | QuantTensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor | QuantTensor, Tensor | None]:
        """Attention of each query to the keys, head by head.

        Args:
            query: ``(L, N, E)``, ``(N, L, E)`` with ``batch_first``, or ``(L, E)``; float tensor or ``QuantTensor``.
            key: ``(S, N, kdim)``, ``(N, S, kdim)`` with ``batch_first``, or ``(S, kdim)``.
            value: ``(S, N, vdim)``, ``(N, S, vdim)`` with ``batch_first``, or ``(S, vdim)``.
            key_padding_mask: ``(N, S)`` or ``(S,)``: bool, true where a key takes *no* part, or float, added to the scores.
            need_weights: return the attention weights as well.
            attn_mask: ``(L, S)`` or ``(N·H, L, S)``, likewise.
            average_attn_weights: return the mean of the weights over the heads, and not one for each head.
            is_causal: a hint that ``attn_mask`` is the causal mask, which the fused kernel then need not read.

        Returns:
            The output, in the shape of ``query``; and the quantized attention weights ``(N, L, S)``, ``(N, H, L, S)`` for each
            head, without ``N`` where ``query`` has none, or ``None``.

        Raises:
            InputError: when inputs or masks do not fit, or a quantized bias has no scale.
        """
        where = self._named()
        batch, length, source = check_attention_inputs(self, query.shape, key.shape, value.shape, where=where)
        batched = len(query.shape) == 3
        check_attention_masks(
            self, attn_mask, key_padding_mask, is_causal, (batch, length, source), batched=batched, where=where
        )
        q, k, v = (split_heads(x, self.num_heads, self.batch_first) for x in self._project(query, key, value))
        k, v = (with_added_keys(x, bias, self.add_zero_attn) for x, bias in ((k, self.bias_k), (v, self.bias_v)))
        extra = k.shape[-2] - source
        hint = is_causal and key_padding_mask is None and not need_weights and extra == 0 and self._fuses(need_weights)
        padding = key_padding_mask if key_padding_mask is None or batched else key_padding_mask[None]
        out, weights = self._attend(
            q,
            k,
            v,
            scale=math.sqrt(1.0 / self.head_dim),
            mask=None if hint else merged_mask(attn_mask, padding, heads=self.num_heads, extra=extra),
            is_causal=hint,
            dropout_p=self.dropout if self.training else 0.0,
            need_weights=need_weights,
            keep_grid=self.out_proj.input_quant is None,
        )
        output = self.out_proj(join_heads(out, batched, self.batch_first))
        if weights is not None:
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        return output, weights

    def _project(self, *inputs: Tensor | QuantTensor) -> tuple[Tensor, ...]:
        projections: Any = (self.in_proj,) if self.packed_in_proj else (self.q_proj, self.k_proj, self.v_proj)
        for projection in projections:
            projection.belong_to(self)
        if self.packed_in_proj:
            packed: tuple[Tensor, ...] = projections[0](*inputs)
            return packed
        return tuple(projection(x)[0] for projection, x in zip(projections, inputs, strict=True))

    def __repr__(self) -> str:
        """The sizes and the quantizers of the products on one line, and each projection on one of its own."""
        parts = [f"({name}): {child!r}" for name, child in self.named_children() if not isinstance(child, QuantProxy)]
        return "\n".join([f"{type(self).__name__}(", indent("\n".join([self.extra_repr(), *parts]), "  "), ")"])
