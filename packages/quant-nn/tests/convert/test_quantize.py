"""What a conversion keeps: tensors, hooks, modes, places, ties; and that a failed one changes nothing."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import quant_nn as qnn
from quant_core.errors import QuantError
from quant_core.plugins import registry
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Int32Bias
from quant_nn import Rule, quantize

W4 = Rule(types=("Conv2d", "Linear"), options={"weight_bit_width": 4})
FLOATS: dict[str, nn.Module] = {
    "Conv1d": nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False, padding_mode="circular"),
    "Conv2d": nn.Conv2d(3, 4, (3, 1), padding="same"),
    "Conv3d": nn.Conv3d(1, 2, 2, padding_mode="replicate", padding=1),
    "ConvTranspose1d": nn.ConvTranspose1d(2, 4, 3, stride=2, output_padding=1, groups=2),
    "ConvTranspose2d": nn.ConvTranspose2d(2, 4, 3, bias=False, dilation=2),
    "ConvTranspose3d": nn.ConvTranspose3d(1, 2, 2),
    "Embedding": nn.Embedding(7, 3, padding_idx=2, max_norm=0.5),
    "Hardtanh": nn.Hardtanh(-0.5, 2.0),
    "Cat": qnn.Cat(),
    "EltwiseAdd": qnn.EltwiseAdd(),
    "ScaledDotProductAttention": qnn.ScaledDotProductAttention(),
    "Identity": nn.Identity(),
    "Linear": nn.Linear(5, 3, bias=False),
    "ReLU": nn.ReLU(inplace=True),
    "Sigmoid": nn.Sigmoid(),
    "Tanh": nn.Tanh(),
    "Upsample": nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True),
    "UpsamplingBilinear2d": nn.UpsamplingBilinear2d(size=(5, 6)),
    "UpsamplingNearest2d": nn.UpsamplingNearest2d(scale_factor=3),
    "MultiheadAttention": nn.MultiheadAttention(8, 2, dropout=0.1, add_bias_kv=True, kdim=4, vdim=6, batch_first=True),
    "MultiheadAttention packed": nn.MultiheadAttention(8, 4, bias=False, add_zero_attn=True),
}
SHAPES: dict[str, tuple[int, ...]] = {
    "Conv1d": (2, 4, 9),
    "Conv2d": (2, 3, 6, 6),
    "Conv3d": (2, 1, 4, 4, 4),
    "ConvTranspose1d": (2, 2, 5),
    "ConvTranspose2d": (2, 2, 5, 5),
    "ConvTranspose3d": (2, 1, 3, 3, 3),
    "Linear": (2, 5),
}
OFF = ("weight_quant", "act_quant", "bias_quant", "input_quant", "output_quant")
ATTENTION_OFF = (
    *("in_proj_input_quant", "in_proj_weight_quant", "in_proj_bias_quant", "attn_output_weights_quant"),
    *("q_scaled_quant", "k_transposed_quant", "v_quant", "out_proj_input_quant", "out_proj_weight_quant"),
    "out_proj_bias_quant",
)


class Net(nn.Module):
    """A module under two paths, tied weights, and a layer that nothing stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.again = self.features[2]
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.features(x) - 0.1).mean((2, 3))
        return self.head(x + self.embed.weight[0])


def arguments(name: str) -> tuple[Any, ...]:
    torch.manual_seed(1)
    if name == "Cat":
        return ([torch.randn(2, 3), torch.randn(2, 4)],)
    if name in ("EltwiseAdd", "ScaledDotProductAttention"):
        return tuple(torch.randn(2, 3, 4) for _ in range(2 if name == "EltwiseAdd" else 3))
    if name == "Embedding":
        return (torch.tensor([[0, 2, 6]]),)
    if name.startswith("MultiheadAttention"):
        query = torch.randn(2, 3, 8)
        return (query, torch.randn(2, 5, 4), torch.randn(2, 5, 6)) if name == "MultiheadAttention" else (query,) * 3
    return (torch.randn(SHAPES.get(name, (2, 3, 4, 4))),)


def without_quantizers(name: str) -> dict[str, Any]:
    quant_type = getattr(qnn, f"Quant{name.split()[0]}" if name != "Hardtanh" else "QuantHardTanh")
    code = quant_type.__init__.__code__
    return dict.fromkeys(option for option in (*OFF, *ATTENTION_OFF) if option in code.co_varnames)


