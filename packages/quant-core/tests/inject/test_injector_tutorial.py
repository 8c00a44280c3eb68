"""The quantizers of the tutorial on the anatomy of a quantizer, built from the real components."""

import pytest
import torch
from torch import nn

from quant_core.components import BinaryQuant, ClampedBinaryQuant, ParameterScaling
from quant_core.errors import MissingDependencyError
from quant_core.inject import Injector, assemble, this, value

READS = ("module", "proxy_class")
ROOTS = {"tensor_quant": True, "signed": False}


class Proxy:
    """Stands for what a layer would wrap around the quantizer; an injector hands it over unbuilt."""


class MyBinaryQuantizer(Injector):
    tensor_quant = BinaryQuant
    scaling_impl = ParameterScaling
    scaling_init = 0.1


class MyChildBinaryQuantizer(MyBinaryQuantizer):
    scaling_init = 1.0


class MyBinaryImpl(Injector):
    tensor_quant = BinaryQuant


class MyScalingImpl(Injector):
    scaling_impl = ParameterScaling
    scaling_init = 0.1


class MyComposedBinaryQuantizer(MyBinaryImpl, MyScalingImpl):
    pass


class MySignedBinaryWeightQuantizer(MyBinaryQuantizer):
    proxy_class = Proxy
    signed = True


class ParamFromMaxWeightQuantizer(MySignedBinaryWeightQuantizer):
    @value
    def scaling_init(module):
        return module.weight.abs().max()


class SharedParamFromMeanWeightQuantizer(MySignedBinaryWeightQuantizer):
    @value
    def scaling_init(module):
        layers = module if isinstance(module, tuple) else (module,)
        return torch.cat([layer.weight.flatten() for layer in layers]).abs().mean()


class CommonQuantizer(Injector):
    scaling_impl = ParameterScaling
    signed = True

    @value
    def tensor_quant(is_clamped):
        return ClampedBinaryQuant if is_clamped else BinaryQuant

    @value
    def scaling_shape(scaling_per_output_channel):
        return this.per_channel_broadcastable_shape if scaling_per_output_channel else ()


class AdvancedWeightQuantizer(CommonQuantizer):
    proxy_class = Proxy

    @value
    def per_channel_broadcastable_shape(module):
        return (module.weight.shape[0], 1, 1, 1)

    @value
    def scaling_init(module, scaling_per_output_channel):
        weight = module.weight.detach().abs()
        return weight.amax(dim=(1, 2, 3), keepdim=True) if scaling_per_output_channel else weight.max()


class AdvancedActQuantizer(CommonQuantizer):
    scaling_init = 0.01
    proxy_class = Proxy


def build(injector, **options):
    return assemble(injector.let(**options), ROOTS, reads=READS)["tensor_quant"]


def convolution():
    torch.manual_seed(0)
    return nn.Conv2d(3, 2, 3)


@pytest.mark.parametrize(
    ("quantizer", "scale"),
    [(MyBinaryQuantizer, 0.1), (MyChildBinaryQuantizer, 1.0), (MyComposedBinaryQuantizer, 0.1)],
)
def test_wired_by_name_inherited_and_composed(quantizer, scale):
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    by_hand = BinaryQuant(scaling_impl=ParameterScaling(scaling_init=scale))
    for expected, actual in zip(by_hand(x), quantizer.tensor_quant(x), strict=True):
        assert torch.equal(expected, actual)
    assert torch.equal(build(quantizer)(x)[0], by_hand(x)[0])


def test_each_read_makes_parameters_of_its_own():
    first, second = MyBinaryQuantizer.tensor_quant, MyBinaryQuantizer.tensor_quant
    assert first.scaling_impl.value is not second.scaling_impl.value


def test_an_option_adds_or_overrides_one_attribute():
    assert build(MyBinaryQuantizer, signed=True).signed
    assert build(MySignedBinaryWeightQuantizer, scaling_init=0.001)(torch.ones(1))[1].item() == pytest.approx(0.001)


def test_the_proxy_class_is_handed_over():
    assert MySignedBinaryWeightQuantizer.proxy_class is Proxy


def test_a_scale_that_starts_from_the_weight_follows_it_when_built_again():
    layer = convolution()
    with_layer = ParamFromMaxWeightQuantizer.let(module=layer)
    assert torch.equal(build(with_layer)(layer.weight)[1], layer.weight.abs().max())
    with torch.no_grad():
        layer.weight.mul_(3)
    assert torch.equal(build(with_layer)(layer.weight)[1], layer.weight.abs().max())


def test_several_layers_are_one_tuple():
    layers = convolution(), nn.Conv2d(3, 2, 3)
    mean = torch.cat([layer.weight.flatten() for layer in layers]).abs().mean()
    assert torch.equal(build(SharedParamFromMeanWeightQuantizer, module=layers)(torch.ones(1))[1], mean)


@pytest.mark.parametrize(("is_clamped", "kind"), [(True, ClampedBinaryQuant), (False, BinaryQuant)])
@pytest.mark.parametrize("per_channel", [True, False])
def test_flags_choose_components_and_shapes(is_clamped, kind, per_channel):
    layer = convolution()
    quant = build(AdvancedWeightQuantizer, module=layer, is_clamped=is_clamped, scaling_per_output_channel=per_channel)
    assert type(quant) is kind
    amax = layer.weight.abs().amax(dim=(1, 2, 3), keepdim=True) if per_channel else layer.weight.abs().max()
    assert torch.equal(quant(layer.weight)[1], amax)


def test_a_shape_that_nothing_asks_for_may_be_missing():
    quant = build(AdvancedActQuantizer, is_clamped=True, scaling_per_output_channel=False)
    assert quant(torch.ones(4, 4))[1].shape == ()


def test_a_shape_that_is_asked_for_may_not_be_missing():
    with pytest.raises(MissingDependencyError) as failure:
        build(AdvancedActQuantizer, is_clamped=True, scaling_per_output_channel=True)
    assert str(failure.value) == (
        "AdvancedActQuantizer has no attribute 'per_channel_broadcastable_shape'\n"
        "  per_channel_broadcastable_shape is needed by this.per_channel_broadcastable_shape, returned by "
        "@value CommonQuantizer.scaling_shape, for scaling_shape, needed by ParameterScaling.__init__, "
        "for scaling_impl, needed by ClampedBinaryQuant.__init__, returned by @value CommonQuantizer.tensor_quant, "
        "for tensor_quant\n"
        "  Define per_channel_broadcastable_shape in AdvancedActQuantizer, or pass per_channel_broadcastable_shape=... "
        "as an option."
    )


def test_passing_the_shape_makes_the_quantizer_per_channel():
    quant = build(
        AdvancedActQuantizer,
        is_clamped=True,
        scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(4, 1),
    )
    assert torch.equal(quant(torch.ones(4, 4))[1], torch.full((4, 1), 0.01))
