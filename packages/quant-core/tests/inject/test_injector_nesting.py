"""References within an injector and between nested ones."""

import copy
import pickle

import pytest

from quant_core.errors import InjectionError, MissingDependencyError
from quant_core.inject import Injector, assemble, this, value


class Leaf:
    def __init__(self, start):
        self.start = start


class Pair:
    def __init__(self, one, two):
        self.one, self.two = one, two


class Outer(Injector):
    bit = 3
    shared = Leaf
    start = 1

    class Inner(Injector):
        bit_width = (this << 1).bit
        first = (this << 1).shared
        second = (this << 1).shared

        class Innermost(Injector):
            bit_width = (this << 2).bit

            @value
            def from_value():
                return (this << 1).bit_width

    pair = Pair
    one = this.Inner.first
    two = this.Inner.second


def test_names_items_and_attributes_are_followed():
    class Referring(Injector):
        table = {"weight": [4, 8]}  # noqa: RUF012 - the attribute of an injector, not of a class
        component = Leaf
        start = this.table["weight"][1]
        same = this["start"]
        deep = this.component.start

    assert Referring.start == Referring.same == Referring.deep == 8


def test_a_bare_this_is_the_injector():
    class Reader:
        def __init__(self, quantizer):
            self.bits = quantizer.bits

    class Selfish(Injector):
        reader = Reader
        quantizer = this
        bits = 5

    assert Selfish.reader.bits == 5
    assert Selfish.let(bits=6).reader.bits == 6


def test_a_nested_injector_reaches_the_one_around_it():
    assert Outer.Inner.bit_width == 3
    assert Outer.Inner.Innermost.bit_width == 3
    assert Outer.Inner.Innermost.from_value == 3
    assert issubclass(Outer.Inner, Injector)


def test_overrides_are_seen_on_both_levels():
    assert Outer.let(bit=5).Inner.bit_width == 5
    assert Outer.let(bit=5).Inner.Innermost.from_value == 5
    assert Outer.let(bit=5).Inner.let(bit_width=7).Innermost.from_value == 7
    assert Outer.Inner.let(other=1).bit_width == 3


def test_within_one_build_a_nested_injector_shares_with_the_one_around_it():
    built = Outer.pair
    assert built.one is built.two


def test_within_one_build_a_nested_injector_is_one():
    class Around(Injector):
        pair = Pair
        one = this.Inner.one
        two = this.Inner.two

        class Inner(Injector):
            one = this.leaf
            two = this.leaf
            leaf = Leaf
            start = 1

    built = Around.pair
    assert built.one is built.two


def test_a_component_may_keep_a_nested_injector_and_build_from_it_later():
    class Keeper:
        def __init__(self, Inner):
            self.inner = Inner

    class Around(Injector):
        keeper = Keeper

        class Inner(Injector):
            back = (this << 1).keeper

    first = Around.keeper
    second = first.inner.back
    assert isinstance(second, Keeper)
    assert second is not first


def test_reading_a_nested_injector_again_builds_anew():
    inner = Outer.Inner
    assert inner.first is not inner.first


def test_what_a_nested_injector_reads_is_read():
    class Around(Injector):
        bits = 3
        half_bits = 4

        class Inner(Injector):
            bits = (this << 1).bits
            half = (this << 1).half_bits

        total = this.Inner.bits

    assert assemble(Around, ["total"], reads=["half_bits"]) == {"total": 3}


def test_a_component_that_reads_a_nested_injector_consumes_for_the_one_around_it():
    class Reader:
        def __init__(self, Inner):
            self.bits = Inner.bits

    class Around(Injector):
        reader = Reader
        bits = 3

        class Inner(Injector):
            bits = (this << 1).bits

    assert assemble(Around, ["reader"])["reader"].bits == 3


def test_too_many_shifts():
    class Nested(Injector):
        class Inner(Injector):
            bit_width = (this << 2).bit

    with pytest.raises(InjectionError) as failure:
        _ = Nested.Inner.bit_width
    assert str(failure.value) == (
        "(this << 2).bit leads out of Nested.Inner\n"
        "  injectors around it: 1, asked for by <<: 2\n"
        "  Shift by less, or read it through the injector in which it is nested, as Outer.Inner."
    )


