"""What an injector refuses, and how it says so."""

import pickle
import pydoc
import traceback

import pytest

from quant_core.errors import ConfigurationError, InjectionError, MissingDependencyError
from quant_core.inject import Injector, assemble, this, value


class Scale:
    def __init__(self, scaling_init):
        self.scaling_init = scaling_init


class Quant:
    def __init__(self, scaling_impl):
        self.scaling_impl = scaling_impl


class Quantizer(Injector):
    tensor_quant = Quant
    scaling_impl = Scale


CHAIN = "scaling_init is needed by Scale.__init__, for scaling_impl, needed by Quant.__init__, for tensor_quant"


def text_of(build, kind=InjectionError):
    with pytest.raises(kind) as failure:
        build()
    return str(failure.value)


def test_a_missing_dependency_tells_the_chain_that_asked():
    assert text_of(lambda: Quantizer.tensor_quant, MissingDependencyError) == (
        "Quantizer has no attribute 'scaling_init'\n"
        f"  {CHAIN}\n"
        "  Define scaling_init in Quantizer, or use Quantizer.let(scaling_init=...). The nearest name there is "
        "'scaling_impl'."
    )


def test_a_missing_dependency_of_a_layer_is_told_as_its_option():
    derived = Quantizer.let(scalin_init=0.1)
    build = lambda: assemble(derived, ["tensor_quant"], prefix="weight_", where="features.0")  # noqa: E731
    assert text_of(build, MissingDependencyError) == (
        "Quantizer has no attribute 'scaling_init'\n"
        "  at features.0\n"
        "  weight_scaling_init is needed by Scale.__init__, for weight_scaling_impl, needed by Quant.__init__, for "
        "weight_tensor_quant\n"
        "  Define scaling_init in Quantizer, or pass weight_scaling_init=... as an option. The nearest name there is "
        "'scalin_init'."
    )


def test_a_missing_dependency_of_a_computed_attribute():
    class Computed(Injector):
        component = Scale

        @value
        def scaling_init(module):
            return module.weight

    assert text_of(lambda: Computed.component, MissingDependencyError) == (
        "Computed has no attribute 'module'\n"
        "  module is needed by @value Computed.scaling_init, for scaling_init, needed by Scale.__init__, "
        "for component\n"
        "  Define module in Computed, or use Computed.let(module=...)."
    )


def test_reading_what_is_not_there():
    assert text_of(lambda: Quantizer.tensor_quan, MissingDependencyError) == (
        "Quantizer has no attribute 'tensor_quan'\n"
        "  nothing in Quantizer defines it\n"
        "  Define tensor_quan in Quantizer, or use Quantizer.let(tensor_quan=...). The nearest name there is "
        "'tensor_quant'."
    )


def test_what_cannot_be_read_is_an_attribute_error_as_well():
    assert not hasattr(Quantizer, "tensor_quan")
    assert getattr(Quantizer, "tensor_quant", 3) == 3
    assert hasattr(Quantizer.let(scaling_init=1), "tensor_quant")


def test_help_works_also_where_something_is_missing():
    assert "class Quantizer(quant_core.inject.injector.Injector)" in pydoc.render_doc(
        Quantizer, renderer=pydoc.plaintext
    )


def test_a_missing_root_of_a_layer_is_no_attribute_error():
    with pytest.raises(MissingDependencyError) as failure:
        assemble(Quantizer, ["tensor_quant"])
    assert not isinstance(failure.value, AttributeError)


def test_errors_pickle():
    with pytest.raises(MissingDependencyError) as failure:
        _ = Quantizer.tensor_quant
    restored = pickle.loads(pickle.dumps(failure.value))
    assert type(restored) is type(failure.value)
    assert str(restored) == str(failure.value)


def test_what_python_probes_for_is_an_attribute_error():
    assert not hasattr(Quantizer, "__wrapped__")
    with pytest.raises(AttributeError, match="type object 'Quantizer' has no attribute '_repr_html_'"):
        _ = Quantizer._repr_html_


def test_a_circle_is_printed():
    class Round(Injector):
        tensor_quant = Quant
        scaling_impl = Scale
        scaling_init = this.scale

        @value
        def scale(scaling_impl):
            return scaling_impl

    assert text_of(lambda: Round.tensor_quant) == (
        "scaling_impl of Round depends on itself\n"
        "  scaling_impl → scaling_init → scale → scaling_impl\n"
        "  Give one of them a value of its own."
    )
    assert text_of(lambda: assemble(Round, ["tensor_quant"], prefix="weight_", where="conv")) == (
        "weight_scaling_impl of Round depends on itself\n"
        "  at conv\n"
        "  weight_scaling_impl → weight_scaling_init → weight_scale → weight_scaling_impl\n"
        "  Give one of them a value of its own."
    )


def test_an_attribute_that_needs_its_own_name_is_a_circle():
    assert text_of(lambda: Quantizer.let(scaling_init=Scale).tensor_quant).splitlines()[1].strip() == (
        "scaling_init → scaling_init"
    )


class Picky:
    def __init__(self, scaling_init):
        raise ConfigurationError("scaling_init is not positive", why="got 0", fix="Set it above 0.")


