"""Attributes that nothing reads."""

from types import ModuleType

import pytest

from quant_core.errors import UnusedAttributeError
from quant_core.inject import Injector, assemble, this, value


class Const:
    def __init__(self, scaling_init, scaling_shape=()):
        self.scaling_init, self.scaling_shape = scaling_init, scaling_shape


class Stats:
    def __init__(self, scaling_stats_impl, scaling_min_val=None):
        self.scaling_stats_impl, self.scaling_min_val = scaling_stats_impl, scaling_min_val


class AbsMax:
    pass


class Quant:
    def __init__(self, scaling_impl, bit_width=8):
        self.scaling_impl, self.bit_width = scaling_impl, bit_width


class Int8Weight(Injector):
    tensor_quant = Quant
    scaling_impl = Stats
    scaling_stats_impl = AbsMax
    scaling_min_val = 1e-10
    bit_width = 8


class Int8WeightConst(Int8Weight):
    scaling_impl = Const
    scaling_init = 0.1


def build(injector, *, prefix="", where=None, reads=()):
    return assemble(injector, {"tensor_quant": True, "signed": False}, prefix=prefix, where=where, reads=reads)


def refusal(injector, **options):
    with pytest.raises(UnusedAttributeError) as failure:
        build(injector, **options)
    return str(failure.value)


class TestOptions:
    def test_a_misspelled_option_gets_the_nearest_name(self):
        assert refusal(Int8Weight.let(bit_widht=4), prefix="weight_", where="QuantConv2d") == (
            "unknown option 'weight_bit_widht'\n"
            "  at QuantConv2d\n"
            "  nothing in Int8Weight reads 'weight_bit_widht'\n"
            "  Did you mean 'weight_bit_width'?"
        )

    def test_an_option_that_is_like_nothing_gets_the_known_names(self):
        assert refusal(Int8Weight.let(zzz=4), prefix="weight_", reads=("module",)) == (
            "unknown option 'weight_zzz'\n"
            "  nothing in Int8Weight reads 'weight_zzz'\n"
            "  Known names: weight_bit_width, weight_module, weight_scaling_impl, weight_scaling_min_val, "
            "weight_scaling_stats_impl, weight_signed, weight_tensor_quant."
        )

    def test_an_option_for_a_component_that_is_not_used_tells_which(self):
        assert refusal(Int8WeightConst.let(scaling_min_val=0.1), prefix="weight_", where="QuantConv2d") == (
            "option 'weight_scaling_min_val' has no effect\n"
            "  at QuantConv2d\n"
            "  'weight_scaling_min_val' is known to Stats, but nothing reads it as Int8WeightConst is configured\n"
            "  Leave weight_scaling_min_val out, or choose components and options that read it."
        )

    def test_options_that_are_read_pass(self):
        built = build(Int8Weight.let(bit_width=4, scaling_min_val=0.5))["tensor_quant"]
        assert (built.bit_width, built.scaling_impl.scaling_min_val) == (4, 0.5)

    def test_roots_and_names_that_the_caller_reads_pass(self):
        assert build(Int8Weight.let(signed=True, module=3), reads=("module",))["signed"] is True

    def test_every_let_counts(self):
        assert refusal(Int8Weight.let(bit_widht=4).let(bit_width=4)).startswith("unknown option 'bit_widht'")

    def test_an_option_that_a_later_one_replaced_does_not_count(self):
        replaced = Int8WeightConst.let(scaling_impl=Stats).let(scaling_impl=Const)
        assert isinstance(build(replaced)["tensor_quant"].scaling_impl, Const)

    def test_reading_an_attribute_checks_nothing(self):
        assert Int8Weight.let(bit_widht=4).bit_width == 8

    def test_options_come_before_what_the_class_says(self):
        class Mine(Int8Weight):
            bit_widht = 4

        assert refusal(Mine.let(bit_wodth=4)).startswith("unknown option 'bit_wodth'")


class TestClassBody:
    def test_a_misspelled_attribute_is_told_as_it_is_written(self):
        class Mine(Int8Weight):
            bit_widht = 4

        assert refusal(Mine, prefix="weight_", where="QuantConv2d") == (
            "unknown attribute 'bit_widht'\n"
            "  at QuantConv2d\n"
            "  nothing in Mine reads 'bit_widht'\n"
            "  Did you mean 'bit_width'?"
        )

    def test_an_attribute_for_a_component_that_is_not_used(self):
        class Mine(Int8Weight):
            scaling_impl = Const
            scaling_init = 0.1
            scaling_min_val = 1e-5

        assert refusal(Mine, where="QuantConv2d") == (
            "attribute 'scaling_min_val' has no effect\n"
            "  at QuantConv2d\n"
            "  'scaling_min_val' is known to Stats, but nothing reads it as Mine is configured\n"
            "  Leave scaling_min_val out, or choose components and options that read it."
        )

    def test_what_the_layer_adds_does_not_make_it_lenient(self):
        class Mine(Int8WeightConst):
            scaling_min_val = 1e-5

        assert "'scaling_min_val' has no effect" in refusal(Mine.let(module=1), reads=("module",))

    def test_inherited_attributes_may_lose_their_reader(self):
        assert isinstance(build(Int8WeightConst)["tensor_quant"].scaling_impl, Const)

    def test_an_option_may_replace_the_reader_of_what_the_class_says(self):
        built = build(Int8Weight.let(scaling_impl=Const, scaling_init=0.1))["tensor_quant"]
        assert built.scaling_impl.scaling_init == 0.1

    def test_an_inherited_attribute_must_have_a_name_that_something_knows(self):
        class Base(Int8Weight):
            bit_widht = 4

        class Mine(Base):
            pass

        assert refusal(Mine).startswith("unknown attribute 'bit_widht'")

    def test_a_computed_attribute_may_go_unread(self):
        class Mine(Int8WeightConst):
            @value
            def scaling_min_val():
                return 1e-5

        assert build(Mine).keys() == {"tensor_quant"}

    def test_a_computed_attribute_must_have_a_name_that_something_knows(self):
        class Mine(Int8WeightConst):
            @value
            def scaling_max_val():
                return 1e-5

        assert refusal(Mine).startswith("unknown attribute 'scaling_max_val'")


