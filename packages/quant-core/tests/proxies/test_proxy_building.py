"""What a proxy builds, what it says about the integers, and what it refuses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quant_core.components import BinaryQuant, ConstScaling, ConstZeroPoint, ParameterScaling
from quant_core.errors import ConfigurationError, MissingDependencyError, QuantError, UnusedAttributeError
from quant_core.inject import Injector
from quant_core.proxies import ActQuantProxyFromInjector, QuantProxy, WeightQuantProxyFromInjector
from quant_core.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)
from quant_core.tensor import QuantTensor


class Halves(nn.Module):
    """A tensor quantizer that owes nothing to this library: multiples of one half."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (2 * x).round() / 2, torch.tensor(0.5), torch.tensor(0.0), torch.tensor(8.0)


class HalvesQuantizer(Injector):
    tensor_quant = Halves


class BinaryQuantizer(Injector):
    tensor_quant = BinaryQuant
    scaling_impl = ParameterScaling
    scaling_init = 0.1


def test_the_quantizer_is_built_for_its_layer(weighted: Callable[..., nn.Module]) -> None:
    layer = weighted(Int8WeightPerTensorFloat.let(bit_width=4))
    proxy = layer.weight_quant
    assert (proxy.owners, proxy.is_quant_enabled, proxy.prefix) == ((layer,), True, "weight_")
    quantized = proxy(layer.weight)
    value, scale, zero_point, bit_width = proxy.tensor_quant(layer.weight)
    assert torch.equal(quantized.value, value)
    assert torch.equal(quantized.scale, scale)
    assert torch.equal(quantized.zero_point, zero_point)
    assert torch.equal(quantized.bit_width, bit_width)
    assert quantized.is_valid


@pytest.mark.parametrize(
    ("quantizer", "flags"),
    [
        (Int8WeightPerTensorFloat, dict(signed=True, narrow_range=True, symmetric=True, zero_on_grid=True)),
        (Int8ActPerTensorFloat, dict(signed=True, narrow_range=False, symmetric=True, zero_on_grid=True)),
        (Uint8ActPerTensorFloat, dict(signed=False, narrow_range=False, symmetric=True, zero_on_grid=True)),
        (
            Uint8ActPerTensorFloat.let(zero_point_impl=ConstZeroPoint, zero_point_init=3),
            dict(signed=False, narrow_range=False, symmetric=False, zero_on_grid=True),
        ),
        (BinaryQuantizer, dict(signed=True, narrow_range=False, symmetric=True, zero_on_grid=False)),
        (
            HalvesQuantizer.let(signed=True, narrow_range=True),
            dict(signed=True, narrow_range=True, symmetric=False, zero_on_grid=False),
        ),
    ],
    ids=["weight", "act", "unsigned", "zero-point", "binary", "foreign"],
)
@pytest.mark.parametrize("training", [True, False])
def test_the_quantized_tensor_says_what_the_quantizer_is(
    quantizer: type[Injector], flags: dict[str, bool], training: bool
) -> None:
    layer = nn.Linear(3, 2)
    quantized = WeightQuantProxyFromInjector(layer, quantizer).train(training)(layer.weight)
    assert isinstance(quantized, QuantTensor)
    assert {name: getattr(quantized, name) for name in flags} == flags
    assert quantized.training is training


@pytest.mark.parametrize("proxy_type", [WeightQuantProxyFromInjector, ActQuantProxyFromInjector])
def test_any_module_that_returns_four_tensors_quantizes(proxy_type: type[QuantProxy]) -> None:
    proxy = proxy_type(nn.Linear(3, 2), HalvesQuantizer.let(signed=True))
    quantized = proxy(torch.tensor([0.3, -1.2]))
    assert quantized.int().tolist() == [1, -2]
    assert quantized.value.tolist() == [0.5, -1.0]


def test_a_foreign_module_may_say_itself_that_it_is_signed() -> None:
    class SignedHalves(Halves):
        signed = True
        symmetric = True
        zero_on_grid = True

    quantized = ActQuantProxyFromInjector(nn.Identity(), HalvesQuantizer.let(tensor_quant=SignedHalves))(torch.ones(2))
    assert (quantized.signed, quantized.symmetric, quantized.zero_on_grid) == (True, True, True)


