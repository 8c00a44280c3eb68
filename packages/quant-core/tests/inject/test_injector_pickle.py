"""Injectors travel: by reference when somebody wrote them, by base and overrides when let made them."""

import copy
import pickle

import pytest
import torch
from torch import nn

from quant_core.inject import Injector, this, value


class Leaf:
    def __init__(self, start):
        self.start = start


def doubled(bits):
    return 2 * bits


class Quantizer(Injector):
    component = Leaf
    start = value(doubled)
    bits = 4


class Holder:
    def __init__(self, injector):
        self.injector = injector


protocols = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))


@protocols
def test_a_class_that_can_be_imported_pickles_by_reference(protocol):
    assert pickle.loads(pickle.dumps(Quantizer, protocol)) is Quantizer


@protocols
def test_a_derived_injector_pickles_what_was_set(protocol):
    derived = Quantizer.let(bits=1).let(bits=3, component=Holder, injector=this)
    restored = pickle.loads(pickle.dumps(derived, protocol))
    assert restored.start == 6
    assert isinstance(restored.component, Holder)
    assert restored.__mro__[1] is Quantizer
    assert repr(restored) == repr(derived) == "<injector Quantizer.let(bits, component, injector)>"


def test_one_injector_stays_one_within_a_pickle():
    derived = Quantizer.let(bits=3)
    first, second = pickle.loads(pickle.dumps([Holder(derived), Holder(derived)]))
    assert first.injector is second.injector
    assert first.injector.component.start == 6


def test_tensors_modules_and_computed_attributes_travel():
    derived = Quantizer.let(start=torch.arange(3), extra=nn.Linear(2, 1), other=value(doubled))
    restored = pickle.loads(pickle.dumps(derived))
    assert torch.equal(restored.component.start, torch.arange(3))
    assert torch.equal(restored.extra.weight, derived.extra.weight)
    assert restored.other == 8


def test_copies_share_the_description():
    holder = Holder(Quantizer.let(bits=3))
    assert copy.copy(holder).injector is holder.injector
    assert copy.deepcopy(holder).injector is holder.injector
    assert copy.deepcopy(Quantizer) is Quantizer


def test_a_local_class_cannot_travel_and_says_so():
    class Local(Injector):
        bits = 3

    with pytest.raises((pickle.PicklingError, AttributeError), match="Local"):
        pickle.dumps(Local)