@pytest.mark.parametrize("name", FLOATS)
def test_without_quantizers_the_layer_computes_what_the_float_one_does(name: str) -> None:
    """Every argument of the float layer has arrived, and every tensor."""
    layer = copy.deepcopy(FLOATS[name]).eval()
    inputs = arguments(name)
    expected = layer(*copy.deepcopy(inputs))
    parameters = dict(layer.named_parameters())
    conversion = quantize(layer, Rule(names="*", options=without_quantizers(name)))
    assert type(conversion.model).__module__.startswith("quant_nn.")
    assert not conversion.model.training
    torch.testing.assert_close(conversion.model(*inputs), expected)
    own = dict(conversion.model.named_parameters())
    assert all(own[path] is parameter for path, parameter in parameters.items())


def test_every_registered_float_layer_is_among_these() -> None:
    """A new layer of the table joins this test."""
    own = [one.item for one in registry().layers.values() if one.distribution == "quant-nn"]
    assert {entry.float_type.partition(":")[2] for entry in own} == {name.split()[0] for name in FLOATS}


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_becomes_what_it_computes_in_eval_mode(affine: bool) -> None:
    """Its statistics end up in factor and offset, so that it has new parameters."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, eps=0.1, affine=affine))
    x = torch.randn(8, 1, 6, 6)
    net(x)
    expected = net.eval()(x)
    rule = Rule(types="BatchNorm2d", layer=qnn.BatchNorm2dToQuantScaleBias, options={"weight_quant": None})
    quantize(net, rule)
    assert isinstance(net[1], qnn.BatchNorm2dToQuantScaleBias)
    torch.testing.assert_close(net(x), expected)
    assert [path for path, _ in net[1].named_parameters()] == ["weight", "bias"]


def test_a_conversion_is_the_model_that_one_would_have_built() -> None:
    """Same values, gradients and steps of an optimizer as with a quantized layer that loads the checkpoint."""
    torch.manual_seed(0)
    float_layer = nn.Conv2d(2, 3, 3)
    options = {"weight_quant": Int8WeightPerChannelFloat, "input_quant": Int8ActPerTensorFloat, "bias_quant": Int32Bias}
    by_hand = qnn.QuantConv2d(2, 3, 3, **options)  # type: ignore[arg-type]
    by_hand.load_state_dict(float_layer.state_dict())
    converted = quantize(float_layer, Rule(types=nn.Conv2d, options=options)).model
    x = torch.randn(2, 2, 5, 5)
    for model in (by_hand, converted):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert by_hand.state_dict().keys() == converted.state_dict().keys()
    assert all(torch.equal(one, converted.state_dict()[key]) for key, one in by_hand.state_dict().items())


def test_shared_modules_and_parameters_stay_shared() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    given = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    conversion = quantize(net, [W4, Rule(types=("ReLU", "Embedding"))])
    assert conversion.model is net
    assert net.again is net.features[2]
    assert isinstance(net.again, qnn.QuantReLU)
    assert net.head.weight is net.embed.weight
    assert set(given) <= {id(parameter) for parameter in net.parameters()}
    assert list(net.features._modules) == ["0", "1", "2"]
    relu = next(one for one in conversion.replaced if one.path == "features.2")
    assert relu.also == ("again",)
    assert [one.path for one in conversion.left] == ["features.1"]


def test_hooks_move_along_and_their_handles_remove_them() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    calls: list[str] = []
    layer = net[0]
    handles = [
        layer.register_forward_pre_hook(lambda module, args: calls.append(f"before {type(module).__name__}")),
        layer.register_forward_hook(lambda module, args, kwargs, out: calls.append("after"), with_kwargs=True),
        layer.register_full_backward_hook(lambda module, given, got: calls.append("backward")),
        layer.register_state_dict_pre_hook(lambda module, prefix, keep: calls.append("saving")),
        layer.register_load_state_dict_pre_hook(lambda module, *_: calls.append(f"loading {type(module).__name__}")),
        layer.register_load_state_dict_post_hook(lambda module, keys: calls.append("loaded")),
    ]
    layer.remark = "mine"
    quantize(net, W4)
    del layer
    gc.collect()
    assert net[0].remark == "mine"
    net(torch.randn(2, 3, requires_grad=True)).sum().backward()
    net.load_state_dict(net.state_dict())
    assert calls == ["before QuantLinear", "after", "backward", "saving", "loading QuantLinear", "loaded"]
    for handle in handles:
        handle.remove()
    calls.clear()
    net(torch.randn(2, 3)).sum().backward()
    net.load_state_dict(net.state_dict())
    assert calls == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_mode_are_those_of_the_float_layers(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    net[0].eval()
    net[2].weight.requires_grad_(False)
    quantize(net, [W4, Rule(types="ReLU")])
    assert [layer.training for layer in net] == [False, True, True]
    assert all(module.training == layer.training for layer in net for module in layer.modules())
    assert net(torch.randn(2, 3, dtype=dtype)).dtype == dtype
    assert not net[2].weight.requires_grad
    assert net[0].weight.dtype == dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_everything_stands_on_the_device_of_the_model() -> None:
    net = Net().cuda()
    quantize(net, [W4, Rule(types=("ReLU", "Embedding"))])
    assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers())} == {"cuda"}
    assert net(torch.randn(2, 1, 4, 4, device="cuda")).is_cuda


@pytest.mark.parametrize("types", ["Linear", "MultiheadAttention", ("Linear", "MultiheadAttention")])
@pytest.mark.parametrize("padded", [False, True])
def test_encoders_call_their_quantized_parts_in_inference_too(types: Any, padded: bool) -> None:
    """Torch has a kernel for them that takes the weights of their parts."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2), torch.randn(2, 5, 8)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if padded else None
    rules = [Rule(types=types), Rule(types="Linear", options={"weight_bit_width": 2}, optional=True)]
    expected = copy.deepcopy(model).eval()(x, src_key_padding_mask=mask)
    quantize(model, rules)
    model(x, src_key_padding_mask=mask)
    model.eval()
    with torch.no_grad():
        fast = model(x, src_key_padding_mask=mask)
    torch.testing.assert_close(fast, model(x, src_key_padding_mask=mask), rtol=1e-4, atol=1e-5)
    assert (fast - expected).abs().max() > 1e-3


