"""Without quantizers the attention layers are torch's, for all of their arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn

PREFIXES = (
    *("in_proj_input", "in_proj_weight", "in_proj_bias", "softmax_input", "attn_output_weights", "q_scaled"),
    *("k_transposed", "v", "out_proj_input", "out_proj_weight", "out_proj_bias", "out_proj_output"),
)
FLOAT: dict[str, Any] = {f"{prefix}_quant": None for prefix in PREFIXES}
FLOAT_PRODUCTS: dict[str, Any] = {f"{prefix}_quant": None for prefix in (*PREFIXES[3:8], "sdpa_output")}

TOLERANCE = 1e-6
masks = st.sampled_from([None, "bool", "float"])


def mask(kind: str | None, *shape: int) -> Tensor | None:
    """Random, without a row that is masked as a whole."""
    if kind is None:
        return None
    if kind == "float":
        return torch.randn(shape)
    hidden = torch.rand(shape) < 0.4
    hidden[..., 0] = False
    return hidden


@st.composite
def attention_cases(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of the layer and of its forward, by what they are."""
    heads = draw(st.integers(1, 3))
    layer = {
        "embed_dim": heads * draw(st.integers(1, 3)),
        "num_heads": heads,
        "bias": draw(st.booleans()),
        "add_bias_kv": draw(st.booleans()),
        "add_zero_attn": draw(st.booleans()),
        "kdim": draw(st.sampled_from([None, 5])),
        "vdim": draw(st.sampled_from([None, 7])),
        "batch_first": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.5])),
    }
    call = {
        "need_weights": draw(st.booleans()),
        "average_attn_weights": draw(st.booleans()),
    }
    return {
        "seed": draw(st.integers(0, 1000)),
        "layer": layer,
        "call": call,
        "batch": draw(st.sampled_from([None, 1, 2, 3])),
        "lengths": draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        "sameness": draw(st.sampled_from(["self", "cross", "distinct"])),
        "masks": draw(st.tuples(masks, st.booleans(), masks)),
        "packed": draw(st.sampled_from([None, False])),
        "train": draw(st.booleans()),
    }


def inputs(case: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    layer, (length, source) = case["layer"], case["lengths"]

    def tensor(positions: int, size: int | None) -> Tensor:
        size = size or layer["embed_dim"]
        if case["batch"] is None:
            return torch.randn(positions, size)
        batch = case["batch"]
        return torch.randn((batch, positions, size) if layer["batch_first"] else (positions, batch, size))

    same_size = layer["kdim"] is None and layer["vdim"] is None
    query = tensor(length, None)
    if case["sameness"] == "self" and same_size:
        return query, query, query
    key = tensor(source, layer["kdim"])
    return query, key, key if case["sameness"] == "cross" and same_size else tensor(source, layer["vdim"])


@settings(max_examples=150, deadline=None)
@given(attention_cases())
def test_multihead_attention_is_that_of_torch(case: dict[str, Any]) -> None:
    torch.manual_seed(case["seed"])
    plain = nn.MultiheadAttention(**case["layer"])
    layer = qnn.QuantMultiheadAttention(**case["layer"], packed_in_proj=case["packed"], **FLOAT)
    assert list(layer.state_dict()) == list(plain.state_dict())
    layer.load_state_dict(plain.state_dict(), strict=True)
    query, key, value = inputs(case)
    positions = 1 if case["batch"] is not None and case["layer"]["batch_first"] else 0
    length, source = query.shape[positions], key.shape[positions]
    batch = case["batch"] or 1
    kind, per_head, padding = case["masks"]
    assume(padding is None or kind is None or padding == kind)  # torch warns of a mixture
    shape = (batch * case["layer"]["num_heads"], length, source) if per_head else (length, source)
    call = {
        **case["call"],
        "attn_mask": mask(kind, *shape),
        "key_padding_mask": mask(padding, *([batch] if case["batch"] else []), source),
    }
    results = []
    for module in (plain, layer):
        module.train(case["train"])
        leaves = [x.clone().requires_grad_() for x in dict.fromkeys((query, key, value))]
        known = dict(zip(dict.fromkeys((query, key, value)), leaves, strict=True))
        torch.manual_seed(1)  # dropout
        out, weights = module(known[query], known[key], known[value], **call)
        module.zero_grad()
        out.square().sum().backward()
        gradients = [x.grad for x in leaves] + [module.get_parameter(name).grad for name, _ in plain.named_parameters()]
        results.append((out, weights, gradients))
    (wanted, wanted_weights, wanted_gradients), (found, found_weights, found_gradients) = results
    assert torch.allclose(found, wanted, rtol=0, atol=TOLERANCE)
    assert (found_weights is None) == (wanted_weights is None)
    if wanted_weights is not None:
        assert found_weights.shape == wanted_weights.shape
        assert torch.allclose(found_weights, wanted_weights, rtol=0, atol=TOLERANCE)
    for one, other in zip(found_gradients, wanted_gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans(), st.booleans())
def test_the_hint_of_a_causal_mask_changes_nothing(seed: int, need_weights: bool, added: bool, padded: bool) -> None:
    torch.manual_seed(seed)
    plain = nn.MultiheadAttention(6, 2, add_zero_attn=added)
    layer = qnn.QuantMultiheadAttention(6, 2, add_zero_attn=added, **FLOAT)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 6)
    call = {
        "attn_mask": nn.Transformer.generate_square_subsequent_mask(4),
        "key_padding_mask": torch.zeros(3, 4) if padded else None,
        "need_weights": need_weights,
    }
    wanted, _ = plain(x, x, x, **call)  # torch's own hint hides the added key, if weights are not needed
    found, _ = layer(x, x, x, is_causal=True, **call)
    assert torch.allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_query_without_any_key_gives_what_torch_gives(need_weights: bool) -> None:
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(6, 2, batch_first=True)
    layer = qnn.QuantMultiheadAttention(6, 2, batch_first=True, **FLOAT)
    layer.load_state_dict(plain.state_dict())
    x, hidden = torch.randn(2, 3, 6), torch.tensor([[True, True, True], [False, True, True]])
    results = [module(x, x, x, key_padding_mask=hidden, need_weights=need_weights)[0] for module in (plain, layer)]
    assert torch.allclose(*results, rtol=0, atol=TOLERANCE, equal_nan=True)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 3}, {"add_bias_kv": True}])
