"""What reading an attribute of an injector builds."""

import enum
import functools
import threading
from typing import NamedTuple

import pytest

from quant_core.inject import Injector, assemble, this, value


class Leaf:
    def __init__(self, start):
        self.start = start


class Pair:
    def __init__(self, left, right):
        self.left, self.right = left, right


class Optional:
    def __init__(self, start=7, *, least=0.0):
        self.start, self.least = start, least


class Open:
    def __init__(self, *rest, **options):
        self.rest, self.options = rest, options


class Quantizer(Injector):
    pair = Pair
    left = Leaf
    right = Leaf
    start = 0.5


def test_a_class_is_called_with_the_attributes_that_its_parameters_name():
    built = Quantizer.pair
    assert isinstance(built, Pair)
    assert isinstance(built.left, Leaf)
    assert built.left.start == built.right.start == 0.5


def test_each_read_builds_anew():
    assert Quantizer.pair is not Quantizer.pair


def test_within_one_read_each_name_is_built_once_and_shared():
    class Sharing(Injector):
        pair = Pair
        left = this.shared
        right = this.shared
        shared = Leaf
        start = 1

    built = Sharing.pair
    assert built.left is built.right
    assert built.left is not Sharing.pair.left


def test_two_names_of_one_class_are_two_instances():
    built = Quantizer.pair
    assert built.left is not built.right


def test_roots_of_one_assembly_share_what_they_have_in_common():
    class TwoRoots(Injector):
        first = Optional
        second = Optional
        start = Open

    built = assemble(TwoRoots, ["first", "second"])
    assert built["first"].start is built["second"].start


def test_an_optional_root_is_left_out_where_it_is_undefined():
    assert assemble(Quantizer, {"pair": True, "signed": False}).keys() == {"pair"}


def test_parameters_with_defaults_are_filled_only_by_attributes_that_exist():
    class Defaults(Injector):
        component = Optional

    assert (Defaults.component.start, Defaults.component.least) == (7, 0.0)
    assert Defaults.let(least=0.5).component.least == 0.5


def test_none_fills_a_parameter_with_a_default():
    class Nothing(Injector):
        component = Optional
        start = None

    assert Nothing.component.start is None


def test_open_ended_parameters_stay_empty():
    class Opened(Injector):
        component = Open
        rest = (1, 2)
        options = 3

    assert (Opened.component.rest, Opened.component.options) == ((), {})


def test_names_that_end_in_class_are_handed_over_unbuilt():
    class Holder:
        def __init__(self, proxy_class):
            self.proxy_class = proxy_class

    class Unbuilt(Injector):
        holder = Holder
        proxy_class = Leaf
        computed_class = value(lambda: Leaf)

    assert Unbuilt.proxy_class is Leaf
    assert Unbuilt.holder.proxy_class is Leaf
    assert Unbuilt.computed_class is Leaf


def test_instances_and_functions_are_handed_over_as_they_are():
    leaf = Leaf(1)

    def function(start):
        return start

    class Plain(Injector):
        start = leaf
        function_impl = function
        member = enum.Enum("Color", "RED").RED

    assert Plain.start is leaf
    assert Plain.function_impl is function
    assert Plain.member.name == "RED"


def test_a_class_without_an_init_of_its_own_is_called_by_its_signature():
    class Point(NamedTuple):
        x: int
        y: int = 2

    class Located(Injector):
        point = Point
        x = 1
        bare = object
        table = dict

    assert Located.point == (1, 2)
    assert type(Located.bare) is object
    assert Located.table == {}