def test_missing_in_the_injector_around():
    class Nested(Injector):
        class Inner(Injector):
            component = Leaf
            start = (this << 1).bit

        component = this.Inner.component
        bits = 1

    with pytest.raises(MissingDependencyError) as failure:
        _ = Nested.component
    assert str(failure.value) == (
        "Nested has no attribute 'bit'\n"
        "  bit is needed by (this << 1).bit, for Inner.start, needed by Leaf.__init__, for Inner.component, needed by "
        "this.Inner.component, for component\n"
        "  Define bit in Nested, or use Nested.let(bit=...). The nearest name there is 'bits'."
    )


def test_missing_in_the_nested_injector():
    class Nested(Injector):
        bit = this.Inner.bit

        class Inner(Injector):
            bits = 1

    with pytest.raises(MissingDependencyError) as failure:
        _ = Nested.bit
    assert str(failure.value) == (
        "Nested.Inner has no attribute 'bit'\n"
        "  Inner.bit is needed by this.Inner.bit, for bit\n"
        "  Define Inner.bit. The nearest name there is 'bits'."
    )


def test_a_circle_through_both():
    class Nested(Injector):
        bit = this.Inner.bit_width

        class Inner(Injector):
            bit_width = (this << 1).bit

    with pytest.raises(InjectionError, match=r"bit → Inner\.bit_width → bit"):
        _ = Nested.bit
    with pytest.raises(InjectionError, match=r"bit → Inner\.bit_width → bit"):
        _ = Nested.Inner.bit_width


def test_a_circle_through_a_component_that_reads_the_nested_injector():
    class Reader:
        def __init__(self, Inner):
            self.bits = Inner.bits

    class Nested(Injector):
        reader = Reader

        class Inner(Injector):
            bits = (this << 1).reader

    with pytest.raises(InjectionError, match=r"reader → Inner\.bits → reader"):
        _ = Nested.reader


def test_nested_injectors_pickle_with_the_one_around_them():
    inner = pickle.loads(pickle.dumps(Outer.let(bit=6).Inner))
    assert inner.bit_width == 6
    assert pickle.loads(pickle.dumps(Outer.Inner.let(other=2))).other == 2


def test_expressions_copy_and_pickle():
    expression = (this << 2).shapes["weight"].first
    assert repr(expression) == "(this << 2).shapes['weight'].first"
    assert repr(pickle.loads(pickle.dumps(expression))) == repr(expression)
    assert repr(copy.deepcopy(expression)) == repr(expression)


def test_shifts_add_up():
    assert repr(this << 1 << 1) == "(this << 2)"


@pytest.mark.parametrize(
    ("shift", "what", "fix"),
    [
        (lambda: this.bits << 1, "this.bits << 1 leads nowhere", "Write (this << 1).bits."),
        (lambda: this << 0, "this << 0 leads nowhere", "Write (this << 1).name."),
        (lambda: this << "up", "this << 'up' leads nowhere", "Write (this << 1).name."),
    ],
)
def test_a_shift_in_the_wrong_place(shift, what, fix):
    with pytest.raises(InjectionError) as failure:
        shift()
    assert str(failure.value) == (
        f"{what}\n  << counts injectors outwards from this: a whole number of 1 or more, before the first name\n  {fix}"
    )


@pytest.mark.parametrize("use", [bool, list, lambda expression: "a" in expression])
def test_an_expression_is_no_value(use):
    with pytest.raises(InjectionError) as failure:
        use(this.bits)
    assert str(failure.value) == (
        "this.bits is no value yet\n"
        "  it is followed when the quantizer is built, and cannot be tested or unpacked before\n"
        "  Take the attribute as a parameter of a @value function."
    )


def test_an_expression_does_not_lead_to_names_with_an_underscore():
    with pytest.raises(AttributeError, match=r"this\.bits cannot lead to '_x'"):
        _ = this.bits._x


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (this.table["bias"], "KeyError: 'bias'"),
        (this.table.missing, "AttributeError: 'dict' object has no attribute 'missing'"),
        (this.number["bias"], "TypeError: 'int' object is not subscriptable"),
    ],
)
def test_an_expression_with_a_dead_end(expression, reason):
    class DeadEnd(Injector):
        table = {"weight": 4}  # noqa: RUF012 - the attribute of an injector, not of a class
        number = 3
        component = Leaf
        start = expression

    with pytest.raises(InjectionError) as failure:
        _ = DeadEnd.component
    assert str(failure.value) == (
        f"{expression!r} cannot be followed in DeadEnd\n"
        f"  {reason}\n"
        f"  it is {expression!r}, for start, needed by Leaf.__init__, for component\n"
        "  Refer to something that exists."
    )
