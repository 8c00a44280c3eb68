"""Layers of torch.nn that make quantized ones, and torch as it was before."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, StateError, UnknownNameError
from quant_nn.toolkit import REPLACED, QuantDescriptor, deactivate, initialize

BEFORE = {name: getattr(nn, name) for name in dir(nn)}


@pytest.fixture(autouse=True)
def _torch_is_as_before() -> Iterator[None]:
    yield
    deactivate()
    assert {name: getattr(nn, name) for name in dir(nn)} == BEFORE


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 36, 3))


def test_models_built_within_are_quantized_and_those_built_after_are_not() -> None:
    with initialize():
        inside = net()
    assert [type(layer) for layer in inside] == [qnn.QuantConv2d, nn.ReLU, nn.Flatten, qnn.QuantLinear]
    assert type(net()[0]) is BEFORE["Conv2d"]
    assert inside(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    assert pickle.loads(pickle.dumps(inside))[0].input_quant is not None
    inside.load_state_dict(net().state_dict())


def test_deactivate_ends_it() -> None:
    initialize(only=["Linear"])
    assert type(nn.Linear(2, 2)) is qnn.QuantLinear
    assert type(nn.Conv1d(1, 1, 1)) is BEFORE["Conv1d"]
    deactivate()
    assert nn.Linear is BEFORE["Linear"]
    deactivate()


def test_it_ends_after_an_exception() -> None:
    with pytest.raises(RuntimeError, match="in the middle"), initialize():
        raise RuntimeError("in the middle")
    assert nn.Linear is BEFORE["Linear"]


@pytest.mark.parametrize("name", REPLACED)
def test_every_layer_is_replaced(name: str) -> None:
    with initialize():
        layer = getattr(nn, name)(4, 6) if name == "Linear" else getattr(nn, name)(4, 6, 3)
        assert isinstance(layer, getattr(nn, name))
    assert type(layer) is getattr(qnn, REPLACED[name])
    assert isinstance(layer, BEFORE[name])
    assert layer.quant_weight().scale.numel() == 6


def test_our_own_layers_and_classes_of_users_work_within() -> None:
    with initialize():
        ours = qnn.QuantLinear(3, 2, weight_bit_width=4)

        class Wide(nn.Linear):
            def __init__(self) -> None:
                super().__init__(3, 50)

        theirs = Wide()
    assert ours.input_quant is None
    assert type(theirs) is Wide
    assert theirs.input_quant is not None
    assert theirs(torch.randn(2, 3)).shape == (2, 50)


def test_descriptors_and_custom_layers() -> None:
    custom = {"ReLU": lambda inplace=False: qnn.QuantReLU(bit_width=4)}
    with initialize(custom, quant_desc_input=None, quant_desc_weight=QuantDescriptor(num_bits=4)):
        model = net()
    assert type(model[1]) is qnn.QuantReLU
    assert model[0].input_quant is None
    assert model[0].quant_weight().bit_width == 4
    assert model[0].quant_weight().scale.numel() == 1


def two_bits(*args: Any, **options: Any) -> nn.Module:
    return qnn.QuantLinear(*args, weight_bit_width=2, **options)


class Loud(qnn.QuantLinear):
    """A quantized layer of a user."""


class Around(nn.Module):
    """A layer of a user that is made of the layer that it replaces."""

    def __init__(self, *args: int) -> None:
        super().__init__()
        self.inner = nn.Linear(*args)


@pytest.mark.parametrize("make", [two_bits, Loud, Around, qnn.QuantLinear])
def test_what_is_replaced_by_default_can_be_replaced_by_something_else(make: Any) -> None:
    with initialize({"Linear": make}):
        layer, other = nn.Linear(4, 2), nn.Conv1d(1, 1, 1)

        class Wide(nn.Linear):
            pass

        wide = Wide(4, 2)
        assert isinstance(layer, nn.Linear)
        assert isinstance(wide, nn.Linear)
        assert not isinstance(layer, Wide)
    assert type(layer) is (make if isinstance(make, type) else qnn.QuantLinear)
    assert type(other) is qnn.QuantConv1d
    assert type(wide) is Wide
    assert isinstance(wide, BEFORE["Linear"])
    assert pickle.loads(pickle.dumps(layer)).state_dict().keys() == layer.state_dict().keys()
    if make is Around:
        assert type(layer.inner) is BEFORE["Linear"]
    if make is two_bits:
        assert layer.quant_weight().bit_width == 2


def test_a_custom_layer_that_fails_can_be_asked_for_again() -> None:
    def picky(*args: int) -> nn.Module:
        if args[0] > 3:
            raise ValueError("too wide")
        return qnn.QuantLinear(*args)

    with initialize({"Linear": picky}):
        with pytest.raises(ValueError, match="too wide"):
            nn.Linear(4, 2)
        assert type(nn.Linear(3, 2)) is qnn.QuantLinear


def test_one_name_may_stand_alone() -> None:
    with initialize(only="Linear"):
        assert type(nn.Linear(3, 2)) is qnn.QuantLinear
        assert type(nn.Conv1d(1, 1, 1)) is BEFORE["Conv1d"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"custom": {"Lineer": nn.Identity}},
            UnknownNameError,
            "there is no layer 'Lineer' to replace\n"
            "  it is the name of a layer in torch.nn\n"
            "  Did you mean 'Linear' or 'LazyLinear'?",
        ),
        (
            {"custom": {"Parameter": nn.Identity}},
            UnknownNameError,
            "there is no layer 'Parameter' to replace\n"
            "  it is the name of a layer in torch.nn\n"
            "  Did you mean 'ParameterList' or 'ParameterDict'?",
        ),
        (
            {"quant_desc_input": 8},
            ConfigurationError,
            "quant_desc_input=8 is no descriptor\n"
            "  at initialize()\n"
            "  it is a quant_nn.toolkit.QuantDescriptor\n"
            "  Pass a quantizer as input_quant, or a descriptor here.",
        ),
        (
            {"only": ["LSTM"]},
            UnknownNameError,
            "there is no layer 'LSTM' to replace\n"
            "  those are Linear, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d\n"
            "  Known names: Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Linear.",
        ),
        (
            {"custom": {"ReLU": 3}},
            ConfigurationError,
            "custom layer 'ReLU' cannot be called: 3\n"
            "  it is called with the arguments of the layer of torch.nn\n"
            "  Give a class or a function that makes a module.",
        ),
    ],
)
def test_bad_maps_are_refused_and_nothing_is_replaced(
    arguments: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        initialize(**arguments)
    assert str(caught.value) == text
    assert nn.Linear is BEFORE["Linear"]


def test_twice_is_an_error() -> None:
    with initialize():
        with pytest.raises(StateError) as caught:
            initialize()
        assert str(caught.value) == (
            "layers of torch.nn are replaced already\n"
            "  initialize() was called before, and not ended\n"
            "  Call deactivate() first, or write: with initialize(): …"
        )