def test_parameters_start_from_the_values_of_the_float_layer(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain, after = nn.MultiheadAttention(6, 2, **options), torch.rand(1)
    torch.manual_seed(0)
    layer, also_after = qnn.QuantMultiheadAttention(6, 2, **options), torch.rand(1)
    assert torch.equal(after, also_after)
    for name, parameter in plain.named_parameters():
        assert torch.equal(layer.get_parameter(name), parameter), name


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([(), (2,), (2, 3)]),
    st.integers(1, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([None, "bool", "float", "causal"]),
    st.sampled_from([None, 0.3]),
    st.sampled_from([0.0, 0.5]),
)
def test_scaled_dot_product_attention_is_that_of_torch(
    seed: int,
    leading: tuple[int, ...],
    groups: int,
    sizes: tuple[int, int, int, int],
    kind: str | None,
    scale: float | None,
    dropout: float,
) -> None:
    torch.manual_seed(seed)
    length, source, size, value_size = sizes
    groups = groups if leading else 1
    query = torch.randn(*leading[:-1], *(groups * heads for heads in leading[-1:]), length, size)
    key, value = torch.randn(*leading, source, size), torch.randn(*leading, source, value_size)
    hidden = None if kind in (None, "causal") else mask(kind, length, source)
    call = {
        "attn_mask": ~hidden if kind == "bool" and hidden is not None else hidden,
        "is_causal": kind == "causal",
        "scale": scale,
        "enable_gqa": groups > 1,
        "dropout_p": dropout,
    }
    results = []
    for function in (F.scaled_dot_product_attention, qnn.QuantScaledDotProductAttention(**FLOAT_PRODUCTS)):
        torch.manual_seed(1)
        results.append(function(query, key, value, **call))
    assert torch.allclose(*results, rtol=0, atol=TOLERANCE)


def test_the_products_without_the_fused_kernel_are_the_same() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 3)
    for call in (
        {},
        {"is_causal": True},
        {"attn_mask": torch.randn(5, 7)},
        {"attn_mask": torch.rand(2, 1, 5, 7) < 0.8},
    ):
        layer = qnn.QuantScaledDotProductAttention()
        for proxy in layer.children():
            proxy.disable_quant = True
        wanted = F.scaled_dot_product_attention(query, key, value, enable_gqa=True, **call)
        assert torch.allclose(layer(query, key, value, enable_gqa=True, **call), wanted, rtol=0, atol=TOLERANCE)
