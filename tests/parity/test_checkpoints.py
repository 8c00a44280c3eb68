"""Checkpoints of real Brevitas models: read into the same model of ours, they compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import brevitas.quant.shifted_scaled_int as their_shifted
import pytest
import torch
from torch import Tensor, nn

import quant_core.quant as q
import quant_nn as qnn
from quant_core.checkpoints import from_brevitas
from quant_core.errors import StateError, UnusedAttributeError
from quant_core.plugins import load_attribute, registry

STEPS = 3
QUANTIZERS = {name: load_attribute(found.item.quantizer) for name, found in registry().quantizers.items()}
NAMES = [
    name
    for name, quantizer in QUANTIZERS.items()
    if hasattr(bq, name)
    and quantizer.proxy_class.kind in ("weight", "activation", "bias")
    # The first cannot quantize convolutions there; the others are for sequences.
    and name not in ("ShiftedUint8WeightPerChannelFloatHQO", "Int8ActPerTensorFloatBatchQuant1d")
    and name != "Uint8ActPerTensorFloatBatchQuant1d"
]
NEEDED: dict[str, dict[str, Any]] = {
    "IntBias": {"bit_width": 8},
    "Int8ActPerTensorFloatMinMaxInit": {"min_val": -1.0, "max_val": 2.0},
    "Uint8ActPerTensorFloatMaxInit": {"max_val": 2.0},
    "Uint8ActPerTensorFixedPointMaxInit": {"max_val": 2.0},
}
AFFINE = {"scaling_affine_rescaling_init": 1.25, "scaling_affine_shifting_init": None}
WORDS: list[tuple[str, dict[str, Any]]] = [
    ("weight", {"scaling_impl_type": "parameter", "scaling_init": 0.1}),
    ("weight", {"scaling_impl_type": "const", "scaling_init": 0.1}),
    ("weight", {"scaling_impl_type": "he"}),
    ("weight", {"bit_width_impl_type": "parameter"}),
    ("weight", {"bit_width_impl_type": "parameter", "scaling_per_output_channel": True}),
    *(
        ("weight", {"scaling_impl_type": "parameter_from_stats", "restrict_scaling_type": word})
        for word in ("fp", "log_fp", "power_of_two")
    ),
    ("weight", {"scaling_impl_type": "parameter_from_stats", "scaling_per_output_channel": True}),
    ("weight", {"scaling_impl_type": "affine_stats", **AFFINE}),
    *(
        ("activation", {"restrict_scaling_type": word, **start})
        for word in ("log_fp", "power_of_two")
        for start in (
            {},
            {"scaling_impl_type": "parameter", "max_val": 3.0, "min_val": -3.0},
            {"scaling_impl_type": "stats"},
        )
    ),
    ("activation", {"scaling_impl_type": "stats"}),
    ("activation", {"scaling_impl_type": "affine_stats", **AFFINE}),
    ("activation", {"bit_width_impl_type": "parameter"}),
    ("activation", {"scaling_impl_type": "parameter", "max_val": 3.0, "min_val": -3.0}),
    ("activation", {"scaling_impl_type": "const", "max_val": 3.0, "min_val": -3.0}),
    ("activation", {"scaling_stats_op": "max"}),
    ("activation", {"quant_type": "binary"}),
]


def network(library: Any, kind: str, quantizer: Any = None, **options: Any) -> nn.Module:
    """A layer with the quantizer between others, on images of 3 channels."""
    prefixed = {f"{kind}_{key}": option for key, option in options.items()}
    given = {} if quantizer is None else {f"{kind}_quant": quantizer}
    names = bq if library is bnn else q
    if kind == "activation":
        act = {} if quantizer is None else {"act_quant": quantizer}
        tested = nn.Sequential(nn.Conv2d(3, 4, 3), library.QuantIdentity(**act, **options))
    else:
        tested = library.QuantConv2d(
            3, 4, 3, input_quant=names.Int8ActPerTensorFloat, input_collect_stats_steps=STEPS, **given, **prefixed
        )
    return nn.Sequential(tested, nn.BatchNorm2d(4), library.QuantReLU(bit_width=4, collect_stats_steps=STEPS))


def pair(kind: str, theirs: Any = None, ours: Any = None, **options: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return network(bnn, kind, theirs, **options), network(qnn, kind, ours, **options)


def train(net: nn.Module, steps: int) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, 3, 6, 6)).square().mean().backward()
        optimizer.step()


def options_of(name: str) -> dict[str, Any]:
    """The options that a quantizer needs, and few steps where it collects statistics."""
    needed = NEEDED.get(name, {})
    quantizer = QUANTIZERS[name]
    if quantizer.proxy_class.kind != "activation":
        return needed
    try:
        qnn.QuantIdentity(act_quant=quantizer, collect_stats_steps=STEPS, **needed)
    except UnusedAttributeError:
        return needed
    return {"collect_stats_steps": STEPS, **needed}


def assert_same_afterwards(theirs: nn.Module, ours: nn.Module) -> None:
    given = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    before = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    state = from_brevitas(given, ours)
    assert all(torch.equal(tensor, before[key]) for key, tensor in ours.state_dict().items())
    assert not any(ours.load_state_dict(state, strict=True))
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(plain(theirs.train()(x)), plain(ours.train()(x)))
    assert torch.equal(plain(theirs.eval()(x)), plain(ours.eval()(x)))


def plain(out: Any) -> Tensor:
    value: Tensor = out.value if hasattr(out, "value") else out
    return value.detach()


@pytest.mark.parametrize("name", NAMES)
def test_each_named_quantizer(name: str) -> None:
    ours = QUANTIZERS[name]
    nets = pair(ours.proxy_class.kind, getattr(bq, name), ours, **options_of(name))
    train(nets[0], STEPS + 2)
    assert_same_afterwards(*nets)


@pytest.mark.parametrize(("kind", "options"), WORDS, ids=str)
def test_quantizers_by_words(kind: str, options: dict[str, Any]) -> None:
    collecting = {"collect_stats_steps": STEPS} if kind == "activation" and "scaling_impl_type" not in options else {}
    nets = pair(kind, **collecting, **options)
    train(nets[0], STEPS + 2)
    assert_same_afterwards(*nets)


@pytest.mark.parametrize("layer", ["QuantLinear", "QuantConv2d"])
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (QUANTIZERS["ShiftedUint8WeightPerGroupFloatHQO"], their_shifted.ShiftedUint8WeightPerGroupFloatHQO, {}),
        (
            QUANTIZERS["Int8WeightPerTensorFloat"],
            bq.Int8WeightPerTensorFloat,
            {"scaling_impl_type": "parameter_from_stats", "scaling_per_output": "group", "group_size": 32},
        ),
    ],
)
def test_what_is_learned_for_groups_of_input_channels(
    layer: str, ours: Any, theirs: Any, options: dict[str, Any]
) -> None:
    """It has an axis more there. Theirs cannot run convolutions with groups, but tells their weight."""
    sizes = (64, 4) if layer == "QuantLinear" else (64, 4, 2)
    prefixed = {f"weight_{name}": option for name, option in options.items()}
    found, wanted = (
        getattr(library, layer)(*sizes, bias=False, weight_quant=quantizer, **prefixed)
        for library, quantizer in ((qnn, ours), (bnn, theirs))
    )
    with torch.no_grad():
        wanted.quant_weight()
        for parameter in wanted.weight_quant.parameters():
            parameter.mul_(1.07)
    found.load_state_dict(from_brevitas(wanted.state_dict(), found))
    assert torch.equal(found.quant_weight().value.flatten(), wanted.quant_weight().value.flatten())


def refusal(state: dict[str, Tensor], model: nn.Module) -> str:
    with pytest.raises(StateError) as caught:
        from_brevitas(state, model)
    return str(caught.value)


def trained(make: Callable[[], nn.Module] = lambda: pair("weight")[0]) -> dict[str, Tensor]:
    net = make()
    train(net, STEPS + 2)
    return net.state_dict()


def test_what_the_model_has_no_place_for_is_an_error() -> None:
    state = trained(lambda: pair("weight", bit_width_impl_type="parameter")[0])
    assert refusal(state, pair("weight")[1]) == (
        "the checkpoint holds 1 key that the model has no place for\n"
        "  0.weight_quant.tensor_quant.msb_clamp_bit_width_impl.bit_width_offset\n"
        "  Build the model with the layers and quantizers that the checkpoint was made with. A checkpoint of this library is "
        "loaded as it is."
    )


def test_what_the_model_learns_and_the_checkpoint_lacks_is_an_error() -> None:
    assert refusal(trained(), pair("weight", bit_width_impl_type="parameter")[1]) == (
        "the checkpoint lacks 1 key that the model learns\n"
        "  0.weight_quant.tensor_quant.bit_width_impl.bit_width_offset\n"
        "  Build the model with the quantizers that the checkpoint was made with, and save the Brevitas model after its first "
        "step: before, it does not store scales that start from weights."
    )


def test_another_shape_is_an_error() -> None:
    state = {**trained(), "0.weight": torch.zeros(4, 3, 5, 5)}
    assert refusal(state, pair("weight")[1]) == (
        "'0.weight' does not fit the model\n"
        "  it has the shape (4, 3, 5, 5) in the checkpoint and (4, 3, 3, 3) in the model\n"
        "  Build the model with the sizes and quantizers that the checkpoint was made with."
    )


def test_a_constant_bit_width_that_was_stored_must_be_that_of_the_model() -> None:
    theirs = network(bnn, "weight", bit_width_impl_type="stateful_const", bit_width=4)
    train(theirs, STEPS + 2)
    ours = network(qnn, "weight", bit_width=4)
    assert_same_afterwards(theirs, ours)
    assert refusal(theirs.state_dict(), pair("weight")[1]) == (
        "'0.weight_quant.tensor_quant.msb_clamp_bit_width_impl.bit_width' is another constant than that of the model\n"
        "  it is 4.0 in the checkpoint and 8.0 in the model\n"
        "  Build the model with the bit widths that the checkpoint was made with."
    )


def test_before_its_first_step_statistics_are_still_to_be_collected() -> None:
    theirs, ours = pair("activation", collect_stats_steps=STEPS)
    ours.load_state_dict(from_brevitas(theirs.state_dict(), ours))
    for _ in range(STEPS + 1):
        x = torch.randn(4, 3, 6, 6)
        assert torch.equal(plain(theirs(x)), plain(ours(x)))
