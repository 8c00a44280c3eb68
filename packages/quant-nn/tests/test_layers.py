"""Layers: the float operation on quantized operands, with the options of four quantizers."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.inject import Injector
from quant_core.quant import (
    Int8ActPerTensorFloat,
    Int8Bias,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Int32Bias,
)
from quant_core.tensor import QuantTensor

WEIGHT_LAYERS: dict[str, tuple[Callable[..., nn.Module], type[nn.Module], tuple[object, ...], tuple[int, ...]]] = {
    "linear": (qnn.QuantLinear, nn.Linear, (6, 4), (2, 6)),
    "linear over three axes": (qnn.QuantLinear, nn.Linear, (6, 4), (2, 3, 6)),
    "conv1d": (qnn.QuantConv1d, nn.Conv1d, (4, 6, 3), (2, 4, 9)),
    "conv2d": (qnn.QuantConv2d, nn.Conv2d, (4, 6, 3, 2, 1), (2, 4, 9, 8)),
    "conv2d unbatched": (qnn.QuantConv2d, nn.Conv2d, (4, 6, 3), (4, 9, 8)),
    "conv2d grouped": (qnn.QuantConv2d, nn.Conv2d, (4, 6, 3, 1, 0, 1, 2), (2, 4, 9, 8)),
    "conv3d": (qnn.QuantConv3d, nn.Conv3d, (2, 3, 2), (1, 2, 4, 5, 6)),
}


@pytest.fixture(params=WEIGHT_LAYERS)
def case(
    request: pytest.FixtureRequest,
) -> tuple[Callable[..., nn.Module], type[nn.Module], tuple[object, ...], Tensor]:
    torch.manual_seed(0)
    quantized, plain, args, shape = WEIGHT_LAYERS[request.param]
    return quantized, plain, args, torch.randn(shape)


def test_the_layer_is_the_float_layer_on_quantized_operands(case: tuple) -> None:
    quantized, plain, args, x = case
    layer = quantized(*args, weight_bit_width=3, input_quant=Int8ActPerTensorFloat, bias_quant=Int8Bias)
    layer(x)
    layer.eval()
    reference = plain(*args)
    quant_x = layer.input_quant(x)
    weight = layer.quant_weight()
    scale = quant_x.scale * weight.scale
    with torch.no_grad():
        reference.weight.copy_(weight.value)
        reference.bias.copy_((layer.bias / scale).round().clamp(-128, 127) * scale)
    assert torch.equal(layer(x), reference(quant_x.value))


def test_without_quantizers_the_layer_is_the_float_layer(case: tuple) -> None:
    quantized, plain, args, x = case
    layer, reference = quantized(*args, weight_quant=None), plain(*args)
    layer.load_state_dict(reference.state_dict())
    assert torch.equal(layer(x), reference(x))


def test_a_float_checkpoint_loads_strictly_and_the_own_one_round_trips(case: tuple) -> None:
    quantized, plain, args, x = case
    options = {"input_quant": Int8ActPerTensorFloat, "output_quant": Int8ActPerTensorFloat, "bias_quant": Int8Bias}
    layer, reference = quantized(*args, **options), plain(*args)
    assert not any(layer.load_state_dict(reference.state_dict(), strict=True))
    assert torch.equal(layer.weight, reference.weight)
    layer(x)
    other = quantized(*args, **options)
    other.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(other.eval()(x), layer.eval()(x))


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_layers_copy_and_pickle(case: tuple, make_copy: Callable[[nn.Module], nn.Module]) -> None:
    quantized, _, args, x = case
    layer = quantized(*args, weight_bit_width=4, input_quant=Int8ActPerTensorFloat, bias_quant=Int8Bias)
    layer(x)
    twin = make_copy(layer)
    assert torch.equal(twin(x), layer(x))
    with torch.no_grad():
        twin.weight.mul_(2)
    assert not torch.equal(twin(x), layer(x))
    assert twin.weight_quant.owners == (twin,)


@pytest.mark.parametrize("weight_quant", [Int8WeightPerTensorFloat, Int8WeightPerChannelFloat])
def test_the_accumulator_is_returned_with_its_grid(case: tuple, weight_quant: type[Injector]) -> None:
    quantized, _, args, x = case
    layer = quantized(
        *args,
        weight_quant=weight_quant,
        weight_bit_width=4,
        input_quant=Int8ActPerTensorFloat,
        input_bit_width=4,
        bias_quant=Int32Bias,
        return_quant_tensor=True,
    )
    out = layer(x)
    assert isinstance(out, QuantTensor)
    assert out.is_valid
    weight = layer.quant_weight()
    assert torch.equal(out.scale.flatten(), (layer.input_quant(x).scale * weight.scale).flatten())
    plain = quantized(
        *args, weight_quant=weight_quant, weight_bit_width=4, input_quant=layer.input_quant, bias_quant=Int32Bias
    )
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(plain(x), layer(x).value)


def test_a_float_bias_shifts_the_grid_of_the_accumulator(case: tuple) -> None:
    quantized, _, args, x = case
    out = quantized(*args, input_quant=Int8ActPerTensorFloat, return_quant_tensor=True)(x)
    assert out.is_valid
    assert not out.symmetric
    assert not out.zero_on_grid


def test_the_output_quantizer_sets_the_grid_of_the_output(case: tuple) -> None:
    quantized, _, args, x = case
    layer = quantized(*args, output_quant=Int8ActPerTensorFloat, output_bit_width=5, return_quant_tensor=True)
    out = layer(x)
    assert (out.bit_width.item(), out.is_valid) == (5, True)
    layer.return_quant_tensor = False
    assert torch.equal(
        layer.eval()(x), layer.output_quant(layer._operation(x, layer.quant_weight().value, layer.bias)).value
    )


def test_options_reach_the_quantizer_that_their_prefix_names() -> None:
    layer = qnn.QuantConv2d(
        2,
        3,
        1,
        weight_bit_width=5,
        weight_narrow_range=False,
        weight_scaling_per_output_channel=True,
        bias_quant=Int8Bias,
        bias_bit_width=12,
        input_quant=Int8ActPerTensorFloat,
        input_bit_width=6,
        output_quant=Int8ActPerTensorFloat,
        output_signed=False,
        return_quant_tensor=True,
    )
    weight, out = layer.quant_weight(), layer(torch.randn(1, 2, 3, 3))
    assert (weight.bit_width.item(), weight.narrow_range, weight.scale.shape) == (5, False, (3, 1, 1, 1))
    assert layer.bias_quant.tensor_quant.bit_width_impl.constant == 12
    assert layer.input_quant.bit_width().item() == 6
    assert not out.signed


def test_disabled_quantizers_pass_their_tensor() -> None:
    layer = qnn.QuantLinear(3, 2, weight_bit_width=2, bias_quant=Int8Bias, input_quant=Int8ActPerTensorFloat)
    for proxy in (layer.weight_quant, layer.bias_quant, layer.input_quant):
        proxy.disable_quant = True
        assert not proxy.is_quant_enabled
    x = torch.randn(4, 3)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_weights_quantize_after_a_delay() -> None:
    layer = qnn.QuantLinear(3, 2, bias=False, weight_bit_width=2, weight_quant_delay_steps=1)
    x = torch.randn(4, 3)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight))
    assert torch.equal(layer(x), nn.functional.linear(x, layer.quant_weight().value))


@pytest.mark.parametrize("kind", [qnn.QuantIdentity, qnn.QuantReLU])
def test_activations_are_the_float_function_then_the_quantizer(kind: type[qnn.QuantActivation]) -> None:
    torch.manual_seed(0)
    layer = kind(bit_width=4, return_quant_tensor=True)
    x = torch.randn(3, 5)
    out = layer(x)
    function = torch.relu if kind is qnn.QuantReLU else (lambda x: x)
    expected = layer.act_quant.tensor_quant.eval()(function(x))[0]
    assert (out.is_valid, out.bit_width.item(), out.signed) == (True, 4, kind is qnn.QuantIdentity)
    assert torch.equal(layer.eval()(x).value, expected)
    assert torch.equal(layer(out).value, layer(out.value).value)
    assert torch.equal(kind(act_quant=None)(x), function(x))
    layer.act_quant.disable_quant = True
    assert torch.equal(layer(x), function(x))


def test_activations_quantize_per_channel() -> None:
    x = torch.randn(8, 3, 4, 4) * torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1)
    layer = qnn.QuantIdentity(
        scaling_per_output_channel=True, per_channel_broadcastable_shape=(1, 3, 1, 1), return_quant_tensor=True
    )
    out = layer(x)
    assert out.scale.shape == (1, 3, 1, 1)
    for channel in range(3):
        alone = qnn.QuantIdentity()(x[:, channel])
        assert torch.equal(out.value[:, channel], alone)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(return_quant_tensor=True, collect_stats_steps=2)
        self.conv = qnn.QuantConv2d(1, 4, 3, weight_bit_width=4, bias_quant=Int8Bias)
        self.relu = qnn.QuantReLU(bit_width=4, return_quant_tensor=True, collect_stats_steps=2)
        self.pool = nn.MaxPool2d(2)
        self.linear = qnn.QuantLinear(36, 3, weight_bit_width=4, bias_quant=Int8Bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(self.entry(x))))
        return self.linear(x.flatten(1))


def train(net: nn.Module, model: Callable[[Tensor], Tensor], steps: int) -> list[float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(4, 1, 8, 8, generator=generator)
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_compiles_as_one_graph_and_equals_eager() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = Net()
    twin = copy.deepcopy(eager)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(twin, fullgraph=True, backend=counter)
    expected, found = train(eager, eager, 6), train(twin, compiled, 6)
    assert found == pytest.approx(expected, rel=1e-4)
    assert counter.frame_count == 1
    twin.train()
    train(twin, compiled, 2)
    assert counter.frame_count == 2
    for (name, one), other in zip(eager.state_dict().items(), twin.state_dict().values(), strict=True):
        assert one.shape == other.shape, name


def test_training_resumes_from_a_checkpoint_as_if_it_had_not_stopped() -> None:
    torch.manual_seed(0)
    straight = Net()
    train(straight, straight, 1)
    resumed = Net()
    resumed.load_state_dict(straight.state_dict(), strict=True)
    assert train(straight, straight, 4) == train(resumed, resumed, 4)


def test_layers_run_under_autocast() -> None:
    net = Net()
    x = torch.randn(2, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x)
    assert out.dtype == torch.bfloat16
    assert torch.isfinite(out.float()).all()


def test_a_relu_and_its_quantizer_keep_two_bytes_per_element() -> None:
    layer = qnn.QuantReLU(bit_width=4, collect_stats_steps=1)
    x = torch.randn(100, 1000)
    layer(x)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(x.requires_grad_())
    assert sum(kept.values()) <= 2 * x.numel() + 64
    assert out.requires_grad


def test_a_quantized_checkpoint_that_lacks_a_quantizer_is_refused_and_names_it() -> None:
    first = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(3, 3))
    longer = nn.Sequential(*first, qnn.QuantReLU())
    with pytest.raises(RuntimeError, match=r"2\.act_quant\.tensor_quant\.scaling_impl\.value"):
        nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(3, 3), qnn.QuantReLU()).load_state_dict(first.state_dict())
    reordered = {name.replace("0.", "9."): value for name, value in longer.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"0\.act_quant\.tensor_quant\.scaling_impl\.value"):
        longer.load_state_dict({name: v for name, v in reordered.items() if not name.startswith("9.")})
    longer.load_state_dict({name: v for name, v in longer.state_dict().items() if "quant" not in name})


def test_a_shared_activation_quantizer_keeps_what_it_has_learned() -> None:
    first = qnn.QuantIdentity(collect_stats_steps=1)
    first(torch.randn(10))
    scale = first.act_quant.scale()
    second = qnn.QuantIdentity(act_quant=first.act_quant)
    assert torch.equal(second.act_quant.scale(), scale)


def test_training_compiles_for_a_smaller_last_batch() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = nn.Sequential(qnn.QuantLinear(6, 5), qnn.QuantReLU(collect_stats_steps=3))
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for size in (8, 8, 5, 8, 3):
        x = torch.randn(size, 6)
        assert torch.allclose(compiled(x), net(x), atol=1e-6)


@pytest.mark.parametrize("make", [lambda: qnn.QuantLinear(6, 4), qnn.QuantReLU, lambda: qnn.QuantIdentity(bit_width=4)])
def test_a_hook_on_a_quantizer_is_called_with_the_grid(make: Callable[[], nn.Module]) -> None:
    layer, seen = make(), list[object]()
    quantizer = layer.weight_quant if isinstance(layer, qnn.QuantLinear) else layer.act_quant
    quantizer.register_forward_hook(lambda module, args, out: seen.append(out))
    layer(torch.randn(2, 6))
    assert [type(one) for one in seen] == [QuantTensor]


def test_a_subclass_says_what_its_quantized_weight_is() -> None:
    class Halved(qnn.QuantLinear):
        def quant_weight(self, input: QuantTensor | Tensor | None = None) -> QuantTensor | Tensor:
            return super().quant_weight(input) * 0.5

    torch.manual_seed(0)
    halved = Halved(6, 4, bias=False)
    whole = qnn.QuantLinear(6, 4, bias=False)
    whole.load_state_dict(halved.state_dict())
    x = torch.randn(2, 6)
    assert torch.equal(2 * halved(x), whole(x))


def test_any_module_may_stand_in_the_place_of_a_quantizer() -> None:
    x = torch.randn(2, 6)
    relu, linear = qnn.QuantReLU(), qnn.QuantLinear(6, 4, output_quant=Int8ActPerTensorFloat, weight_quant=None)
    relu.act_quant, linear.output_quant = nn.Tanh(), nn.Tanh()
    assert torch.equal(relu(x), x.tanh())
    assert torch.equal(linear(x), nn.functional.linear(x, linear.weight, linear.bias).tanh())
