"""Verification: it finds an error of one step, says where, forgives a tie, and refuses nothing that is equal."""

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import InputError, VerificationError
from quant_core.export import Trace, capture, export, lower, verify
from quant_core.plugins import Registry
from quant_core.proxies import ActQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat
from quant_core.tensor import QuantTensor


def test_an_equal_artifact_is_equal_quantizer_by_quantizer(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    program = capture(net, (x,))
    report = verify(program, lower(program, "listing", plugins=plugins), (x,))
    assert report.equal
    assert (report.max_difference, report.ties, report.compared) == (0, 0, 2)
    assert str(report) == "listing equals the model; largest difference 0; 0 ties in 2 quantizers"
    report.raise_if_different()


def test_an_error_of_one_step_is_found_where_it_arises(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    program = capture(net, (x,))
    step = net.relu.act_quant.scale().item()
    artifact = lower(program, "listing", plugins=plugins, error=step, at="relu_act_quant")
    report = verify(program, artifact, (x,))
    assert not report.equal
    assert report.first_divergence.where.split(" ")[0] == "relu.act_quant"
    assert report.first_divergence.steps == pytest.approx(1)
    assert report.max_difference > 0
    with pytest.raises(VerificationError) as caught:
        report.raise_if_different()
    lines = str(caught.value).splitlines()
    assert lines[0] == "the listing artifact computes something else than the model"
    assert lines[2] == f"  the first difference is {report.first_divergence.difference:g}, 1 steps of the scale"
    assert lines[3] == "  This is a defect of the target; report it with the model. Nothing was written."


def test_an_error_of_the_output_alone_is_found_there(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    program = capture(net, (x,))
    report = verify(program, lower(program, "listing", plugins=plugins, error=0.01, at="output"), (x,))
    assert report.first_divergence.where == "output 0"
    assert report.first_divergence.difference == pytest.approx(0.01, rel=1e-3)
    assert report.first_divergence.steps is None


def test_a_value_on_the_border_may_be_rounded_to_either_side(net: nn.Module, plugins: Registry) -> None:
    program = capture(nn.Sequential(net.entry), (torch.zeros(1, 1),))
    step = net.entry.act_quant.scale().item()
    artifact = lower(program, "listing", plugins=plugins, error=step, at="0_act_quant")
    (name,) = [q.name for q in program.quantizers]
    artifact.at = name
    on_border = verify(program, artifact, (torch.tensor([[2.5 * step]]),))
    assert on_border.equal
    assert on_border.ties == 1
    assert on_border.max_steps == pytest.approx(1)
    assert not verify(program, artifact, (torch.tensor([[2.3 * step]]),)).equal


def test_a_reference_of_the_models_own_is_what_the_difference_is_measured_against(
    net: nn.Module, x: Tensor, plugins: Registry
) -> None:
    program = capture(net, (x,))
    artifact = lower(program, "listing", plugins=plugins)
    report = verify(program, artifact, (x,), reference=net.eval()(x) + 1)
    assert report.max_difference == pytest.approx(1)


def test_a_program_that_returns_another_structure_than_the_model_is_refused(plugins: Registry) -> None:
    class Unstable(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (x + 1,) if torch.compiler.is_exporting() else (x + 1, x + 2)

    with pytest.raises(VerificationError) as caught:
        export(Unstable(), (torch.ones(2),), target="listing", plugins=plugins)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the captured program returns 1 tensors where the model returns 2"
    assert lines[1].endswith("Unstable")
    assert lines[2:] == [
        "  the model takes another path under torch.export than in eager mode",
        "  Return plain tensors from the model, or the same structure in both.",
    ]


def test_two_calls_of_one_quantizer_stay_on_its_grid_in_the_program_as_in_the_model(plugins: Registry) -> None:
    class Residual(nn.Module):
        def __init__(self, quantize: nn.Module) -> None:
            super().__init__()
            self.quantize = quantize

        def forward(self, x: Tensor) -> object:
            return self.quantize(x) + self.quantize(x * 2)

    model = Residual(_trained_activation())
    x = torch.randn(3)
    assert isinstance(model.eval()(x), QuantTensor)
    done = export(model, (x,), target="listing", plugins=plugins)
    assert done.verification.equal
    assert isinstance(done.artifact.run(x), QuantTensor)


def _trained_activation() -> nn.Module:
    proxy = ActQuantProxyFromInjector(nn.Module(), Int8ActPerTensorFloat)
    proxy(torch.randn(10))
    return proxy


def test_a_program_that_computes_something_else_than_the_model_is_a_divergence(plugins: Registry) -> None:
    class TwoFaced(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (2 if torch.compiler.is_exporting() else 1)

    with pytest.raises(VerificationError) as caught:
        export(TwoFaced(), (torch.ones(2),), target="listing", plugins=plugins)
    assert str(caught.value).splitlines()[1:3] == ["  at capture, output 0", "  the first difference is 1"]


def test_inputs_that_are_not_finite_prove_nothing(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    program = capture(net, (x,))
    with pytest.raises(InputError) as caught:
        verify(program, lower(program, "listing", plugins=plugins), (x / 0,))
    assert str(caught.value) == (
        "example input 0 is not finite\n"
        "  NaN and infinity compare with nothing, so that a comparison on them would prove nothing\n"
        "  Compare on inputs such as the model is trained on."
    )


class Constant(nn.Module):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.register_buffer("values", torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        return x * 0 + self.values


@pytest.mark.parametrize(
    ("model", "error", "equal"),
    [
        (Constant(float("-inf"), 1.0), 0.0, True),
        (Constant(float("-inf"), 1.0), 0.5, False),
        (Constant(1.0, 1.0), float("nan"), False),
        (Constant(1.0, 1.0), float("inf"), False),
    ],
)
def test_infinities_equal_themselves_only(model: nn.Module, error: float, equal: bool, plugins: Registry) -> None:
    program = capture(model, (torch.ones(3, 2),))
    artifact = lower(program, "listing", plugins=plugins, error=error, at="output")
    assert verify(program, artifact, (torch.ones(3, 2),)).equal == equal


def test_a_large_row_does_not_excuse_an_error_in_a_small_one(plugins: Registry) -> None:
    program = capture(nn.Identity(), (torch.ones(2, 2),))
    artifact = lower(program, "listing", plugins=plugins, error=0.01, at="output")
    assert not verify(program, artifact, (torch.tensor([[1e6, 1e6], [1.0, 1.0]]),)).equal


def test_an_output_of_another_shape_is_a_divergence(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    program = capture(net, (x,))
    artifact = lower(program, "listing", plugins=plugins)
    trace = artifact.trace([x])
    artifact.trace = lambda inputs: Trace(outputs=[o.t() for o in trace.outputs], values=trace.values)
    report = verify(program, artifact, (x,))
    assert report.first_divergence.where == "output 0"
    assert report.max_difference == float("inf")


def test_a_model_that_works_in_place_leaves_the_users_inputs_alone(plugins: Registry) -> None:
    x = torch.tensor([-1.0, 1.0])
    export(nn.ReLU(inplace=True), (x,), target="listing", plugins=plugins)
    assert x.tolist() == [-1, 1]


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape)


def test_a_model_that_draws_random_numbers_is_no_defect_of_the_target(x: Tensor, plugins: Registry) -> None:
    before = torch.get_rng_state()
    with pytest.raises(VerificationError) as caught:
        export(Noisy(), (x,), target="listing", plugins=plugins)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the model computes something else each time"
    assert lines[1].endswith("Noisy, output 0")
    assert lines[2].startswith("  two runs on the same inputs differ by up to ")
    assert lines[3] == (
        "  Draw random numbers in training mode only, or export without the comparison: verify=False, --no-verify."
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert export(Noisy(), (x,), target="listing", plugins=plugins, verify=False).verification is None