def test_a_disabled_proxy_passes_the_very_tensor(weighted: Callable[..., nn.Module]) -> None:
    layer = weighted()
    layer.weight_quant.disable_quant = True
    assert layer.weight_quant(layer.weight) is layer.weight
    assert not layer.weight_quant.is_quant_enabled
    layer.weight_quant.disable_quant = False
    assert isinstance(layer.weight_quant(layer.weight), QuantTensor)


@pytest.mark.parametrize("quantizer", [Int8WeightPerTensorFloat, Int8WeightPerChannelFloat, BinaryQuantizer])
def test_the_grid_of_a_weight_is_that_of_its_quantized_tensor(
    weighted: Callable[..., nn.Module], quantizer: type[Injector]
) -> None:
    layer = weighted(quantizer)
    quantized = layer.weight_quant(layer.weight)
    assert torch.equal(layer.weight_quant.scale(), quantized.scale)
    assert torch.equal(layer.weight_quant.zero_point(), quantized.zero_point)
    assert torch.equal(layer.weight_quant.bit_width(), quantized.bit_width)


def test_the_scale_of_a_weight_that_is_computed(weighted: Callable[..., nn.Module]) -> None:
    layer = weighted()
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", nn.Tanh())
    assert torch.equal(layer.weight_quant.scale(), layer.weight.abs().max() / 127)


class NamesNothing(Injector):
    """What a quantizer is, with nothing said."""


REFUSED: dict[str, tuple[type[Injector], type[QuantError], str]] = {
    "nothing says signed": (
        HalvesQuantizer,
        ConfigurationError,
        "nothing says whether Halves is signed\n"
        "  at Linear\n"
        "  neither the quantizer nor its tensor_quant has an attribute signed\n"
        "  Set weight_signed to True or False.",
    ),
    "narrow range where there is none": (
        BinaryQuantizer.let(narrow_range=True),
        ConfigurationError,
        "weight_narrow_range=True has no effect on BinaryQuant\n"
        "  at Linear\n"
        "  BinaryQuant does not take narrow_range; it is False there\n"
        "  Leave weight_narrow_range out, or choose a tensor_quant that takes it.",
    ),
    "no tensor_quant": (
        NamesNothing,
        MissingDependencyError,
        "NamesNothing has no attribute 'tensor_quant'\n"
        "  at Linear\n"
        "  nothing in NamesNothing defines it\n"
        "  Define tensor_quant in NamesNothing, or pass weight_tensor_quant=... as an option.",
    ),
    "an option that nothing reads": (
        Int8WeightPerTensorFloat.let(bit_widht=4),
        UnusedAttributeError,
        "unknown option 'weight_bit_widht'\n"
        "  at Linear\n"
        "  nothing in Int8WeightPerTensorFloat reads 'weight_bit_widht'\n"
        "  Did you mean 'weight_bit_width'?",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_what_it_says(case: str) -> None:
    quantizer, kind, message = REFUSED[case]
    with pytest.raises(kind) as caught:
        WeightQuantProxyFromInjector(nn.Linear(3, 2), quantizer, "weight_")
    assert str(caught.value) == message


@pytest.mark.parametrize("method", ["scale", "zero_point", "bit_width"])
@pytest.mark.parametrize("proxy_type", [WeightQuantProxyFromInjector, ActQuantProxyFromInjector])
def test_a_foreign_module_has_no_grid_of_its_own(proxy_type: type[QuantProxy], method: str) -> None:
    proxy = proxy_type(nn.Linear(3, 2), HalvesQuantizer.let(signed=True))
    with pytest.raises(ConfigurationError) as caught:
        getattr(proxy, method)()
    assert str(caught.value) == (
        "Halves cannot tell its grid without quantizing a tensor\n"
        "  at Linear\n"
        "  only subclasses of quant_core.components.TensorQuant define grid(x)\n"
        "  Derive the tensor quantizer from TensorQuant, or read the scale from the quantized tensor."
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_what_is_built_stands_on_the_device_of_its_layer() -> None:
    layer = nn.Linear(3, 2, device="cuda")
    quantizer = Int8WeightPerTensorFloat.let(
        scaling_impl=ConstScaling, scaling_init=torch.ones(2, 1), zero_point_impl=ConstZeroPoint, zero_point_init=0
    )
    proxy = WeightQuantProxyFromInjector(layer, quantizer.let(quant_delay_steps=1))
    assert {buffer.device.type for buffer in proxy.buffers()} == {"cuda"}
    assert proxy(layer.weight).value.device.type == "cuda"