class TestWhatCountsAsAReader:
    def test_the_parameters_of_a_computed_attribute(self):
        class Mine(Int8WeightConst):
            @value
            def scaling_shape(per_channel):
                return (4, 1) if per_channel else ()

        assert build(Mine.let(per_channel=True))["tensor_quant"].scaling_impl.scaling_shape == (4, 1)

    def test_an_expression_that_a_computed_attribute_returned(self):
        class Mine(Int8WeightConst):
            @value
            def scaling_shape(per_channel):
                return this.shape if per_channel else ()

        given = Mine.let(per_channel=True, shape=(4, 1))
        assert build(given)["tensor_quant"].scaling_impl.scaling_shape == (4, 1)
        assert refusal(given.let(per_channel=False)) == (
            "option 'shape' has no effect\n"
            "  'shape' is known to @value Mine.scaling_shape, but nothing reads it as Mine is configured\n"
            "  Leave shape out, or choose components and options that read it."
        )

        class Child(Mine):
            shape = (4, 1)

        class Grandchild(Child):
            per_channel = False

        assert build(Grandchild)["tensor_quant"].scaling_impl.scaling_shape == ()

    def test_an_expression_in_the_body(self):
        class Mine(Int8WeightConst):
            scaling_shape = this.shapes["weight"]

        assert build(Mine.let(shapes={"weight": (2,)}))["tensor_quant"].scaling_impl.scaling_shape == (2,)

        class Child(Mine):
            shapes = None
            scaling_impl = Stats

        class Grandchild(Child):
            bit_width = 3

        assert build(Grandchild)["tensor_quant"].bit_width == 3

    @pytest.mark.parametrize("spelling", ["closure", "table", "module"])
    def test_the_classes_that_a_computed_attribute_may_return(self, spelling):
        module = ModuleType("components")
        module.Stats, module.Const = Stats, Const
        table = {"stats": Stats, "const": Const}
        chosen_stats, chosen_const = Stats, Const

        class Base(Injector):
            tensor_quant = Quant
            scaling_stats_impl = AbsMax
            scaling_min_val = 1e-10
            scaling_init = 0.1

        choices = {
            "closure": lambda kind: chosen_stats if kind == "stats" else chosen_const,
            "table": lambda kind: table[kind],
            "module": lambda kind: module.Stats if kind == "stats" else module.Const,
        }

        class Mine(Base):
            scaling_impl = value(choices[spelling])

        assert isinstance(build(Mine.let(kind="stats"))["tensor_quant"].scaling_impl, Stats)
        assert isinstance(build(Mine.let(kind="const"))["tensor_quant"].scaling_impl, Const)

    def test_a_nested_injector(self):
        class Base(Injector):
            bits = 4
            unused_here = 3

            class Inner(Injector):
                bits = (this << 1).bits
                other = (this << 1).unused_here

        class Mine(Base):
            tensor_quant = this.Inner.bits

        assert build(Mine) == {"tensor_quant": 4}

    def test_what_a_nested_injector_reads_from_itself_does_not_count(self):
        class Mine(Int8WeightConst):
            class Inner(Injector):
                bits = this.half

        assert refusal(Mine.let(half=2)).startswith("unknown option 'half'")

    def test_the_words_of_a_computed_attribute_are_not_offered(self):
        class Mine(Int8WeightConst):
            @value
            def scaling_shape(numbers):
                return (numbers.real,)

        assert refusal(Mine.let(rea=1, numbers=2)).endswith(
            "Known names: bit_width, numbers, scaling_impl, scaling_init, scaling_min_val, scaling_shape, "
            "scaling_stats_impl, signed, tensor_quant."
        )

    def test_the_parameters_of_a_class_that_is_not_built_do_not_count(self):
        class Mine(Int8Weight):
            proxy_class = Const

        assert refusal(Mine.let(scaling_init=1), reads=("proxy_class",)).startswith("unknown option 'scaling_init'")
