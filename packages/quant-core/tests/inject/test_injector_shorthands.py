"""What shorthands do to an injector: a table of three lines stands in for that of the plugins."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any

import pytest

from quant_core.errors import ConfigurationError, QuantError, UnknownNameError, UnusedAttributeError
from quant_core.inject import Injector, assemble, this, value
from quant_core.inject.enum import QuantType, StatsOp
from quant_core.plugins import registry


class OfWeights:
    kind = "weight"


class OfActivations:
    kind = "activation"


class Scaling:
    def __init__(self, scaling_init: float) -> None:
        self.scaling_init = scaling_init


class Statistics:
    def __init__(self, scaling_stats_impl: object) -> None:
        self.scaling_stats_impl = scaling_stats_impl


class Quant:
    def __init__(self, scaling_impl: object, rounding_mode: str = "ROUND") -> None:
        self.scaling_impl, self.rounding_mode = scaling_impl, rounding_mode


class Weight(Injector):
    proxy_class = OfWeights
    tensor_quant = Quant
    scaling_impl = Statistics
    scaling_stats_impl = "largest"


class Activation(Weight):
    proxy_class = OfActivations


def build(injector: Any, prefix: str = "") -> Any:
    return assemble(injector, ["tensor_quant"], prefix=prefix, where="Layer", reads=["proxy_class"])["tensor_quant"]


def refusal(kind: type[QuantError], injector: Any, prefix: str = "weight_") -> str:
    with pytest.raises(kind) as caught:
        build(injector, prefix)
    return str(caught.value)


class Rounding(Enum):
    DOWN = "Floor"


@pytest.mark.parametrize("word", ["floor", "FLOOR", "Floor", Rounding.DOWN])
def test_a_word_acts_as_what_it_stands_for_in_any_case_and_from_any_enumeration(word: object) -> None:
    class InBody(Weight):
        float_to_int_impl_type = word

    assert build(InBody).rounding_mode == build(Weight.let(float_to_int_impl_type=word)).rounding_mode == "FLOOR"
    assert InBody.rounding_mode == "FLOOR"
    assert "rounding_mode" in InBody


def test_a_word_overrides_what_is_inherited_and_is_overridden_further_down() -> None:
    class Floor(Weight):
        rounding_mode = "ROUND"

    class Ceil(Floor):
        float_to_int_impl_type = "ceil"

    class Zero(Ceil):
        rounding_mode = "TO_ZERO"

    class Floored(Zero):
        float_to_int_impl_type = "floor"

    modes = [build(quantizer).rounding_mode for quantizer in (Floor, Ceil, Zero, Floored)]
    assert modes == ["ROUND", "CEIL", "TO_ZERO", "FLOOR"]
    assert build(Floored.let(rounding_mode="CEIL")).rounding_mode == "CEIL"


def test_of_two_words_of_one_keyword_only_the_last_counts() -> None:
    class Affine(Weight):
        scaling_impl_type = "affine_stats"  # also sets where its coefficients start

    assert "scaling_affine_rescaling_init" in Affine
    assert "scaling_affine_rescaling_init" not in Affine.let(scaling_impl_type="stats")


def test_what_a_word_means_depends_on_what_is_quantized() -> None:
    names = [kind.let(quant_type="binary").let(scaling_impl=None) for kind in (Weight, Activation)]
    assert [type(quantizer.tensor_quant).__name__ for quantizer in names] == ["BinaryQuant", "ClampedBinaryQuant"]


def test_a_nested_injector_quantizes_what_the_one_around_it_does() -> None:
    class Outer(Activation):
        class Inner(Injector):
            quant_type = "binary"
            scaling_impl = None

    assert type(Outer.Inner.tensor_quant).__name__ == "ClampedBinaryQuant"


def test_a_keyword_that_the_quantizer_reads_itself_is_its_own() -> None:
    class Mine(Weight):
        @value
        def tensor_quant(quant_type: str) -> str:
            return f"my {quant_type}"

    class AlsoMine(Injector):
        tensor_quant = Scaling
        scaling_init = this.quant_type

    assert build(Mine.let(quant_type="whatever")) == "my whatever"
    assert Mine.let(quant_type="int").tensor_quant == "my int"
    assert AlsoMine.let(quant_type="whatever").tensor_quant.scaling_init == "whatever"


def test_an_unknown_word_is_an_error_with_the_nearest_one() -> None:
    assert refusal(UnknownNameError, Weight.let(float_to_int_impl_type="flor")) == (
        "weight_float_to_int_impl_type='flor' is not known\n"
        "  at Layer\n"
        "  float_to_int_impl_type of a quantizer of the weight is one of ceil, dpu, floor, round, round_to_zero, "
        "stochastic_round\n"
        "  Did you mean 'floor'?"
    )


def test_a_word_for_another_kind_of_tensor_is_an_error() -> None:
    assert refusal(ConfigurationError, Weight.let(max_val=6)) == (
        "weight_max_val=6 means nothing here\n"
        "  at Layer\n"
        "  max_val is no keyword of a quantizer of the weight\n"
        "  Leave weight_max_val out."
    )


def test_a_word_that_contradicts_a_component_beside_it_is_an_error() -> None:
    assert refusal(ConfigurationError, Weight.let(scaling_impl_type="const", scaling_impl=Scaling)) == (
        "weight_scaling_impl_type='const' contradicts weight_scaling_impl=Scaling\n"
        "  at Layer: Weight\n"
        "  weight_scaling_impl_type='const' stands for scaling_impl=ConstScaling, and both are set in one place\n"
        "  Leave one of them out."
    )


def test_two_shorthands_that_contradict_each_other_are_an_error() -> None:
    assert refusal(ConfigurationError, Weight.let(scaling_impl_type="he", scaling_const=0.1)) == (
        "weight_scaling_const contradicts weight_scaling_impl_type='he'\n"
        "  at Layer: Weight\n"
        "  weight_scaling_const stands for scaling_init=this.scaling_const, and both are set in one place\n"
        "  Leave one of them out."
    )


def test_a_word_and_the_same_component_beside_it_agree() -> None:
    assert build(Weight.let(float_to_int_impl_type="ceil", rounding_mode="CEIL")).rounding_mode == "CEIL"


def test_a_word_without_effect_is_an_error() -> None:
    assert refusal(UnusedAttributeError, Weight.let(bit_width_impl_type="parameter")) == (
        "option 'weight_bit_width_impl_type' has no effect\n"
        "  at Layer\n"
        "  'weight_bit_width_impl_type' stands for bit_width_impl, but nothing reads it as Weight is configured\n"
        "  Leave weight_bit_width_impl_type out, or choose components and options that read it."
    )


def test_a_word_that_is_replaced_by_a_later_option_is_without_effect() -> None:
    told = Weight.let(float_to_int_impl_type="ceil").let(rounding_mode="FLOOR")
    assert refusal(UnusedAttributeError, told).startswith("option 'weight_float_to_int_impl_type' has no effect\n")


def test_a_misspelt_keyword_gets_the_nearest_one() -> None:
    assert refusal(UnusedAttributeError, Weight.let(float_to_int_imp_type="floor")) == (
        "unknown option 'weight_float_to_int_imp_type'\n"
        "  at Layer\n"
        "  nothing in Weight reads 'weight_float_to_int_imp_type'\n"
        "  Did you mean 'weight_float_to_int_impl_type'?"
    )


def test_what_a_word_replaces_need_not_be_read() -> None:
    built = build(Weight.let(scaling_impl_type="const", scaling_init=0.5))
    assert type(built.scaling_impl).__name__ == "ConstScaling"


def test_printing_shows_what_a_shorthand_stands_for_in_its_place() -> None:
    shown = str(Activation.let(max_val=6.0, float_to_int_impl_type="FLOOR")).splitlines()
    assert shown[:6] == [
        "Activation.let(max_val, float_to_int_impl_type)",
        "├── proxy_class = OfActivations",
        "├── tensor_quant: Quant",
        "│   ├── scaling_impl: ParameterScaling (max_val)",
        "│   │   ├── scaling_init: @value(max_val, min_val) (max_val)",
        "│   │   │   ├── max_val = 6.0",
    ]
    assert shown[-2:] == [
        "│   └── rounding_mode = 'FLOOR' (float_to_int_impl_type='floor')",
        "└── scaling_stats_impl = 'largest'",
    ]


def test_the_bounds_of_a_function_are_where_a_scale_starts_that_wants_a_start() -> None:
    class Clamp:
        def __init__(self, max_val: float) -> None: ...

    bounded = Activation.let(act_impl=Clamp, max_val=3.0)
    assert type(bounded.tensor_quant.scaling_impl) is Statistics
    assert bounded.let(scaling_impl_type="parameter").tensor_quant.scaling_impl.value.item() == 3.0


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
def test_a_quantizer_with_words_pickles(twin: Any) -> None:
    told = Weight.let(quant_type=QuantType.INT, scaling_stats_op=StatsOp.MAX)
    assert str(twin(told)) == str(told)


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("QUANT_DISABLE_PLUGINS", "*")
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("no_plugins")
def test_without_plugins_there_are_no_words() -> None:
    told = Weight.let(float_to_int_impl_type="floor")
    assert refusal(UnusedAttributeError, told).startswith("unknown option 'weight_float_to_int_impl_type'\n")


def test_the_table_is_a_module_of_data() -> None:
    import quant_core.shorthand

    assert isinstance(quant_core.shorthand, ModuleType)
    assert len({entry.name for entry in quant_core.shorthand.SHORTHANDS}) == len(quant_core.shorthand.SHORTHANDS)
