"""What an injector prints."""

from quant_core.inject import Injector, this, value


class ParameterScaling:
    def __init__(self, scaling_init, scaling_shape=None):
        raise AssertionError("printing builds nothing")


class BinaryQuant:
    def __init__(self, scaling_impl, quant_delay_steps=0):
        raise AssertionError("printing builds nothing")


class MyBinaryQuantizer(Injector):
    tensor_quant = BinaryQuant
    scaling_impl = ParameterScaling
    scaling_init = 0.1


class Proxy:
    pass


def test_components_values_and_defaults():
    assert str(MyBinaryQuantizer) == (
        "MyBinaryQuantizer\n"
        "└── tensor_quant: BinaryQuant\n"
        "    ├── scaling_impl: ParameterScaling\n"
        "    │   ├── scaling_init = 0.1\n"
        "    │   └── scaling_shape = None (default)\n"
        "    └── quant_delay_steps = 0 (default)"
    )


def test_computed_attributes_expressions_and_what_is_missing():
    class Advanced(MyBinaryQuantizer):
        proxy_class = Proxy
        scaling_shape = this.shape

        @value
        def scaling_init(module, bits=3):
            raise AssertionError("printing computes nothing")

        class Inner(Injector):
            pass

    assert str(Advanced.let(quant_delay_steps=5)) == (
        "Advanced.let(quant_delay_steps)\n"
        "├── tensor_quant: BinaryQuant\n"
        "│   ├── scaling_impl: ParameterScaling\n"
        "│   │   ├── scaling_init: @value(module, bits)\n"
        "│   │   │   ├── module: missing\n"
        "│   │   │   └── bits = 3 (default)\n"
        "│   │   └── scaling_shape: this.shape\n"
        "│   │       └── shape: missing\n"
        "│   └── quant_delay_steps = 5\n"
        "├── proxy_class = Proxy\n"
        "└── Inner: injector Advanced.Inner"
    )


def test_circles_are_marked():
    class Round(Injector):
        start = 1
        first = this.second
        second = this.first

    assert str(Round) == (
        "Round\n"
        "├── start = 1\n"
        "└── first: this.second\n"
        "    └── second: this.first\n"
        "        └── first: this.second (depends on itself)"
    )


def test_what_is_shared_is_spelled_out_once():
    class Pair:
        def __init__(self, left, right): ...

    class Shared(Injector):
        pair = Pair
        left = this.scaling_impl
        right = this.scaling_impl
        scaling_impl = ParameterScaling
        scaling_init = 0.1

    assert str(Shared) == (
        "Shared\n"
        "└── pair: Pair\n"
        "    ├── left: this.scaling_impl\n"
        "    │   └── scaling_impl: ParameterScaling\n"
        "    │       ├── scaling_init = 0.1\n"
        "    │       └── scaling_shape = None (default)\n"
        "    └── right: this.scaling_impl\n"
        "        └── scaling_impl: ParameterScaling (as above)"
    )


def test_long_values_are_cut_and_lines_joined():
    class Long(Injector):
        text = "x" * 100
        lines = type("Lines", (), {"__repr__": lambda self: "a\n  b"})()

    assert str(Long) == "Long\n├── text = '" + "x" * 58 + "…\n└── lines = a b"


def test_an_empty_injector_prints_its_name():
    assert str(Injector) == "Injector"
    assert repr(MyBinaryQuantizer) == "<injector MyBinaryQuantizer>"
