"""Checking against what targets declare, lowering, and what goes wrong on the way."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import LoweringError, UnknownNameError, UnsupportedError
from quant_core.export import capture, check, lower
from quant_core.plugins import Registry
from quant_core.proxies import ActQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat


def test_a_target_that_takes_the_model(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    report = check(capture(net, (x,)), "listing", plugins=plugins)
    assert report.ok
    assert str(report) == "target 'listing' takes this model"
    report.raise_if_refused()


def test_every_refusal_is_reported_at_once_with_its_place_and_remedy(
    net: nn.Module, x: Tensor, plugins: Registry
) -> None:
    report = check(capture(net, (x,)), "strict", plugins=plugins)
    rows = {(r.where.split(" ")[0], r.actual) for r in report.refusals}
    assert {
        ("relu.act_quant", "node 'relu_act_quant_relu'"),
        ("first.weight_quant", "bit_width=4"),
        ("first.weight_quant", "narrow_range=True"),
        ("first.bias_quant", "the role bias"),
        ("second.weight_quant", "a per_channel scale"),
        ("relu.act_quant", "signed=False"),
        ("relu.act_quant", "bit_width=4"),
    } <= rows
    first = next(r for r in report.refusals if r.actual == "bit_width=4")
    owner = first.where.split(" ")[1]
    assert str(first) == (
        f"quant::int with bit_width=4\n"
        f"  at first.weight_quant {owner}\n"
        "  strict supports bit_width 8 for weights\n"
        "  Set weight_bit_width=8 on this layer, or export to a target that takes it (crashing, listing)."
    )
    with pytest.raises(UnsupportedError) as caught:
        lower(capture(net, (x,)), "strict", plugins=plugins)
    assert caught.value.refusals == report.refusals
    assert f"and {len(report.refusals) - 1} more:" in str(caught.value)
    assert str(report).startswith(f"target 'strict' cannot take this model: {len(report.refusals)} refusals\n")


def test_a_remedy_names_the_option_as_the_layer_calls_it(plugins: Registry) -> None:
    class Both(nn.Module):
        """Quantizes what comes in and what goes out."""

        def __init__(self) -> None:
            super().__init__()
            finer = Int8ActPerTensorFloat.let(bit_width=12)
            self.input_quant = ActQuantProxyFromInjector(self, finer, "input_")
            self.output_quant = ActQuantProxyFromInjector(self, finer.let(rounding_mode="HALF_UP"), "output_")

        def forward(self, x: Tensor) -> Tensor:
            return self.output_quant(self.input_quant(x).value + 1.0).value

    report = check(capture(Both().eval(), (torch.ones(2),)), "listing", plugins=plugins)
    assert [(refusal.where.split(" ")[0], refusal.fix.split(" on ")[0]) for refusal in report.refusals] == [
        ("input_quant", "Set input_bit_width=8"),
        ("output_quant", "Set output_bit_width=8"),
        ("output_quant", "Set output_rounding_mode='ROUND'"),
    ]


def test_what_a_target_says_by_rules_is_reported_with_the_rest(plugins: Registry) -> None:
    report = check(capture(nn.ReLU(), (torch.ones(2),)), "ruled", plugins=plugins)
    assert str(report) == (
        "target 'ruled' cannot take this model: 1 refusal\n"
        "forward with no name\n"
        "  at the model\n"
        "  ruled takes names\n"
        "  Give it one.\n"
        "note: it is small\n"
        "  at the model"
    )
    assert not report.ok
    assert [note.what for note in report.notes] == ["it is small"]


def test_an_operation_of_another_library_is_refused(plugins: Registry) -> None:
    class Prims(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.prims.sin(x)

    (refusal,) = check(capture(nn.Sequential(Prims()), (torch.ones(2),)), "listing", plugins=plugins).refusals
    assert (refusal.op, refusal.where.split(" ")[0]) == ("prims.sin.default", "0")
    assert refusal.constraint == "listing takes aten and quant operations"


def test_a_grid_that_is_computed_at_run_time_is_refused(plugins: Registry) -> None:
    from quant_core.ops import quantize_int

    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return quantize_int(x, x.abs().amax() / 127, 0, 8, signed=True)

    (refusal,) = check(capture(Dynamic(), (torch.ones(2),)), "listing", plugins=plugins).refusals
    assert refusal.actual == "a grid computed at run time"
    assert refusal.constraint == "listing supports constant grids for activations"


def test_options_reach_the_exporter_and_unknown_ones_are_refused(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    program = capture(net, (x,))
    assert lower(program, "listing", plugins=plugins, error=0.5).error == 0.5
    with pytest.raises(UnknownNameError) as caught:
        lower(program, "listing", plugins=plugins, eror=0.5)
    assert str(caught.value) == (
        "target 'listing' has no option 'eror'\n  its options are error, at\n  Did you mean 'error'?"
    )


def test_an_exporter_that_fails_is_named_as_the_culprit(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    with pytest.raises(LoweringError) as caught:
        lower(capture(net, (x,)), "crashing", plugins=plugins)
    assert str(caught.value) == (
        "target 'crashing' failed to lower this model\n"
        "  at unknown unknown\n"
        "  KeyError: 'node'\n"
        "  This is a defect of the target, which declares to take the model; report it with the cause of this error."
    )


@pytest.mark.parametrize(
    ("options", "actual"),
    [
        ({"bit_width": 5}, "bit_width=5"),
        ({"rounding_mode": "FLOOR"}, "rounding_mode='FLOOR'"),
        ({"zero_point_impl": "const", "zero_point_init": 3}, "a zero_point other than 0"),
    ],
)
def test_each_constraint_of_an_activation(
    options: dict[str, Any], actual: str, plugins: Registry, parts: dict[str, Any]
) -> None:
    from quant_core.components import ConstZeroPoint

    options = {k: ConstZeroPoint if v == "const" else v for k, v in options.items()}
    model = nn.Sequential(parts["activation"](**options))
    (refusal,) = check(capture(model, (torch.ones(2),)), "listing", plugins=plugins).refusals
    assert (refusal.actual, refusal.where.split(" ")[0]) == (actual, "0.act_quant")
