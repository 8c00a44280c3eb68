"""What attention layers refuse, and what they say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, QuantError, UnusedAttributeError
from quant_core.quant import Int8ActPerTensorFloat


def multihead(*shapes: tuple[int, ...], layer: dict[str, Any] | None = None, **call: Any) -> Callable[[], object]:
    inputs = [torch.zeros(shape) for shape in shapes]
    inputs *= 3 if len(inputs) == 1 else 1
    return lambda: qnn.QuantMultiheadAttention(8, 2, **(layer or {}))(*inputs, **call)


def products(*shapes: tuple[int, ...], layer: dict[str, Any] | None = None, **call: Any) -> Callable[[], object]:
    inputs = [torch.zeros(shape) for shape in shapes]
    inputs *= 3 if len(inputs) == 1 else 1
    return lambda: qnn.QuantScaledDotProductAttention(**(layer or {}))(*inputs, **call)


def hidden(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.bool)


CASES: dict[str, tuple[Callable[[], object], type[QuantError], str]] = {
    "heads that do not divide": (
        lambda: qnn.QuantMultiheadAttention(10, 4),
        ConfigurationError,
        "embed_dim=10 cannot be split into num_heads=4\n"
        "  at QuantMultiheadAttention\n"
        "  both are positive, and each head has embed_dim / num_heads features\n"
        "  Make embed_dim a multiple of num_heads.",
    ),
    "no heads": (
        lambda: qnn.QuantMultiheadAttention(8, 0),
        ConfigurationError,
        "embed_dim=8 cannot be split into num_heads=0\n"
        "  at QuantMultiheadAttention\n"
        "  both are positive, and each head has embed_dim / num_heads features\n"
        "  Make embed_dim a multiple of num_heads.",
    ),
    "a dropout of more than all": (
        lambda: qnn.QuantMultiheadAttention(8, 2, dropout=1.5),
        ConfigurationError,
        "dropout=1.5 is no probability\n"
        "  at QuantMultiheadAttention\n"
        "  it is the share of the attention weights that is dropped, from 0 to 1\n"
        "  Use a number such as 0.1.",
    ),
    "packed weights of several sizes": (
        lambda: qnn.QuantMultiheadAttention(8, 2, kdim=5, packed_in_proj=True),
        ConfigurationError,
        "packed_in_proj=True does not go together with keys or values of another size\n"
        "  at QuantMultiheadAttention\n"
        "  one weight takes inputs of one size, got embed_dim=8, kdim=5, vdim=8\n"
        "  Leave packed_in_proj out.",
    ),
    "a misspelt option of a projection": (
        lambda: qnn.QuantMultiheadAttention(8, 2, in_proj_weight_bit_widht=4),
        UnusedAttributeError,
        "unknown option 'in_proj_weight_bit_widht'\n"
        "  at QuantMultiheadAttention.in_proj: QuantInProjection\n"
        "  nothing in Int8WeightPerTensorFloat reads 'in_proj_weight_bit_widht'\n"
        "  Did you mean 'in_proj_weight_bit_width'?",
    ),
    "a misspelt option of the output projection": (
        lambda: qnn.QuantMultiheadAttention(8, 2, out_proj_weight_bit_widht=4),
        UnusedAttributeError,
        "unknown option 'out_proj_weight_bit_widht'\n"
        "  at QuantMultiheadAttention.out_proj: QuantLinear\n"
        "  nothing in Int8WeightPerTensorFloat reads 'out_proj_weight_bit_widht'\n"
        "  Did you mean 'out_proj_weight_bit_width'?",
    ),
    "a quantizer of another kind": (
        lambda: qnn.QuantMultiheadAttention(8, 2, in_proj_weight_quant=Int8ActPerTensorFloat),
        ConfigurationError,
        "in_proj_weight_quant is a quantizer of the activation\n"
        "  at QuantMultiheadAttention.in_proj: QuantInProjection\n"
        "  Int8ActPerTensorFloat quantizes activations, and this one quantizes the weight\n"
        "  Pass one whose name says Weight, from quant_core.quant.",
    ),
    "an option of a quantizer that is off": (
        lambda: qnn.QuantMultiheadAttention(8, 2, softmax_input_bit_width=4),
        UnusedAttributeError,
        "option 'softmax_input_bit_width' has no quantizer to go to\n"
        "  at QuantMultiheadAttention\n"
        "  softmax_input_quant is None on this layer\n"
        "  Leave softmax_input_bit_width out, or pass a quantizer as softmax_input_quant.",
    ),
    "an option of a bias that is not there": (
        lambda: qnn.QuantMultiheadAttention(8, 2, bias=False, in_proj_bias_bit_width=4),
        UnusedAttributeError,
        "option 'in_proj_bias_bit_width' has no quantizer to go to\n"
        "  at QuantMultiheadAttention\n"
        "  this layer has no bias\n"
        "  Leave in_proj_bias_bit_width out.",
    ),
    "inputs of four axes": (
        multihead((2, 5, 3, 8)),
        InputError,
        "query (2, 5, 3, 8), key (2, 5, 3, 8) and value (2, 5, 3, 8) do not fit this layer\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  they are (L, N, E), (S, N, kdim), (S, N, vdim): all have three axes, or all two without a batch\n"
        "  Check the order of the axes; the layer has batch_first=False.",
    ),
    "features of another size": (
        multihead((5, 3, 8), (6, 3, 8), (6, 3, 8), layer={"vdim": 4, "batch_first": True}),
        InputError,
        "query (5, 3, 8), key (6, 3, 8) and value (6, 3, 8) do not fit this layer\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2, vdim=4, batch_first=True)\n"
        "  they are (N, L, E), (N, S, kdim), (N, S, vdim): the last axes are embed_dim=8, kdim=8 and vdim=4\n"
        "  Check the order of the axes; the layer has batch_first=True.",
    ),
    "fewer values than keys": (
        multihead((5, 3, 8), (6, 3, 8), (5, 3, 8)),
        InputError,
        "query (5, 3, 8), key (6, 3, 8) and value (5, 3, 8) do not fit this layer\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  they are (L, N, E), (S, N, kdim), (S, N, vdim): each key has a value, so that only their last axes may differ\n"
        "  Check the order of the axes; the layer has batch_first=False.",
    ),
    "batches of several sizes": (
        multihead((5, 3, 8), (6, 2, 8), (6, 2, 8)),
        InputError,
        "query (5, 3, 8), key (6, 2, 8) and value (6, 2, 8) do not fit this layer\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  they are (L, N, E), (S, N, kdim), (S, N, vdim): axis 1 holds the batch, of one size\n"
        "  Check the order of the axes; the layer has batch_first=False.",
    ),
    "a mask of another shape": (
        multihead((5, 3, 8), attn_mask=hidden(3, 5, 5)),
        InputError,
        "attn_mask of shape (3, 5, 5) does not fit\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  it has the shape (L, S) or (N·num_heads, L, S), here (5, 5) or (6, 5, 5)\n"
        "  Check the lengths of queries and keys, and batch_first.",
    ),
    "a padding mask of another shape": (
        multihead((5, 3, 8), key_padding_mask=hidden(5, 3)),
        InputError,
        "key_padding_mask of shape (5, 3) does not fit\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  it has the shape (N, S), here (3, 5)\n"
        "  Check the lengths of queries and keys, and batch_first.",
    ),
    "a padding mask with a batch for inputs without": (
        multihead((5, 8), key_padding_mask=hidden(1, 5)),
        InputError,
        "key_padding_mask of shape (1, 5) does not fit\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  it has the shape (S,) without a batch, here (5,)\n"
        "  Check the lengths of queries and keys, and batch_first.",
    ),
    "a padding mask without a batch for inputs with one": (
        multihead((5, 1, 8), key_padding_mask=hidden(5)),
        InputError,
        "key_padding_mask of shape (5,) does not fit\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  it has the shape (N, S), here (1, 5)\n"
        "  Check the lengths of queries and keys, and batch_first.",
    ),
    "a mask of integers": (
        multihead((5, 3, 8), attn_mask=torch.zeros(5, 5, dtype=torch.int64)),
        InputError,
        "attn_mask holds torch.int64\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  a mask is bool, or holds floats that are added to the scores\n"
        "  Convert it: attn_mask.bool().",
    ),
    "a hint without a mask": (
        multihead((5, 3, 8), is_causal=True),
        InputError,
        "is_causal=True without attn_mask\n"
        "  at QuantMultiheadAttention(embed_dim=8, num_heads=2)\n"
        "  it is a hint that attn_mask is the causal mask, as in torch, and makes none\n"
        "  Pass attn_mask=nn.Transformer.generate_square_subsequent_mask(L) as well.",
    ),
    "a bias without a scale": (
        multihead((5, 3, 8), layer={"in_proj_input_quant": None}),
        InputError,
        "the bias cannot be quantized\n"
        "  at in_proj (QuantMultiheadAttention(embed_dim=8, num_heads=2).in_proj)\n"
        "  its scale is input scale · weight scale, and the input is a plain tensor\n"
        "  Set in_proj_input_quant on this layer, or return_quant_tensor=True on the layer before it; a sum of two scales must "
        "be quantized again.",
    ),
    "a bias of the output projection without a scale": (
        multihead((5, 3, 8), layer={"out_proj_input_quant": None, "v_quant": None}),
        InputError,
        "the bias cannot be quantized\n"
        "  at out_proj (QuantLinear(in_features=8, out_features=8, bias=True))\n"
        "  its scale is input scale · weight scale, and the input is a plain tensor\n"
        "  Set out_proj_input_quant on this layer, or return_quant_tensor=True on the layer before it; a sum of two scales must "
        "be quantized again.",
    ),
    "products of several sizes": (
        products((2, 5, 4), (2, 5, 3), (2, 5, 3)),
        InputError,
        "query (2, 5, 4), key (2, 5, 3) and value (2, 5, 3) do not fit together\n"
        "  at QuantScaledDotProductAttention()\n"
        "  they are (..., L, E), (..., S, E) and (..., S, Ev): queries and keys have one size E, here 4 and 3\n"
        "  Check the order of the axes: heads stand before positions, and features last.",
    ),
    "products without a value for each key": (
        products((2, 5, 4), (2, 6, 4), (2, 5, 4)),
        InputError,
        "query (2, 5, 4), key (2, 6, 4) and value (2, 5, 4) do not fit together\n"
        "  at QuantScaledDotProductAttention()\n"
        "  they are (..., L, E), (..., S, E) and (..., S, Ev): each of the S keys has a value, here S is 6 and 5\n"
        "  Check the order of the axes: heads stand before positions, and features last.",
    ),
    "products of a vector": (
        products((4,)),
        InputError,
        "query (4,), key (4,) and value (4,) do not fit together\n"
        "  at QuantScaledDotProductAttention()\n"
        "  they are (..., L, E), (..., S, E) and (..., S, Ev): all three have the same number of axes, at least 2\n"
        "  Check the order of the axes: heads stand before positions, and features last.",
    ),
    "more heads of queries": (
        products((2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)),
        InputError,
        "query (2, 4, 5, 4), key (2, 2, 5, 4) and value (2, 2, 5, 4) do not fit together\n"
        "  at QuantScaledDotProductAttention()\n"
        "  they are (..., L, E), (..., S, E) and (..., S, Ev): the axes before the last two are the same; enable_gqa=True lets "
        "heads of queries share keys and values\n"
        "  Check the order of the axes: heads stand before positions, and features last.",
    ),
    "heads of queries that are no multiple": (
        products((2, 3, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4), enable_gqa=True),
        InputError,
        "query (2, 3, 5, 4), key (2, 2, 5, 4) and value (2, 2, 5, 4) do not fit together\n"
        "  at QuantScaledDotProductAttention()\n"
        "  they are (..., L, E), (..., S, E) and (..., S, Ev): the 3 heads of queries are a multiple of the 2 heads of keys\n"
        "  Check the order of the axes: heads stand before positions, and features last.",
    ),
    "two masks": (
        products((2, 5, 4), attn_mask=hidden(5, 5), is_causal=True),
        InputError,
        "attn_mask and is_causal are both given\n"
        "  at QuantScaledDotProductAttention()\n"
        "  is_causal stands for a mask of its own\n"
        "  Leave is_causal out, and let attn_mask hold the causal mask as well.",
    ),
    "a mask that does not broadcast": (
        products((2, 5, 4), attn_mask=hidden(4, 5)),
        InputError,
        "attn_mask of shape (4, 5) does not fit\n"
        "  at QuantScaledDotProductAttention()\n"
        "  it broadcasts to the shape (..., L, S) of the scores, here (2, 5, 5)\n"
        "  Check the lengths of queries and keys.",
    ),
    "an output without a grid": (
        products((2, 5, 4), layer={"v_quant": None, "return_quant_tensor": True}),
        InputError,
        "the output cannot be returned as a quantized tensor without an output quantizer\n"
        "  at QuantScaledDotProductAttention()\n"
        "  its scale is scale of the attention weights · scale of the values, and one of them is not quantized to integers, "
        "per tensor and around zero\n"
        "  Set sdpa_output_quant, or attn_output_weights_quant and v_quant.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused_and_the_words(name: str) -> None:
    act, kind, text = CASES[name]
    with pytest.raises(kind) as caught:
        act()
    assert type(caught.value) is kind
    assert str(caught.value) == text
