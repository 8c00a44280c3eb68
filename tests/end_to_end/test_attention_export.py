"""Attention layers on their way to a file, with no code of their own in any exporter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture, check, lower, verify
from quant_core.quant import Int8ActPerTensorFloat


class SelfAttention(nn.Module):
    """Queries, keys and values from one sequence, with a mask of what comes later."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = qnn.QuantMultiheadAttention(8, 2, **options)
        self.register_buffer("later", torch.ones(5, 5, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(x, x, x, attn_mask=self.later)


class CrossAttention(nn.Module):
    """Keys and values from another sequence, some of which are padding."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = qnn.QuantMultiheadAttention(8, 2, **options)

    def forward(self, x: Tensor, y: Tensor, padding: Tensor) -> Tensor:
        return self.attention(x, y, y, key_padding_mask=padding, need_weights=False)[0]


OPTIONS: dict[str, dict[str, Any]] = {
    "packed": {},
    "separate": {"packed_in_proj": False},
    "per channel": {"in_proj_weight_scaling_per_output_channel": True, "in_proj_weight_bit_width": 4},
    "added keys": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    "quantized scores and output": {
        "softmax_input_quant": Int8ActPerTensorFloat,
        "out_proj_output_quant": Int8ActPerTensorFloat,
    },
    "fused kernel": {"attn_output_weights_quant": None},
    "quantized products only": {
        "in_proj_input_quant": None,
        "in_proj_weight_quant": None,
        "in_proj_bias_quant": None,
        "out_proj_input_quant": None,
        "out_proj_weight_quant": None,
        "out_proj_bias_quant": None,
    },
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(CrossAttention, name) for name in OPTIONS] + [(SelfAttention, name) for name in ("packed", "added keys")],
)
def test_attention_exports_and_onnxruntime_computes_the_same(kind: type[nn.Module], name: str) -> None:
    torch.manual_seed(0)
    net = kind(**OPTIONS[name])
    for parameter in net.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.1)
    first = OPTIONS[name].get("batch_first", False)
    x, y = (torch.randn((3, length, 8) if first else (length, 3, 8)) for length in (5, 7))
    args = (x,) if kind is SelfAttention else (x, y, torch.arange(7).expand(3, 7) > torch.tensor([[6], [4], [5]]))
    net(*args)
    program = capture(net, args)
    assert check(program, "qcdq").ok
    assert verify(program, lower(program, "qcdq"), args).equal
    weights = {q.where.path for q in program.quantizers if q.role == "weight"}
    projections = ("q_proj", "k_proj", "v_proj") if name == "separate" else ("in_proj",)
    quantized = name != "quantized products only"
    assert weights == (
        {f"attention.{part}.weight_quant" for part in (*projections, "out_proj")} if quantized else set()
    )


def test_blocks_of_a_packed_weight_stay_integers_with_their_scales() -> None:
    torch.manual_seed(0)
    options = OPTIONS["per channel"]
    net = CrossAttention(**options)
    args = (torch.randn(5, 3, 8), torch.randn(7, 3, 8), torch.zeros(3, 7, dtype=torch.bool))
    net(*args)
    whole = net.attention.in_proj.quant_weight()
    program = capture(net, args)
    found = [q for q in program.quantizers if q.where.path == "attention.in_proj.weight_quant"]
    assert [tuple(q.integers.shape) for q in found] == [(8, 8), (16, 8)]
    assert torch.equal(torch.cat([q.integers for q in found]), whole.int())
    assert torch.equal(torch.cat([q.scale for q in found]), whole.scale)
    assert {q.granularity for q in found} == {"per_channel"}
    assert {q.bit_width for q in found} == {4.0}


@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_of_any_size(shared: bool) -> None:
    torch.manual_seed(0)
    net = CrossAttention(batch_first=True, packed_in_proj=None if shared else False)
    args = (torch.randn(3, 5, 8), torch.randn(3, 7, 8), torch.zeros(3, 7, dtype=torch.bool))
    net(*args)
    program = capture(net, args, dynamic_shapes="batch")
    artifact = lower(program, "qcdq")
    more = (torch.randn(4, 5, 8), torch.randn(4, 7, 8), torch.zeros(4, 7, dtype=torch.bool))
    assert verify(program, artifact, more).equal


def test_the_products_alone_export() -> None:
    torch.manual_seed(0)
    net = qnn.QuantScaledDotProductAttention(q_scaled_bit_width=4, sdpa_output_quant=Int8ActPerTensorFloat)
    args = (torch.randn(2, 4, 5, 6), torch.randn(2, 2, 7, 6), torch.randn(2, 2, 7, 3))
    call = {"enable_gqa": True, "is_causal": True}
    net(*args, **call)
    program = capture(net, args, call)
    assert check(program, "qcdq").ok
    assert verify(program, lower(program, "qcdq"), args, call).equal