class TestValue:
    def test_its_parameters_are_attributes_and_its_result_is_the_attribute(self):
        class Computed(Injector):
            component = Leaf
            bits = 3

            @value
            def start(bits, offset=1):
                return 2**bits + offset

        assert Computed.start == 9
        assert Computed.let(offset=0).component.start == 8

    def test_a_class_that_it_returns_is_wired(self):
        class Switch(Injector):
            start = 3

            @value
            def component(is_optional):
                return Optional if is_optional else Leaf

        assert type(Switch.let(is_optional=True).component) is Optional
        built = Switch.let(is_optional=False).component
        assert type(built) is Leaf
        assert built.start == 3

    def test_an_expression_that_it_returns_is_followed(self):
        class Chosen(Injector):
            first = 1

            @value
            def start(use_first):
                return this.first if use_first else this.second

        assert Chosen.let(use_first=True).start == 1
        assert Chosen.let(use_first=False, second=2).start == 2

    def test_it_runs_once_in_a_build(self):
        calls = []

        class Counted(Injector):
            pair = Pair
            left = Leaf
            right = Leaf

            @value
            def start():
                calls.append(1)
                return 1

        assert Counted.pair.left.start == 1
        assert len(calls) == 1

    def test_other_callables_may_be_marked(self):
        def power(base, exponent):
            return base**exponent

        class Partial(Injector):
            square = value(functools.partial(power, exponent=2))
            base = 5

        assert Partial.square == 25


class TestOverriding:
    def test_by_a_derived_class(self):
        class Child(Quantizer):
            start = 2.0

        assert Child.pair.left.start == 2.0
        assert Quantizer.pair.left.start == 0.5

    @pytest.mark.parametrize("replacement", [3.0, value(lambda: 3.0), this.other])
    def test_by_a_plain_value_a_computed_one_or_an_expression(self, replacement):
        assert Quantizer.let(start=replacement, other=3.0).pair.left.start == 3.0

    def test_by_a_component(self):
        assert type(Quantizer.let(left=Optional).pair.left) is Optional

    def test_by_composition_the_first_base_wins(self):
        class One(Injector):
            component = Leaf
            start = 1

        class Two(Injector):
            start = 2

        class OneTwo(One, Two):
            pass

        class TwoOne(Two, One):
            pass

        assert OneTwo.component.start == 1
        assert TwoOne.component.start == 2

    def test_a_diamond_resolves_as_python_does(self):
        class Base(Injector):
            start = 0

        class Left(Base):
            pass

        class Right(Base):
            start = 1

        class Bottom(Left, Right):
            pass

        assert Bottom.start == 1

    def test_let_leaves_the_original_as_it_is(self):
        derived = Quantizer.let(start=1.0)
        assert Quantizer.start == 0.5
        assert issubclass(derived, Quantizer)
        assert Quantizer.let() is Quantizer

    def test_let_takes_any_public_name(self):
        assert Quantizer.let(cls=1, self=2, name=3, injector=4).cls == 1

    def test_a_derived_injector_tells_what_was_set(self):
        derived = Quantizer.let(start=1.0).let(left=Optional, start=2)
        assert repr(derived) == "<injector Quantizer.let(start, left)>"
        assert derived.__module__ == Quantizer.__module__
        assert repr(Quantizer) == "<injector Quantizer>"

    def test_a_class_can_derive_from_what_let_returns(self):
        class Mine(Quantizer.let(start=1.0)):
            left = Optional

        assert Mine.pair.right.start == 1.0
        assert repr(Mine.let(start=2)).endswith("Mine.let(start)>")


def test_membership_and_dir_tell_the_names():
    assert "pair" in Quantizer
    assert "start" in Quantizer.let(other=1)
    assert "other" in Quantizer.let(other=1)
    assert "other" not in Quantizer
    assert "let" not in Quantizer
    assert {"pair", "left", "right", "start", "let"} <= set(dir(Quantizer))


def test_names_with_an_underscore_are_ordinary_class_attributes():
    class Private(Injector):
        _shift = 2
        __slots__ = ()

    assert Private._shift == 2
    assert "_shift" not in Private
    Private._shift = 3
    assert Private._shift == 3


def test_threads_do_not_disturb_each_other():
    barrier = threading.Barrier(2)

    class Meeting(Injector):
        component = Leaf

        @value
        def start():
            barrier.wait(timeout=10)  # both threads are inside a build of the same name
            return 1

    built = []
    threads = [threading.Thread(target=lambda: built.append(Meeting.component)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [component.start for component in built] == [1, 1]
    assert built[0] is not built[1]