@pytest.mark.parametrize("normalized", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrizations_are_kept(normalized: Any) -> None:
    layer = normalized(nn.Linear(4, 3))
    originals = {id(parameter) for parameter in layer.parameters()}
    expected = layer.eval().weight.detach().clone()
    model = quantize(layer, Rule(types="Linear", options={"weight_bit_width": 8})).model
    assert parametrize.is_parametrized(model, "weight")
    assert {id(parameter) for parameter in model.parameters()} == originals
    assert torch.equal(model.weight, expected)
    model(torch.randn(2, 4)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_buffer_of_the_users_moves_along() -> None:
    layer = nn.Linear(3, 2)
    layer.register_buffer("mask", torch.ones(3, dtype=torch.bool), persistent=False)
    model: Any = quantize(nn.Sequential(layer), Rule(types="Linear")).model
    assert model[0].mask is layer.mask
    assert model[0]._non_persistent_buffers_set >= {"mask"}


def test_no_random_numbers_are_drawn() -> None:
    net = Net()
    state = torch.get_rng_state()
    quantize(net, [W4, Rule(types="Embedding")])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_dry_run_says_the_same_and_changes_nothing() -> None:
    net = Net()
    before, printed = list(net.modules()), str(net)
    rules = [W4, Rule(types="ReLU"), Rule(names="head", exclude=True)]
    dry = quantize(net, rules, dry_run=True)
    assert dry.model is net
    assert dry.dry_run
    assert list(net.modules()) == before
    assert str(net) == printed
    wet = quantize(net, rules)
    assert str(dry).splitlines()[1:] == str(wet).splitlines()[1:]
    assert str(dry).startswith("2 layers would be replaced, 3 left as they are")


def test_a_failed_conversion_changes_nothing() -> None:
    """The last layer cannot be built; nothing before it is in place, and hooks are where they were."""
    net = Net()
    handle = net.features[0].register_forward_hook(lambda *call: None)
    before, state = list(net.modules()), copy.deepcopy(net.state_dict())
    with pytest.raises(QuantError):
        quantize(net, [W4, Rule(names="head", options={"weight_bit_widht": 2})])
    assert list(net.modules()) == before
    assert handle.id in net.features[0]._forward_hooks
    assert all(torch.equal(one, state[key]) for key, one in net.state_dict().items())


def test_the_table_of_a_conversion() -> None:
    net = Net()
    conversion = quantize(net, [W4, Rule(types="ReLU", names="features"), Rule(names="head", exclude=True)])
    assert str(conversion).splitlines() == [
        "2 layers replaced, 3 left as they are",
        "+  features.0               Conv2d -> QuantConv2d  rule 1: weight_bit_width=4",
        "+  features.2 (also again)  ReLU -> QuantReLU      rule 2: defaults",
        "   features.1               BatchNorm2d            no quantized layer is registered for its type",
        "   embed                    Embedding              no rule is for it",
        "   head                     Linear                 excluded by rule 3",
    ]


def test_attention_is_one_layer_and_its_projection_no_layer_of_the_model() -> None:
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    conversion = quantize(net, Rule(types=("MultiheadAttention", "Linear")))
    assert [one.path for one in conversion.replaced] == ["self_attn", "linear1", "linear2"]
    assert net.eval()(torch.randn(2, 3, 8)).shape == (2, 3, 8)
