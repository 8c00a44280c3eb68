"""The sizes and parameters of multi-head attention: those of the float layer, under its names, with projections on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quant_core.errors import ConfigurationError
from quant_nn.attention_projection import QuantInProjection
from quant_nn.attention_shapes import check_attention_sizes
from quant_nn.layer import QuantLayer
from quant_nn.linear import QuantLinear


class MultiheadParameters(QuantLayer, nn.MultiheadAttention):
    """What :class:`QuantMultiheadAttention` has in common with the float layer, whose checkpoints it loads.

    Attributes:
        out_proj: the output projection, whose weight is not quantized yet.
        packed_in_proj: whether one projection computes queries, keys and values.
    """

    out_proj: QuantLinear  # type: ignore[assignment]  # in place of the float layer
    packed_in_proj: bool

    def _init_parameters(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        dropout: float,
        bias: bool,
        add_bias_kv: bool,
        add_zero_attn: bool,
        kdim: int | None,
        vdim: int | None,
        batch_first: bool,
        packed_in_proj: bool | None,
        **factory: Any,
    ) -> None:
        """The module with its sizes and parameters, but without projections into heads.

        Raises:
            ConfigurationError: when the sizes do not go together.
        """
        nn.Module.__init__(self)
        check_attention_sizes(embed_dim, num_heads, dropout, where=type(self).__name__)
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self._register(bias, add_bias_kv, factory)
        self._reset_parameters()
        self.packed_in_proj = self._is_packed(packed_in_proj)

    @staticmethod
    def float_arguments(layer: nn.MultiheadAttention) -> dict[str, Any]:
        """The arguments that make a layer of the same sizes as a float one."""
        same = ("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first")
        given = {"bias": layer.in_proj_bias is not None, "add_bias_kv": layer.bias_k is not None}
        return {**{name: getattr(layer, name) for name in same}, **given}

    def _register(self, bias: bool, add_bias_kv: bool, factory: dict[str, Any]) -> None:
        """The parameters of the float layer, in its order."""
        embed_dim = self.embed_dim
        shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(
            ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        )
        if self.kdim == self.vdim == embed_dim:
            shapes["in_proj_weight"] = (3 * embed_dim, embed_dim)
        else:
            shapes["q_proj_weight"] = (embed_dim, embed_dim)
            shapes["k_proj_weight"] = (embed_dim, self.kdim)
            shapes["v_proj_weight"] = (embed_dim, self.vdim)
        shapes["in_proj_bias"] = (3 * embed_dim,) if bias else None
        shapes["bias_k"] = shapes["bias_v"] = (1, 1, embed_dim) if add_bias_kv else None
        for name, shape in shapes.items():
            self.register_parameter(name, None if shape is None else nn.Parameter(torch.empty(shape, **factory)))
        self.out_proj = QuantLinear(embed_dim, embed_dim, bias=bias, weight_quant=None, **factory)
        self.out_proj.option_prefix = "out_proj_"

    def _reset_parameters(self) -> None:
        # Torch's inference kernels take the weights past the quantizers. They are for layers of which this says true.
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        self._qkv_same_embed_dim = False

    def _is_packed(self, wanted: bool | None) -> bool:
        possible = self.in_proj_weight is not None
        if wanted and not possible:
            raise ConfigurationError(
                "packed_in_proj=True does not go together with keys or values of another size",
                where=type(self).__name__,
                why=f"one weight takes inputs of one size, got embed_dim={self.embed_dim}, kdim={self.kdim}, vdim={self.vdim}",
                fix="Leave packed_in_proj out.",
            )
        return possible if wanted is None else wanted

    def _in_projections(self) -> dict[str, QuantInProjection]:
        """One for the packed weight, or one for each of queries, keys and values."""
        if self.packed_in_proj:
            return {"in_proj": QuantInProjection(self, "in_proj", "in_proj_weight")}
        size, projections = self.embed_dim, {}
        for index, letter in enumerate("qkv"):
            rows = (index * size, (index + 1) * size)
            weight = ("in_proj_weight", rows) if self.in_proj_weight is not None else (f"{letter}_proj_weight", None)
            name = f"{letter}_proj"
            projections[name] = QuantInProjection(self, name, *weight, bias_rows=rows)
        return projections

    def float_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        parts = [f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"]
        parts += [f"{name}={getattr(self, name)}" for name in ("kdim", "vdim") if getattr(self, name) != self.embed_dim]
        parts += [f"dropout={self.dropout}"] if self.dropout else []
        parts += [f"{name}=True" for name in ("add_zero_attn", "batch_first") if getattr(self, name)]
        return ", ".join(parts if self.bias_k is None else [*parts, "add_bias_kv=True"])
