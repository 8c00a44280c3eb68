"""Attention with quantizers: the projections and products on quantized operands."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import quant_nn as qnn
from quant_core.components import ParameterScaling
from quant_core.inject import value
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Int8WeightPerTensorFloat
from quant_core.tensor import QuantTensor, accumulator_bit_width

FEW_BITS: dict[str, Any] = {
    "in_proj_weight_bit_width": 4,
    "out_proj_weight_bit_width": 4,
    "q_scaled_bit_width": 6,
    "k_transposed_bit_width": 5,
    "v_bit_width": 4,
    "attn_output_weights_bit_width": 3,
}


def calibrated(*args: Any, **options: Any) -> qnn.QuantMultiheadAttention:
    """A layer in eval mode that has seen data."""
    torch.manual_seed(0)
    layer = qnn.QuantMultiheadAttention(*args, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 1:
                nn.init.normal_(parameter, std=0.1)  # biases start at zero
    layer(*(torch.randn(7, 3, size) for size in (layer.embed_dim, layer.kdim, layer.vdim)))
    return layer.eval()


def test_multihead_attention_is_its_projections_around_the_products() -> None:
    layer = calibrated(8, 2, **FEW_BITS)
    x, hidden = torch.randn(5, 3, 8), torch.ones(5, 5, dtype=torch.bool).triu(1)
    in_proj = qnn.QuantLinear(8, 24, weight_bit_width=4, input_quant=layer.in_proj.input_quant)
    in_proj.load_state_dict({"weight": layer.in_proj_weight, "bias": layer.in_proj_bias}, strict=False)
    products = qnn.QuantScaledDotProductAttention(
        q_scaled_quant=layer.q_scaled_quant,
        k_transposed_quant=layer.k_transposed_quant,
        v_quant=layer.v_quant,
        attn_output_weights_quant=layer.attn_output_weights_quant,
    )
    q, k, v = in_proj(x).view(5, 3, 3, 2, 4).permute(2, 1, 3, 0, 4)
    wanted = layer.out_proj(products(q, k, v, attn_mask=~hidden).permute(2, 0, 1, 3).flatten(-2))
    # The bias has 32 bits, whose rounding does not reach what 6 bits tell apart.
    assert torch.allclose(layer(x, x, x, attn_mask=hidden)[0], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("inputs", ["self", "keys are values", "distinct"])
def test_per_channel_weights_make_packed_and_separate_projections_equal(inputs: str) -> None:
    options = {**FEW_BITS, "in_proj_weight_quant": Int8WeightPerChannelFloat, "in_proj_input_collect_stats_steps": 1}
    packed = calibrated(8, 2, **options)
    separate = calibrated(8, 2, packed_in_proj=False, **options)
    scale = packed.in_proj.input_quant.tensor_quant.state_dict()
    for projection in (separate.q_proj, separate.k_proj, separate.v_proj):
        projection.input_quant.tensor_quant.load_state_dict(scale)
    same = {name: proxy.state_dict() for name, proxy in packed.named_children() if name.endswith("_quant")}
    for name, state in same.items():
        getattr(separate, name).load_state_dict(state)
    separate.out_proj.load_state_dict(packed.out_proj.state_dict())
    separate.load_state_dict({n: p for n, p in packed.state_dict().items() if n.startswith("in_proj_")}, strict=False)
    q, k, v = torch.randn(3, 5, 2, 8)
    k, v = {"self": (q, q), "keys are values": (k, k), "distinct": (k, v)}[inputs]
    for found, wanted in zip(separate(q, k, v), packed(q, k, v), strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-6)


def test_options_reach_the_quantizer_that_their_prefix_names() -> None:
    layer = qnn.QuantMultiheadAttention(
        8,
        2,
        **FEW_BITS,
        in_proj_input_bit_width=7,
        in_proj_bias_bit_width=12,
        softmax_input_quant=Int8ActPerTensorFloat,
        softmax_input_narrow_range=True,
        out_proj_input_bit_width=6,
        out_proj_bias_bit_width=10,
        out_proj_output_quant=Int8ActPerTensorFloat,
        out_proj_output_signed=False,
    )
    activations = {name: int(getattr(layer, f"{name}_quant").bit_width()) for name in ("q_scaled", "k_transposed", "v")}
    assert activations == {"q_scaled": 6, "k_transposed": 5, "v": 4}
    assert layer.attn_output_weights_quant.bit_width() == 3
    assert not layer.attn_output_weights_quant.signed
    assert layer.softmax_input_quant.narrow_range
    assert layer.in_proj.quant_weight().bit_width == 4
    assert layer.in_proj.input_quant.bit_width() == 7
    assert layer.in_proj.bias_quant.tensor_quant.bit_width_impl.constant == 12
    assert layer.out_proj.quant_weight().bit_width == 4
    assert layer.out_proj.input_quant.bit_width() == 6
    assert layer.out_proj.bias_quant.tensor_quant.bit_width_impl.constant == 10
    assert not layer.out_proj.output_quant.signed


def test_the_returned_weights_are_those_that_the_values_are_multiplied_by() -> None:
    layer = calibrated(8, 2, **FEW_BITS)
    x = torch.randn(5, 3, 8)
    _, weights = layer(x, x, x, average_attn_weights=False)
    levels = weights.detach() / layer.attn_output_weights_quant.scale().detach()
    assert weights.shape == (3, 2, 5, 5)
    assert torch.allclose(levels, levels.round(), rtol=0, atol=1e-4)
    assert float(levels.max()) <= 7.001
    assert torch.equal(layer(x, x, x)[1], weights.mean(dim=1))


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_masked_key_takes_no_part_whatever_quantizes_the_scores(kind: str) -> None:
    layer = calibrated(8, 2, softmax_input_quant=Int8ActPerTensorFloat, softmax_input_bit_width=2)
    hidden = torch.zeros(3, 6, dtype=torch.bool)
    hidden[:, 4:] = True
    mask = hidden if kind == "bool" else torch.zeros(3, 6).masked_fill(hidden, float("-inf"))
    query, key = torch.randn(5, 3, 8), torch.randn(6, 3, 8)
    out, weights = layer(query, key, key, key_padding_mask=mask)
    assert torch.equal(weights[:, :, 4:], torch.zeros(3, 5, 2))
    other = torch.cat([key[:4], torch.randn(2, 3, 8)])
    assert torch.equal(layer(query, other, other, key_padding_mask=mask)[0], out)


def test_quantized_inputs_are_taken_as_they_are_without_a_quantizer_of_the_input() -> None:
    x = qnn.QuantIdentity(bit_width=6, return_quant_tensor=True)(torch.randn(5, 3, 8))
    torch.manual_seed(0)
    layer = qnn.QuantMultiheadAttention(8, 2, in_proj_input_quant=None)
    twin = qnn.QuantMultiheadAttention(8, 2, in_proj_input_quant=None, in_proj_bias_quant=None)
    twin.load_state_dict({n: p for n, p in layer.state_dict().items() if "quant" not in n})
    assert torch.equal(layer(x, x, x)[0], twin(x.value, x.value, x.value)[0])  # the bias is zero
    again = calibrated(8, 2)
    assert torch.equal(again(x, x, x)[0], again(x.value, x.value, x.value)[0])


def test_the_output_is_returned_with_its_grid() -> None:
    x = torch.randn(5, 3, 8)
    layer = calibrated(8, 2, return_quant_tensor=True)
    out, weights = layer(x, x, x)
    assert isinstance(out, QuantTensor)
    assert out.is_valid
    assert type(weights) is Tensor
    assert torch.equal(out.scale, layer.out_proj.input_quant.scale() * layer.out_proj.quant_weight().scale)
    layer = calibrated(8, 2, return_quant_tensor=True, out_proj_output_quant=Int8ActPerTensorFloat)
    out, _ = layer(x, x, x)
    assert (out.bit_width.item(), out.is_valid) == (8, True)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_the_output_projection_takes_the_accumulator_of_the_products(batched: bool, batch_first: bool) -> None:
    options = {"bias": False, "batch_first": batch_first, "out_proj_input_quant": None, "return_quant_tensor": True}
    layer = calibrated(8, 2, **options, **FEW_BITS)  # few enough for float32 to hold the integers
    x = torch.randn(5, 3, 8)[:, 0] if not batched else torch.randn(5, 3, 8)
    out, _ = layer(x, x, x)
    scale = layer.attn_output_weights_quant.scale() * layer.v_quant.scale() * layer.out_proj.quant_weight().scale
    assert out.shape == x.shape
    assert out.is_valid
    assert torch.allclose(out.scale, scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [(2, 2), (3, 8), (8, 8)])
def test_the_accumulators_hold_the_most_extreme_integers(bits: tuple[int, int]) -> None:
    layer = qnn.QuantScaledDotProductAttention(
        q_scaled_bit_width=bits[0],
        k_transposed_bit_width=bits[1],
        attn_output_weights_bit_width=bits[0],
        v_bit_width=bits[1],
        return_quant_tensor=True,
    )
    extreme = torch.where(torch.rand(2, 3, 5, 4) < 0.5, -100.0, 100.0)
    layer(*torch.randn(3, 2, 3, 5, 4))
    layer.eval()
    q, k = layer.q_scaled_quant(extreme), layer.k_transposed_quant(-extreme.abs().mT)
    scores = torch.matmul(q, k)
    assert torch.equal(scores.int().long(), q.int().long() @ k.int().long())
    assert scores.is_valid
    assert torch.equal(scores.scale, q.scale * k.scale)
    # Dropout makes single weights larger than 1, up to the end of their range.
    out = layer(extreme, extreme, extreme, dropout_p=0.9)
    v = layer.v_quant(extreme)
    weights = layer.attn_output_weights_quant(torch.full((2, 3, 5, 5), 100.0))
    assert out.is_valid
    assert out.bit_width == accumulator_bit_width(weights, v, terms=5)
    low, high = out.range()
    largest = weights.int().long() @ v.int().long()
    assert int(low) <= int(largest.min())
    assert int(largest.max()) <= int(high)


def test_heads_that_share_keys_compute_as_if_these_were_repeated() -> None:
    torch.manual_seed(0)
    layer = qnn.QuantScaledDotProductAttention(return_quant_tensor=True)
    query, key, value = torch.randn(2, 6, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 2)
    layer(query, key, value, enable_gqa=True)
    layer.eval()
    found = layer(query, key, value, enable_gqa=True)
    wanted = layer(query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1))
    assert torch.equal(found.value, wanted.value)
    assert found.is_valid


def test_the_output_quantizer_sets_the_grid_of_the_output() -> None:
    layer = qnn.QuantScaledDotProductAttention(
        sdpa_output_quant=Int8ActPerTensorFloat, sdpa_output_bit_width=5, return_quant_tensor=True
    )
    x = torch.randn(2, 3, 5, 4)
    out = layer(x, x, x)
    assert (out.bit_width.item(), out.is_valid) == (5, True)
    layer.return_quant_tensor = False
    assert torch.equal(layer.eval()(x, x, x), layer.sdpa_output_quant(layer(x, x, x)).value)


class LearnedScaleWeight(Int8WeightPerTensorFloat):
    """A learned scale that starts from the weight, which only the right weight gives."""

    scaling_impl = ParameterScaling

    @value
    def scaling_init(module: Any) -> Tensor:
        return module.weight.detach().abs().max()


@pytest.mark.parametrize("options", [{}, {"packed_in_proj": False}, {"kdim": 5, "vdim": 3}, {"bias": False}])
def test_a_float_checkpoint_loads_strictly_and_the_own_one_round_trips(options: dict[str, Any]) -> None:
    sizes = {name: size for name, size in options.items() if name != "packed_in_proj"}
    plain = nn.MultiheadAttention(8, 2, add_bias_kv=True, **sizes)
    weights = {"in_proj_weight_quant": LearnedScaleWeight, "out_proj_weight_quant": LearnedScaleWeight}
    layer = qnn.QuantMultiheadAttention(8, 2, add_bias_kv=True, **options, **weights)
    assert not any(layer.load_state_dict(plain.state_dict(), strict=True))
    floats = dict(plain.named_parameters())
    blocks = (
        floats["in_proj_weight"].chunk(3) if "in_proj_weight" in floats else [floats[f"{x}_proj_weight"] for x in "qkv"]
    )
    projections = [getattr(layer, f"{x}_proj", None) for x in "qkv"]
    if projections[0] is None:
        projections, blocks = [layer.in_proj], [floats["in_proj_weight"]]
    for projection, block in zip(projections, blocks, strict=True):
        assert torch.equal(projection.weight_quant.tensor_quant.scaling_impl.value, block.abs().max())
    inputs = [torch.randn(5, 3, size) for size in (8, layer.kdim, layer.vdim)]
    layer(*inputs)
    other = qnn.QuantMultiheadAttention(8, 2, add_bias_kv=True, **options, **weights)
    other.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(other.eval()(*inputs)[0], layer.eval()(*inputs)[0])


def saved(layer: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), saved])
@pytest.mark.parametrize("packed", [True, False])
def test_layers_copy_and_pickle(packed: bool, make_copy: Callable[[nn.Module], nn.Module]) -> None:
    layer = calibrated(8, 2, packed_in_proj=packed).train()
    x = torch.randn(5, 3, 8)
    twin = make_copy(layer)
    assert torch.equal(twin(x, x, x)[0], layer(x, x, x)[0])
    before = layer.eval()(x, x, x)[0]
    with torch.no_grad():
        twin.in_proj_weight.mul_(2)
    assert not torch.equal(twin.eval()(x, x, x)[0], before)
    assert torch.equal(layer(x, x, x)[0], before)


def train(layer: nn.Module, model: Callable[..., Any], steps: int) -> list[float]:
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(5, 3, 8, generator=generator)
        optimizer.zero_grad()
        loss = model(x, x, x)[0].square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def collecting(steps: int) -> dict[str, Any]:
    names = ("in_proj_input", "q_scaled", "k_transposed", "v", "attn_output_weights", "out_proj_input")
    return {f"{name}_collect_stats_steps": steps for name in names}


def test_training_compiles_as_one_graph_and_equals_eager() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = qnn.QuantMultiheadAttention(8, 2, **FEW_BITS, **collecting(2))
    twin = copy.deepcopy(eager)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(twin, fullgraph=True, backend=counter)
    assert train(twin, compiled, 5) == pytest.approx(train(eager, eager, 5), rel=1e-4)
    assert counter.frame_count == 1
    eager.load_state_dict(twin.state_dict())
    x, y = torch.randn(4, 3, 8), torch.randn(6, 3, 8)
    hidden = torch.rand(3, 6) < 0.3
    with torch.no_grad():  # a backward pass was traced above
        found, _ = compiled.eval()(x, y, y, key_padding_mask=hidden, need_weights=False)
        wanted, _ = eager.eval()(x, y, y, key_padding_mask=hidden, need_weights=False)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-6)


def test_training_resumes_from_a_checkpoint_as_if_it_had_not_stopped() -> None:
    torch.manual_seed(0)
    straight = qnn.QuantMultiheadAttention(8, 2, **collecting(2))
    train(straight, straight, 1)
    resumed = qnn.QuantMultiheadAttention(8, 2, **collecting(2))
    resumed.load_state_dict(straight.state_dict(), strict=True)
    assert train(straight, straight, 4) == train(resumed, resumed, 4)


@pytest.mark.parametrize("options", [{}, {"return_quant_tensor": True, "out_proj_input_quant": None}])
def test_layers_run_under_autocast_and_in_other_dtypes(options: dict[str, Any]) -> None:
    layer = calibrated(8, 2, **options)
    x = torch.randn(5, 3, 8)
    twin = copy.deepcopy(layer).double()
    with torch.no_grad():
        wanted = layer(x, x, x)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = layer(x, x, x)[0]
        double = twin(x.double(), x.double(), x.double())[0]
    assert (half.dtype, double.dtype) == (torch.bfloat16, torch.float64)
    for found in (half, double):
        assert float((found.float() - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def test_layers_run_in_inference_mode_and_with_parameters_from_outside() -> None:
    layer = calibrated(8, 2, **FEW_BITS)
    x = torch.randn(5, 3, 8)
    wanted = layer(x, x, x)[0]
    with torch.inference_mode():
        assert torch.equal(layer(x, x, x)[0], wanted)
    doubled = {name: parameter.detach() * 2 for name, parameter in layer.named_parameters() if name == "in_proj_weight"}
    found = torch.func.functional_call(layer, doubled, (x, x, x))[0]
    with torch.no_grad():
        layer.in_proj_weight.mul_(2)
    assert torch.equal(found, layer(x, x, x)[0])


@pytest.mark.parametrize("packed", [True, False])
def test_a_replica_projects_with_parameters_of_its_own(packed: bool) -> None:
    """``nn.DataParallel`` makes replicas on other devices, whose parameters are those of the layer moved there."""
    layer, x = calibrated(8, 2, packed_in_proj=packed), torch.randn(5, 3, 8)
    out, negative = layer(x, x, x)[0], copy.deepcopy(layer)
    with torch.no_grad():
        negative.in_proj_weight.neg_()
    replica = layer._replicate_for_data_parallel()
    for name, parameter in negative._parameters.items():
        setattr(replica, name, None if parameter is None else parameter.detach())
    found = replica(x, x, x)[0]
    assert torch.equal(found, negative(x, x, x)[0])
    assert not torch.equal(found, out)
    assert torch.equal(layer(x, x, x)[0], out)


def test_a_parametrized_weight_is_quantized() -> None:
    class Zero(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 0.0

    layer = calibrated(8, 2, in_proj_bias_quant=None)
    x = torch.randn(5, 3, 8)
    _, weights = layer(x, x, x)
    parametrize.register_parametrization(layer, "in_proj_weight", Zero())
    _, even = layer(x, x, x)
    assert torch.equal(even, even[:, :1, :1].expand_as(even))
    assert not torch.equal(weights, even)
    parametrize.remove_parametrizations(layer, "in_proj_weight", leave_parametrized=False)
    assert torch.equal(layer(x, x, x)[1], weights)


def test_gradients_are_the_same_through_a_checkpointed_layer() -> None:
    layer = calibrated(8, 2).train()
    x = torch.randn(5, 3, 8)
    state = copy.deepcopy(layer.eval().state_dict())
    gradients = []
    for call in (layer, lambda *inputs: checkpoint(layer, *inputs, use_reentrant=False)):
        layer.load_state_dict(state)
        layer.zero_grad()
        call(x, x, x)[0].square().sum().backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("packed", [True, False])
def test_a_layer_starts_on_the_meta_device(packed: bool) -> None:
    layer = qnn.QuantMultiheadAttention(8, 2, packed_in_proj=packed, device="meta")
    assert {parameter.device.type for name, parameter in layer.named_parameters() if "quant" not in name} == {"meta"}
    layer.to_empty(device="cpu")
    layer.load_state_dict(nn.MultiheadAttention(8, 2).state_dict())
    twin = qnn.QuantMultiheadAttention(8, 2, packed_in_proj=packed)
    twin.load_state_dict({name: p for name, p in layer.state_dict().items() if "quant" not in name})
    x = torch.randn(5, 3, 8)
    assert torch.equal(layer.out_proj.quant_weight().value, twin.out_proj.quant_weight().value)
    assert torch.isfinite(layer(x, x, x)[0]).all()


def test_layers_share_a_quantizer_of_their_weights() -> None:
    first = qnn.QuantMultiheadAttention(8, 2)
    second = qnn.QuantMultiheadAttention(8, 2, in_proj_weight_quant=first.in_proj.weight_quant)
    largest = torch.stack([first.in_proj_weight, second.in_proj_weight]).abs().max()
    for layer in (first, second):
        assert torch.allclose(layer.in_proj.quant_weight().scale, largest / 127, rtol=1e-6, atol=0)


def test_it_prints_its_sizes_and_bits_at_a_glance() -> None:
    layer = qnn.QuantMultiheadAttention(8, 2, dropout=0.1, batch_first=True, add_bias_kv=True, v_bit_width=4)
    assert repr(layer).splitlines() == [
        "QuantMultiheadAttention(",
        "  embed_dim=8, num_heads=2, dropout=0.1, batch_first=True, add_bias_kv=True, attn_output_weights: uint8 per tensor, "
        "q_scaled: int8 per tensor, k_transposed: int8 per tensor, v: int4 per tensor",
        "  (out_proj): QuantLinear(in_features=8, out_features=8, bias=True, input: int8 per tensor, weight: int8 per tensor, "
        "bias: int32)",
        "  (in_proj): QuantInProjection(weight=in_proj_weight, input: int8 per tensor, weight: int8 per tensor, bias: int32)",
        ")",
    ]
    separate = qnn.QuantMultiheadAttention(8, 2, kdim=4, packed_in_proj=False)
    assert "embed_dim=8, num_heads=2, kdim=4" in repr(separate)
    assert "(k_proj): QuantInProjection(weight=k_proj_weight, " in repr(separate)


def test_the_encoder_layer_of_torch_never_goes_past_the_quantizers() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert encoder.self_attn.batch_first
    encoder.self_attn = qnn.QuantMultiheadAttention(8, 2, batch_first=True, **FEW_BITS)
    x, padding = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    encoder(x)
    wanted = encoder.eval()(x, src_key_padding_mask=padding)
    with torch.inference_mode():
        assert torch.equal(encoder(x, src_key_padding_mask=padding), wanted)
        stack = nn.TransformerEncoder(encoder, 1, enable_nested_tensor=False)
        assert torch.equal(stack(x, src_key_padding_mask=padding), wanted)
    encoder.self_attn._reset_parameters()
    with torch.inference_mode():
        found = encoder(x)
    assert torch.equal(found, encoder(x))