def test_an_error_of_ours_gets_its_place():
    picky = Quantizer.let(scaling_impl=Picky, scaling_init=0)
    assert text_of(lambda: picky.tensor_quant, ConfigurationError) == (
        "scaling_init is not positive\n  at scaling_impl of Quantizer\n  got 0\n  Set it above 0."
    )
    build = lambda: assemble(picky, ["tensor_quant"], prefix="weight_", where="features.0")  # noqa: E731
    assert text_of(build, ConfigurationError) == (
        "scaling_init is not positive\n  at features.0: weight_scaling_impl of Quantizer\n  got 0\n  Set it above 0."
    )


def test_another_error_of_a_component_stays_itself_and_gets_a_note():
    class Failing:
        def __init__(self, scaling_init):
            self.inverse = 1 / scaling_init

    with pytest.raises(ZeroDivisionError) as failure:
        _ = Quantizer.let(scaling_impl=Failing, scaling_init=0).tensor_quant
    assert failure.value.__notes__ == [
        "raised by Failing.__init__, for scaling_impl, needed by Quant.__init__, for tensor_quant, in Quantizer"
    ]
    assert str(failure.value) == "division by zero"


def test_another_error_of_a_computed_attribute_gets_a_note():
    class Failing(Injector):
        component = Scale

        @value
        def scaling_init(module):
            return module.weight

    with pytest.raises(AttributeError) as failure:
        _ = Failing.let(module=3).component
    assert (
        "raised by @value Failing.scaling_init, for scaling_init, needed by Scale.__init__, for component, in Failing"
        in traceback.format_exception_only(failure.value)[-1]
    )


def test_a_failed_build_leaves_nothing_behind():
    calls = []

    class Flaky(Injector):
        component = Scale

        @value
        def scaling_init():
            calls.append(1)
            if len(calls) == 1:
                raise OSError("busy")
            return 4

    with pytest.raises(OSError, match="busy"):
        _ = Flaky.component
    assert Flaky.component.scaling_init == 4


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("lambda scale, /: scale", "its parameter 'scale' is positional-only, and parameters are matched by name"),
        ("lambda _scale: _scale", "its parameter '_scale' starts with an underscore, and such names are not injected"),
    ],
)
def test_a_signature_that_no_attribute_can_fill(source, why):
    unfit = Quantizer.let(scaling_init=value(eval(source)), scale=1)
    assert text_of(lambda: unfit.tensor_quant) == (
        f"@value <lambda> cannot be wired\n  {why}\n  Change its signature, or put a @value function around it."
    )
    assert "scaling_init: @value(" in str(unfit)


def test_an_optional_parameter_that_no_attribute_can_fill_keeps_its_default():
    def scaling_init(scale=2, /, _shift=3):
        return scale + _shift

    assert Quantizer.let(scaling_init=value(scaling_init), scale=1).scaling_init == 5


def test_an_injector_is_not_instantiated():
    assert text_of(lambda: Quantizer()) == (
        "Quantizer cannot be instantiated\n"
        "  an injector is a description; reading one of its attributes builds it\n"
        "  Write Quantizer.tensor_quant, or pass the class itself to a layer."
    )

    class Other(Injector):
        bits = 3

    assert text_of(lambda: Other(bits=4)).endswith("Write Other.bits, or pass the class itself to a layer.")


def delete_scaling_impl():
    del Quantizer.scaling_impl


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda: setattr(Quantizer, "scaling_impl", 1), "scaling_impl"),
        (lambda: setattr(Quantizer, "new", 1), "new"),
        (lambda: setattr(Quantizer, "let", 1), "let"),
        (delete_scaling_impl, "scaling_impl"),
    ],
)
def test_an_injector_does_not_change(change, name):
    assert text_of(change) == (
        f"Quantizer.{name} cannot be changed\n"
        "  an injector is shared by every layer that was built from it\n"
        f"  Derive one: Quantizer.let({name}=...), or class Mine(Quantizer): {name} = ..."
    )
    assert Quantizer.let(scaling_init=1).scaling_impl.scaling_init == 1


RESERVED = (
    "  names that start with an underscore are not injected, and let and mro belong to every injector\n"
    "  Choose another name."
)


@pytest.mark.parametrize("name", ["_hidden", "__init__", "let", "mro"])
def test_let_refuses_names_that_are_not_injected(name):
    assert text_of(lambda: Quantizer.let(**{name: 1})) == f"{name!r} cannot be an attribute of Quantizer\n{RESERVED}"


@pytest.mark.parametrize("name", ["let", "mro"])
def test_a_body_refuses_names_that_are_taken(name):
    build = lambda: type(Injector)("Mine", (Injector,), {name: 1})  # noqa: E731
    assert text_of(build) == f"{name!r} cannot be an attribute of Mine\n{RESERVED}"


def test_an_ordinary_class_is_no_base():
    class Settings:
        scaling_init = 0.1

    assert text_of(lambda: type(Injector)("Mine", (Settings, Injector), {})) == (
        "Mine cannot inherit from Settings\n"
        "  the attributes of an ordinary class are not wired, so that all bases must be injectors\n"
        "  Write class Settings(Injector): ..., or use it as a component."
    )


@pytest.mark.parametrize(("marked", "shown"), [(3, "3"), (Scale, repr(Scale))])
def test_only_functions_are_marked_with_value(marked, shown):
    assert text_of(lambda: value(marked)) == (
        f"@value cannot be put on {shown}\n"
        "  it marks a function whose result is the attribute\n"
        "  Assign it without @value: a class is wired, anything else is handed over as it is."
    )
