"""Capturing a model: what the program holds, that it equals the model, and that the model is left as it was."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import CaptureError, ConfigurationError, InputError, SpecError
from quant_core.export import capture, grids


def assert_same(one: Any, other: Any) -> None:
    for found, wanted in zip(torch.utils._pytree.tree_leaves(one), torch.utils._pytree.tree_leaves(other), strict=True):
        assert torch.equal(found, wanted) if isinstance(found, Tensor) else found == wanted


def test_the_program_equals_the_model_to_the_bit(net: nn.Module, x: Tensor) -> None:
    program = capture(net, (x,))
    assert torch.equal(program.run(x), net.eval()(x))


def test_quantizers_are_named_after_their_modules_and_hold_their_grid(net: nn.Module, x: Tensor) -> None:
    found = [
        (q.name, q.op, q.role, str(q.where).split(" ")[0], q.bit_width, q.granularity, q.axis)
        for q in capture(net, (x,)).quantizers
    ]
    assert sorted(found) == [
        ("entry_act_quant", "quant::int", "activation", "entry.act_quant", 8, "per_tensor", None),
        ("first_bias_dequantized", "quant::int", "bias", "first.bias_quant", 8, "per_tensor", None),
        ("first_weight_dequantized", "quant::int", "weight", "first.weight_quant", 4, "per_tensor", None),
        ("relu_act_quant", "quant::int", "activation", "relu.act_quant", 4, "per_tensor", None),
        ("second_bias_dequantized", "quant::int", "bias", "second.bias_quant", 8, "per_channel", 0),
        ("second_weight_dequantized", "quant::int", "weight", "second.weight_quant", 4, "per_channel", 0),
    ]


def test_constants_are_folded_to_integers_with_names_from_module_paths(net: nn.Module, x: Tensor) -> None:
    program = capture(net, (x,))
    state = program.exported.state_dict
    assert sorted(state) == [
        "entry.act_quant.bit_width",
        "entry.act_quant.scale",
        "entry.act_quant.zero_point",
        "first.bias",
        "first.bias_scale",
        "first.bias_zero_point",
        "first.weight",
        "first.weight_scale",
        "first.weight_zero_point",
        "relu.act_quant.bit_width",
        "relu.act_quant.scale",
        "relu.act_quant.zero_point",
        "second.bias",
        "second.bias_scale",
        "second.bias_zero_point",
        "second.weight",
        "second.weight_scale",
        "second.weight_zero_point",
    ]
    weight = net.first.weight_quant(net.first.weight)
    assert torch.equal(state["first.weight"], weight.int())
    assert state["first.weight"].dtype == torch.int8
    operations = [
        str(n.target) for n in program.graph.nodes if n.op == "call_function" and "quant." not in str(n.target)
    ]
    assert operations == ["aten.linear.default", "aten.relu.default", "aten.linear.default"]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(
    net: nn.Module, x: Tensor, training: bool, snapshot: Callable[[nn.Module], Any]
) -> None:
    net.train(training)
    net.relu.eval()
    before = snapshot(net)
    capture(net, (x,))
    with pytest.raises(InputError):
        capture(net, (x, x))
    with pytest.raises(CaptureError):
        capture(net, (x[:, :2],))
    after = snapshot(net)
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:] == after[1:]


def test_a_model_in_training_mode_is_captured_as_in_eval_mode(net: nn.Module, x: Tensor) -> None:
    found = capture(net.train(), (x,)).run(x)
    assert torch.equal(found, net.eval()(x))


class Several(nn.Module):
    def forward(self, a: Tensor, pair: dict[str, Tensor], *, factor: Tensor, flag: bool = True) -> dict[str, Any]:
        return {"sum": a + pair["b"] * factor, "rest": (a - pair["c"], [a.relu()]), "flag": flag}


def test_several_nested_and_keyword_inputs_and_nested_outputs() -> None:
    model, (a, b, c, factor) = Several(), torch.randn(4, 2, 3).unbind()
    program = capture(model, (a, {"b": b, "c": c}), {"factor": factor, "flag": False})
    expected = model(a, {"b": b, "c": c}, factor=factor, flag=False)
    found = program.run(a, {"b": b, "c": c}, factor=factor, flag=False)
    assert_same(found, expected)
    leaves = program.signature.flatten((a, {"b": b, "c": c}), {"flag": False, "factor": factor})
    assert [leaf for leaf in leaves if isinstance(leaf, Tensor)] == [a, b, c, factor]
    assert list(program.signature.nest(list(range(4)))) == ["sum", "rest", "flag"]


def test_inputs_of_another_structure_are_refused() -> None:
    model, (a, b, c, factor) = Several(), torch.randn(4, 2, 3).unbind()
    program = capture(model, (a, {"b": b, "c": c}), {"factor": factor})
    with pytest.raises(InputError) as caught:
        program.signature.flatten((a, {"b": b}), {"factor": factor})
    assert str(caught.value) == (
        "the inputs do not have the structure that the model was captured with (3 leaves)\n"
        "  it was captured with 4: a, pair_b, pair_c, factor\n"
        "  Pass the same positional and keyword arguments, nested in the same way, as to capture."
    )


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_dynamic_batch(net: nn.Module, x: Tensor, size: int) -> None:
    program = capture(net, (x,), dynamic_shapes="batch")
    batch = torch.randn(size, 6)
    assert torch.equal(program.run(batch), net.eval()(batch))


def test_a_module_called_twice_keeps_one_set_of_constants(parts: dict[str, Any]) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = parts["activation"](bit_width=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.act(x).value * 2).value

    program = capture(Twice(), (torch.randn(3),))
    assert [q.name for q in program.quantizers] == ["act_act_quant", "act_act_quant_1"]
    assert sorted(program.exported.state_dict) == [f"act.act_quant.{n}" for n in ("bit_width", "scale", "zero_point")]


def test_binary_weights_fold_to_signs() -> None:
    from quant_core.components import BinaryQuant, ConstScaling
    from quant_core.inject import Injector
    from quant_core.proxies import WeightQuantProxyFromInjector

    class Binary(Injector):
        proxy_class = WeightQuantProxyFromInjector
        tensor_quant = BinaryQuant
        scaling_impl = ConstScaling
        scaling_init = 0.5

    class Layer(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3, bias=False)
            self.weight_quant = WeightQuantProxyFromInjector(self, Binary)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight_quant(self.weight).value)

    layer, x = Layer(), torch.randn(2, 4)
    program = capture(layer, (x,))
    (quantizer,) = program.quantizers
    assert (quantizer.op, quantizer.role, quantizer.bit_width) == ("quant::binary", "weight", 1)
    assert torch.equal(quantizer.integers, torch.where(layer.weight >= 0, 1, -1).to(torch.int8))
    assert torch.equal(program.run(x), layer(x))


def test_a_large_bias_folds_to_the_exact_integer(parts: dict[str, Any]) -> None:
    from quant_core.proxies import BiasQuantProxyFromInjector
    from quant_core.quant import Int32Bias

    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([123_456_789.0, -3e9, 3e9]))
            self.bias_quant = BiasQuantProxyFromInjector(self, Int32Bias)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.bias_quant(self.bias, torch.tensor(1.0)).value

    (quantizer,) = capture(Bias(), (torch.zeros(3),)).quantizers
    assert quantizer.integers.tolist() == [123_456_792, -(2**31), 2**31 - 1]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Projecting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_a_model_that_cannot_be_captured_names_module_and_line() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(Branching()))
    with pytest.raises(CaptureError) as caught:
        capture(model, (torch.ones(2),))
    error = caught.value
    assert error.what == "torch.export cannot capture the model"
    path, line = error.where.split(", ")
    assert path == "1.0"
    assert line.startswith(f"{__file__}:")
    assert "data-dependent" in error.why
    assert error.fix.startswith("Make this line depend on shapes and constants only, not on the values of tensors")
    assert error.__cause__ is not None


def test_a_wrong_shape_is_told_with_the_shapes_and_the_line() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(nn.Sequential(OrderedDict(head=Projecting())), (torch.ones(3, 5),))
    error = caught.value
    assert error.where.startswith(f"head.linear, {__file__}:")
    assert error.why == (
        "RuntimeError: a and b must have same reduction dim, but got [3, 5] X [4, 2].\n"
        "the example inputs are (3, 5) of torch.float32"
    )
    assert error.fix == (
        "Call the model on these inputs: where that fails too, they do not fit it; otherwise make this line depend on "
        "shapes and constants only, not on the values of tensors, and use torch operations; "
        "the full report of torch.export is the cause of this error."
    )


def test_an_axis_that_cannot_vary_is_told_from_a_model_that_cannot_be_captured() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(3, 4)

    assert capture(Fixed(), (torch.ones(3, 4),)).signature.inputs == ("x",)
    with pytest.raises(CaptureError) as caught:
        capture(Fixed(), (torch.ones(3, 4),), dynamic_shapes="batch")
    assert caught.value.fix.startswith(
        "Leave dynamic_shapes (--dynamic-batch) out: where that works, an axis cannot vary; otherwise call the model "
    )


@pytest.mark.parametrize("axis", [torch.export.Dim.DYNAMIC, torch.export.Dim("steps")])
def test_an_axis_that_one_element_in_the_example_fixes_needs_a_longer_example(axis: Any) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(nn.Linear(3, 4), (torch.ones(2, 1, 3),), dynamic_shapes=({1: axis},))
    assert caught.value.fix == (
        "Give an example with at least 2 elements along each axis that varies: torch.export takes 1 as fixed; the full "
        "report of torch.export is the cause of this error."
    )
    longer = capture(nn.Linear(3, 4), (torch.ones(2, 2, 3),), dynamic_shapes=({1: axis},))
    assert longer.run(torch.ones(2, 5, 3)).shape == (2, 5, 4)


def test_a_lazy_layer_without_a_shape_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        capture(nn.Sequential(nn.LazyLinear(2)), (torch.ones(3, 5),))
    assert str(caught.value) == (
        "parameter '0.weight' has no shape yet\n"
        "  at 0\n"
        "  the layer is lazy: its first input says how large it is, and there was none\n"
        "  Call the model once on the example inputs before."
    )


def test_inputs_that_do_not_fit_forward_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        capture(Branching(), (torch.ones(2), torch.ones(2)))
    assert str(caught.value) == (
        "the example inputs do not fit Branching.forward(x: torch.Tensor) -> torch.Tensor\n"
        "  at Branching\n"
        "  too many positional arguments; got 2 positional inputs and the keywords none\n"
        "  Pass one example for each argument of forward."
    )


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (
            torch.relu,
            (torch.ones(2),),
            "'builtin_function_or_method' object is not a model\n"
            "  capture takes an instance of torch.nn.Module\n"
            "  Pass the module itself; wrap a function in a module, and call a class to make an instance.",
        ),
        (
            nn.ReLU(),
            torch.ones(2),
            "the example inputs are a Tensor\n"
            "  capture takes the positional inputs as a tuple, one element for each\n"
            "  Write (x,) for one input.",
        ),
    ],
)
def test_what_is_no_model_or_no_tuple_is_refused(model: Any, args: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        capture(model, args)
    assert str(caught.value) == message


def test_weights_that_are_not_finite_are_refused(net: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        net.first.weight[0, :2] = torch.tensor([float("nan"), float("inf")])
    with pytest.raises(InputError) as caught:
        capture(net, (x,))
    assert str(caught.value) == (
        "parameter 'first.weight' is not finite\n"
        "  at first\n"
        "  2 of its 30 values are NaN or infinite\n"
        "  Load a checkpoint from before the values diverged, or train with a smaller learning rate."
    )


def test_a_grid_that_the_dialect_does_not_allow_is_refused() -> None:
    from quant_core.ops import quantize_int

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return quantize_int(x, torch.tensor(0.5), 9.0, 4.0, signed=True)

    with pytest.raises(SpecError) as caught:
        capture(nn.Sequential(Wrong()), (torch.ones(2),))
    error = str(caught.value).splitlines()
    assert error[0].endswith("breaks the rule 'zero-point is in range' of quant::int")
    assert error[1].startswith("  at 0 (")
    assert error[2] == "  after folding: a zero-point is an integer from -8 to 7, got values from 9 to 9"


def test_values_keep_their_grid_through_operations_that_move_or_select(net: nn.Module) -> None:
    class Moves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = net.entry

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y = self.act(x).value
            pooled = nn.functional.max_pool2d(y, 2).flatten(1)
            return pooled, torch.cat([pooled, pooled], dim=1), pooled + 1

    program = capture(Moves(), (torch.randn(1, 2, 4, 4),))
    on_grid = grids(program)
    outputs = [node.name for node in program.graph.output_node().args[0]]
    assert [on_grid[name].name if name in on_grid else None for name in outputs] == [
        "act_act_quant",
        "act_act_quant",
        None,
    ]


def test_what_does_nothing_in_eval_mode_is_dropped(net: nn.Module, x: Tensor) -> None:
    model = nn.Sequential(net, nn.Dropout(0.5), nn.Unflatten(1, (1, 3, 1)), nn.Dropout2d(0.5))
    program = capture(model, (x,))
    operations = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("dropout" in operation for operation in operations)
    assert torch.equal(program.run(x), model.eval()(x))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return x + self.seen


class CountingThroughAView(Counting):
    def forward(self, x: Tensor) -> Tensor:
        self.seen.detach().reshape(1).add_(1)
        return x + self.seen


class AddingInPlace(Counting):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y += self.seen
        return y


def test_state_that_is_only_read_is_not_changed() -> None:
    x = torch.ones(2)
    assert torch.equal(capture(AddingInPlace(), (x,)).run(x), 2 * x)


@pytest.mark.parametrize("kind", [Counting, CountingThroughAView])
def test_a_model_that_changes_its_state_is_refused_and_left_as_it_was(kind: type[Counting]) -> None:
    model = nn.Sequential(kind())
    with pytest.raises(CaptureError) as caught:
        capture(model, (torch.ones(2),))
    assert str(caught.value) == (
        "the model changes '0.seen' when it is called\n"
        "  at Sequential\n"
        "  aten.add_.Tensor writes into it, so that a second call would compute something else\n"
        "  Keep the state out of the exported part, or change it in training mode only."
    )
    assert model[0].seen == 0


def test_a_program_does_not_follow_the_model_afterwards(net: nn.Module, x: Tensor) -> None:
    model = nn.Sequential(nn.Linear(6, 6), net)
    program = capture(model, (x,))
    before = program.run(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(program.run(x), before)


def test_quantizers_that_have_seen_no_data_are_named(net: nn.Module, x: Tensor, parts: dict[str, Any]) -> None:
    assert capture(net, (x,)).uncalibrated == ()
    model = nn.Sequential(parts["activation"](), nn.Sequential(parts["activation"]()))
    model[0](x)
    assert capture(model[1], (x,)).uncalibrated == ("0.act_quant",)


def test_a_running_delay_is_refused(parts: dict[str, Any]) -> None:
    model = nn.Sequential(parts["activation"](quant_delay_steps=5))
    model(torch.randn(3))
    with pytest.raises(InputError) as caught:
        capture(model, (torch.randn(3),))
    assert str(caught.value) == (
        "quantization has not started yet\n"
        "  at 0.act_quant\n"
        "  1 of 5 steps of quant_delay_steps have passed\n"
        "  Train on, or set quant_delay_steps=0."
    )


def test_a_batch_that_varies_by_name_in_any_order_and_nesting() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor, *more: Tensor, flag: bool = True, y: Tensor, z: Tensor) -> Tensor:
            return x + sum(more) + y + z

    program = capture(
        Named(),
        (torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3)),
        {"z": torch.tensor(1.0), "flag": False, "y": torch.ones(2, 3)},
        dynamic_shapes="batch",
    )
    big = [torch.randn(7, 3) for _ in range(4)]
    found = program.run(*big[:3], z=torch.tensor(2.0), flag=False, y=big[3])
    assert torch.allclose(found, sum(big) + 2.0)


def test_keywords_that_a_model_collects_cannot_vary() -> None:
    class Collecting(nn.Module):
        def forward(self, x: Tensor, **more: Tensor) -> Tensor:
            return x + more["y"]

    x = torch.ones(2, 3)
    with pytest.raises(InputError) as caught:
        capture(Collecting(), (x,), {"y": x}, dynamic_shapes="batch")
    assert str(caught.value) == (
        "the axes of inputs behind **more cannot vary\n"
        "  at Collecting\n"
        "  torch.export takes dynamic axes of named arguments only; got the keywords y for "
        "forward(x: torch.Tensor, **more: torch.Tensor) -> torch.Tensor\n"
        "  Name them in the signature of forward, in the place of **more, or leave dynamic_shapes (--dynamic-batch) out."
    )
    assert torch.equal(capture(Collecting(), (x,), {"y": x}).run(x, y=x), x + x)


def test_a_batch_of_one_and_an_unknown_word_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        capture(nn.ReLU(), (torch.ones(1, 3),), dynamic_shapes="batch")
    assert str(caught.value) == (
        "a batch of 1 cannot stand for batches of any size\n"
        "  torch.export takes an axis of size 1 as fixed\n"
        "  Give an example batch of at least 2."
    )
    with pytest.raises(ConfigurationError) as caught:
        capture(nn.ReLU(), (torch.ones(2, 3),), dynamic_shapes="bacth")
    assert str(caught.value) == (
        "dynamic_shapes='bacth' is not known\n"
        "  the only word is 'batch', for axis 0 of every tensor\n"
        "  Write 'batch', or the axes as torch.export.export takes them."
    )


def test_paths_that_differ_in_dots_only_do_not_collide(parts: dict[str, Any]) -> None:
    class Names(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a_b = parts["activation"](bit_width=4)
            self.a = nn.ModuleDict({"b": parts["activation"](bit_width=8)})

        def forward(self, x: Tensor) -> Tensor:
            return self.a["b"](self.a_b(x).value).value

    model, x = Names(), torch.randn(5)
    program = capture(model, (x,))
    assert torch.equal(program.run(x), model.eval()(x).detach())
    assert [q.bit_width for q in program.quantizers] == [4, 8]


def test_a_number_read_from_a_parameter_is_written_into_the_graph() -> None:
    class Number(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factor", torch.tensor(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor.item()

    assert torch.equal(capture(Number(), (torch.ones(2),)).run(torch.ones(2)), torch.full((2,), 3.0))


def test_the_role_of_a_constant_is_that_of_its_argument(parts: dict[str, Any]) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = parts["linear"](3, 3, bit_width=4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.layer.bias, x, self.layer.weight_quant(self.layer.weight).value)

    (quantizer,) = capture(Product(), (torch.ones(2, 3),)).quantizers
    assert quantizer.role == "weight"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_float_types_are_captured(dtype: torch.dtype, parts: dict[str, Any]) -> None:
    model = nn.Sequential(parts["activation"](), parts["linear"](6, 5, bit_width=4)).to(dtype)
    x = torch.randn(4, 6).to(dtype)
    model(x)
    found = capture(model, (x,)).run(x)
    assert found.dtype == dtype
    assert torch.equal(found, model.eval()(x))


def test_a_buffer_that_is_not_a_number_is_refused() -> None:
    model = nn.BatchNorm1d(3)
    model.running_mean[1] = float("nan")
    with pytest.raises(
        InputError, match=r"^buffer 'running_mean' is not finite\n  at BatchNorm1d\n  1 of its 3 values"
    ):
        capture(model, (torch.ones(2, 3),))
