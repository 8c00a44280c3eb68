"""The quantizer with switches: alone, in the loop that the toolkit's users write, and around quantizers of layers."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, StateError, UnknownNameError
from quant_nn.toolkit import QuantDescriptor, TensorQuantizer, fake_tensor_quant, tensor_quantizers


def test_without_amax_each_tensor_has_its_own() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(num_bits=4, fake_quant=False, axis=0, unsigned=True))
    torch.manual_seed(12345)
    x = torch.rand(10, 9, 8, 7)
    amax = x.amax(dim=(1, 2, 3), keepdim=True)
    integers = quantizer(x)
    assert torch.equal(integers, torch.round(x / (amax / 15)))
    assert integers.max() == 15
    assert quantizer.amax is None


@pytest.mark.parametrize("training", [True, False])
def test_with_amax_it_is_the_function(training: bool) -> None:
    quantizer = TensorQuantizer(QuantDescriptor(amax=1.5, narrow_range=True)).train(training)
    x = torch.randn(50) * 2
    assert torch.equal(quantizer(x), fake_tensor_quant(x, 1.5))
    assert torch.equal(quantizer.amax, torch.tensor(1.5))


def test_scale_amax_is_a_factor_of_what_is_given_and_of_what_is_found() -> None:
    given = TensorQuantizer(QuantDescriptor(amax=2.0, scale_amax=0.5))
    assert given.amax == 1.0
    found = TensorQuantizer(QuantDescriptor(scale_amax=0.5), if_calib=True)
    found(torch.tensor([4.0]))
    found.load_calib_amax()
    assert found.amax == 2.0


@pytest.mark.parametrize("method", ["max", "entropy", "percentile", "mse"])
def test_the_loop_of_the_toolkit(method: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        qnn.QuantLinear(8, 8, quant_desc_input=QuantDescriptor(calib_method=method)),
        nn.ReLU(),
        qnn.QuantLinear(8, 4, quant_desc_input=QuantDescriptor(calib_method=method)),
    )
    batches = [torch.randn(64, 8) for _ in range(3)]
    floats = copy.deepcopy(net)
    for _, quantizer in tensor_quantizers(net):
        quantizer.enable_calib()
        quantizer.disable_quant()
    for batch in batches:
        net(batch)
    for _, quantizer in tensor_quantizers(net):
        quantizer.load_calib_amax()
        quantizer.enable_quant()
        quantizer.disable_calib()
    at_once = qnn.calibrate(floats, batches, method=method, forward=lambda model, batch: model(batch))
    with torch.no_grad():
        assert [path for path, _ in tensor_quantizers(net)] == ["0.input_quant", "2.input_quant"]
        assert torch.equal(net[0].input_quant.scale(), floats[0].input_quant.scale())
        assert at_once.thresholds["0.input_quant"] == dict(tensor_quantizers(net))["0.input_quant"].amax


def test_one_histogram_serves_several_rules() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(calib_method="histogram"), if_quant=False, if_calib=True)
    quantizer(torch.cat([torch.randn(10_000), torch.tensor([50.0])]))
    found = {}
    for method, options in (("entropy", {}), ("percentile", {"percentile": 99.0}), ("mse", {}), ("max", {})):
        quantizer.load_calib_amax(method, **options)
        found[method] = quantizer.amax.item()
    assert found["max"] == 50.0
    assert len(set(found.values())) >= 3
    assert found["percentile"] < 4


def test_quantization_can_be_on_while_collecting() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(num_bits=2, amax=1.0))
    x = torch.tensor([0.3, 0.9])
    assert torch.equal(quantizer(x), torch.tensor([0.0, 1.0]))
    quantizer.disable_quant()
    assert torch.equal(quantizer(x), x)
    quantizer.enable_quant()
    quantizer.enable_calib()
    assert torch.equal(quantizer(x), torch.tensor([0.0, 1.0]))
    quantizer.disable_quant()
    assert torch.equal(quantizer(x), x)
    quantizer.reset_calib()
    assert torch.equal(quantizer(x), x)
    quantizer.enable_quant()
    assert torch.equal(quantizer(x), torch.tensor([0.0, 1.0]))


def test_clipping_works_without_quantizing() -> None:
    signed = TensorQuantizer(QuantDescriptor(amax=1.0), if_quant=False, if_clip=True)
    assert signed(torch.tensor([-3.0, 0.3, 2.0])).tolist() == pytest.approx([-1.0, 0.3, 1.0])
    unsigned = TensorQuantizer(QuantDescriptor(amax=1.0, unsigned=True), if_quant=False, if_clip=True)
    assert unsigned(torch.tensor([-3.0, 2.0])).tolist() == [0.0, 1.0]
    signed.disable_clip()
    assert signed(torch.tensor([5.0])).item() == 5.0


def test_what_is_collected_is_not_clipped() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(amax=1.0), if_clip=True, if_calib=True)
    quantizer(torch.tensor([7.0]))
    quantizer.load_calib_amax()
    assert quantizer.amax == 7.0
    found = TensorQuantizer()
    qnn.calibrate(found, [torch.ones(3)], "max")
    found.enable_clip()
    assert qnn.calibrate(found, [torch.full((3,), 5.0)], "max", again=True).thresholds["quant"] == 5.0


def test_each_channel_is_clipped_at_its_own_amax() -> None:
    x = torch.full((2, 3, 4), 5.0)
    given = TensorQuantizer(QuantDescriptor(axis=1, amax=(1.0, 2.0, 9.0)), if_quant=False, if_clip=True)
    assert given(x)[0, :, 0].tolist() == [1.0, 2.0, 5.0]
    found = TensorQuantizer(QuantDescriptor(axis=1), if_quant=False, if_calib=True)
    found(torch.tensor([1.0, 2.0, 9.0]).reshape(1, 3, 1))
    found.load_calib_amax()
    found.enable_clip()
    assert torch.equal(found(x), given(x))


def test_quantizers_of_layers_clip_too() -> None:
    net = nn.Sequential(qnn.QuantReLU())
    qnn.calibrate(net, [torch.ones(3)], "max")
    x = torch.tensor([-1.0, 0.123, 7.0])
    quantized = net.eval()(x)
    for _, quantizer in tensor_quantizers(net):
        quantizer.enable_clip()
        assert torch.equal(net(x), quantized)
        quantizer.disable_quant()
        assert net(x).tolist() == pytest.approx([0.0, 0.123, 1.0])
        quantizer.disable_clip()
        assert net(x).tolist() == pytest.approx([0.0, 0.123, 7.0])
        quantizer.enable_quant()
        assert torch.equal(net(x), quantized)


def test_a_clipped_learned_amax_gets_a_gradient() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(amax=1.0, learn_amax=True), if_quant=False, if_clip=True)
    quantizer(torch.tensor([3.0, 0.5])).sum().backward()
    assert next(quantizer.parameters()).grad.item() == 1.0


def test_a_learned_amax_without_a_start_begins_at_the_first_tensor() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(learn_amax=True))
    (parameter,) = quantizer.parameters()
    quantizer(torch.tensor([2.0, -4.0])).sum().backward()
    assert parameter.item() == 4.0
    assert parameter.grad is not None
    assert next(quantizer.parameters()) is parameter


def test_state_and_copies_resume_to_the_bit() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(axis=1), if_calib=True)
    x = torch.randn(4, 3, 5)
    quantizer(x)
    quantizer.load_calib_amax()
    expected = quantizer(x)
    assert torch.equal(copy.deepcopy(quantizer)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(quantizer))(x), expected)
    other = TensorQuantizer(QuantDescriptor(axis=1))
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(x), expected)


def test_collecting_survives_a_copy() -> None:
    quantizer = TensorQuantizer(if_calib=True)
    quantizer(torch.tensor([1.0]))
    other = copy.deepcopy(quantizer)
    other(torch.tensor([3.0]))
    quantizer.load_calib_amax()
    other.load_calib_amax()
    assert (quantizer.amax.item(), other.amax.item()) == (1.0, 3.0)


def test_switches_of_a_copy_are_its_own() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(amax=1.0), if_quant=False, if_clip=True, if_calib=True)
    other = pickle.loads(pickle.dumps(copy.deepcopy(quantizer)))
    other.reset_calib()
    other.disable_clip()
    assert other(torch.tensor([5.0])) == 5.0
    assert quantizer(torch.tensor([5.0])) == 1.0
    quantizer.load_calib_amax()
    assert (quantizer.amax, other.amax) == (5.0, 1.0)
    with pytest.raises(StateError, match="it was not told to collect"):
        other.load_calib_amax()


@pytest.mark.parametrize("scale_amax", [None, 0.5])
def test_amax_is_what_it_was_set_to(scale_amax: float | None) -> None:
    quantizer = TensorQuantizer(QuantDescriptor(scale_amax=scale_amax))
    quantizer.amax = 3.0
    assert quantizer.amax == 3.0
    assert quantizer(torch.tensor([9.0])) == 3.0
    several = TensorQuantizer(QuantDescriptor(axis=0))
    several.amax = torch.tensor([1.0, 2.0])
    assert several(torch.full((2, 2), 9.0)).tolist() == [[1.0, 1.0], [2.0, 2.0]]
    learned = TensorQuantizer(QuantDescriptor(axis=0, amax=(1.0, 2.0), learn_amax=True))
    (parameter,) = learned.parameters()
    learned.amax = [3.0, 4.0]
    assert parameter.tolist() == [3.0, 4.0]
    relu = nn.Sequential(qnn.QuantReLU())
    for _, switched in tensor_quantizers(relu):
        switched.amax = 2.55
    assert relu.eval()[0].act_quant.scale().item() == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("fields", "amax", "why"),
    [
        ({}, float("nan"), "a largest magnitude is finite and not negative"),
        ({}, -1.0, "a largest magnitude is finite and not negative"),
        ({}, [1.0, 2.0], "it is 2 numbers, and the scale of this quantizer has 1"),
        (
            {"axis": 0, "amax": (1.0, 2.0), "learn_amax": True},
            1.0,
            "it is 1 numbers, and the scale of this quantizer has 2",
        ),
        ({}, None, "it is a number or a tensor, and no NoneType"),
    ],
)
def test_what_is_no_amax_is_refused(fields: dict[str, object], amax: object, why: str) -> None:
    quantizer = TensorQuantizer(QuantDescriptor(**fields))
    before = quantizer.amax
    with pytest.raises(InputError) as caught:
        quantizer.amax = amax
    assert str(caught.value) == (
        f"{amax!r} is no amax\n  at TensorQuantizer\n  {why}\n  Give x.abs().max() of a tensor, for example."
    )
    assert before is None or torch.equal(quantizer.amax, before)


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("bad", ["inf", "nan"])
def test_a_tensor_makes_no_range_that_is_not_finite(bad: str, learn: bool) -> None:
    quantizer = TensorQuantizer(QuantDescriptor(learn_amax=learn))
    with pytest.raises(InputError) as caught:
        nn.Sequential(nn.Identity(), quantizer)(torch.tensor([1.0, float(bad)]))
    assert str(caught.value) == (
        "a tensor that holds infinities or NaN has no largest magnitude\n"
        "  at 1 (TensorQuantizer)\n"
        f"  it is {bad}, and would make the scale\n"
        "  Look for infinities and NaN in the data, and in the weights of the layers before; or give amax."
    )
    assert quantizer.amax is None


def test_amax_fits_the_channels() -> None:
    with pytest.raises(InputError) as caught:
        TensorQuantizer(QuantDescriptor(axis=0, amax=(1.0, 2.0, 3.0)))(torch.ones(2, 4))
    assert str(caught.value) == (
        "amax of 3 numbers does not fit a tensor of shape (2, 4)\n"
        "  at TensorQuantizer\n"
        "  it is one number for each of 2 channels\n"
        "  Check the axis, and how many numbers there are along it."
    )


@pytest.mark.parametrize("method", ["statistics", "auto"])
def test_methods_are_those_of_the_toolkit(method: str) -> None:
    quantizer = TensorQuantizer(if_calib=True)
    quantizer(torch.ones(3))
    for call in (quantizer.load_calib_amax, TensorQuantizer().enable_calib):
        with pytest.raises(UnknownNameError) as caught:
            call(method)
        assert str(caught.value) == (
            f"unknown calibration method {method!r}\n"
            "  the methods are max, histogram, entropy, percentile, mse\n"
            "  Known names: entropy, histogram, max, mse, percentile."
        )


def test_another_method_needs_another_start() -> None:
    quantizer = TensorQuantizer(if_calib=True)
    quantizer.enable_calib("entropy")  # nothing was collected yet
    quantizer(torch.ones(3))
    quantizer.enable_calib()
    quantizer.enable_calib("entropy")
    with pytest.raises(StateError) as caught:
        quantizer.enable_calib("max")
    assert str(caught.value) == (
        "it collects for 'entropy' already\n"
        "  at TensorQuantizer\n"
        "  what was collected is not that for 'max', or its options are others\n"
        "  Call reset_calib() first, or load_calib_amax(method) for another rule on the same histogram."
    )
    quantizer.reset_calib()
    quantizer.enable_calib("max")


def test_it_compiles_as_one_graph() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(amax=1.0))
    compiled = torch.compile(quantizer, fullgraph=True, backend="eager")
    x = torch.randn(9)
    assert torch.equal(compiled(x), quantizer(x))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_learned_amax_starts_in_a_compiled_graph_as_in_eager_code(backend: str) -> None:
    x = torch.tensor([2.0, -4.0])
    quantizer = TensorQuantizer(QuantDescriptor(learn_amax=True))
    compiled = torch.compile(quantizer, fullgraph=True, backend=backend)
    compiled(x)
    assert quantizer.amax == 4.0
    assert compiled(10 * x).tolist() == pytest.approx([4.0, -4.0 * 128 / 127])
    compiled(10 * x).sum().backward()
    assert next(quantizer.parameters()).grad is not None


def test_a_capture_collects_nothing() -> None:
    from quant_core.export import capture

    quantizer = TensorQuantizer(QuantDescriptor(amax=1.0), if_calib=True)
    quantizer(torch.ones(3))
    capture(quantizer, (torch.full((3,), 9.0),))
    quantizer.load_calib_amax()
    assert quantizer.amax == 1.0


def test_loading_before_data_is_an_error() -> None:
    quantizer = TensorQuantizer()
    with pytest.raises(StateError) as caught:
        quantizer.load_calib_amax()
    assert str(caught.value) == (
        "there is no amax to load\n"
        "  at TensorQuantizer\n"
        "  it was not told to collect\n"
        "  Call enable_calib(), run the model on data, and then load_calib_amax()."
    )
    quantizer.enable_calib()
    with pytest.raises(StateError, match="it has collected nothing"):
        quantizer.load_calib_amax()


def test_errors_name_the_quantizer() -> None:
    net = nn.Sequential(qnn.QuantLinear(3, 2, quant_desc_input=QuantDescriptor()), TensorQuantizer())
    for path, quantizer in tensor_quantizers(net):
        quantizer.enable_calib()
        with pytest.raises(StateError, match=f"\n  at {path}\n  it has collected nothing\n"):
            quantizer.load_calib_amax()
    with pytest.raises(StateError, match="\n  at TensorQuantizer 'features'\n"):
        TensorQuantizer(QuantDescriptor(name="features")).load_calib_amax()


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(StateError) as caught:
        TensorQuantizer(if_clip=True)(torch.ones(1))
    assert str(caught.value) == (
        "there is no amax to clip at\n"
        "  at TensorQuantizer\n"
        "  none was given, and none was found in data\n"
        "  Give amax in the descriptor, or calibrate before enable_clip()."
    )
    quantizer = TensorQuantizer(if_calib=True)
    quantizer(torch.ones(1))
    with pytest.raises(StateError) as caught:
        quantizer.load_calib_amax("mse")
    assert str(caught.value) == (
        "'mse' cannot be found in what was collected\n"
        "  at TensorQuantizer\n"
        "  it was collected for 'max', which keeps no histogram\n"
        "  Set calib_method of the descriptor to it, or call enable_calib(method) before collecting."
    )
    with pytest.raises(InputError) as found:
        nn.Sequential(nn.ReLU(), quantizer)(torch.tensor([float("inf")]))
    assert str(found.value) == (
        "a tensor that holds infinities or NaN cannot be calibrated\n"
        "  at 1 (TensorQuantizer)\n"
        "  1 of its 1 elements are not finite, the first is inf\n"
        "  Look for infinities and NaN in the data, and in the weights of the layers before this one."
    )
    with pytest.raises(ConfigurationError) as wrong:
        TensorQuantizer(8)
    assert str(wrong.value) == (
        "quant_desc=8 is no descriptor\n"
        "  at TensorQuantizer\n"
        "  it is a quant_nn.toolkit.QuantDescriptor\n"
        "  Pass QuantDescriptor(num_bits=8), for example."
    )
